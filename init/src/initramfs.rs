//! The first life: from the initramfs into the verified root.
//!
//! Loads the modules, finds the two root partitions by the GUIDs that the root hash gives (Discoverable
//! Partitions Specification), sets dm-verity up over them, mounts the root and enters it. Any failure ends in
//! `refused:` and power off: without a root that matches its hash nothing is executed.
//!
//! PID 1 goes on in the root as the process that it is, instead of executing the same program again from
//! there: nothing has to be read and hashed a second time, and its pages stay in memory, where no bad block of
//! the disk can take them away.

use std::error::Error;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use config::boot::INITRD_DRIVERS_PATH;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_move};

use crate::cmdline::{self, RootHash};
use crate::console::Console;
use crate::disks::{PartitionDevice, Survey};
use crate::dm::DeviceMapper;
use crate::failure::Refusal;
use crate::gpt::Guid;
use crate::modules::ModuleError;
use crate::modules::modprobe::Modprobe;
use crate::sys::{self, Stage};
use crate::uevent::{CorruptBlock, Uevent, UeventSocket};
use crate::verity::{SUPERBLOCK_SIZE, Superblock};
use crate::{
    ROOT_DEVICE_NAME, describe, failure, modules, mounts, readahead, release, runtime_file,
};

const MODULE_LIST: &str = "/modules.load";
const NEW_ROOT: &str = "/sysroot";
/// How long slow disks (USB, SCSI) may take to appear.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// What helps, by what failed.
const NO_KERNEL_FILES: &str = "use another kernel: this one lacks what every program expects";
const WRONG_COMMAND_LINE: &str = "boot the image's own UKI: its command line has the root's hash";
const NO_DISK: &str = "connect the disk, write the whole image to it, and name its driver in initrd_modules of [kernel]";
/// See [`NO_DISK`].
pub(crate) const DAMAGED: &str =
    "the disk is damaged or was changed: write the image to it anew, or replace it";

type Failure = Box<dyn Error>;

/// Runs the first life. Returns in the verified root, with the console and the socket on which the kernel has
/// been heard since before the root was read; otherwise it ends in a refusal.
pub fn run() -> (Console, UeventSocket) {
    let mounted = mounts::mount_early();
    let mut console = Console::open();
    sys::mark(Stage::Initramfs);
    console.say("stage initramfs");
    let entered = mounted
        .map_err(Refusal::with_hint(NO_KERNEL_FILES))
        .and_then(|()| enter_root(&mut console));
    match entered {
        Ok(uevents) => (console, uevents),
        Err(refusal) => failure::refuse(&mut console, refusal),
    }
}

fn enter_root(console: &mut Console) -> Result<UeventSocket, Refusal> {
    let words = fs::read_to_string("/proc/cmdline").map_err(Refusal::with_hint(NO_KERNEL_FILES))?;
    match cmdline::failure_policy(&words) {
        Ok(policy) => failure::set_policy(policy.unwrap_or_default()),
        Err(word) => console.say(format_args!(
            "{word} on the kernel command line is no policy"
        )),
    }
    let root_hash = cmdline::root_hash(&words).map_err(Refusal::with_hint(WRONG_COMMAND_LINE))?;
    // Open before the modules are loaded, so that no device can appear unseen.
    let uevents =
        UeventSocket::open().map_err(|error| format!("cannot listen for devices: {error}"))?;
    load_modules(console);
    let (data, hash) =
        find_root_partitions(&root_hash, &uevents, console).map_err(Refusal::with_hint(NO_DISK))?;
    let device = set_up_verity(&data, &hash, &root_hash).map_err(Refusal::with_hint(DAMAGED))?;
    mount_root(&device)
        .map_err(|error| Refusal::with_hint(DAMAGED)(explain_corruption(error, &uevents)))?;
    sys::mark(Stage::Root);
    console.say("stage root");
    runtime_file::keep(runtime_file::IN_INITRAMFS)
        .map_err(|error| format!("cannot keep the runtime: {error}"))?;
    switch_root().map_err(Refusal::with_hint(NO_KERNEL_FILES))?;
    Ok(uevents)
}

/// A module that fails is told, not fatal: what it was needed for will be missed by its name.
fn load_modules(console: &mut Console) {
    let list = match fs::read_to_string(MODULE_LIST) {
        Ok(list) => list,
        Err(error) => return console.say(format_args!("cannot read {MODULE_LIST}: {error}")),
    };
    for path in modules::parse_list(&list) {
        if let Err(error) = modules::load(path) {
            console.say(describe(&error));
        }
    }
}

/// The root's GUID is the first half of its hash, the hash partition's the second.
fn partition_guids(root_hash: &RootHash) -> (Guid, Guid) {
    let half = |from: usize| Guid::from_text_order(std::array::from_fn(|at| root_hash[from + at]));
    (half(0), half(16))
}

