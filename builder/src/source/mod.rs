//! Everything that comes into an image: container images (OCI, Docker, App Container), Debian packages, kernels, boot loaders.
//!
//! Each source yields values (trees, contents as ranges of cached files); none writes an image. What comes from
//! outside is checked by digest where there is one, and refused by name where it is broken.

pub mod aci;
pub mod blob;
pub mod budget;
pub mod cache;
pub mod debian;
pub mod dir;
pub mod docker_archive;
pub mod drivers;
pub mod efi;
pub mod error;
pub mod image;
pub mod kernel;
pub mod layer;
pub mod module_file;
pub mod modules;
pub mod oci;
pub mod origin;
mod pax;
pub mod registry;
pub mod store;
pub mod tar;
pub mod trust;
pub mod user;

use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};

use self::cache::{Cache, CacheKind};
use self::image::Image;
pub(crate) use self::oci::sha256_hex;
use self::store::{Store, StoreError};
use self::trust::Checked;
use crate::progress::Progress;

/// Why a reference yields no image.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It has a form that is not known.
    #[error("image {reference:?}: {reason}")]
    Reference {
        /// The reference as written.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// What it names is not there.
    #[error("image {reference:?}: {} does not exist", path.display())]
    Missing {
        /// The reference as written.
        reference: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The image is broken or refused.
    #[error("image {reference:?}")]
    Oci {
        /// The reference as written.
        reference: String,
        /// Why.
        #[source]
        source: Box<oci::OciError>,
    },
    /// The App Container image is broken or refused.
    #[error("image {reference:?}")]
    Aci {
        /// The reference as written.
        reference: String,
        /// Why.
        #[source]
        source: Box<aci::AciError>,
    },
    /// The directory cannot be read.
    #[error("image {reference:?}")]
    Dir {
        /// The reference as written.
        reference: String,
        /// Why.
        #[source]
        source: dir::DirError,
    },
}

/// Reads the image that a reference names: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`,
/// `aci:FILE[,DEPENDENCY…]` or `dir:DIR`; relative paths start at `base`.
///
/// # Errors
/// [`SourceError`], with the reference as it was written.
pub fn load(
    reference: &str,
    base: &Path,
    cache: &Cache,
    progress: &Progress,
) -> Result<Image, SourceError> {
    let nothing = Checked::default();
    Ok(load_checked(reference, base, &nothing, cache, progress)?.0)
}

/// The same for an image whose signatures were checked: it is read from the bytes that they were found to hold for, and
/// from no others. With its digest, as [`identify`] has it.
///
/// # Errors
/// [`SourceError`].
pub fn load_checked(
    reference: &str,
    base: &Path,
    checked: &Checked,
    cache: &Cache,
    progress: &Progress,
) -> Result<(Image, Option<String>), SourceError> {
    let bad = |reason: String| SourceError::Reference {
        reference: reference.to_owned(),
        reason,
    };
    let (transport, rest) = reference
        .split_once(':')
        .ok_or_else(|| bad("it has no transport such as `oci:` or `dir:`".into()))?;
    if rest.is_empty() {
        return Err(bad("it names no file".into()));
    }
    let oci = |source: oci::OciError| SourceError::Oci {
        reference: reference.to_owned(),
        source: Box::new(source),
    };
    let store = |store: Result<Store, StoreError>| store.map_err(|e| oci(e.into()));
    let missing = |path: PathBuf| SourceError::Missing {
        reference: reference.to_owned(),
        path,
    };
    match transport {
        "dir" => {
            let path = base.join(rest);
            if !path.exists() {
                return Err(missing(path));
            }
            let image = dir::load(&path, progress).map_err(|source| SourceError::Dir {
                reference: reference.to_owned(),
                source,
            })?;
            Ok((image, None))
        }
        "aci" => {
            let files = match &checked.files[..] {
                [] => {
                    let files = split_files(base, rest).into_iter();
                    files.map(|(_, path)| (path, None)).collect()
                }
                files => files.to_vec(),
            };
            if let Some((path, _)) = files.iter().find(|(path, _)| !path.exists()) {
                return Err(missing(path.clone()));
            }
            let (image, digests) =
                aci::load(&files, cache, progress).map_err(|source| SourceError::Aci {
                    reference: reference.to_owned(),
                    source: Box::new(source),
                })?;
            Ok((image, Some(of_files(&digests))))
        }
        "oci" | "oci-archive" | "docker-archive" => {
            let (path, tag) = split_tag(base, rest).map_err(missing)?;
            let tag = tag.as_deref();
            let archive = || match &checked.files[..] {
                [] => store(Store::archive(&path)),
                [(file, Some(sha256))] if *file == path => {
                    let copy = copied(&path, sha256, cache).map_err(oci)?;
                    store(Store::archive_copy(&path, &copy))
                }
                _ => Err(oci(changed(&path))),
            };
            let image = match transport {
                "oci" => {
                    let entry = checked.entry.as_deref();
                    oci::load(&Store::directory(&path), tag, entry, cache, progress)
                }
                "oci-archive" => oci::load(&archive()?, tag, None, cache, progress),
                _ => docker_archive::load(&archive()?, tag, cache, progress),
            }
            .map_err(oci)?;
            let digest = image.digest.clone();
            Ok((image, Some(digest)))
        }
        other => Err(bad(format!(
            "{other:?} is none of oci, oci-archive, docker-archive, aci, dir"
        ))),
    }
}

/// The digest by which an image in a file or a layout is pinned: of its manifest, of its configuration
/// (`docker-archive:`) or of its files (`aci:`). `None` for a folder, which is source.
///
/// # Errors
/// [`SourceError`].
pub fn identify(reference: &str, base: &Path) -> Result<Option<String>, SourceError> {
    let oci = |source: oci::OciError| SourceError::Oci {
        reference: reference.to_owned(),
        source: Box::new(source),
    };
    let missing = |path: PathBuf| SourceError::Missing {
        reference: reference.to_owned(),
        path,
    };
    let (transport, rest) = reference.split_once(':').unwrap_or_default();
    let opened = || {
        let (path, tag) = split_tag(base, rest).map_err(missing)?;
        let store = match transport {
            "oci" => Store::directory(&path),
            _ => Store::archive(&path).map_err(|error| oci(error.into()))?,
        };
        Ok((store, tag))
    };
    match transport {
        "oci" | "oci-archive" => {
            let (store, tag) = opened()?;
            oci::identify(&store, tag.as_deref()).map_err(oci).map(Some)
        }
        "docker-archive" => {
            let (store, tag) = opened()?;
            let digest = docker_archive::identify(&store, tag.as_deref());
            digest.map_err(oci).map(Some)
        }
        "aci" => {
            let mut digests = Vec::new();
            for (_, path) in split_files(base, rest) {
                let read = File::open(&path).and_then(blob::digest);
                let failed = error::FileError::of("read", &path);
                digests.push(read.map_err(|error| oci(failed(error).into()))?.0);
            }
            Ok(Some(of_files(&digests)))
        }
        _ => Ok(None),
    }
}

/// The digest that stands for files with these, hex: of one its own.
fn of_files(digests: &[String]) -> String {
    let all = digests.concat();
    match digests {
        [_] => format!("sha256:{all}"),
        _ => {
            let (all, _) = blob::digest(all.as_bytes()).expect("memory is read without error");
            format!("sha256:{all}")
        }
    }
}

/// A copy of a file in the cache, of which nothing but this digest is known to be signed.
fn copied(path: &Path, sha256: &str, cache: &Cache) -> Result<PathBuf, oci::OciError> {
    if let Some(copy) = cache.get(CacheKind::Blob, sha256) {
        return Ok(copy);
    }
    cache.put(CacheKind::Blob, sha256, |copy| {
        let read = error::FileError::of("read", path);
        let mut file = File::open(path).map_err(read)?;
        let copying = error::FileError::of("copy", path);
        std::io::copy(&mut file, copy).map_err(copying)?;
        let (found, _) = copy
            .rewind()
            .and_then(|()| blob::digest(copy))
            .map_err(error::FileError::of("copy", path))?;
        match found == sha256 {
            true => Ok(()),
            false => Err(changed(path)),
        }
    })
}

fn changed(path: &Path) -> oci::OciError {
    oci::OciError::Changed {
        origin: path.to_owned(),
    }
}

/// The path that a reference names, whether it exists or not, by the rules of [`load`].
pub fn referenced_path(reference: &str, base: &Path) -> PathBuf {
    match reference.split_once(':') {
        Some(("dir", path)) => base.join(path),
        Some(("aci", rest)) => {
            let mut files = split_files(base, rest);
            let missing = files.iter().position(|(_, path)| !path.exists());
            files.swap_remove(missing.unwrap_or(0)).1
        }
        Some((_, rest)) => split_tag(base, rest).map_or_else(|missing| missing, |(path, _)| path),
        None => base.join(reference),
    }
}

/// An App Container image's file and those of its dependencies, as written and as paths; a path that exists may have
/// commas itself. There is always one at least.
fn split_files<'a>(base: &Path, rest: &'a str) -> Vec<(&'a str, PathBuf)> {
    let whole = base.join(rest);
    if whole.exists() {
        return vec![(rest, whole)];
    }
    rest.split(',')
        .map(|file| (file, base.join(file)))
        .collect()
}

/// Both a path and a tag may have colons: the shortest part that exists is the path.
fn split_tag(base: &Path, rest: &str) -> Result<(PathBuf, Option<String>), PathBuf> {
    let colons = rest.match_indices(':').map(|(at, _)| at);
    for at in colons {
        let path = base.join(&rest[..at]);
        if at > 0 && path.exists() {
            return Ok((path, Some(rest[at + 1..].to_owned())));
        }
    }
    let whole = base.join(rest);
    if whole.exists() {
        return Ok((whole, None));
    }
    Err(base.join(rest.rsplit_once(':').map_or(rest, |(path, _)| path)))
}
