//! Whether an image is signed as the machine's file asks (`[trust]`).
//!
//! It decides before anything of an image is unpacked. Two kinds of signatures count: OpenPGP's, detached, beside an
//! image's file (`FILE.asc` or `FILE.sig`), and cosign's by key (its "simple signing" payload), which a registry or a
//! layout holds. No signature is fetched here, and no key is looked for anywhere but in the files that the policy
//! names.

pub mod cosign;
mod layout;
pub mod openpgp;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config::trust::{Ruling, Trust, TrustPolicy, is_local, subject};
use sha2::{Digest as _, Sha256};

use self::cosign::{CosignKey, CosignSignature};
use self::openpgp::Certificate;
use super::error::FileError;
use super::store::Store;
use crate::identity::hex;

/// Most bytes of a file of keys or signatures.
const KEY_CAP: u64 = 1 << 20;

/// Why an image is not trusted.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TrustError {
    /// What is wrong, naming the image and the policy.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

/// Who signed an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The policy that asked for the signature.
    pub policy: String,
    /// How it is signed, `OpenPGP` or `cosign`.
    pub kind: &'static str,
    /// What identifies the key: an OpenPGP fingerprint, or `sha256:` of a public key's DER.
    pub key: String,
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "signed ({}) by {}, as policy {} asks",
            self.kind, self.key, self.policy
        )
    }
}

/// What was found of an image in files, and what it must be read from for that to be true of it.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Who signed it.
    pub signers: Vec<Signer>,
    /// Its files, each with the SHA-256 (hex) of the bytes whose signature holds; without one, none was asked for.
    pub(super) files: Vec<(PathBuf, Option<String>)>,
    /// Of a layout, the digest of the entry of its index that is signed.
    pub(super) entry: Option<String>,
}

/// What a policy asks of an image, with its keys read.
#[derive(Debug)]
pub struct Requirement {
    policy: String,
    cosign: Vec<CosignKey>,
    openpgp: Vec<Certificate>,
    signed_as: Option<String>,
}

/// What is asked of the image that a reference names, with the keys that count; `None`: nothing. Paths start at `base`.
///
/// # Errors
/// No policy accepts it, or the keys cannot be read.
pub fn requirement(
    trust: &Trust,
    reference: &str,
    base: &Path,
) -> Result<Option<Requirement>, TrustError> {
    match trust.ruling(reference) {
        Ruling::Accept => Ok(None),
        Ruling::Refuse => Err(TrustError {
            reason: format!(
                "image {reference:?}: no policy of [trust] is for it, and `default` is to refuse"
            ),
            hint: format!(
                "add a policy: [trust.policy.NAME] with images = [{:?}] and the keys that sign it",
                subject(reference)
            ),
        }),
        Ruling::Signed(policy) => Requirement::new(policy, base).map(Some),
    }
}

/// Checks the files that a local reference names as far as a policy asks for it: each file of an App Container image by
/// the policy of its own. Tells who signed them, and which bytes.
///
/// # Errors
/// [`TrustError`].
pub fn check_local(trust: &Trust, reference: &str, base: &Path) -> Result<Checked, TrustError> {
    let (transport, rest) = reference.split_once(':').unwrap_or((reference, ""));
    let mut checked = Checked::default();
    if transport == "aci" {
        for (name, path) in super::split_files(base, rest) {
            // As the file would be named by itself.
            let reference = format!("aci:{name}");
            let mut sha256 = None;
            if let Some(asked) = requirement(trust, &reference, base)? {
                let (signer, signed) = asked.check_file(&reference, &path)?;
                checked.signers.push(signer);
                sha256 = Some(signed);
            }
            checked.files.push((path, sha256));
        }
        return Ok(checked);
    }
    let Some(asked) = requirement(trust, reference, base)? else {
        return Ok(checked);
    };
    let located = super::split_tag(base, rest);
    match (transport, located) {
        ("oci-archive" | "docker-archive", Ok((path, _))) => {
            let (signer, signed) = asked.check_file(reference, &path)?;
            checked.signers.push(signer);
            checked.files.push((path, Some(signed)));
        }
        ("oci", Ok((path, tag))) => {
            let (signer, entry) = asked.check_layout(reference, &path, tag.as_deref())?;
            checked.signers.push(signer);
            checked.entry = Some(entry);
        }
        _ => return Err(asked.refuse(reference, "nothing can sign it where it lies")),
    }
    Ok(checked)
}

impl Requirement {
    /// Reads the policy's keys.
    ///
    /// # Errors
    /// A file is missing, or has no key that can be trusted today.
    pub fn new(policy: &TrustPolicy, base: &Path) -> Result<Self, TrustError> {
        let name = policy.name.get_ref();
        let wrong = |file: &str, reason: String| TrustError {
            reason: format!("policy {name}: {file}: {reason}"),
            hint: format!("let [trust.policy.{name}] name files of public keys"),
        };
        let mut cosign = Vec::new();
        for file in &policy.cosign_keys {
            let file = file.get_ref();
            let bytes = read_capped(&base.join(file)).map_err(|e| wrong(file, e.to_string()))?;
            cosign.push(CosignKey::parse(&bytes).map_err(|reason| wrong(file, reason))?);
        }
        let mut openpgp = Vec::new();
        for file in &policy.openpgp_keys {
            let file = file.get_ref();
            let bytes = read_capped(&base.join(file)).map_err(|e| wrong(file, e.to_string()))?;
            openpgp.extend(openpgp::parse(&bytes).map_err(|reason| wrong(file, reason))?);
        }
        Ok(Self {
            policy: name.clone(),
            cosign,
            openpgp,
            signed_as: policy.signed_as.clone(),
        })
    }

