//! What a registry's manifest is: an index of several, or one of an image. Pure.

use serde::Deserialize;

use super::super::oci::{Descriptor, INDEX_TYPES, MANIFEST_TYPES, describe, is_our_platform};
use super::error::{RegistryError, cleaned};

/// How deep indexes may be nested.
pub(super) const INDEX_DEPTH: usize = 4;
/// All that is taken.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest.
#[derive(Debug)]
pub(super) enum Document {
    /// Of several platforms.
    Index(Vec<Descriptor>),
    /// Of an image.
    Manifest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    schema_version: Option<u32>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
}

impl Document {
    /// By its own words. One that could be taken for both is refused (CVE-2021-41190).
    pub(super) fn parse(host: &str, digest: &str, bytes: &[u8]) -> Result<Self, RegistryError> {
        let refuse = |reason: String| RegistryError::Document {
            host: host.to_owned(),
            what: digest.to_owned(),
            reason,
        };
        let shape: Shape =
            serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        let media_type = shape.media_type.as_deref();
        let is = |types: &[&str]| media_type.is_none_or(|text| types.contains(&text));
        match (shape.manifests, shape.config) {
            (Some(manifests), None) if is(INDEX_TYPES) => Ok(Self::Index(manifests)),
            (None, Some(_)) if is(MANIFEST_TYPES) => Ok(Self::Manifest),
            (Some(_), Some(_)) => Err(refuse("it is an index and a manifest at once".to_owned())),
            _ if shape.schema_version == Some(1) => Err(refuse(
                "it is a manifest of schema 1: push the image anew with a tool of this decade"
                    .to_owned(),
            )),
            _ => Err(refuse(format!(
                "{:?} is neither an index nor a manifest of an image",
                cleaned(media_type.unwrap_or_default())
            ))),
        }
    }
}

/// The entry of an index for our platform.
pub(super) fn choose(descriptors: Vec<Descriptor>) -> Result<Descriptor, RegistryError> {
    let platforms = descriptors.iter().map(|d| cleaned(&describe(d))).collect();
    descriptors
        .into_iter()
        .find(is_our_platform)
        .ok_or(RegistryError::Platform { platforms })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTOR: &str = r#"{"digest": "sha256:0", "size": 1}"#;

    #[test]
    fn documents_are_one_thing_only() {
        let parse = |text: String| Document::parse("h", "d", text.as_bytes());
        assert!(matches!(
            parse(format!(r#"{{"manifests": [{DESCRIPTOR}]}}"#)),
            Ok(Document::Index(_))
        ));
        assert!(matches!(
            parse(format!(r#"{{"config": {DESCRIPTOR}, "layers": []}}"#)),
            Ok(Document::Manifest)
        ));
        for (text, want) in [
            (
                format!(r#"{{"manifests": [], "config": {DESCRIPTOR}}}"#),
                "at once",
            ),
            (
                r#"{"schemaVersion": 1, "fsLayers": []}"#.to_owned(),
                "schema 1",
            ),
            (r#"{"mediaType": "x/y"}"#.to_owned(), "neither"),
            (
                format!(
                    r#"{{"mediaType": "application/vnd.oci.image.manifest.v1+json", "manifests": [{DESCRIPTOR}]}}"#
                ),
                "neither",
            ),
            ("[".to_owned(), "EOF"),
        ] {
            let error = parse(text.clone()).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