/// Looks at once: the drivers of a virtual machine's disk are loaded already. Only then the devices are asked which
/// drivers they want, and it is looked again as disks appear.
fn find_root_partitions(
    root_hash: &RootHash,
    uevents: &UeventSocket,
    console: &mut Console,
) -> Result<(PartitionDevice, PartitionDevice), Failure> {
    let (data, hash) = partition_guids(root_hash);
    let deadline = Instant::now() + DEVICE_DEADLINE;
    let mut drivers = None;
    loop {
        let survey = Survey::take();
        if let (Some(data), Some(hash)) = (survey.find(data), survey.find(hash)) {
            return Ok((data.clone(), hash.clone()));
        }
        let drivers = match &mut drivers {
            Some(drivers) => drivers,
            None => drivers.insert(
                Modprobe::open(INITRD_DRIVERS_PATH)
                    .map_err(|error| format!("cannot read the drivers' tables: {error}"))?,
            ),
        };
        // Each time: a disk may come with others whose word was lost.
        tell_failed(console, drivers.coldplug());
        if !wait_for_block_device(uevents, drivers, console, deadline) {
            let seconds = DEVICE_DEADLINE.as_secs();
            let found = survey.describe();
            return Err(format!("no root partition {data} with verity partition {hash} after {seconds} s; found: {found}").into());
        }
    }
}

/// Loads the drivers of devices that appear meanwhile. `false` once the deadline is over.
fn wait_for_block_device(
    uevents: &UeventSocket,
    drivers: &mut Modprobe,
    console: &mut Console,
    deadline: Instant,
) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match uevents.wait(left) {
            Some(Uevent::BlockAdded) => return true,
            Some(Uevent::DeviceAdded(modalias)) => {
                tell_failed(console, drivers.load_for([modalias]));
            }
            _ => {}
        }
    }
}

fn tell_failed(console: &mut Console, failed: Vec<ModuleError>) {
    for error in failed {
        console.say(describe(&error));
    }
}

/// Makes the device of the verified root and returns its node.
fn set_up_verity(
    data: &PartitionDevice,
    hash: &PartitionDevice,
    root_hash: &RootHash,
) -> Result<String, Failure> {
    let mut bytes = [0; SUPERBLOCK_SIZE];
    let node = hash.node.display();
    File::open(&hash.node)
        .and_then(|file| file.read_exact_at(&mut bytes, 0))
        .map_err(|error| format!("cannot read the verity superblock of {node}: {error}"))?;
    let superblock = Superblock::parse(&bytes, data.size, hash.size)
        .map_err(|error| format!("{node}: {error}"))?;
    let table = superblock.table(&data.number, &hash.number, root_hash);
    let minor = DeviceMapper::open()?.create_read_only(
        ROOT_DEVICE_NAME,
        "verity",
        superblock.sectors(),
        &table,
    )?;
    readahead::set(minor, readahead::AT_BOOT_KIB);
    Ok(format!("/dev/dm-{minor}"))
}

/// The mount reads the superblock through dm-verity: with a wrong root hash it fails.
fn mount_root(device: &str) -> Result<(), Failure> {
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    mount(device, NEW_ROOT, "erofs", flags, None::<&CStr>).map_err(|errno| {
        format!(
            "cannot mount the verified root {device} as erofs: {}",
            io::Error::from(errno)
        )
        .into()
    })
}

/// Adds the block to a failure that dm-verity told of.
fn explain_corruption(error: Failure, uevents: &UeventSocket) -> Failure {
    let corrupted = std::iter::from_fn(|| uevents.next()).find_map(|event| match event {
        Uevent::Corrupted(block) => Some(block),
        _ => None,
    });
    corrupted.map_or(error, |block| corruption_message(&block).into())
}

/// The words of a refusal for a corrupted block.
#[must_use]
pub fn corruption_message(block: &CorruptBlock) -> String {
    format!(
        "the verified root is corrupted at block {} of {} ({})",
        block.block, block.kind, block.device
    )
}

/// Moves the mounts over, frees the initramfs and makes the verified root the root of everything.
fn switch_root() -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    release::remember(rustix::fs::open("/", flags, Mode::empty())?);
    for directory in ["/dev", "/proc", "/sys"] {
        mount_move(directory, format!("{NEW_ROOT}{directory}")).map_err(|errno| {
            format!(
                "cannot move {directory} to the root: {}",
                io::Error::from(errno)
            )
        })?;
    }
    remove_files(Path::new("/"), fs::metadata("/")?.dev());
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/")
        .map_err(|errno| format!("cannot move the root to /: {}", io::Error::from(errno)))?;
    rustix::process::chroot(".")
        .map_err(|errno| format!("cannot enter the root: {}", io::Error::from(errno)))?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// Gives the initramfs's memory back. Stays on its file system, and follows no links.
fn remove_files(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            remove_files(&entry.path(), device);
        } else if let Ok(path) = CString::new(entry.path().as_os_str().as_bytes()) {
            let _ = rustix::fs::unlink(path.as_c_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guids_are_the_halves_of_the_hash_as_text() {
        let hash: RootHash = std::array::from_fn(|at| at as u8);
        let (data, verity) = partition_guids(&hash);
        assert_eq!(data.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(verity.to_string(), "10111213-1415-1617-1819-1a1b1c1d1e1f");
    }

    #[test]
    fn freeing_removes_files_and_keeps_directories() {
        let directory =
            std::env::temp_dir().join(format!("coracle-init-test-{}", std::process::id()));
        fs::create_dir_all(directory.join("modules")).unwrap();
        fs::write(directory.join("modules/a.ko"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.join("link")).unwrap();
        remove_files(&directory, fs::metadata(&directory).unwrap().dev());
        assert!(!directory.join("modules/a.ko").exists() && directory.join("modules").exists());
        assert!(Path::new("/etc/passwd").exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
