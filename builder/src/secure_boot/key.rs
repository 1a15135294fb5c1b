//! A private key on the disk: RSA, PKCS #8 or PKCS #1, PEM or DER.
//!
//! Refused: keys under a passphrase. A build asks nobody, and a passphrase beside the key protects nothing; who has one
//! wants `sign_command`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

pub use rsa::RsaPrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePrivateKey as _;

use super::SecureBootError;

/// Far more than any key or certificate has.
const CAP: u64 = 1 << 20;

/// Reads a key.
///
/// # Errors
/// [`SecureBootError::Read`] and [`SecureBootError::Unusable`].
pub fn read(path: &Path) -> Result<RsaPrivateKey, SecureBootError> {
    let bytes = read_small(path)?;
    parse(&bytes).map_err(|(reason, hint)| SecureBootError::Unusable {
        what: path.display().to_string(),
        reason: reason.to_owned(),
        hint,
    })
}

fn parse(bytes: &[u8]) -> Result<RsaPrivateKey, (&'static str, &'static str)> {
    const MAKE: &str = "make a set with `coracle keys new DIR`: db.key is the key for `key`";
    const EC: (&str, &str) = ("it is no RSA key, and firmware knows no other", MAKE);
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("ENCRYPTED\n") {
        return Err((
            "it is protected by a passphrase, which nobody can give to a build",
            "let a program that has the passphrase sign, by sign_command; or take it off: openssl pkey -in KEY -out db.key",
        ));
    }
    if text.contains("BEGIN EC PRIVATE KEY") || text.contains("BEGIN OPENSSH PRIVATE KEY") {
        return Err(EC);
    }
    if text.contains("-----BEGIN") && !text.contains("PRIVATE KEY") {
        return Err(("it holds no private key", MAKE));
    }
    let key = if text.contains("-----BEGIN") {
        RsaPrivateKey::from_pkcs8_pem(text)
            .ok()
            .or_else(|| RsaPrivateKey::from_pkcs1_pem(text).ok())
    } else {
        RsaPrivateKey::from_pkcs8_der(bytes)
            .ok()
            .or_else(|| RsaPrivateKey::from_pkcs1_der(bytes).ok())
    };
    key.ok_or(("it is no RSA key in PEM or DER (PKCS #8 or PKCS #1)", MAKE))
}

/// The bytes of a file that is no device and not huge.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, SecureBootError> {
    let fail = |source| SecureBootError::Read {
        path: path.to_owned(),
        source,
    };
    // Opening a FIFO would wait for somebody to write to it.
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(fail(std::io::Error::other("it is no regular file")));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CAP).read_to_end(&mut bytes))
        .map_err(fail)?;
    Ok(bytes)
}
