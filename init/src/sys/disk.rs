//! Disks: device-mapper, partitions, the size of a mounted file system.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// One device-mapper ioctl: `request` is the full number, `buffer` a `struct dm_ioctl` with what follows it.
///
/// # Errors
/// What the kernel answers.
pub fn device_mapper_ioctl(
    control: BorrowedFd<'_>,
    request: u32,
    buffer: &mut [u8],
) -> io::Result<()> {
    assert!(
        buffer.len() >= crate::dm::HEADER_SIZE,
        "a dm_ioctl is never shorter than its header"
    );
    let size = u32::try_from(buffer.len()).expect("requests are a few kilobytes");
    buffer[12..16].copy_from_slice(&size.to_ne_bytes());
    // SAFETY: the kernel reads and writes at most `data_size` bytes (just set to the buffer's length) at the
    // pointer, which stays borrowed mutably for the call.
    let result = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            libc::Ioctl::from(request),
            buffer.as_mut_ptr(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    data_length: i32,
    data: *mut BlkpgPartition,
}

/// Tells the kernel of a partition that it did not find itself (`BLKPG_ADD_PARTITION`). Start and length in
/// bytes.
///
/// # Errors
/// `EBUSY` when it overlaps one that the kernel has.
pub fn add_partition(disk: BorrowedFd<'_>, number: u32, start: u64, length: u64) -> io::Result<()> {
    const ADD: i32 = 1;
    change_partition(disk, ADD, number, start, length)
}

/// Tells the kernel that a partition has another length now (`BLKPG_RESIZE_PARTITION`); it may be in use.
///
/// # Errors
/// `EINVAL` when it does not begin at `start`, `EBUSY` when it would overlap another.
pub fn resize_partition(
    disk: BorrowedFd<'_>,
    number: u32,
    start: u64,
    length: u64,
) -> io::Result<()> {
    const RESIZE: i32 = 3;
    change_partition(disk, RESIZE, number, start, length)
}

fn change_partition(
    disk: BorrowedFd<'_>,
    operation: i32,
    number: u32,
    start: u64,
    length: u64,
) -> io::Result<()> {
    const BLKPG: libc::Ioctl = 0x1269;
    let out_of_range = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let mut partition = BlkpgPartition {
        start: i64::try_from(start).map_err(out_of_range)?,
        length: i64::try_from(length).map_err(out_of_range)?,
        number: i32::try_from(number).map_err(out_of_range)?,
        names: [0; 128],
    };
    let data_length = i32::try_from(size_of::<BlkpgPartition>()).map_err(out_of_range)?;
    let mut argument = BlkpgArgument {
        operation,
        flags: 0,
        data_length,
        data: &raw mut partition,
    };
    // SAFETY: both structs have the kernel's layout and outlive the call; the kernel reads `data_length` bytes
    // at `data`, which is the size of what it points to.
    checked(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) })
}

/// Grows the mounted ext4 file system that `directory` is on to so many of its blocks (`EXT4_IOC_RESIZE_FS`).
///
/// # Errors
/// What the kernel answers.
pub fn resize_filesystem(directory: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
    // SAFETY: the kernel reads eight bytes at the pointer, which is of a value that outlives the call.
    checked(unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) })
}
