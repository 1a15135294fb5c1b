//! A machine for what loads a kernel itself: QEMU's `-kernel`, Firecracker, cloud-hypervisor, PXE. A folder of
//!
//! - `vmlinuz` and, where the kernel unpacks to one, `vmlinux`, which Firecracker wants;
//! - `initrd`, and `cmdline`: the kernel's command line with the root hash;
//! - `disk.img`: the disk without its EFI system partition.
//!
//! Whoever loads them vouches for kernel, initrd and command line; the rest follows from the root hash as ever. A folder
//! appears whole or not at all; what is there and is none of these is never removed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use lz4::block::decompress_to_buffer;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::disk::types;
use crate::format::region::Region;
use crate::format::{array_at, gpt};
use crate::source::blob::Compression;

/// The files of such a folder.
const FILES: [&str; 5] = ["cmdline", "disk.img", "initrd", "vmlinux", "vmlinuz"];
const ALIGNMENT: u64 = 1 << 20;
/// Far more than a kernel has.
const KERNEL_CAP: u64 = 512 << 20;
/// How LZ4's legacy frames begin, and the most that a block of them has in it.
const LZ4_LEGACY: &[u8] = &0x184c_2102_u32.to_le_bytes();
const LZ4_BLOCK: usize = 8 << 20;

/// What a loader needs.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The kernel, a bzImage.
    pub kernel: &'a [u8],
    /// The initrd.
    pub initrd: &'a [u8],
    /// The command line.
    pub command_line: &'a str,
}

/// Whether a folder can be written here, before much work is done for it.
///
/// # Errors
/// `folder` is something else, or its place is missing or cannot be written.
pub fn check(folder: &Path) -> io::Result<()> {
    check_replaceable(folder)?;
    tempfile::tempfile_in(parent_of(folder)).map(drop)
}

/// Writes the folder; `raw` is the whole disk with this table.
///
/// # Errors
/// Reading or writing fails, or `folder` is something else.
pub fn write(folder: &Path, parts: &Parts<'_>, raw: &File, table: &gpt::Table) -> io::Result<()> {
    check_replaceable(folder)?;
    remove_left(folder);
    let new = beside(folder, "tmp");
    std::fs::create_dir(&new)?;
    // Who finds it locked knows that somebody is writing it.
    let lock = File::open(&new).and_then(|folder| folder.lock().map(|()| folder));
    let written = write_files(&new, parts, raw, table).and_then(|()| give_name(&new, folder));
    // By now it is the earlier folder, half of a new one, or gone.
    let _ = std::fs::remove_dir_all(&new);
    drop(lock);
    written
}

fn parent_of(folder: &Path) -> &Path {
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.{}.{suffix}", std::process::id()))
}

/// Gives a complete folder its name; an earlier one gets that of the new one, in one step where the file system can.
fn give_name(new: &Path, folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return std::fs::rename(new, folder);
    }
    match renameat_with(CWD, new, CWD, folder, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS) => give_name_in_steps(new, folder),
        exchanged => Ok(exchanged?),
    }
}

fn give_name_in_steps(new: &Path, folder: &Path) -> io::Result<()> {
    let old = beside(folder, "old");
    std::fs::rename(folder, &old)?;
    if let Err(error) = std::fs::rename(new, folder) {
        std::fs::rename(&old, folder)?;
        return Err(error);
    }
    std::fs::rename(&old, new)
}

/// Removes what builds of the same folder left that were killed while they wrote it.
fn remove_left(folder: &Path) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let begin = format!(".{name}.");
    let is_of_the_dead = |file: &str| {
        let process = file.strip_prefix(&begin);
        let process = process.and_then(|rest| rest.strip_suffix(".tmp")?.parse::<u32>().ok());
        process.is_some_and(|process| {
            process == std::process::id() || !Path::new(&format!("/proc/{process}")).exists()
        })
    };
    let entries = std::fs::read_dir(parent_of(folder)).into_iter().flatten();
    for entry in entries.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_ours = entry.file_name().to_str().is_some_and(is_of_the_dead);
        if is_folder && is_ours && File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Nobody's folder of other things is replaced.
fn check_replaceable(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if !FILES.iter().any(|known| *known == name) {
            let name = name.to_string_lossy();
            return Err(io::Error::other(format!(
                "the folder has {name} in it, which no build has written"
            )));
        }
    }
    Ok(())
}

