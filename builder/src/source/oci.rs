//! Container images in an OCI image layout (image-spec 1.1), as a directory (`oci:`) or as a tar (`oci-archive:`).
//!
//! Every blob is checked by digest and size, every layer by its diff id once it is decompressed. Refused by name:
//! other digest algorithms than SHA-256, unknown media types, other platforms than linux/amd64.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::blob::{Compression, decompress, digest};
use super::cache::{Cache, CacheError, CacheKind};
use super::error::FileError;
use super::image::{Image, ImageConfig};
use super::layer::{LayerError, read_tar};
use super::store::{Store, StoreError};
use crate::progress::Progress;

/// Most bytes of a JSON document.
pub(super) const JSON_CAP: u64 = 16 << 20;
const INDEX_DEPTH: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of the image is missing or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A document is no JSON of the expected kind.
    #[error("{}: {name} is not as the image specification has it: {reason}", origin.display())]
    Document {
        /// The image's directory or archive.
        origin: PathBuf,
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A blob is not what its name says.
    #[error("{}: {what} has SHA-256 {found}, not {expected}", origin.display())]
    Digest {
        /// The image's directory or archive.
        origin: PathBuf,
        /// What it is.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// What was checked is not what is there now.
    #[error("{}: it is not what its signature was found to hold for: it changed meanwhile", origin.display())]
    Changed {
        /// The image's directory or archive.
        origin: PathBuf,
    },
    /// A blob has another size.
    #[error("{}: {what} has {found} bytes, not {expected}", origin.display())]
    Size {
        /// The image's directory or archive.
        origin: PathBuf,
        /// What it is.
        what: String,
        /// What its descriptor says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Something is not supported.
    #[error("{}: {what} {text:?} is not supported", origin.display())]
    Unsupported {
        /// The image's directory or archive.
        origin: PathBuf,
        /// `media type`, `digest`, `platform`.
        what: &'static str,
        /// Its text.
        text: String,
    },
    /// The tag is not there, or there are several images and no tag.
    #[error("{}: {problem}; it has {}", origin.display(), list(tags))]
    Tag {
        /// The image's directory or archive.
        origin: PathBuf,
        /// What was asked.
        problem: String,
        /// What is there.
        tags: Vec<String>,
    },
    /// A layer is broken.
    #[error("{}: layer {layer} is broken", origin.display())]
    Layer {
        /// The image's directory or archive.
        origin: PathBuf,
        /// Its digest.
        layer: String,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
}

fn list(tags: &[String]) -> String {
    match tags {
        [] => "no tags".to_owned(),
        tags => format!("the tags {}", tags.join(", ")),
    }
}

/// What names a blob (image-spec, "Content Descriptors").
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    /// `sha256:HEX`, not checked yet.
    pub(super) digest: String,
    /// Bytes.
    pub(super) size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// The manifest of an image.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// The image configuration (image-spec, "Image Configuration"); Go writes `null` for what is empty.
#[derive(Debug, Deserialize)]
pub(super) struct ConfigFile {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<RunConfig>,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RunConfig {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

/// Reads the image of a layout; without a tag the only one. With an `entry` the layout's index must have it by this
/// digest.
///
/// # Errors
/// [`OciError`].
pub fn load(
    store: &Store,
    tag: Option<&str>,
    entry: Option<&str>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Image, OciError> {
    let chosen = find(store, tag, entry)?;
    let manifest = parts(store, &chosen.digest, &Source { store }.blob(&chosen)?)?;
    assemble(store, &chosen.digest, &manifest, cache, progress)
}

/// The digest of the manifest that [`load`] would read: no layer is looked at.
///
/// # Errors
/// [`OciError`].
pub fn identify(store: &Store, tag: Option<&str>) -> Result<String, OciError> {
    Ok(find(store, tag, None)?.digest)
}

fn find(store: &Store, tag: Option<&str>, entry: Option<&str>) -> Result<Descriptor, OciError> {
    let source = Source { store };
    source.check_layout()?;
    let index: Index = source.json("index.json", &store.read("index.json", JSON_CAP)?)?;
    let chosen = source.choose(index.manifests, tag)?;
    if entry.is_some_and(|entry| chosen.iter().any(|found| found.digest != entry)) {
        return Err(OciError::Changed {
            origin: store.origin().to_owned(),
        });
    }
    source.resolve_index(chosen)
}

/// What a manifest names; `bytes` are checked by its digest already.
pub(super) fn parts(store: &Store, digest: &str, bytes: &[u8]) -> Result<Manifest, OciError> {
    let source = Source { store };
    let manifest: Manifest = source.json(digest, bytes)?;
    known(&source, &manifest.config, CONFIG_TYPES)?;
    Ok(manifest)
}

/// The layers' diff ids, hex, by the configuration.
pub(super) fn diff_ids(store: &Store, manifest: &Manifest) -> Result<Vec<String>, OciError> {
    Ok(configuration(store, manifest)?.1)
}

fn configuration(
    store: &Store,
    manifest: &Manifest,
) -> Result<(ConfigFile, Vec<String>), OciError> {
    let source = Source { store };
    let digest = &manifest.config.digest;
    let config: ConfigFile = source.json(digest, &source.blob(&manifest.config)?)?;
    let diff_ids = config.diff_ids(store)?;
    if diff_ids.len() == manifest.layers.len() {
        return Ok((config, diff_ids));
    }
    let reason = format!(
        "it has {} diff ids for {} layers",
        diff_ids.len(),
        manifest.layers.len()
    );
    Err(source.document(digest, reason))
}

/// The image of a manifest; all its blobs are in the store, or its layers in the cache.
pub(super) fn assemble(
    store: &Store,
    digest: &str,
    manifest: &Manifest,
    cache: &Cache,
    progress: &Progress,
) -> Result<Image, OciError> {
    let source = Source { store };
    let (config, diff_ids) = configuration(store, manifest)?;
    let mut layers = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let layer = source.layer(descriptor, &diff_id, cache, progress)?;
        layers.push((diff_id, layer));
    }
    Ok(Image::assemble(
        layers,
        config.into_image_config(),
        digest.to_owned(),
    ))
}

/// Manifests of an image, by media type.
pub(super) const MANIFEST_TYPES: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Indexes, by media type.
pub(super) const INDEX_TYPES: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const CONFIG_TYPES: &[&str] = &[
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// A layer's compression by its media type.
fn layer_compression(media_type: &str) -> Option<Compression> {
    let plain = media_type
        .strip_prefix("application/vnd.oci.image.layer.")
        .map(|rest| rest.strip_prefix("nondistributable.").unwrap_or(rest));
    match plain {
        Some("v1.tar") => Some(Compression::None),
        Some("v1.tar+gzip") => Some(Compression::Gzip),
        Some("v1.tar+zstd") => Some(Compression::Zstd),
        Some(_) => None,
        None => match media_type.strip_prefix("application/vnd.docker.image.rootfs.") {
            Some("diff.tar") => Some(Compression::None),
            Some("diff.tar.gzip" | "foreign.diff.tar.gzip") => Some(Compression::Gzip),
            Some("diff.tar.zstd") => Some(Compression::Zstd),
            _ => None,
        },
    }
}

fn known(source: &Source<'_>, descriptor: &Descriptor, types: &[&str]) -> Result<(), OciError> {
    if types.contains(&descriptor.media_type.as_str()) {
        return Ok(());
    }
    Err(source.unsupported("the media type", &descriptor.media_type))
}

struct Source<'a> {
    store: &'a Store,
}

impl Source<'_> {
    fn check_layout(&self) -> Result<(), OciError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Layout {
            image_layout_version: String,
        }
        let bytes = self.store.read("oci-layout", JSON_CAP)?;
        let layout: Layout = self.json("oci-layout", &bytes)?;
        if layout.image_layout_version.starts_with("1.") {
            return Ok(());
        }
        Err(self.unsupported("the layout version", &layout.image_layout_version))
    }

    /// The entry of the index with the tag; several for one tag are one image for several platforms.
    fn choose(
        &self,
        manifests: Vec<Descriptor>,
        tag: Option<&str>,
    ) -> Result<Vec<Descriptor>, OciError> {
        let mut manifests = manifests;
        manifests.retain(|entry| !is_attachment(entry.annotations.as_ref()));
        let name = |d: &Descriptor| d.annotations.as_ref()?.get(REF_NAME).cloned();
        let tags: BTreeSet<String> = manifests.iter().filter_map(name).collect();
        let problem = match tag {
            Some(tag) => {
                let chosen: Vec<_> = manifests
                    .into_iter()
                    .filter(|d| name(d).as_deref() == Some(tag))
                    .collect();
                if !chosen.is_empty() {
                    return Ok(chosen);
                }
                format!("it has no image with the tag {tag:?}")
            }
            None if manifests.is_empty() => "it has no image".to_owned(),
            None if manifests.len() == 1 || tags.is_empty() => return Ok(manifests),
            None => "it has several images, so say which (FILE:TAG)".to_owned(),
        };
        Err(OciError::Tag {
            origin: self.store.origin().to_owned(),
            problem,
            tags: tags.into_iter().collect(),
        })
    }

    /// Follows nested indexes to the manifest for our platform.
    fn resolve_index(&self, mut candidates: Vec<Descriptor>) -> Result<Descriptor, OciError> {
        for _ in 0..INDEX_DEPTH {
            let all: Vec<String> = candidates.iter().map(describe).collect();
            let Some(chosen) = candidates.iter().find(|d| is_our_platform(d)).cloned() else {
                return Err(self.unsupported("the platform", &all.join(", ")));
            };
            if MANIFEST_TYPES.contains(&chosen.media_type.as_str()) {
                return Ok(chosen);
            }
            known(self, &chosen, INDEX_TYPES)?;
            let index: Index = self.json(&chosen.digest, &self.blob(&chosen)?)?;
            candidates = index.manifests;
        }
        Err(self.document("index.json", "its indexes are nested too deeply".into()))
    }

    /// A small blob, checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let name = self.blob_name(descriptor)?;
        self.check_size(descriptor, self.store.size(&name)?)?;
        let bytes = self.store.read(&name, JSON_CAP)?;
        let (found, _) = digest(&bytes[..]).expect("memory is read without error");
        self.check_digest(&descriptor.digest, &descriptor.digest, &found)?;
        Ok(bytes)
    }

    fn layer(
        &self,
        descriptor: &Descriptor,
        diff_id: &str,
        cache: &Cache,
        progress: &Progress,
    ) -> Result<super::layer::LayerTree, OciError> {
        let compression = layer_compression(&descriptor.media_type)
            .ok_or_else(|| self.unsupported("the media type", &descriptor.media_type))?;
        let name = self.blob_name(descriptor)?;
        // A layer of a registry that was read once need not be there in the form that it came in.
        if self.store.has(&name) || cache.get(CacheKind::Layer, diff_id).is_none() {
            self.check_size(descriptor, self.store.size(&name)?)?;
        }
        let expected = Expected {
            what: &descriptor.digest,
            digest: Some(&descriptor.digest),
            diff_id,
        };
        import_layer(
            self.store,
            &name,
            Some(compression),
            &expected,
            cache,
            progress,
        )
    }

    fn blob_name(&self, descriptor: &Descriptor) -> Result<String, OciError> {
        let hex = sha256_hex(&descriptor.digest)
            .ok_or_else(|| self.unsupported("the digest", &descriptor.digest))?;
        Ok(format!("blobs/sha256/{hex}"))
    }

    fn check_size(&self, descriptor: &Descriptor, found: u64) -> Result<(), OciError> {
        if found == descriptor.size {
            return Ok(());
        }
        Err(OciError::Size {
            origin: self.store.origin().to_owned(),
            what: descriptor.digest.clone(),
            expected: descriptor.size,
            found,
        })
    }

    fn check_digest(&self, what: &str, expected: &str, found: &str) -> Result<(), OciError> {
        check_digest(self.store, what, expected, found)
    }

    fn json<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, OciError> {
        serde_json::from_slice(bytes).map_err(|e| self.document(name, e.to_string()))
    }

    fn document(&self, name: &str, reason: String) -> OciError {
        OciError::Document {
            origin: self.store.origin().to_owned(),
            name: name.to_owned(),
            reason,
        }
    }

    fn unsupported(&self, what: &'static str, text: &str) -> OciError {
        unsupported(self.store, what, text)
    }
}

/// Whether an index's entry is no image, but what cosign attaches to one: signatures, attestations, bills of material.
pub(super) fn is_attachment(annotations: Option<&BTreeMap<String, String>>) -> bool {
    let annotation = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
    let kind = annotation("kind").and_then(|kind| kind.strip_prefix("dev.cosignproject.cosign/"));
    let of_tag = |tag: &str| {
        let ending = tag
            .strip_prefix("sha256-")
            .and_then(|rest| rest.split_once('.'));
        ending.is_some_and(|(hex, kind)| hex.len() == 64 && ["sig", "att", "sbom"].contains(&kind))
    };
    kind.is_some_and(|kind| !kind.starts_with("image")) || annotation(REF_NAME).is_some_and(of_tag)
}

/// Whether an entry of an index is for linux/amd64, or for any platform.
pub(super) fn is_our_platform(descriptor: &Descriptor) -> bool {
    let platform = descriptor.platform.as_ref();
    platform.is_none_or(|p| p.os == "linux" && p.architecture == "amd64")
}

/// An entry's platform, as messages have it.
pub(super) fn describe(descriptor: &Descriptor) -> String {
    match &descriptor.platform {
        Some(platform) => format!("{}/{}", platform.os, platform.architecture),
        None => "any".to_owned(),
    }
}

fn unsupported(store: &Store, what: &'static str, text: &str) -> OciError {
    OciError::Unsupported {
        origin: store.origin().to_owned(),
        what,
        text: text.to_owned(),
    }
}

fn check_digest(store: &Store, what: &str, expected: &str, found: &str) -> Result<(), OciError> {
    if expected.strip_prefix("sha256:").unwrap_or(expected) == found {
        return Ok(());
    }
    Err(OciError::Digest {
        origin: store.origin().to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    })
}

/// The hex digits of `sha256:HEX`.
pub(crate) fn sha256_hex(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == 64 && hex.bytes().all(digit)).then_some(hex)
}

/// What a layer must turn out to be.
pub(super) struct Expected<'a> {
    /// Its name in messages.
    pub(super) what: &'a str,
    /// The digest of the file as it is, if it has one.
    pub(super) digest: Option<&'a str>,
    /// The digest of the plain tar, hex.
    pub(super) diff_id: &'a str,
}

