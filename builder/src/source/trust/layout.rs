//! Signatures in cosign's format that an OCI image layout holds: as `cosign save` writes them, and as a copy of a
//! registry's tag `sha256-DIGEST.sig` has them.
//!
//! What an index says of an image is only believed once a signature of that digest holds.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::KEY_CAP;
use super::cosign::CosignSignature;
use crate::source::oci::{JSON_CAP, is_attachment, sha256_hex};
use crate::source::store::Store;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    fn annotation(&self, key: &str) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(key)?.as_str())
    }
}

/// The digest of the layout's image with a tag (of its index, where it has one), and what signatures the layout holds.
///
/// # Errors
/// It has not exactly one such image, or a document is broken.
pub(super) fn signatures(
    store: &Store,
    tag: Option<&str>,
) -> Result<(String, Vec<CosignSignature>), String> {
    let index: Index = json(store, "index.json", JSON_CAP)?;
    let (attached, images): (Vec<Descriptor>, Vec<Descriptor>) = index
        .manifests
        .into_iter()
        .partition(|entry| is_attachment(entry.annotations.as_ref()));
    let named = |entry: &&Descriptor| tag.is_none_or(|tag| entry.annotation(REF_NAME) == Some(tag));
    let mut candidates = images.iter().filter(named);
    let (Some(image), None) = (candidates.next(), candidates.next()) else {
        return Err(
            "the layout has not exactly one such image, so say which (oci:DIR:TAG)".to_owned(),
        );
    };
    let mut found = Vec::new();
    for entry in attached {
        let manifest: Manifest = json(store, &blob(&entry)?, JSON_CAP)?;
        for layer in manifest.layers {
            let signature = layer.annotation(SIGNATURE).map(str::to_owned);
            let Some(signature) = signature.filter(|_| layer.media_type == PAYLOAD_TYPE) else {
                continue;
            };
            let payload = store
                .read(&blob(&layer)?, KEY_CAP)
                .map_err(|e| e.to_string())?;
            found.push(CosignSignature { payload, signature });
        }
    }
    Ok((image.digest.clone(), found))
}

fn blob(entry: &Descriptor) -> Result<String, String> {
    let hex = sha256_hex(&entry.digest)
        .ok_or_else(|| format!("the digest {:?} is not supported", entry.digest))?;
    Ok(format!("blobs/sha256/{hex}"))
}

fn json<T: DeserializeOwned>(store: &Store, name: &str, cap: u64) -> Result<T, String> {
    let bytes = store.read(name, cap).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{name}: {error}"))
}
