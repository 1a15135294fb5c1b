//! A certificate that firmware is to trust: X.509, PEM or DER.
//!
//! Refused: other keys than RSA from 2048 to 4096 bits, signatures of broken hashes, and usages that exclude the signing of
//! code. Whether it has expired is told, not refused: firmware does not look, and a build does not read the clock.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rsa::RsaPublicKey;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use sha2::{Digest as _, Sha256};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode as _, DecodePem as _, Encode as _, oid::AssociatedOid};
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage, KeyUsages};

use super::SecureBootError;

/// `id-kp-codeSigning` and `anyExtendedKeyUsage` (RFC 5280 §4.2.1.12).
const CODE_USAGES: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3"),
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),
];
/// MD2, MD5 and SHA-1 with RSA.
const BROKEN: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.2"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
];
const MAKE_ANOTHER: &str = "make a set with `coracle keys new DIR`, or a certificate of an RSA key of 2048 bits for the signing of code";

/// A certificate of use.
#[derive(Debug, Clone)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
    key: RsaPublicKey,
}

impl Certificate {
    /// Reads a file.
    ///
    /// # Errors
    /// [`SecureBootError::Read`] and [`SecureBootError::Unusable`].
    pub fn read(path: &Path) -> Result<Self, SecureBootError> {
        let bytes = super::key::read_small(path)?;
        let der = match std::str::from_utf8(&bytes) {
            Ok(text) if text.contains("-----BEGIN") => x509_cert::Certificate::from_pem(text)
                .and_then(|certificate| certificate.to_der())
                .map_err(|error| error.to_string()),
            _ => Ok(bytes),
        };
        der.and_then(|der| Self::from_der(&der))
            .map_err(|reason| SecureBootError::Unusable {
                what: path.display().to_string(),
                reason,
                hint: MAKE_ANOTHER,
            })
    }

    /// Judges DER.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let parsed = x509_cert::Certificate::from_der(der)
            .map_err(|error| format!("it is no X.509 certificate ({error})"))?;
        let tbs = &parsed.tbs_certificate;
        let spki = tbs
            .subject_public_key_info
            .to_der()
            .map_err(|e| e.to_string())?;
        let key = RsaPublicKey::from_public_key_der(&spki)
            .map_err(|_| "its key is no RSA key, and firmware knows no other".to_owned())?;
        let bits = key.size() * 8;
        if !(2048..=4096).contains(&bits) {
            return Err(format!(
                "its key is weak or unknown to firmware: RSA of {bits} bits, not 2048 to 4096"
            ));
        }
        if BROKEN.contains(&parsed.signature_algorithm.oid) {
            return Err("it is signed with a broken hash (SHA-1 or older)".to_owned());
        }
        check_usage(&parsed)?;
        if parsed.to_der().ok().as_deref() != Some(der) {
            return Err("its encoding is not DER".to_owned());
        }
        Ok(Self {
            der: der.to_owned(),
            parsed,
            key,
        })
    }

    /// As DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn parsed(&self) -> &x509_cert::Certificate {
        &self.parsed
    }

    /// Its public key.
    pub fn key(&self) -> &RsaPublicKey {
        &self.key
    }

    /// Whom it names.
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate.subject.to_string()
    }

    /// SHA-256 of its DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Its last moment, as text.
    pub fn not_after(&self) -> String {
        self.parsed.tbs_certificate.validity.not_after.to_string()
    }

    /// What `now` makes of it; `None` while it is valid.
    pub fn out_of_time(&self, now: SystemTime) -> Option<String> {
        let validity = &self.parsed.tbs_certificate.validity;
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        if now < validity.not_before.to_unix_duration() {
            return Some(format!("it is valid from {} on only", validity.not_before));
        }
        (now > validity.not_after.to_unix_duration())
            .then(|| format!("it has expired on {}", validity.not_after))
    }
}

/// A certificate without the extensions is for everything (RFC 5280 §4.2.1.3).
fn check_usage(certificate: &x509_cert::Certificate) -> Result<(), String> {
    let extensions = certificate.tbs_certificate.extensions.iter().flatten();
    for extension in extensions {
        let value = extension.extn_value.as_bytes();
        let excludes = if extension.extn_id == KeyUsage::OID {
            let usage = KeyUsage::from_der(value).map_err(|e| e.to_string())?;
            !usage.0.contains(KeyUsages::DigitalSignature)
        } else if extension.extn_id == ExtendedKeyUsage::OID {
            let usage = ExtendedKeyUsage::from_der(value).map_err(|e| e.to_string())?;
            !usage.0.iter().any(|usage| CODE_USAGES.contains(usage))
        } else {
            false
        };
        if excludes {
            return Err("its usage excludes the signing of code".to_owned());
        }
    }
    Ok(())
}
