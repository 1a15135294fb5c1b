//! Kernel modules, loaded in the order in which the builder listed them: dependencies come first.
//!
//! The kernel unpacks and checks a module itself. Which module drives a device is [`alias`]'s to know and
//! [`modprobe`]'s to load; nothing is unloaded.

pub mod alias;
pub mod modprobe;

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::console::Console;
use crate::describe;

/// `MODULE_INIT_COMPRESSED_FILE` of finit_module(2).
const COMPRESSED_FILE: i32 = 4;

/// A module that is not in the kernel now.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the kernel module {path}")]
pub struct ModuleError {
    /// Its file.
    pub path: String,
    /// What the kernel says.
    pub source: io::Error,
}

/// Loads one module; one that is loaded already, or built in, is fine.
///
/// # Errors
/// [`ModuleError`] when the file is missing or the kernel refuses it.
pub fn load(path: &str) -> Result<(), ModuleError> {
    match insert(path) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(ModuleError {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// Loads modules in their order; one that does not load is told, and the others still are.
pub fn load_all(paths: &[String], console: &mut Console) {
    for path in paths {
        if let Err(error) = load(path) {
            console.say(describe(&error));
        }
    }
}

fn insert(path: &str) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::system::finit_module(&file, c"", flags_for(path))
}

/// Whether the kernel has to unpack the file first.
fn flags_for(path: &str) -> i32 {
    let packed = Path::new(path)
        .extension()
        .is_some_and(|extension| extension != "ko");
    if packed { COMPRESSED_FILE } else { 0 }
}

/// The paths in a `modules.load`: one a line, empty lines and `#` comments skipped.
pub fn parse_list(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packed_files_ask_the_kernel_to_unpack() {
        for (path, flags) in [("/m/a.ko", 0), ("/m/a.ko.xz", 4), ("/m/a.ko.zst", 4)] {
            assert_eq!(flags_for(path), flags, "{path}");
        }
    }

    #[test]
    fn a_list_is_its_lines_without_blanks() {
        let list: Vec<_> =
            parse_list("/modules/virtio.ko\n\n# comment\n  /modules/dm-mod.ko \n").collect();
        assert_eq!(list, ["/modules/virtio.ko", "/modules/dm-mod.ko"]);
    }

    #[test]
    fn a_missing_file_is_told_by_its_path() {
        let error = load("/no/such/module.ko").unwrap_err();
        assert!(error.to_string().contains("/no/such/module.ko"));
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }
}
