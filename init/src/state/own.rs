//! The machine's own files on the state partition: each is there as a whole, as it was or as it is to be.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::replace::replace_for_good;

/// Their directory, below the mount point.
const DIRECTORY: &str = "coracle";

fn directory(mount_point: &str) -> PathBuf {
    Path::new(mount_point).join(DIRECTORY)
}

pub(super) fn read(mount_point: &str, name: &str) -> io::Result<Vec<u8>> {
    fs::read(directory(mount_point).join(name))
}

/// Replaces a file. It is on the medium afterwards.
pub(super) fn write(mount_point: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let directory = directory(mount_point);
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    replace_for_good(&directory.join(name), bytes)
}