/// Brings a layer into the cache by its diff id, if it is not there, and reads it. Without a compression it is found
/// by the first bytes.
pub(super) fn import_layer(
    store: &Store,
    name: &str,
    compression: Option<Compression>,
    expected: &Expected<'_>,
    cache: &Cache,
    progress: &Progress,
) -> Result<super::layer::LayerTree, OciError> {
    let path = match cache.get(CacheKind::Layer, expected.diff_id) {
        Some(path) => path,
        None => cache.put(CacheKind::Layer, expected.diff_id, |file| {
            let step = progress.step(
                format!("reading layer {}", short(expected.what)),
                Some(store.size(name)?),
            );
            let compression = match compression {
                Some(compression) => compression,
                None => {
                    let mut begin = [0; 6];
                    let len = store
                        .open(name)?
                        .read(&mut begin)
                        .map_err(FileError::of("read", store.origin()))?;
                    Compression::sniff(&begin[..len])
                }
            };
            let passed = decompress(store.open(name)?, compression, file, cache.budget(), &step)
                .map_err(|e| OciError::Document {
                    origin: store.origin().to_owned(),
                    name: format!("layer {}", expected.what),
                    reason: e.to_string(),
                })?;
            if let Some(digest) = expected.digest {
                check_digest(store, expected.what, digest, &passed.sha256)?;
            }
            let what = format!("the content of {}", expected.what);
            check_digest(store, &what, expected.diff_id, &passed.plain_sha256)
        })?,
    };
    read_tar(&path, expected.diff_id, cache).map_err(|source| OciError::Layer {
        origin: store.origin().to_owned(),
        layer: expected.what.to_owned(),
        source: Box::new(source),
    })
}

fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

impl ConfigFile {
    /// The diff ids as hex; an image for another platform is refused.
    pub(super) fn diff_ids(&self, store: &Store) -> Result<Vec<String>, OciError> {
        if self.os != "linux" || self.architecture != "amd64" {
            let platform = format!("{}/{}", self.os, self.architecture);
            return Err(unsupported(store, "the platform", &platform));
        }
        let ids = self.rootfs.diff_ids.as_deref().unwrap_or_default();
        ids.iter()
            .map(|id| {
                let hex = sha256_hex(id).ok_or_else(|| unsupported(store, "the digest", id))?;
                Ok(hex.to_owned())
            })
            .collect()
    }

    /// How the image wants to be run.
    pub(super) fn into_image_config(self) -> ImageConfig {
        let config = self.config.unwrap_or_default();
        let filled = |text: Option<String>| text.filter(|t| !t.is_empty());
        ImageConfig {
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            user: filled(config.user),
            working_dir: filled(config.working_dir),
            stop_signal: filled(config.stop_signal),
            volumes: config.volumes.unwrap_or_default().into_keys().collect(),
            exposed_ports: config
                .exposed_ports
                .unwrap_or_default()
                .into_keys()
                .collect(),
            labels: config.labels.unwrap_or_default(),
            ..ImageConfig::default()
        }
    }
}
