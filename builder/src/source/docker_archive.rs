//! Container images as `docker save` writes them: a tar with `manifest.json`, the configuration and plain layers.
//!
//! The newer form, which is an OCI layout as well, is read by the same `manifest.json`. Layers are checked by their
//! diff ids, the configuration by its name where that is its digest.

use serde::Deserialize;

use super::blob::digest;
use super::cache::Cache;
use super::image::Image;
use super::oci::{ConfigFile, Expected, JSON_CAP, OciError, import_layer};
use super::store::Store;
use crate::progress::Progress;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Reads the image with a tag (`NAME:TAG` or only `TAG`); without one the only image.
///
/// # Errors
/// [`OciError`].
pub fn load(
    store: &Store,
    tag: Option<&str>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Image, OciError> {
    if is_layout(store) {
        return super::oci::load(store, tag, None, cache, progress);
    }
    let document = |name: &str, reason: String| document(store, name, reason);
    let (entry, config, found) = open(store, tag)?;
    let diff_ids = config.diff_ids(store)?;
    let names = entry.layers.unwrap_or_default();
    if diff_ids.len() != names.len() {
        let reason = format!(
            "it has {} diff ids for {} layers",
            diff_ids.len(),
            names.len()
        );
        return Err(document(&entry.config, reason));
    }
    let mut layers = Vec::new();
    for (name, diff_id) in names.iter().zip(diff_ids) {
        store.size(name)?;
        let expected = Expected {
            what: name,
            digest: None,
            diff_id: &diff_id,
        };
        let layer = import_layer(store, name, None, &expected, cache, progress)?;
        layers.push((diff_id, layer));
    }
    let id = format!("sha256:{found}");
    Ok(Image::assemble(layers, config.into_image_config(), id))
}

/// The digest of the configuration of the image that [`load`] would read: no layer is looked at.
///
/// # Errors
/// [`OciError`].
pub fn identify(store: &Store, tag: Option<&str>) -> Result<String, OciError> {
    if is_layout(store) {
        return super::oci::identify(store, tag);
    }
    Ok(format!("sha256:{}", open(store, tag)?.2))
}

fn is_layout(store: &Store) -> bool {
    !store.has("manifest.json") && store.has("index.json")
}

fn document(store: &Store, name: &str, reason: String) -> OciError {
    OciError::Document {
        origin: store.origin().to_owned(),
        name: name.to_owned(),
        reason,
    }
}

/// The chosen image, its configuration, and the configuration's SHA-256, hex.
fn open(store: &Store, tag: Option<&str>) -> Result<(Entry, ConfigFile, String), OciError> {
    let bytes = store.read("manifest.json", JSON_CAP)?;
    let entries: Vec<Entry> = serde_json::from_slice(&bytes)
        .map_err(|e| document(store, "manifest.json", e.to_string()))?;
    let entry = choose(store, entries, tag)?;
    let bytes = store.read(&entry.config, JSON_CAP)?;
    let (found, _) = digest(&bytes[..]).expect("memory is read without error");
    check_name(store, &entry.config, &found)?;
    let config: ConfigFile = serde_json::from_slice(&bytes)
        .map_err(|e| document(store, &entry.config, e.to_string()))?;
    Ok((entry, config, found))
}

fn choose(store: &Store, entries: Vec<Entry>, tag: Option<&str>) -> Result<Entry, OciError> {
    let tags: Vec<String> = entries
        .iter()
        .flat_map(|e| e.repo_tags.clone().unwrap_or_default())
        .collect();
    let count = entries.len();
    let matches = |entry: &Entry| match tag {
        None => count == 1,
        Some(tag) => {
            let mut names = entry.repo_tags.iter().flatten();
            names.any(|n| n == tag || n.rsplit_once(':').is_some_and(|(_, t)| t == tag))
        }
    };
    let mut found = entries.into_iter().filter(matches);
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry),
        (first, _) => Err(OciError::Tag {
            origin: store.origin().to_owned(),
            problem: match (tag, first) {
                (Some(tag), None) => format!("it has no image with the tag {tag:?}"),
                (None, None) if count == 0 => "it has no image".to_owned(),
                _ => "it has several images, so say which (FILE:NAME:TAG)".to_owned(),
            },
            tags,
        }),
    }
}

/// The configuration is named by its digest (`HEX.json`, `blobs/sha256/HEX`), if by any.
fn check_name(store: &Store, name: &str, found: &str) -> Result<(), OciError> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let stem = base.strip_suffix(".json").unwrap_or(base);
    let is_digest = stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_digest || stem == found {
        return Ok(());
    }
    Err(OciError::Digest {
        origin: store.origin().to_owned(),
        what: name.to_owned(),
        expected: stem.to_owned(),
        found: found.to_owned(),
    })
}
