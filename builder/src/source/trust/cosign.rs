//! Signatures in cosign's format, by key: a payload ("simple signing", as containers/image specifies it for atomic
//! signatures) that names an image and its digest, and a signature of that payload by ECDSA P-256, RSA (PKCS #1 v1.5) or
//! Ed25519, over SHA-256 for the first two.
//!
//! Pure. Certificates, transparency logs and the newer bundles are not read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Verifier;
use p256::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::identity::hex;

/// The fewest bits of an RSA key.
const LEAST_RSA_BITS: usize = 2048;
/// What a payload says that it is.
const PAYLOAD_TYPE: &str = "cosign container image signature";
/// More signatures than this are not looked at.
const SIGNATURE_CAP: usize = 256;

/// A signature as a registry or a layout holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignSignature {
    /// What is signed.
    pub payload: Vec<u8>,
    /// The signature in Base64, as the annotation `dev.cosignproject.cosign/signature` has it.
    pub signature: String,
}

/// A public key.
#[derive(Debug, Clone)]
pub struct CosignKey {
    algorithm: Algorithm,
    /// `sha256:` and the hex digits of the SHA-256 of its DER form.
    id: String,
}

#[derive(Debug, Clone)]
enum Algorithm {
    P256(p256::ecdsa::VerifyingKey),
    Rsa(rsa::pkcs1v15::VerifyingKey<Sha256>),
    Ed25519(ed25519_dalek::VerifyingKey),
}

#[derive(Debug, Deserialize)]
struct Payload {
    critical: Critical,
}

// What is critical and not understood makes a signature void.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

impl CosignKey {
    /// Reads a public key in PEM (RFC 7468, `PUBLIC KEY`).
    ///
    /// # Errors
    /// It is none, of another algorithm, or too short.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(pem).map_err(|_| "it is no public key in PEM".to_owned())?;
        if text.contains("PRIVATE KEY") {
            return Err(
                "it is a private key: keep it away from here, and name the public one".to_owned(),
            );
        }
        if text.matches("-----BEGIN ").count() > 1 {
            return Err("it has several keys: a file each".to_owned());
        }
        let der = rsa::pkcs8::Document::from_pem(text)
            .ok()
            .filter(|(label, _)| *label == "PUBLIC KEY")
            .map(|(_, der)| der)
            .ok_or_else(|| "it is no public key in PEM (-----BEGIN PUBLIC KEY-----)".to_owned())?;
        let der = der.as_bytes();
        Ok(Self {
            algorithm: Algorithm::parse(der)?,
            id: format!("sha256:{}", hex(&Sha256::digest(der))),
        })
    }

    fn holds(&self, payload: &[u8], signature: &[u8]) -> bool {
        match &self.algorithm {
            Algorithm::P256(key) => p256::ecdsa::DerSignature::try_from(signature)
                .is_ok_and(|signature| key.verify(payload, &signature).is_ok()),
            Algorithm::Rsa(key) => rsa::pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(payload, &signature).is_ok()),
            Algorithm::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(payload, &signature).is_ok()),
        }
    }
}

impl Algorithm {
    fn parse(der: &[u8]) -> Result<Self, String> {
        if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_der(der) {
            return Ok(Self::P256(key));
        }
        if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_der(der) {
            return Ok(Self::Ed25519(key));
        }
        let Ok(key) = rsa::RsaPublicKey::from_public_key_der(der) else {
            return Err("its algorithm is none of ECDSA P-256, RSA and Ed25519".to_owned());
        };
        let bits = key.n().bits();
        if bits < LEAST_RSA_BITS {
            return Err(format!(
                "its RSA key has {bits} bits: {LEAST_RSA_BITS} are the least"
            ));
        }
        Ok(Self::Rsa(rsa::pkcs1v15::VerifyingKey::new(key)))
    }
}

/// Finds a signature by one of the keys for the image `name` with one of `digests`; tells the key.
///
/// # Errors
/// Why none holds: the nearest miss.
pub fn verify(
    keys: &[CosignKey],
    name: &str,
    digests: &[String],
    signatures: &[CosignSignature],
) -> Result<String, String> {
    if signatures.is_empty() {
        return Err("it is not signed".to_owned());
    }
    let mut miss = "none of its signatures is by a key of the policy".to_owned();
    for signature in signatures.iter().take(SIGNATURE_CAP) {
        let Ok(bytes) = STANDARD.decode(signature.signature.trim()) else {
            continue;
        };
        let Some(key) = keys
            .iter()
            .find(|key| key.holds(&signature.payload, &bytes))
        else {
            continue;
        };
        match check_payload(&signature.payload, name, digests) {
            Ok(()) => return Ok(key.id.clone()),
            Err(reason) => miss = reason,
        }
    }
    Err(miss)
}

/// Whether what a key has signed is this image.
fn check_payload(bytes: &[u8], name: &str, digests: &[String]) -> Result<(), String> {
    let payload: Payload = serde_json::from_slice(bytes)
        .map_err(|error| format!("its signature's payload is not as it should be: {error}"))?;
    let Critical {
        identity,
        image,
        kind,
    } = payload.critical;
    if kind != PAYLOAD_TYPE {
        return Err(format!("its signature is of the type {kind:?}"));
    }
    if !digests.contains(&image.docker_manifest_digest) {
        return Err(format!(
            "its signature is for {}, not for {}",
            image.docker_manifest_digest,
            digests.join(" or ")
        ));
    }
    let signed = config::trust::subject(&identity.docker_reference);
    if canonical(signed) != canonical(name) {
        return Err(format!("its signature is for {signed:?}, not for {name:?}"));
    }
    Ok(())
}

/// Docker's registry has two names.
fn canonical(name: &str) -> String {
    match name.strip_prefix("index.docker.io/") {
        Some(rest) => format!("docker.io/{rest}"),
        None => name.to_owned(),
    }
}
