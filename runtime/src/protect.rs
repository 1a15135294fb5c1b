//! Keeps containers from overwriting this program through `/proc/self/exe` (the class of CVE-2019-5736).
//!
//! A container can have its process execute `/proc/self/exe`, as the interpreter of a script for example: before the
//! execve that is this program. Whoever then opens the file of that process holds it on the host, and may write to it
//! when it runs no more. So commands that enter a container run from a file that takes no writes, whoever asks:
//!
//! - where it is so anyway (read-only mount, fs-verity, memfd sealed against writing), nothing is done;
//! - else the program executes itself again from a read-only bind mount of its own file, attached nowhere;
//! - where that may not be made (no CAP_SYS_ADMIN), from a sealed copy in memory.
//!
//! Refuses to go on where none of them works. The way of the mount costs a second execve, which `sys::start` tries before
//! anything else is set up; the copy costs its size in memory.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, StatxAttributes,
    StatxFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs, memfd_create, openat, statx,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Context, Result};
use crate::sys;

const EXE: &str = "/proc/self/exe";

/// Returns once this program runs from a file that cannot be written; until then it executes itself anew.
pub(crate) fn ensure_sealed() -> Result<()> {
    if sys::started_sealed() {
        return Ok(());
    }
    let exe = openat(CWD, EXE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at("open", EXE)?;
    if takes_no_writes(exe.as_fd()).at("examine", EXE)? {
        return Ok(());
    }
    let sealed = match read_only_view(exe.as_fd()) {
        Ok(view) => view,
        Err(_) => sealed_copy(exe).at("make a sealed copy of", EXE)?,
    };
    let args = strings(std::env::args_os());
    let env = strings(std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    }));
    Err(sys::execute_file(sealed.as_fd(), &args, &env)).at("execute a sealed view of", EXE)
}

fn strings(list: impl Iterator<Item = OsString>) -> Vec<CString> {
    let string = |text: OsString| CString::new(text.into_vec()).expect("it came as a C string");
    list.map(string).collect()
}

/// Whether nobody can write to the file through this descriptor's path, whatever capabilities they have.
fn takes_no_writes(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    if fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // Only files in memory have seals.
    if fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)) {
        return Ok(true);
    }
    let attributes = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?.stx_attributes;
    Ok(attributes.contains(StatxAttributes::VERITY))
}

/// The file through a read-only mount that is in no namespace, so that nobody can make it writable again.
fn read_only_view(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let view = open_tree(file, c"", flags)?;
    sys::mount_setattr(view.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0, 0)?;
    // Without this the new image would do the same again, for ever.
    if !takes_no_writes(view.as_fd())? {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(view)
}

/// A copy in memory that nobody can write, grow or unseal.
fn sealed_copy(file: OwnedFd) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let executable = MemfdFlags::from_bits_retain(libc::MFD_EXEC);
    let copy = match memfd_create(c"coracle-runtime", flags | executable) {
        // Before Linux 6.3 every memfd was executable and the flag unknown.
        Err(Errno::INVAL) => memfd_create(c"coracle-runtime", flags)?,
        other => other?,
    };
    let mut copy = File::from(copy);
    io::copy(&mut File::from(file), &mut copy)?;
    fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn sealed_copy_has_the_bytes_and_takes_no_more() {
        let path = std::env::current_exe().expect("we run");
        let file = File::open(&path).expect("we may read ourselves");
        assert!(!takes_no_writes(file.as_fd()).expect("examined") || path.starts_with("/nix"));
        let copy = sealed_copy(file.into()).expect("made");
        assert!(takes_no_writes(copy.as_fd()).expect("examined"));
        let mut copy = File::from(copy);
        assert_eq!(
            copy.metadata().expect("there").len(),
            path.metadata().expect("there").len()
        );
        let refusal = copy.write(b"#!").expect_err("sealed");
        assert_eq!(refusal.raw_os_error(), Some(libc::EPERM));
        assert!(copy.set_len(0).is_err());
    }
}