fn write_files(folder: &Path, parts: &Parts<'_>, raw: &File, table: &gpt::Table) -> io::Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let mut file = File::create_new(folder.join(name))?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    write("vmlinuz", parts.kernel)?;
    if let Some(kernel) = unpack_kernel(parts.kernel) {
        write("vmlinux", &kernel)?;
    }
    write("initrd", parts.initrd)?;
    write("cmdline", format!("{}\n", parts.command_line).as_bytes())?;
    let disk = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(folder.join("disk.img"))?;
    let mut own = gpt::Table {
        partitions: Vec::new(),
        ..table.clone()
    };
    let mut end = ALIGNMENT;
    for partition in table
        .partitions
        .iter()
        .filter(|p| p.type_guid != types::ESP)
    {
        let from = Region::new(raw, partition.start, partition.len);
        super::copy(&from, &Region::new(&disk, end, partition.len).fresh())?;
        own.partitions.push(gpt::Partition {
            start: end,
            ..partition.clone()
        });
        end = (end + partition.len).next_multiple_of(ALIGNMENT);
    }
    own.disk_len = end + ALIGNMENT;
    disk.set_len(own.disk_len)?;
    gpt::write(&disk, &own).map_err(io::Error::other)?;
    disk.sync_data()
}

/// The ELF image inside a bzImage (Linux's Documentation/arch/x86/boot.rst: `payload_offset` and `payload_length`, protocol
/// 2.08 and later); `None` where it is packed in a way that is not read here.
fn unpack_kernel(image: &[u8]) -> Option<Vec<u8>> {
    let header = image.get(..0x250)?;
    if header.get(0x202..0x206)? != b"HdrS" || u16::from_le_bytes(array_at(header, 0x206)) < 0x208 {
        return None;
    }
    let sectors = match header[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + u32::from_le_bytes(array_at(header, 0x248)) as usize;
    let len = u32::from_le_bytes(array_at(header, 0x24c)) as usize;
    let payload = image.get(start..start.checked_add(len)?)?;
    // Behind the packed kernel is its length, which is no concern of the unpacker's: what it says of that is passed over.
    let kernel = if let Some(blocks) = payload.strip_prefix(LZ4_LEGACY) {
        unpack_lz4(blocks)
    } else {
        let mut kernel = Vec::new();
        let _ = Compression::sniff(payload)
            .reader(payload)
            .take(KERNEL_CAP)
            .read_to_end(&mut kernel);
        kernel
    };
    let len = u32::from_le_bytes(*payload.last_chunk::<4>()?) as usize;
    (kernel.starts_with(b"\x7fELF") && kernel.len() == len).then_some(kernel)
}

/// Linux's `unlz4.c` reads LZ4's legacy frames: blocks behind their lengths. What is no block ends them.
fn unpack_lz4(mut blocks: &[u8]) -> Vec<u8> {
    let mut kernel = Vec::new();
    let mut plain = vec![0; LZ4_BLOCK];
    while let Some((len, rest)) = blocks.split_first_chunk::<4>() {
        let Some((block, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else {
            break;
        };
        let Ok(count) = decompress_to_buffer(block, Some(LZ4_BLOCK as i32), &mut plain) else {
            break;
        };
        kernel.extend_from_slice(&plain[..count]);
        if kernel.len() as u64 > KERNEL_CAP {
            break;
        }
        blocks = rest;
    }
    kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(parts: &[(uuid::Uuid, u64, u64)]) -> gpt::Table {
        let partition =
            |(n, (kind, start, len)): (usize, &(uuid::Uuid, u64, u64))| gpt::Partition {
                type_guid: *kind,
                unique_guid: uuid::Uuid::from_u128(n as u128 + 1),
                name: format!("p{n}"),
                start: *start,
                len: *len,
            };
        gpt::Table {
            disk_guid: uuid::Uuid::from_u128(99),
            disk_len: 16 << 20,
            partitions: parts.iter().enumerate().map(partition).collect(),
        }
    }

    #[test]
    fn the_disk_goes_without_its_esp_and_other_folders_stay() {
        use std::os::unix::fs::FileExt as _;
        let raw = tempfile::tempfile().unwrap();
        raw.set_len(16 << 20).unwrap();
        raw.write_all_at(b"root", 9 << 20).unwrap();
        let table = table(&[
            (types::ESP, 1 << 20, 8 << 20),
            (types::ROOT_X86_64, 9 << 20, 4096),
        ]);
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("machine");
        let parts = Parts {
            kernel: b"kernel",
            initrd: b"initrd",
            command_line: "quiet",
        };
        for _ in 0..2 {
            write(&folder, &parts, &raw, &table).unwrap();
        }
        let disk = File::open(folder.join("disk.img")).unwrap();
        let found = gpt::read(&disk).unwrap();
        assert_eq!(
            (found.partitions.len(), found.partitions[0].start),
            (1, 1 << 20)
        );
        let mut bytes = [0; 4];
        disk.read_exact_at(&mut bytes, 1 << 20).unwrap();
        assert_eq!(&bytes, b"root");
        assert_eq!(
            std::fs::read_to_string(folder.join("cmdline")).unwrap(),
            "quiet\n"
        );
        assert_eq!(
            std::fs::read_dir(parent.path()).unwrap().count(),
            1,
            "no litter"
        );
        std::fs::write(folder.join("notes.txt"), "mine").unwrap();
        assert!(check(&folder).is_err());
        assert!(write(&folder, &parts, &raw, &table).is_err());
        assert!(folder.join("notes.txt").exists());
    }

    #[test]
    fn the_earlier_folder_is_whole_until_the_new_one_is_in_its_place() {
        for give_name in [give_name, give_name_in_steps] {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("machine");
            let new = beside(&folder, "tmp");
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("initrd"), "earlier").unwrap();
            assert!(give_name(&new, &folder).is_err(), "there is no new one");
            let initrd = |folder: &Path| std::fs::read_to_string(folder.join("initrd")).unwrap();
            assert_eq!(initrd(&folder), "earlier");
            std::fs::create_dir(&new).unwrap();
            std::fs::write(new.join("initrd"), "new").unwrap();
            give_name(&new, &folder).unwrap();
            assert_eq!(
                (initrd(&folder), initrd(&new)),
                ("new".to_owned(), "earlier".to_owned())
            );
            assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_a_living_one_writes_is_not() {
        let parent = tempfile::tempdir().unwrap();
        // No process has numbers as high as those; the one that is locked may be of another machine, or in a container.
        let names = [
            ".machine.99999998.tmp",
            ".machine.99999999.tmp",
            ".machine.x.tmp",
        ];
        let [dead, living, other] = names.map(|name| parent.path().join(name));
        for folder in [&dead, &living, &other] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("disk.img"), "x").unwrap();
        }
        let lock = File::open(&living).unwrap();
        lock.lock().unwrap();
        remove_left(&parent.path().join("machine"));
        assert!(!dead.exists() && living.exists() && other.exists());
    }

    #[test]
    fn a_place_that_takes_no_folder_is_told_before_the_work() {
        let parent = tempfile::tempdir().unwrap();
        assert!(check(&parent.path().join("machine")).is_ok());
        assert!(check(&parent.path().join("none/machine")).is_err());
        std::fs::write(parent.path().join("file"), "mine").unwrap();
        assert!(check(&parent.path().join("file")).is_err());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    /// Debian's cloud kernels are packed like that.
    #[test]
    fn a_kernel_that_lz4_packed_is_unpacked() {
        let mut kernel = b"\x7fELF".to_vec();
        kernel.extend((0..10_000_000_u32).map(|n| (n >> 9) as u8));
        let mut payload = LZ4_LEGACY.to_vec();
        for plain in kernel.chunks(LZ4_BLOCK) {
            let block = lz4::block::compress(plain, None, false).unwrap();
            payload.extend((block.len() as u32).to_le_bytes());
            payload.extend(block);
        }
        payload.extend((kernel.len() as u32).to_le_bytes());
        let mut image = vec![0; 0x400];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        assert!(unpack_kernel(&image) == Some(kernel));
        image.truncate(image.len() - 5);
        assert_eq!(unpack_kernel(&image), None);
    }

    #[test]
    fn no_image_makes_the_unpacker_panic() {
        let mut image = vec![0xff; 0x300];
        for fill in [0, 1, 0xff] {
            image[0x1f1..0x250].fill(fill);
            image[0x202..0x206].copy_from_slice(b"HdrS");
            assert_eq!(unpack_kernel(&image), None);
        }
        assert_eq!(unpack_kernel(b""), None);
    }
}
