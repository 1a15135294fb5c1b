//! systemd-boot and systemd's EFI stub: the boot loader and the front part of every unified kernel image.
//!
//! They come from Debian's `systemd-boot-efi`, pinned, or from files of the host. Refused: what is no PE file.

use std::path::Path;

use super::cache::Cache;
use super::debian::{self, DebianError, UnpackError};
use super::error::FileError;
use super::image::read_content;
use super::kernel::host_file;
use crate::lock::{Lock, Pinned};
use crate::progress::Progress;
use crate::tree::{Content, Kind, Tree};

/// Debian's package.
pub const PACKAGE: &str = "systemd-boot-efi";
const DIRECTORY: &str = "usr/lib/systemd/boot/efi";
const LOADER: &str = "systemd-bootx64.efi";
const STUB: &str = "linuxx64.efi.stub";
const CAP: u64 = 64 << 20;

/// Why the EFI programs could not be had.
#[derive(Debug, thiserror::Error)]
pub enum EfiError {
    /// The package could not be resolved.
    #[error("the package {PACKAGE} cannot be had")]
    Package(#[source] Box<DebianError>),
    /// The package could not be unpacked.
    #[error("the package {PACKAGE} cannot be unpacked")]
    Unpack(#[from] UnpackError),
    /// A file is missing in the package.
    #[error("{PACKAGE} {version} has no {file}")]
    Missing {
        /// The package's version.
        version: String,
        /// The file.
        file: &'static str,
    },
    /// A file is something else.
    #[error("{file} is no EFI program")]
    NotEfi {
        /// The file.
        file: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The two programs.
#[derive(Debug, Clone)]
pub struct Efi {
    /// systemd-boot, `BOOTX64.EFI`.
    pub loader: Content,
    /// The stub that becomes a unified kernel image.
    pub stub: Content,
    /// The package's version, or what the loader says about itself.
    pub version: String,
    /// The package they came from; `None` for files of the host.
    pub package: Option<Pinned>,
}

impl Efi {
    /// Pins Debian's package, without unpacking it.
    ///
    /// # Errors
    /// [`EfiError`].
    pub fn pin_package(
        suite: Option<&str>,
        lock: &mut Lock,
        cache: &Cache,
        progress: &Progress,
    ) -> Result<(), EfiError> {
        let pin = debian::resolve_alone(PACKAGE, suite, lock, cache, progress);
        pin.map(drop).map_err(|e| EfiError::Package(Box::new(e)))
    }

    /// From Debian's package, pinned in the lock.
    ///
    /// # Errors
    /// [`EfiError`].
    pub fn from_package(
        suite: Option<&str>,
        lock: &mut Lock,
        cache: &Cache,
        progress: &Progress,
    ) -> Result<Self, EfiError> {
        let pin = debian::resolve_alone(PACKAGE, suite, lock, cache, progress)
            .map_err(|e| EfiError::Package(Box::new(e)))?;
        let tree = debian::read_package(&pin, suite, cache, progress)?;
        let find = |file: &'static str| {
            find_file(&tree, &format!("{DIRECTORY}/{file}")).ok_or_else(|| EfiError::Missing {
                version: pin.version.clone(),
                file,
            })
        };
        let (loader, stub) = (find(LOADER)?, find(STUB)?);
        check(&loader, LOADER)?;
        check(&stub, STUB)?;
        Ok(Self {
            loader,
            stub,
            version: pin.version.clone(),
            package: Some(pin),
        })
    }

    /// From two files of the host.
    ///
    /// # Errors
    /// [`EfiError`].
    pub fn from_paths(loader: &Path, stub: &Path) -> Result<Self, EfiError> {
        let (loader_path, stub_path) = (loader, stub);
        let (loader, stub) = (host_file(loader)?, host_file(stub)?);
        let bytes = check(&loader, &loader_path.display().to_string())?;
        check(&stub, &stub_path.display().to_string())?;
        Ok(Self {
            loader,
            stub,
            version: loader_version(&bytes).unwrap_or_else(|| "unknown".into()),
            package: None,
        })
    }
}

fn find_file(tree: &Tree, path: &str) -> Option<Content> {
    match &tree.inode(tree.lookup(path)?).kind {
        Kind::File(content) => Some(content.clone()),
        _ => None,
    }
}

fn check(content: &Content, file: &str) -> Result<Vec<u8>, EfiError> {
    let not_efi = || EfiError::NotEfi {
        file: file.to_owned(),
    };
    if content.len() > CAP {
        return Err(not_efi());
    }
    let bytes = read_content(content)?;
    if bytes.starts_with(b"MZ") {
        Ok(bytes)
    } else {
        Err(not_efi())
    }
}

/// The loader's own mark: `#### LoaderInfo: systemd-boot 252.39 ####`.
fn loader_version(bytes: &[u8]) -> Option<String> {
    let mark = b"LoaderInfo: systemd-boot ";
    let at = bytes.windows(mark.len()).position(|w| w == mark)? + mark.len();
    let rest = &bytes[at..bytes.len().min(at + 64)];
    let end = rest.iter().position(|b| matches!(b, b' ' | 0))?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_say_their_version() {
        let bytes = b"MZ...#### LoaderInfo: systemd-boot 252.39-1~deb12u2 ####\0";
        assert_eq!(loader_version(bytes).as_deref(), Some("252.39-1~deb12u2"));
        assert_eq!(loader_version(b"MZ"), None);
        assert_eq!(loader_version(b"LoaderInfo: systemd-boot 2"), None);
    }

    #[test]
    fn what_is_no_program_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("text.efi");
        std::fs::write(&file, "text").unwrap();
        let error = Efi::from_paths(&file, &file).unwrap_err().to_string();
        assert!(error.contains("text.efi is no EFI program"), "{error}");
    }
}
