//! Where cosign keeps the signatures of an image: beside it, under the tag `sha256-HEX.sig` (cosign's "Signature
//! Specification"). They are fetched here and judged elsewhere; so what comes needs no trust, only bounds.

use std::collections::BTreeMap;

use config::registry::Reference;
use serde::Deserialize;

use super::super::oci::{Descriptor, sha256_hex};
use super::super::trust::cosign::CosignSignature;
use super::client::{Ask, Repository};
use super::error::RegistryError;
use super::{MANIFEST_CAP, Registries, manifest, wanted};
use crate::progress::Progress;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The most bytes of what is signed: a small JSON.
const PAYLOAD_CAP: u64 = 256 << 10;
/// The most signatures of an image that are looked at.
const SIGNATURES: usize = 64;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(flatten)]
    descriptor: Descriptor,
    annotations: Option<BTreeMap<String, String>>,
}

impl Registries<'_> {
    /// The signatures that lie beside the image with a digest (`sha256:HEX`), of an index or a manifest; none if there
    /// are none. They are kept for builds without a network.
    ///
    /// # Errors
    /// [`RegistryError`]: also where it cannot be known whether there are any.
    pub fn signatures(
        &self,
        reference: &Reference,
        digest: &str,
    ) -> Result<Vec<CosignSignature>, RegistryError> {
        let repository = self.repository(reference);
        let hex = wanted(&repository, digest, 0)?.hex;
        let key = super::sha256(format!("{} {hex}", reference.name()).as_bytes());
        let bytes = match self.signature_manifest(&repository, &hex) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Vec::new()),
            Err(error @ RegistryError::Offline { .. }) => {
                let kept = self.cache.get(super::CacheKind::Signatures, &key);
                let bytes = kept.and_then(|path| std::fs::read(path).ok());
                bytes.ok_or(error)?
            }
            Err(error) => return Err(error),
        };
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| RegistryError::Document {
                host: repository.host().to_owned(),
                what: format!("the signatures of {digest}"),
                reason: error.to_string(),
            })?;
        let mut found = Vec::new();
        for layer in manifest.layers.into_iter().take(SIGNATURES) {
            found.extend(self.signature(&repository, layer)?);
        }
        self.cache.put(super::CacheKind::Signatures, &key, |file| {
            let path = std::path::Path::new("signatures");
            let written = std::io::Write::write_all(file, &bytes);
            written.map_err(super::super::error::FileError::of("write", path))?;
            Ok::<_, RegistryError>(())
        })?;
        Ok(found)
    }

    fn signature_manifest(
        &self,
        repository: &Repository<'_>,
        hex: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = format!("manifests/sha256-{hex}.sig");
        let ask = Ask {
            path: &path,
            accept: manifest::ACCEPT,
            from: 0,
        };
        let answer = repository.insist(|_| repository.ask(ask)?.read("signatures", MANIFEST_CAP));
        match answer {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn signature(
        &self,
        repository: &Repository<'_>,
        layer: Layer,
    ) -> Result<Option<CosignSignature>, RegistryError> {
        let annotations = layer.annotations.unwrap_or_default();
        let fits =
            layer.descriptor.size <= PAYLOAD_CAP && sha256_hex(&layer.descriptor.digest).is_some();
        let Some(signature) = annotations.get(SIGNATURE).filter(|_| fits) else {
            return Ok(None);
        };
        let payload = wanted(repository, &layer.descriptor.digest, layer.descriptor.size)?;
        let step = Progress::silent().step("", None);
        let path = super::download::fetch(repository, &payload, self.cache, &step)?;
        let read = super::super::error::FileError::of("read", &path);
        Ok(Some(CosignSignature {
            payload: std::fs::read(&path).map_err(read)?,
            signature: signature.clone(),
        }))
    }
}
