//! Secure Boot (UEFI specification §32): who signs what firmware is to start, and what a firmware needs to trust it.
//!
//! `certificate` and `key` read what the user has and say what is wrong with it; `signer` makes a signature with a key of
//! its own or asks a command for one; `signed_data` wraps it as firmware reads it (PKCS #7); `variables` are the lists of
//! trusted certificates, and the updates that put them into a firmware; `keys` makes a set of all of it.
//!
//! RSA with PKCS #1 v1.5 and SHA-256 only: each firmware knows it, and the same key and image give the same bytes. Nothing
//! but `keys` draws random numbers that show, or reads the clock.

mod certificate;
mod key;
mod keys;
mod signed_data;
mod signer;
pub mod variables;

use std::path::PathBuf;

pub use certificate::Certificate;
pub use key::{RsaPrivateKey, read as read_key};
pub use keys::{KeySet, NewKeys};
pub use signer::{SignCommand, Signer};

use crate::format::pe::authenticode;
use crate::format::pe::{self, PeError};

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SecureBootError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate that is none, or none of use. The text is the reason.
    #[error("{what}: {reason}")]
    Unusable {
        /// The file.
        what: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Key and certificate are of different pairs.
    #[error("the key does not belong to the certificate of {subject}")]
    Mismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// The command that signs.
    #[error("sign_command `{command}` {reason}")]
    Command {
        /// Its program.
        command: String,
        /// What went wrong.
        reason: String,
    },
    /// The image.
    #[error("cannot sign the image")]
    Pe(#[from] PeError),
    /// An encoding that cannot be made; never the user's doing.
    #[error("cannot encode a signature")]
    Encoding(#[from] cms::cert::x509::der::Error),
    /// A key cannot be made.
    #[error("cannot make a key")]
    Rsa(#[from] rsa::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Builder(String),
}

impl SecureBootError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unusable { hint, .. } => Some((*hint).to_owned()),
            Self::Mismatch { .. } => Some(
                "a key and its certificate are made together, as by `coracle keys new`: db.key and db.pem".to_owned(),
            ),
            Self::Command { .. } => Some(
                "it gets a SHA-256 digest of 32 bytes on standard input and writes the bare signature (RSA, PKCS #1 v1.5) to standard output"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// What signs an image.
#[derive(Debug)]
pub struct Signing {
    /// Makes the signatures.
    pub signer: Signer,
    /// What they are checked against.
    pub certificate: Certificate,
}

impl Signing {
    /// Signs a PE image. `what` is told to a signing command.
    ///
    /// # Errors
    /// [`SecureBootError`]; a signature that does not fit the certificate is none.
    pub fn sign(&self, what: &str, mut image: Vec<u8>) -> Result<Vec<u8>, SecureBootError> {
        let digest = authenticode::digest(&image)?;
        let signature = signed_data::of_image(&digest, &self.certificate, |digest| {
            self.signer.sign(what, digest, &self.certificate)
        })?;
        authenticode::attach(&mut image, &signature)?;
        Ok(image)
    }
}

/// A signature of an image.
#[derive(Debug, Clone)]
pub struct ImageSignature {
    /// Whose it is.
    pub certificate: Certificate,
    /// Whether it fits the image.
    pub fits: bool,
}

/// The signatures of a PE image that can be read, each held against the image.
///
/// # Errors
/// [`PeError`], if the image is none.
pub fn signatures(image: &[u8]) -> Result<Vec<ImageSignature>, pe::PeError> {
    let found = authenticode::signatures(image)?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let digest = authenticode::digest(image)?;
    Ok(found
        .into_iter()
        .filter_map(|signature| signed_data::judge(signature, &digest))
        .collect())
}

#[cfg(test)]
mod tests;
