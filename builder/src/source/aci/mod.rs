//! App Container images (`aci:FILE`, specification 0.8): a tar, plain or compressed by gzip, bzip2 or xz, with an image
//! manifest and the files of the root.
//!
//! Dependencies are other such files and are given by name (`aci:FILE,DEPENDENCY,…`); nothing is looked for elsewhere.
//! Refused: what is missing, ambiguous or given in vain, circles, files beside `manifest` and `rootfs`, entries that
//! stand twice, other platforms, event handlers, encrypted archives.

mod app;
mod isolator;
mod manifest;
mod render;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256, Sha512};

use self::manifest::{Dependency, Manifest};
use super::blob::{Compression, decompress, digest};
use super::cache::{Cache, CacheError, CacheKind};
use super::error::FileError;
use super::image::{Image, ImageConfig};
use super::layer::{Dialect, LayerBuilder, LayerError, LayerTree};
use super::tar::{Archive, EntryKind, TarError};
use crate::identity::hex;
use crate::progress::Progress;

/// Most bytes of a manifest.
const MANIFEST_CAP: u64 = 4 << 20;

/// Why an App Container image was refused.
#[derive(Debug, thiserror::Error)]
pub enum AciError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The archive is broken.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The root's files are broken.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// It is no such image, or one that is refused.
    #[error("{}: {reason}", file.display())]
    Refused {
        /// The image's file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// An image's file, decompressed, with its manifest.
struct Opened {
    file: PathBuf,
    /// Its bytes as it lies there.
    size: u64,
    /// The SHA-256 of the file as it lies there, which names it in the cache.
    key: String,
    /// The uncompressed archive in the cache.
    plain: PathBuf,
    manifest: Manifest,
}

impl Opened {
    fn refuse(&self, reason: impl Into<String>) -> AciError {
        refuse(&self.file, reason)
    }
}

fn refuse(file: &Path, reason: impl Into<String>) -> AciError {
    AciError::Refused {
        file: file.to_owned(),
        reason: reason.into(),
    }
}

/// Reads the first file's image; the others are what it, or one of them, depends on. Beside a file stands the SHA-256
/// that it must have, hex, if that is known. With the image come those that the files have.
///
/// # Errors
/// [`AciError`], with the file's name.
pub fn load(
    files: &[(PathBuf, Option<String>)],
    cache: &Cache,
    progress: &Progress,
) -> Result<(Image, Vec<String>), AciError> {
    let opened = files
        .iter()
        .map(|(file, known)| open(file, known.as_deref(), cache, progress))
        .collect::<Result<Vec<_>, _>>()?;
    let graph = dependencies(&opened)?;
    let mut own = Vec::new();
    for image in &opened {
        own.push((image.key.clone(), read_root(image, cache)?));
    }
    let whitelists = opened.iter().map(|image| &image.manifest.whitelist);
    let layers = render::render(&graph, own, &whitelists.collect::<Vec<_>>());
    let mut identity = Sha256::new();
    for (id, _) in &layers {
        identity.update(id);
    }
    let top = &opened[0];
    let mut config = ImageConfig::default();
    if let Some(app) = &top.manifest.app {
        config.clone_from(&app.config);
        for note in &app.notes {
            progress.note(format!("note: {}: {note}", top.file.display()));
        }
    }
    config.labels.clone_from(&top.manifest.annotations);
    let digest = match &layers[..] {
        [(id, _)] => id.clone(),
        _ => hex(&identity.finalize()),
    };
    let mut image = Image::assemble(layers, config, format!("sha256:{digest}"));
    image.config.user = user(top, &image)?;
    let keys = opened.into_iter().map(|image| image.key).collect();
    Ok((image, keys))
}

/// `USER:GROUP`; the path of a file stands for its owner.
fn user(top: &Opened, image: &Image) -> Result<Option<String>, AciError> {
    let Some(app) = &top.manifest.app else {
        return Ok(None);
    };
    let owner = |path: &str| {
        let found = image.find(path);
        let metadata = found.map(|(layer, id)| &layer.tree.inode(id).metadata);
        metadata
            .ok_or_else(|| top.refuse(format!("it runs as the owner of {path}, which it has not")))
    };
    let user = match app.user.as_str() {
        path if path.starts_with('/') => owner(path)?.uid.to_string(),
        name => name.to_owned(),
    };
    let group = match app.group.as_str() {
        path if path.starts_with('/') => owner(path)?.gid.to_string(),
        name => name.to_owned(),
    };
    Ok(Some(format!("{user}:{group}")))
}

/// Brings the uncompressed archive into the cache and reads the manifest.
fn open(
    file: &Path,
    known: Option<&str>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Opened, AciError> {
    let read = |error| AciError::from(FileError::of("read", file)(error));
    let (key, size) = File::open(file).and_then(digest).map_err(read)?;
    if known.is_some_and(|known| known != key) {
        let reason = "it is not what its signature was found to hold for: it changed meanwhile";
        return Err(refuse(file, reason));
    }
    let plain = match cache.get(CacheKind::AppImage, &key) {
        Some(plain) => plain,
        None => cache.put(CacheKind::AppImage, &key, |output| {
            let step = progress.step(format!("reading {}", file.display()), Some(size));
            let mut input = File::open(file).map_err(read)?;
            let mut begin = [0; 6];
            let len = input.read(&mut begin).map_err(read)?;
            let input = File::open(file).map_err(read)?;
            let passed = decompress(
                input,
                Compression::sniff(&begin[..len]),
                output,
                cache.budget(),
                &step,
            )
            .map_err(|error| refuse(file, error.to_string()))?;
            if passed.sha256 == key {
                return Ok(());
            }
            Err(refuse(file, "it changed while it was read"))
        })?,
    };
    let bytes = read_manifest(file, &plain)?;
    let manifest = Manifest::parse(&bytes)
        .map_err(|reason| refuse(file, format!("its manifest does not hold: {reason}")))?;
    Ok(Opened {
        file: file.to_owned(),
        size,
        key,
        plain,
        manifest,
    })
}

/// The manifest's bytes; nothing but it and `rootfs` stands at the top.
fn read_manifest(file: &Path, plain: &Path) -> Result<Vec<u8>, AciError> {
    let mut archive = Archive::open(plain)?;
    let mut found = None;
    let mut root = false;
    while let Some(entry) = archive
        .next_entry()
        .map_err(|error| no_archive(file, error))?
    {
        let mut parts = components(&entry.path);
        match (parts.next(), parts.next(), &entry.kind) {
            (Some(b"rootfs"), None, EntryKind::Directory) | (Some(b"rootfs"), Some(_), _) => {
                root = true
            }
            (Some(b"manifest"), None, EntryKind::File) if found.is_none() => {
                if entry.len > MANIFEST_CAP {
                    return Err(refuse(file, "its manifest is too long"));
                }
                found = Some((entry.offset, entry.len));
            }
            // The archive's own top, which tar writes as `./`.
            (None, _, EntryKind::Directory) => {}
            _ => {
                let name = entry.name();
                return Err(refuse(
                    file,
                    format!(
                        "{name:?}: it may have a file `manifest` and a folder `rootfs`, once each"
                    ),
                ));
            }
        }
    }
    let Some((at, len)) = found.filter(|_| root) else {
        let reason =
            "it is no App Container image: it lacks a file `manifest` or a folder `rootfs`";
        return Err(refuse(file, reason));
    };
    let mut bytes = vec![0; usize::try_from(len).expect("capped above")];
    std::os::unix::fs::FileExt::read_exact_at(archive.file(), &mut bytes, at)
        .map_err(FileError::of("read", plain))?;
    Ok(bytes)
}

/// Names the image's file instead of its copy in the cache.
fn no_archive(file: &Path, error: TarError) -> AciError {
    match error {
        TarError::File(error) => error.into(),
        TarError::Truncated { what, .. } => {
            refuse(file, format!("the archive is truncated at {what}"))
        }
        TarError::Malformed { entry, reason, .. } => refuse(file, format!("{entry}: {reason}")),
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

fn read_root(image: &Opened, cache: &Cache) -> Result<LayerTree, AciError> {
    let mut builder = LayerBuilder::new(Dialect::AppImage);
    let in_root = |path: &[u8]| components(path).next() == Some(&b"rootfs"[..]);
    builder.read(&image.plain, &image.key, cache, in_root)?;
    Ok(builder.finish())
}

/// For each image those that it lies on, the lowest first.
fn dependencies(images: &[Opened]) -> Result<Vec<Vec<usize>>, AciError> {
    let mut graph = Vec::new();
    for image in images {
        let wanted = image.manifest.dependencies.iter();
        graph.push(
            wanted
                .map(|dependency| given(image, dependency, images))
                .collect::<Result<Vec<_>, _>>()?,
        );
    }
    let reached = render::reachable(&graph).map_err(|at| {
        images[at].refuse(format!("{} depends on itself", images[at].manifest.name))
    })?;
    match reached.iter().position(|reached| !reached) {
        None => Ok(graph),
        Some(at) => Err(images[at].refuse(format!(
            "nothing depends on {}: do not name it",
            images[at].manifest.name
        ))),
    }
}

/// The one given image that a dependency means.
fn given(image: &Opened, dependency: &Dependency, images: &[Opened]) -> Result<usize, AciError> {
    let name = &dependency.name;
    let named = images
        .iter()
        .enumerate()
        .filter(|(_, other)| dependency.names(&other.manifest));
    let mut fitting = Vec::new();
    let mut unfit = None;
    for (at, other) in named {
        match fits(dependency, other)? {
            None => fitting.push(at),
            Some(reason) => unfit = Some(reason),
        }
    }
    match (&fitting[..], unfit) {
        ([at], _) => Ok(*at),
        ([], Some(reason)) => Err(image.refuse(format!("it depends on {name}, and {reason}"))),
        ([], None) => Err(image.refuse(format!(
            "it depends on {name}, which is not given: name its file behind a comma, as in aci:{},FILE",
            image.file.file_name().unwrap_or_default().display()
        ))),
        _ => Err(image.refuse(format!("it depends on {name}, and several files are that"))),
    }
}

/// Why an image of the right name is not the one that is meant.
fn fits(dependency: &Dependency, other: &Opened) -> Result<Option<String>, AciError> {
    let file = other.file.display();
    if let Some(size) = dependency.size.filter(|size| *size != other.size) {
        return Ok(Some(format!("{file} has {} bytes, not {size}", other.size)));
    }
    let Some(wanted) = &dependency.id else {
        return Ok(None);
    };
    let mut hash = Sha512::new();
    File::open(&other.plain)
        .and_then(|mut plain| std::io::copy(&mut plain, &mut hash))
        .map_err(FileError::of("read", &other.plain))?;
    let found = hex(&hash.finalize());
    if found.starts_with(wanted.as_str()) {
        return Ok(None);
    }
    Ok(Some(format!(
        "{file} has the image ID sha512-{found}, not sha512-{wanted}"
    )))
}
