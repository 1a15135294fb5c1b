//! The state partition: found by its GUID, mounted as ext4, and unmounted so that it is clean.
//!
//! The kernel replays the journal. What cannot be mounted is told and left alone: nothing is repaired or made
//! anew, and workloads without volumes run all the same.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use config::boot::{BootState, BootVolume};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RawMode, Uid, chmodat, chownat, mkdirat, openat, renameat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::disks::{PartitionDevice, Survey};
use crate::gpt::Guid;
use crate::uevent::{Uevent, UeventSocket};

/// How long the partition may take to appear, when its disk is slower than the root's.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);
/// How long an unmount is tried again while something still holds the file system.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(3);

/// Offset and layout of the ext4 superblock's fields that are looked at (Linux: ext4 "Super Block").
const SUPERBLOCK_OFFSET: u64 = 1024;
const MAGIC_AT: usize = 0x38;
const STATE_AT: usize = 0x3A;
const MAGIC: u16 = 0xEF53;
const STATE_ERRORS: u16 = 0x0002;

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The boot specification names no GUID.
    #[error("the state partition's GUID {0:?} is no GUID")]
    NoGuid(String),
    /// No disk has it.
    #[error("there is no state partition {guid}; found: {found}")]
    Missing {
        /// What was looked for.
        guid: Guid,
        /// What the disks have.
        found: String,
    },
    /// The partition cannot be read.
    #[error("cannot read the state partition {node}")]
    Read {
        /// Its node.
        node: String,
        /// What the kernel says.
        source: io::Error,
    },
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
}

/// The mounted state partition.
#[derive(Debug)]
pub struct State {
    /// Where it is mounted.
    pub mount_point: String,
    /// Errors were recorded in it before this boot.
    pub has_errors: bool,
}

impl State {
    /// Finds the partition and mounts it.
    ///
    /// # Errors
    /// [`StateError`]: the machine goes on without.
    pub fn mount(spec: &BootState, uevents: Option<&UeventSocket>) -> Result<Self, StateError> {
        let uuid = &spec.partition_uuid;
        let guid = Guid::parse(uuid).ok_or_else(|| StateError::NoGuid(uuid.clone()))?;
        let device = find_partition(guid, uevents)?;
        let node = device.node.display().to_string();
        let has_errors = check_superblock(&device)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(
            &device.node,
            spec.mount_point.as_str(),
            "ext4",
            flags,
            Some(c"errors=remount-ro"),
        )
        .map_err(|errno| StateError::Mount {
            node,
            target: spec.mount_point.clone(),
            source: errno.into(),
        })?;
        Ok(Self {
            mount_point: spec.mount_point.clone(),
            has_errors,
        })
    }