    /// Checks the detached OpenPGP signatures beside a file. With the signer comes the SHA-256 of what is signed, hex:
    /// the file may be another one the next time.
    ///
    /// # Errors
    /// There is none that holds.
    fn check_file(&self, reference: &str, path: &Path) -> Result<(Signer, String), TrustError> {
        if self.openpgp.is_empty() {
            return Err(self.refuse(
                reference,
                "a file is signed by OpenPGP, and the policy has no openpgp_keys",
            ));
        }
        let beside = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let found = [".asc", ".sig"]
            .map(beside)
            .into_iter()
            .find(|path| path.exists());
        let Some(found) = found else {
            let name = path.file_name().unwrap_or_default().display();
            return Err(self.refuse(
                reference,
                format!("it is not signed: there is no {name}.asc beside it"),
            ));
        };
        let signatures = read_capped(&found).map_err(|e| self.refuse(reference, e.to_string()))?;
        // The last look is the one at which a signature held.
        let hash = RefCell::new(Sha256::new());
        let open = || {
            hash.replace(Sha256::new());
            File::open(path).map(|file| Hashed { file, hash: &hash })
        };
        let key = openpgp::verify(&self.openpgp, &signatures, open, now())
            .map_err(|reason| self.refuse(reference, format!("{}: {reason}", found.display())))?;
        let signed = hex(&hash.into_inner().finalize());
        Ok((self.signer("OpenPGP", key), signed))
    }

    /// Checks the signatures in cosign's format that a layout holds. With the signer comes the digest that is signed.
    ///
    /// # Errors
    /// There is none that holds.
    fn check_layout(
        &self,
        reference: &str,
        path: &Path,
        tag: Option<&str>,
    ) -> Result<(Signer, String), TrustError> {
        if self.signed_as.is_none() && !self.cosign.is_empty() {
            return Err(self.refuse(
                reference,
                "a layout has no name of its own, so the policy needs `signed_as`",
            ));
        }
        let (digest, signatures) = layout::signatures(&Store::directory(path), tag)
            .map_err(|reason| self.refuse(reference, reason))?;
        let digests = [digest];
        let signer = self.check_cosign(reference, &digests, &signatures)?;
        let [digest] = digests;
        Ok((signer, digest))
    }

    /// Checks signatures in cosign's format of an image that has been found by one of the digests (`sha256:…`): that of
    /// its index, of its manifest.
    ///
    /// # Errors
    /// None of them is by a key of the policy, for one of the digests, and for the reference's name or `signed_as`.
    pub fn check_cosign(
        &self,
        reference: &str,
        digests: &[String],
        signatures: &[CosignSignature],
    ) -> Result<Signer, TrustError> {
        if self.cosign.is_empty() {
            return Err(self.refuse(
                reference,
                "only cosign's signatures go with it, and the policy has no cosign_keys",
            ));
        }
        let name = self
            .signed_as
            .as_deref()
            .unwrap_or_else(|| subject(reference));
        let key = cosign::verify(&self.cosign, name, digests, signatures)
            .map_err(|reason| self.refuse(reference, reason))?;
        Ok(self.signer("cosign", key))
    }

    fn signer(&self, kind: &'static str, key: String) -> Signer {
        Signer {
            policy: self.policy.clone(),
            kind,
            key,
        }
    }

    fn refuse(&self, reference: &str, reason: impl std::fmt::Display) -> TrustError {
        let how = match (is_local(reference), self.openpgp.is_empty()) {
            (true, false) => "let one of its keys sign it: gpg --armor --detach-sign FILE",
            _ => "let one of its keys sign it: cosign sign --key KEY NAME@DIGEST",
        };
        TrustError {
            reason: format!(
                "image {reference:?} is refused by policy {}: {reason}",
                self.policy
            ),
            hint: format!("{how}; or change [trust.policy.{}]", self.policy),
        }
    }
}

/// A file that is hashed as it is read.
struct Hashed<'a> {
    file: File,
    hash: &'a RefCell<Sha256>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buffer)?;
        self.hash.borrow_mut().update(&buffer[..len]);
        Ok(len)
    }
}

/// Seconds since 1970, for what expires: the one place of a build that looks at the clock, and only to refuse.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
}

fn read_capped(path: &Path) -> Result<Vec<u8>, anyhow::Error> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(KEY_CAP + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > KEY_CAP {
            return Err(io::Error::other("it is longer than 1 MiB"));
        }
        Ok(bytes)
    };
    read().map_err(|error| {
        let error = anyhow::Error::new(FileError::of("read", path)(error));
        anyhow::anyhow!("{error:#}")
    })
}
