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
use std::path::{Path, PathBuf};

use self::cache::Cache;
use self::image::Image;
pub(crate) use self::oci::sha256_hex;
use self::store::{Store, StoreError};
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
            dir::load(&path, progress).map_err(|source| SourceError::Dir {
                reference: reference.to_owned(),
                source,
            })
        }
        "aci" => {
            let files = split_files(base, rest);
            if let Some(path) = files.iter().find(|path| !path.exists()) {
                return Err(missing(path.clone()));
            }
            aci::load(&files, cache, progress).map_err(|source| SourceError::Aci {
                reference: reference.to_owned(),
                source: Box::new(source),
            })
        }
        "oci" | "oci-archive" | "docker-archive" => {
            let (path, tag) = split_tag(base, rest).map_err(missing)?;
            let tag = tag.as_deref();
            match transport {
                "oci" => oci::load(&Store::directory(&path), tag, cache, progress),
                "oci-archive" => oci::load(&store(Store::archive(&path))?, tag, cache, progress),
                _ => docker_archive::load(&store(Store::archive(&path))?, tag, cache, progress),
            }
            .map_err(oci)
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
            let mut digests = String::new();
            for path in split_files(base, rest) {
                let read = File::open(&path).and_then(blob::digest);
                let failed = error::FileError::of("read", &path);
                digests.push_str(&read.map_err(|error| oci(failed(error).into()))?.0);
            }
            if digests.len() > 64 {
                let all = blob::digest(digests.as_bytes());
                digests = all.expect("memory is read without error").0;
            }
            Ok(Some(format!("sha256:{digests}")))
        }
        _ => Ok(None),
    }
}

/// The path that a reference names, whether it exists or not, by the rules of [`load`].
pub fn referenced_path(reference: &str, base: &Path) -> PathBuf {
    match reference.split_once(':') {
        Some(("dir", path)) => base.join(path),
        Some(("aci", rest)) => {
            let mut files = split_files(base, rest);
            let missing = files.iter().position(|path| !path.exists()).unwrap_or(0);
            files.swap_remove(missing)
        }
        Some((_, rest)) => split_tag(base, rest).map_or_else(|missing| missing, |(path, _)| path),
        None => base.join(reference),
    }
}

/// An App Container image's file and those of its dependencies; a path that exists may have commas itself. There is
/// always one at least.
fn split_files(base: &Path, rest: &str) -> Vec<PathBuf> {
    let whole = base.join(rest);
    if whole.exists() {
        return vec![whole];
    }
    rest.split(',').map(|file| base.join(file)).collect()
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