    /// Makes a volume's directory with its owner and mode, if it is not there yet. An existing one is left as
    /// it is. A power cut leaves either nothing or the finished directory.
    ///
    /// # Errors
    /// With the path that failed; also for a path outside of the mount point, and for a symlink on the way.
    pub fn create_volume(&self, volume: &BootVolume) -> Result<(), String> {
        let path = Path::new(&volume.path);
        let relative = path.strip_prefix(&self.mount_point).map_err(|_| {
            format!(
                "the volume {} is not below {}",
                volume.path, self.mount_point
            )
        })?;
        let explain = |errno: Errno| {
            format!(
                "cannot make the volume {}: {}",
                volume.path,
                io::Error::from(errno)
            )
        };
        create_directory(Path::new(&self.mount_point), relative, volume).map_err(explain)
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
        let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        if mount_remount(target, read_only, c"").is_ok() {
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

/// Looks at once, and again as disks appear.
fn find_partition(
    guid: Guid,
    uevents: Option<&UeventSocket>,
) -> Result<PartitionDevice, StateError> {
    let deadline = Instant::now() + DEVICE_DEADLINE;
    loop {
        let survey = Survey::take();
        if let Some(device) = survey.find(guid) {
            return Ok(device.clone());
        }
        let appeared = uevents.is_some_and(|socket| {
            std::iter::from_fn(|| socket.wait(deadline.saturating_duration_since(Instant::now())))
                .any(|event| event == Uevent::BlockAdded)
        });
        if !appeared || Instant::now() >= deadline {
            return Err(StateError::Missing {
                guid,
                found: survey.describe(),
            });
        }
    }
}

/// Whether errors are recorded in the file system; an error when it is no ext4.
fn check_superblock(device: &PartitionDevice) -> Result<bool, StateError> {
    let node = || device.node.display().to_string();
    let mut bytes = [0_u8; 64];
    File::open(&device.node)
        .and_then(|file| file.read_exact_at(&mut bytes, SUPERBLOCK_OFFSET))
        .map_err(|source| StateError::Read {
            node: node(),
            source,
        })?;
    recorded_errors(&bytes).ok_or_else(|| StateError::Damaged(node()))
}

/// `None`: no ext4 superblock.
fn recorded_errors(superblock: &[u8; 64]) -> Option<bool> {
    let u16_at = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    (u16_at(MAGIC_AT) == MAGIC).then(|| u16_at(STATE_AT) & STATE_ERRORS != 0)
}

/// Goes down component by component, without following links; the last one is made under another name first.
fn create_directory(base: &Path, relative: &Path, volume: &BootVolume) -> rustix::io::Result<()> {
    let open_flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let mut parent: OwnedFd = rustix::fs::open(base, open_flags, Mode::empty())?;
    let mut components = relative.components().peekable();
    while let Some(component) = components.next() {
        let std::path::Component::Normal(name) = component else {
            return Err(Errno::INVAL);
        };
        parent = match openat(&parent, name, open_flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => {
                let owner = components.peek().is_none().then_some(volume);
                make_directory(&parent, Path::new(name), owner)?;
                openat(&parent, name, open_flags, Mode::empty())?
            }
            Err(errno) => return Err(errno),
        };
    }
    Ok(())
}

fn make_directory(
    parent: &OwnedFd,
    name: &Path,
    owner: Option<&BootVolume>,
) -> rustix::io::Result<()> {
    let Some(volume) = owner else {
        return mkdirat(parent, name, Mode::from_raw_mode(0o755));
    };
    let unfinished = format!(".{}.new", name.display());
    match mkdirat(parent, unfinished.as_str(), Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let (uid, gid) = (Uid::from_raw(volume.uid), Gid::from_raw(volume.gid));
    chownat(
        parent,
        unfinished.as_str(),
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    let mode = Mode::from_raw_mode(volume.mode as RawMode & 0o7777);
    chmodat(parent, unfinished.as_str(), mode, AtFlags::empty())?;
    renameat(parent, unfinished.as_str(), parent, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn volume(path: &Path) -> BootVolume {
        let own = fs::metadata("/proc/self").unwrap();
        BootVolume {
            path: path.display().to_string(),
            uid: own.uid(),
            gid: own.gid(),
            mode: 0o2750,
        }
    }

    fn scratch(name: &str) -> State {
        let directory =
            std::env::temp_dir().join(format!("coracle-init-state-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        State {
            mount_point: directory.display().to_string(),
            has_errors: false,
        }
    }

    #[test]
    fn a_volume_is_made_once_and_then_left_alone() {
        let state = scratch("once");
        let path = Path::new(&state.mount_point).join("volumes/db");
        state.create_volume(&volume(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2750);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        state.create_volume(&volume(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn a_half_made_volume_is_finished() {
        let state = scratch("half");
        let path = Path::new(&state.mount_point).join("volumes/db");
        fs::create_dir_all(path.with_file_name(".db.new")).unwrap();
        state.create_volume(&volume(&path)).unwrap();
        assert!(path.exists() && !path.with_file_name(".db.new").exists());
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn a_volume_elsewhere_or_through_a_link_is_refused() {
        let state = scratch("link");
        let base = Path::new(&state.mount_point);
        std::os::unix::fs::symlink("/tmp", base.join("volumes")).unwrap();
        for path in [
            base.join("volumes/db"),
            base.join("../escaped"),
            Path::new("/elsewhere/db").to_owned(),
        ] {
            assert!(state.create_volume(&volume(&path)).is_err(), "{path:?}");
        }
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn a_superblock_tells_of_errors_and_of_no_file_system() {
        let mut bytes = [0; 64];
        assert_eq!(recorded_errors(&bytes), None);
        bytes[MAGIC_AT..STATE_AT].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[STATE_AT] = 1;
        assert_eq!(recorded_errors(&bytes), Some(false));
        bytes[STATE_AT] = 3;
        assert_eq!(recorded_errors(&bytes), Some(true));
    }
}
