//! A kernel with its modules: from a Debian package, pinned, or from files of the host.
//!
//! Only the kernel's own package is read, not what it depends on; nothing is built, stripped or signed anew, so a
//! distribution's signatures stay valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::Cache;
use super::debian::{self, DebianError, UnpackError};
use super::error::FileError;
use super::image::read_content;
use crate::lock::{Lock, Pinned};
use crate::progress::Progress;
use crate::tree::{Content, Kind, Tree};

/// Why a kernel could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The package could not be resolved.
    #[error("the kernel package {package} cannot be had")]
    Package {
        /// What was asked.
        package: String,
        /// Why.
        #[source]
        source: Box<DebianError>,
    },
    /// The package could not be unpacked.
    #[error("the kernel package {package} cannot be unpacked")]
    Unpack {
        /// What was asked.
        package: String,
        /// Why.
        #[source]
        source: Box<UnpackError>,
    },
    /// Something is not where a kernel has it.
    #[error("{origin} has no {what}")]
    Missing {
        /// The package or directory.
        origin: String,
        /// What is missing.
        what: &'static str,
    },
    /// A file of the host cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What `uname -r` says: the name of the modules' directory.
    pub release: String,
    /// The bootable image (`vmlinuz`).
    pub image: Content,
    /// Its configuration (`config-RELEASE`), if it came along.
    pub config: Option<String>,
    /// Its modules.
    pub modules: ModuleTree,
    /// The package it came from; `None` for files of the host.
    pub package: Option<Pinned>,
}

/// The modules of a kernel, by name.
#[derive(Debug, Clone, Default)]
pub struct ModuleTree {
    /// Module files by module name (`-` written as `_`).
    pub files: BTreeMap<String, ModuleFile>,
    /// Names of what is built in, and its aliases.
    pub builtin: BTreeSet<String>,
}

/// A module's file.
#[derive(Debug, Clone)]
pub struct ModuleFile {
    /// Its path below the release's directory (`kernel/fs/erofs/erofs.ko.xz`).
    pub path: String,
    /// Its bytes as they are, compressed or not.
    pub content: Content,
}

/// A module's name as the kernel has it: `-` and `_` are one, the suffix is none of it.
pub fn module_name(file: &str) -> Option<String> {
    let base = file.rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|suffix| base.strip_suffix(suffix))?;
    Some(stem.replace('-', "_"))
}

impl Kernel {
    /// The kernel of a Debian package, or of the one that a metapackage names (`linux-image-cloud-amd64`).
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn from_package(
        package: &str,
        suite: Option<&str>,
        lock: &mut Lock,
        cache: &Cache,
        progress: &Progress,
    ) -> Result<Self, KernelError> {
        let pin = debian::resolve_alone(package, suite, lock, cache, progress).map_err(|e| {
            KernelError::Package {
                package: package.to_owned(),
                source: Box::new(e),
            }
        })?;
        let tree = debian::read_package(&pin, suite, cache, progress).map_err(|source| {
            KernelError::Unpack {
                package: package.to_owned(),
                source: Box::new(source),
            }
        })?;
        Self::from_package_tree(&pin, &tree)
    }

    fn from_package_tree(pin: &Pinned, tree: &Tree) -> Result<Self, KernelError> {
        let missing = |what| KernelError::Missing {
            origin: format!("{} {}", pin.name, pin.version),
            what,
        };
        let mut modules = Vec::new();
        let mut release = None;
        for (path, id) in tree.walk() {
            let path = String::from_utf8_lossy(&path).into_owned();
            let plain = path.strip_prefix("usr/").unwrap_or(&path);
            let Some((found, rest)) = plain
                .strip_prefix("lib/modules/")
                .and_then(|rest| rest.split_once('/'))
            else {
                continue;
            };
            release.get_or_insert_with(|| found.to_owned());
            if let Kind::File(content) = &tree.inode(id).kind {
                modules.push((rest.to_owned(), content.clone()));
            }
        }
        let release = release.ok_or_else(|| missing("lib/modules"))?;
        let file = |path: &str| match tree.lookup(path).map(|id| &tree.inode(id).kind) {
            Some(Kind::File(content)) => Some(content.clone()),
            _ => None,
        };
        let image = file(&format!("boot/vmlinuz-{release}")).ok_or_else(|| missing("vmlinuz"))?;
        let config = file(&format!("boot/config-{release}"));
        Ok(Self {
            config: config.map(|c| read_text(&c)).transpose()?,
            modules: ModuleTree::new(modules)?,
            release,
            image,
            package: Some(pin.clone()),
        })
    }

