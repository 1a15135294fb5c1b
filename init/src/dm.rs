//! Device mapper: one read-only target by three ioctls (`struct dm_ioctl`, interface version 4).
//!
//! Makes, loads, resumes and removes a device; renames and waits for nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::sys;

const CONTROL: &str = "/dev/mapper/control";

/// Size of `struct dm_ioctl`.
pub const HEADER_SIZE: usize = 312;
/// Size of `struct dm_target_spec`.
const SPEC_SIZE: usize = 40;

const READONLY_FLAG: u32 = 1 << 0;

/// `_IOWR(0xfd, NUMBER, struct dm_ioctl)`.
const fn request(number: u32) -> u32 {
    3 << 30 | (HEADER_SIZE as u32) << 16 | 0xfd << 8 | number
}

const DEV_CREATE: u32 = request(3);
const DEV_REMOVE: u32 = request(4);
const DEV_SUSPEND: u32 = request(6);
const TABLE_LOAD: u32 = request(9);

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub enum DmError {
    /// The control node cannot be opened: no device mapper in this kernel.
    #[error("cannot open {CONTROL}")]
    Control(#[source] io::Error),
    /// An ioctl failed.
    #[error("device mapper: cannot {step} {name}")]
    Ioctl {
        /// What was asked.
        step: &'static str,
        /// The device's name.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// The opened control node.
#[derive(Debug)]
pub struct DeviceMapper {
    control: OwnedFd,
}

impl DeviceMapper {
    /// Opens the control node.
    ///
    /// # Errors
    /// [`DmError::Control`].
    pub fn open() -> Result<Self, DmError> {
        let control = rustix::fs::open(CONTROL, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| DmError::Control(errno.into()))?;
        Ok(Self { control })
    }

    /// Makes `name` a read-only device of one target over `sectors` sectors and activates it. Returns its
    /// minor number: the node is `/dev/dm-MINOR`.
    ///
    /// # Errors
    /// [`DmError::Ioctl`] with the failed step. What was made by earlier steps stays.
    pub fn create_read_only(
        &self,
        name: &str,
        target: &str,
        sectors: u64,
        table: &str,
    ) -> Result<u32, DmError> {
        let mut buffer = message(name, READONLY_FLAG, 0);
        self.ioctl("create", DEV_CREATE, name, &mut buffer)?;
        let minor = minor_of(&buffer);
        let mut buffer = message(name, READONLY_FLAG, SPEC_SIZE + padded(table));
        buffer[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        write_target(&mut buffer[HEADER_SIZE..], target, sectors, table);
        self.ioctl("load the table of", TABLE_LOAD, name, &mut buffer)?;
        // Suspend without DM_SUSPEND_FLAG is resume: it makes the loaded table the active one.
        self.ioctl("activate", DEV_SUSPEND, name, &mut message(name, 0, 0))?;
        Ok(minor)
    }

    /// Removes a device that nothing holds open.
    ///
    /// # Errors
    /// [`DmError::Ioctl`].
    pub fn remove(&self, name: &str) -> Result<(), DmError> {
        self.ioctl("remove", DEV_REMOVE, name, &mut message(name, 0, 0))
    }

    fn ioctl(
        &self,
        step: &'static str,
        number: u32,
        name: &str,
        buffer: &mut [u8],
    ) -> Result<(), DmError> {
        sys::device_mapper_ioctl(self.control.as_fd(), number, buffer).map_err(|source| {
            DmError::Ioctl {
                step,
                name: name.to_owned(),
                source,
            }
        })
    }
}

/// A `struct dm_ioctl` for `name` with `extra` bytes behind it. `data_size` is set by the call itself.
fn message(name: &str, flags: u32, extra: usize) -> Vec<u8> {
    debug_assert!(name.len() < 128, "a device name fits its field");
    let mut buffer = vec![0; HEADER_SIZE + extra];
    for (at, value) in [(0, 4), (16, HEADER_SIZE as u32), (28, flags)] {
        buffer[at..at + 4].copy_from_slice(&u32::to_ne_bytes(value));
    }
    buffer[48..48 + name.len()].copy_from_slice(name.as_bytes());
    buffer
}

/// The parameters with their terminating zero, up to the next multiple of eight bytes.
const fn padded(table: &str) -> usize {
    (table.len() + 1).next_multiple_of(8)
}

/// A `struct dm_target_spec` and its parameters.
fn write_target(buffer: &mut [u8], target: &str, sectors: u64, table: &str) {
    buffer[8..16].copy_from_slice(&sectors.to_ne_bytes());
    buffer[24..24 + target.len()].copy_from_slice(target.as_bytes());
    buffer[SPEC_SIZE..SPEC_SIZE + table.len()].copy_from_slice(table.as_bytes());
}

/// The low 20 bits of `dev` hold its minor number, split around the major's twelve.
fn minor_of(buffer: &[u8]) -> u32 {
    let dev = u64::from_ne_bytes(buffer[40..48].try_into().expect("a slice of eight bytes"));
    u32::try_from(dev & 0xff | dev >> 12 & 0xf_ff00).expect("twenty bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_the_kernels() {
        // As strace shows them for dmsetup on x86-64.
        assert_eq!((DEV_CREATE, DEV_SUSPEND), (0xc138_fd03, 0xc138_fd06));
        assert_eq!(TABLE_LOAD, 0xc138_fd09);
    }

    #[test]
    fn a_message_has_its_fields_where_the_kernel_reads_them() {
        let mut buffer = message("root", READONLY_FLAG, SPEC_SIZE + padded("1 2 3"));
        write_target(&mut buffer[HEADER_SIZE..], "verity", 77, "1 2 3");
        assert_eq!(buffer.len(), 312 + 40 + 8);
        assert_eq!(buffer[0], 4);
        assert_eq!(&buffer[48..53], b"root\0");
        assert_eq!(buffer[312 + 8], 77);
        assert_eq!(&buffer[312 + 24..312 + 31], b"verity\0");
        assert_eq!(&buffer[352..358], b"1 2 3\0");
    }

    #[test]
    fn a_device_number_gives_its_minor() {
        let mut buffer = message("root", 0, 0);
        for (dev, minor) in [(0xfe_00_u64, 0), (0xfe_03, 3), (0x0010_feff, 0x1ff)] {
            buffer[40..48].copy_from_slice(&dev.to_ne_bytes());
            assert_eq!(minor_of(&buffer), minor, "{dev:#x}");
        }
    }
}
