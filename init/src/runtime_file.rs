//! The OCI runtime that init executes, kept in memory from the initramfs on.
//!
//! It comes with init in the UKI. A sealed memfd (memfd_create(2)) holds it, so that no process, the root of a
//! container included, can change what the next start executes; and executing it reads nothing through dm-verity,
//! which would hash more than a megabyte for the first workload.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags};

/// Where the builder puts it in the initramfs.
pub const IN_INITRAMFS: &str = "/runtime";

/// Set once, in the first life.
static KEPT: OnceLock<OwnedFd> = OnceLock::new();

/// Copies the runtime out of the initramfs, before that is freed.
///
/// # Errors
/// It is missing, or there is no memory for it.
pub fn keep(path: &str) -> io::Result<()> {
    let kept = sealed_copy(&File::open(path)?)?;
    let _ = KEPT.set(kept);
    Ok(())
}

/// The path by which this process and its children execute it.
pub fn path() -> String {
    match KEPT.get() {
        Some(file) => format!("/proc/self/fd/{}", file.as_raw_fd()),
        // Nothing was kept: executing it will say so.
        None => IN_INITRAMFS.to_owned(),
    }
}

/// The path by which the children of this process's own executable reach it, where this process is PID 1.
pub fn path_for_helpers() -> String {
    match KEPT.get() {
        Some(file) => format!("/proc/1/fd/{}", file.as_raw_fd()),
        None => IN_INITRAMFS.to_owned(),
    }
}

fn sealed_copy(from: &File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("coracle-runtime", flags)?;
    let mut left = usize::try_from(from.metadata()?.len()).map_err(io::Error::other)?;
    while left > 0 {
        let sent = rustix::fs::sendfile(&copy, from, None, left)?;
        if sent == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= sent;
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn the_copy_is_whole_and_nobody_can_change_it() {
        let mut original = tempfile();
        original.write_all(&[7; 300_000]).unwrap();
        original.rewind().unwrap();
        let mut copy = File::from(sealed_copy(&original).unwrap());
        assert!(copy.write_all(b"x").is_err() && copy.set_len(0).is_err());
        copy.rewind().unwrap();
        let mut bytes = Vec::new();
        copy.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 300_000]);
    }

    #[test]
    fn a_missing_runtime_is_an_error() {
        assert_eq!(
            keep("/no/such/runtime").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    fn tempfile() -> File {
        File::from(rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap())
    }
}