    /// The kernel of an image file and the directory of its modules, whose name is the release.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn from_paths(image: &Path, modules: &Path) -> Result<Self, KernelError> {
        let real = fs::canonicalize(modules).map_err(FileError::of("find", modules))?;
        let name = real.file_name().and_then(|name| name.to_str());
        let release = name.ok_or_else(|| KernelError::Missing {
            origin: modules.display().to_string(),
            what: "name that is a kernel release",
        })?;
        let mut files = Vec::new();
        collect(&real, &real, &mut files)?;
        let beside = image.with_file_name(format!("config-{release}"));
        Ok(Self {
            release: release.to_owned(),
            image: host_file(image)?,
            config: fs::read_to_string(beside).ok(),
            modules: ModuleTree::new(files)?,
            package: None,
        })
    }
}

impl ModuleTree {
    fn new(files: Vec<(String, Content)>) -> Result<Self, FileError> {
        let mut tree = Self::default();
        for (path, content) in files {
            if path == "modules.builtin" {
                let names = read_text(&content)?;
                tree.builtin.extend(names.lines().filter_map(module_name));
            } else if path == "modules.builtin.modinfo" {
                tree.builtin
                    .extend(builtin_aliases(&read_content(&content)?));
            } else if let Some(name) = module_name(&path) {
                tree.files.insert(name, ModuleFile { path, content });
            }
        }
        Ok(tree)
    }
}

/// `NAME.alias=ALIAS` of `modules.builtin.modinfo` (NUL-separated), patterns left out.
fn builtin_aliases(bytes: &[u8]) -> Vec<String> {
    let records = bytes.split(|b| *b == 0);
    let records = records.filter_map(|record| std::str::from_utf8(record).ok());
    records
        .filter_map(|record| record.split_once(".alias="))
        .filter(|(_, alias)| !alias.contains(['*', ':']))
        .map(|(_, alias)| alias.replace('-', "_"))
        .collect()
}

fn collect(
    root: &Path,
    directory: &Path,
    files: &mut Vec<(String, Content)>,
) -> Result<(), FileError> {
    let entries = fs::read_dir(directory).map_err(FileError::of("read", directory))?;
    for entry in entries {
        let entry = entry.map_err(FileError::of("read", directory))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(FileError::of("read", &path))?;
        // Links (`build`, `source`) lead out of the modules.
        if kind.is_dir() {
            collect(root, &path, files)?;
        } else if kind.is_file() {
            let below = path.strip_prefix(root).expect("it was found below");
            files.push((below.to_string_lossy().into_owned(), host_file(&path)?));
        }
    }
    Ok(())
}

/// A whole file of the host as content.
///
/// # Errors
/// [`FileError`], if it is missing.
pub(super) fn host_file(path: &Path) -> Result<Content, FileError> {
    let absolute: PathBuf = fs::canonicalize(path).map_err(FileError::of("open", path))?;
    let metadata = fs::metadata(&absolute).map_err(FileError::of("read", path))?;
    Ok(Content::Range {
        path: Arc::new(absolute),
        offset: 0,
        len: metadata.len(),
    })
}

fn read_text(content: &Content) -> Result<String, FileError> {
    Ok(String::from_utf8_lossy(&read_content(content)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_are_the_kernels() {
        for (file, want) in [
            ("kernel/drivers/md/dm-verity.ko", Some("dm_verity")),
            ("a/virtio_blk.ko.xz", Some("virtio_blk")),
            ("x.ko.zst", Some("x")),
            ("modules.order", None),
            ("x.ko.txt", None),
        ] {
            assert_eq!(module_name(file).as_deref(), want, "{file}");
        }
    }

    #[test]
    fn kernels_are_read_from_files_of_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let modules = directory.path().join("lib/modules/6.99-x");
        fs::create_dir_all(modules.join("kernel/fs")).unwrap();
        fs::write(modules.join("kernel/fs/ab-c.ko"), b"elf").unwrap();
        fs::write(modules.join("modules.builtin"), b"kernel/fs/in-side.ko\n").unwrap();
        let info = b"in_side.alias=other-name\0in_side.alias=pci:v*\0x.license=GPL\0";
        fs::write(modules.join("modules.builtin.modinfo"), info).unwrap();
        let image = directory.path().join("vmlinuz");
        fs::write(&image, b"image").unwrap();
        let kernel = Kernel::from_paths(&image, &modules).unwrap();
        assert_eq!(kernel.release, "6.99-x");
        assert_eq!(kernel.image.len(), 5);
        assert_eq!(kernel.modules.files["ab_c"].path, "kernel/fs/ab-c.ko");
        assert!(kernel.modules.builtin.iter().eq(["in_side", "other_name"]));
        let error = Kernel::from_paths(&directory.path().join("none"), &modules).unwrap_err();
        assert!(error.to_string().contains("none"));
    }
}
