//! What is asked of single devices: watchdogs, terminals, the random pool.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// Sets a watchdog device's time in seconds (`WDIOC_SETTIMEOUT`); returns the one that it took.
///
/// # Errors
/// `EINVAL` for a time that it does not have, `EOPNOTSUPP` when its time is fixed.
pub fn watchdog_timeout(device: BorrowedFd<'_>, seconds: u32) -> io::Result<u32> {
    const SET_TIMEOUT: libc::Ioctl = 0xc004_5706;
    let mut value = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads and writes one integer, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut value) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(u32::try_from(value).unwrap_or(seconds))
    }
}

/// A watchdog device's name (`WDIOC_GETSUPPORT`).
///
/// # Errors
/// What the kernel answers.
pub fn watchdog_name(device: BorrowedFd<'_>) -> io::Result<String> {
    /// `struct watchdog_info` of linux/watchdog.h.
    #[repr(C)]
    struct Information {
        options: u32,
        firmware_version: u32,
        identity: [u8; 32],
    }
    const GET_SUPPORT: libc::Ioctl = 0x8028_5700;
    let mut information = Information {
        options: 0,
        firmware_version: 0,
        identity: [0; 32],
    };
    // SAFETY: the struct has the kernel's layout and outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), GET_SUPPORT, &raw mut information) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = information.identity.split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

/// How many bytes a terminal's driver has not given to its port yet (`TIOCOUTQ`).
///
/// # Errors
/// `ENOTTY` for what is no terminal.
pub fn output_queue(terminal: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// Stirs bytes into the kernel's random pool and counts them as so many bits of entropy (`RNDADDENTROPY`).
///
/// # Errors
/// What the kernel answers; more than 512 bytes are cut off.
pub fn add_entropy(bytes: &[u8], bits: u32) -> io::Result<()> {
    /// `struct rand_pool_info` of linux/random.h.
    #[repr(C)]
    struct PoolInfo {
        bits: i32,
        length: i32,
        bytes: [u8; 512],
    }
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    let length = bytes.len().min(512);
    let mut info = PoolInfo {
        bits: i32::try_from(bits).unwrap_or(i32::MAX),
        length: i32::try_from(length).expect("at most 512"),
        bytes: [0; 512],
    };
    info.bytes[..length].copy_from_slice(&bytes[..length]);
    let device = std::fs::File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the struct has the kernel's layout; the kernel reads `length` bytes of its end, which it has.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) })
}

/// Lets what was stirred in take effect at once (`RNDRESEEDCRNG`).
///
/// # Errors
/// `ENODATA` while the kernel has not enough entropy, when it is of no need.
pub fn reseed() -> io::Result<()> {
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
    let device = std::fs::File::options().write(true).open("/dev/urandom")?;
    // SAFETY: this ioctl takes no argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) })
}
