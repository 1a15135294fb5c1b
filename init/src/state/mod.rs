//! The state partition: found by its GUID or made, mounted as ext4, and unmounted so that it is clean.
//!
//! The kernel replays the journal. A file system that cannot be mounted is dealt with by the policy of the file
//! ([`OnDamage`]); nothing is ever repaired, and unless the policy is `reset` nothing is written that was not asked
//! for by whoever holds a volume. What no workload waits for is a child's ([`keeper`]).

mod adopt;
mod damage;
mod format;
mod identity;
pub mod keeper;
mod own;
mod partition;
mod seed;
mod superblock;
mod volume;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use config::boot::{BootState, BootVolume, OnDamage};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::disks::PartitionDevice;
use crate::gpt::Guid;
use crate::uevent::UeventSocket;
pub use identity::settle as settle_machine_id;
use superblock::Superblock;

/// How long an unmount is tried again while something still holds the file system.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(3);
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
/// The partition is worth growing by so many bytes, which leaves out what tables and alignment take.
const WORTH_GROWING: u64 = 2 << 20;

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The boot specification names no GUID.
    #[error("the state partition's GUID {0:?} is no GUID")]
    NoGuid(String),
    /// No disk has it, and it could not be made.
    #[error("there is no state partition {guid}, and none can be made: {reason}; found: {found}")]
    Missing {
        /// What was looked for.
        guid: Guid,
        /// What the disks have.
        found: String,
        /// Why there is no new one.
        reason: String,
    },
    /// The partition cannot be read.
    #[error("cannot read the state partition {node}")]
    Read {
        /// Its node.
        node: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A later version's features.
    #[error("the state partition {0} was made by a later version, which this one cannot read")]
    Later(String),
    /// Something else than ext4, or its first blocks are overwritten.
    #[error("the state partition {0} holds no ext4 file system: it is damaged")]
    Damaged(String),
    /// The kernel does not mount it.
    #[error("cannot mount the state partition {node} on {target}: the file system may be damaged")]
    Mount {
        /// Its node.
        node: String,
        /// Where.
        target: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// It could not be made anew.
    #[error("cannot make the file system on {node} anew")]
    Reset {
        /// Its node.
        node: String,
        /// What the kernel says.
        source: io::Error,
    },
}

impl StateError {
    /// Whether the file system is certain to be beyond a kernel that `has_quotas` or not, and not only out of reach at the moment.
    fn is_damage(&self, has_quotas: bool) -> bool {
        match self {
            Self::Damaged(_) => true,
            // A kernel without quotas says EINVAL to a file system that has them, be it as good as it may.
            Self::Mount { source, .. } => match source.raw_os_error() {
                Some(libc::EUCLEAN | libc::EBADMSG) => true,
                Some(libc::EINVAL) => has_quotas,
                _ => false,
            },
            _ => false,
        }
    }
}

/// The mounted state partition.
#[derive(Debug)]
pub struct State {
    /// Where it is mounted.
    pub mount_point: String,
    /// It could be mounted only to be read.
    pub read_only: bool,
    /// It is smaller than it could be.
    pub can_grow: bool,
    guid: Guid,
    has_projects: bool,
}

impl State {
    /// Finds the partition, or makes one, and mounts it. `tell` hears what is out of the ordinary.
    ///
    /// # Errors
    /// [`StateError`]: the machine goes on without, or ends, by the policy.
    pub fn open(
        spec: &BootState,
        uevents: Option<&UeventSocket>,
        tell: &mut dyn FnMut(String),
    ) -> Result<Self, StateError> {
        let uuid = &spec.partition_uuid;
        let guid = Guid::parse(uuid).ok_or_else(|| StateError::NoGuid(uuid.clone()))?;
        let device = partition::find_or_make(guid, spec.size, uevents, tell)?;
        match Self::mount(spec, guid, &device, tell) {
            Err(error) if spec.on_damage == OnDamage::Halt => Err(error),
            Err(error)
                if spec.on_damage == OnDamage::Reset && error.is_damage(kernel_has_quotas()) =>
            {
                damage::reset(spec, &device, &error, tell)?;
                Self::mount(spec, guid, &device, tell)
            }
            Err(StateError::Later(node)) => Err(StateError::Later(node)),
            Err(error) => damage::mount_readable(spec, guid, &device, error, tell),
            mounted => mounted,
        }
    }

    /// Mounts it to be written.
    fn mount(
        spec: &BootState,
        guid: Guid,
        device: &PartitionDevice,
        tell: &mut dyn FnMut(String),
    ) -> Result<Self, StateError> {
        let node = device.node.display().to_string();
        let superblock = read_superblock(device, superblock::OFFSET)
            .map_err(|source| StateError::Read {
                node: node.clone(),
                source,
            })?
            .ok_or_else(|| StateError::Damaged(node.clone()))?;
        if superblock.is_unknown {
            return Err(StateError::Later(node));
        }
        let options = if superblock.has_projects {
            "errors=remount-ro,prjquota"
        } else {
            "errors=remount-ro"
        };
        mount_ext4(spec, device, FLAGS, options)?;
        if superblock.has_errors {
            tell("errors were recorded in the file system before; its data may be damaged".into());
        }
        Ok(Self {
            mount_point: spec.mount_point.clone(),
            read_only: false,
            can_grow: device.behind >= WORTH_GROWING
                || superblock.len() + WORTH_GROWING <= device.size,
            guid,
            has_projects: superblock.has_projects,
        })
    }

    /// Makes a volume's directory, if it is not there yet, and holds it to what the file says of it.
    ///
    /// # Errors
    /// In words; also for a path outside of the mount point, and for a symlink on the way. `tell` hears what does
    /// not keep a workload from running.
    pub fn prepare_volume(
        &self,
        volume: &BootVolume,
        tell: &mut dyn FnMut(String),
    ) -> Result<(), String> {
        volume::prepare(self, volume, tell)
    }

    /// Why a workload with this volume must not start now; `None`: nothing is in its way.
    #[must_use]
    pub fn refuses(&self, volume: &BootVolume) -> Option<String> {
        (self.read_only && !volume.read_only).then(|| {
            format!(
                "{} is to be written, and the state is damaged and mounted read-only",
                volume.path
            )
        })
    }

    /// The arguments of the child that does what no workload waits for.
    #[must_use]
    pub fn keeper_arguments(&self) -> Vec<String> {
        let growth = if self.can_grow { "grow" } else { "-" };
        ["state", &self.mount_point, &self.guid.to_string(), growth]
            .map(str::to_owned)
            .to_vec()
    }

    /// The arguments of the child that counts the files of volumes which were made by a version that counted none;
    /// `None`: all are counted.
    #[must_use]
    pub fn adoption_arguments<'a>(
        &self,
        volumes: impl Iterator<Item = &'a BootVolume>,
    ) -> Option<Vec<String>> {
        if self.read_only || !self.has_projects {
            return None;
        }
        let wanted: BTreeMap<&str, u32> = volumes
            .map(|volume| (volume.path.as_str(), volume.project))
            .filter(|&(path, project)| !self.is_counted(path, project))
            .collect();
        if wanted.is_empty() {
            return None;
        }
        let first = ["state", &self.mount_point, "adopt"].map(str::to_owned);
        let pairs = wanted.iter();
        let rest = pairs.flat_map(|(path, project)| [(*path).to_owned(), project.to_string()]);
        Some(first.into_iter().chain(rest).collect())
    }

    /// One that is not there yet will be counted from its first file on, and of one that cannot be opened whoever wants
    /// to use it hears.
    fn is_counted(&self, path: &str, project: u32) -> bool {
        let Ok(Some(directory)) = volume::open(&self.mount_point, path) else {
            return true;
        };
        crate::sys::is_of_project(directory.as_fd(), project, true).unwrap_or(true)
    }

    /// Leaves what the next boot begins its random numbers with.
    pub fn save_seed(&self) {
        if !self.read_only {
            // Without one the next boot takes longer to have random numbers, no more.
            let _ = seed::save(&self.mount_point);
        }
    }

    /// Unmounts. Returns what has to be said of it.
    ///
    /// # Errors
    /// When the file system could not be unmounted properly: then it was remounted read-only, which leaves it
    /// clean as well, or detached as a last resort. The text says which.
    pub fn unmount(&self) -> Result<(), String> {
        let target = self.mount_point.as_str();
        let deadline = Instant::now() + UNMOUNT_DEADLINE;
        let mut pause = Duration::from_millis(1);
        let errno = loop {
            match unmount(target, UnmountFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(pause),
                Err(errno) => break io::Error::from(errno),
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        };
        if mount_remount(target, FLAGS | MountFlags::RDONLY, c"").is_ok() {
            return Err(format!(
                "state not unmounted: {errno}; it is read-only now, with everything written"
            ));
        }
        rustix::fs::sync();
        let _ = unmount(target, UnmountFlags::DETACH);
        Err(format!(
            "state not unmounted: {errno}; it is detached and will replay its journal"
        ))
    }
}

/// `CONFIG_QUOTA`, which is never a module.
fn kernel_has_quotas() -> bool {
    Path::new("/proc/sys/fs/quota").exists()
}

fn mount_ext4(
    spec: &BootState,
    device: &PartitionDevice,
    flags: MountFlags,
    options: &str,
) -> Result<(), StateError> {
    let target = spec.mount_point.as_str();
    let options = std::ffi::CString::new(options).expect("our own words");
    mount(
        &device.node,
        target,
        "ext4",
        flags,
        Some(options.as_c_str()),
    )
    .map_err(|errno| StateError::Mount {
        node: device.node.display().to_string(),
        target: spec.mount_point.clone(),
        source: errno.into(),
    })
}

/// The superblock at a byte of the partition; `None`: there is none.
fn read_superblock(device: &PartitionDevice, offset: u64) -> io::Result<Option<Superblock>> {
    let mut bytes = [0_u8; superblock::LEN];
    File::open(&device.node)?.read_exact_at(&mut bytes, offset)?;
    Ok(Superblock::parse(&bytes))
}

/// Grows the mounted file system step by step, so that a signal ends it in between. Returns its bytes before and
/// after.
fn grow_filesystem(mount_point: &str, device: &PartitionDevice) -> io::Result<(u64, u64)> {
    /// Groups in one step: 32 GiB.
    const STEP_GROUPS: u64 = 256;
    let directory = File::open(mount_point)?;
    // The kernel keeps the superblock in the device's own cache, so this is what is true now.
    let read = || {
        read_superblock(device, superblock::OFFSET)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    let first = read()?;
    let target = device.size / first.block_size;
    let mut now = first.blocks;
    while now < target {
        let next = (now + STEP_GROUPS * first.group_blocks.max(1)).min(target);
        crate::sys::resize_filesystem(directory.as_fd(), next)?;
        let grown = read()?.blocks;
        // A last group that is too short for its own tables is left out.
        if grown <= now {
            break;
        }
        now = grown;
    }
    Ok((first.len(), now * first.block_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_to_be_damage_is_reset() {
        let mount = |number| StateError::Mount {
            node: "vda2".to_owned(),
            target: "/state".to_owned(),
            source: io::Error::from_raw_os_error(number),
        };
        for (error, with_quotas, without) in [
            (StateError::Damaged("vda2".to_owned()), true, true),
            (StateError::Later("vda2".to_owned()), false, false),
            (mount(libc::EUCLEAN), true, true),
            (mount(libc::EINVAL), true, false),
            (mount(libc::EIO), false, false),
            (mount(libc::ESRCH), false, false),
        ] {
            assert_eq!(error.is_damage(true), with_quotas, "{error}");
            assert_eq!(error.is_damage(false), without, "{error}");
        }
    }
}
