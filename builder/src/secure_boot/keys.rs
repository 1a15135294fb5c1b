//! A new set of keys: the platform key, the key exchange key and the key that signs images, each with a certificate and
//! with the update that brings it into a firmware.
//!
//! Nothing is overwritten: if one file of the set is there, none is written. Key files are their owner's alone.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use rsa::pkcs1v15::{Signature, SigningKey};
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use rsa::rand_core::OsRng;
use rsa::sha2::Sha256;
use uuid::Uuid;
use x509_cert::builder::{Builder as _, CertificateBuilder, Profile};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{DateTime, Encode as _, EncodePem as _};
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Validity;

use super::variables::{self, Variable};
use super::{Certificate, RsaPrivateKey, SecureBootError};
use crate::format::uuid_from_digest;

/// Firmware keeps certificates for the life of a machine.
const VALIDITY: Duration = Duration::from_secs(25 * 365 * 86_400);
/// Clocks differ.
const BACKDATED: Duration = Duration::from_secs(86_400);
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");

/// What is to be made.
#[derive(Debug, Clone)]
pub struct NewKeys {
    /// Whose keys they are: the certificates' names begin with it.
    pub owner: String,
    /// The length of each key.
    pub bits: usize,
    /// When they are made.
    pub now: SystemTime,
}

struct Pair {
    variable: Variable,
    key: RsaPrivateKey,
    certificate: Certificate,
}

/// A set in memory.
pub struct KeySet {
    platform: Pair,
    exchange: Pair,
    allowed: Pair,
    time: DateTime,
}

impl KeySet {
    /// Makes three keys.
    ///
    /// # Errors
    /// [`SecureBootError`], if the owner's name goes into no certificate.
    pub fn generate(new: &NewKeys) -> Result<Self, SecureBootError> {
        let pair = |variable, what: &str| -> Result<Pair, SecureBootError> {
            let key = RsaPrivateKey::new(&mut OsRng, new.bits)?;
            let certificate = certificate(&key, &format!("{} {what}", new.owner), new.now)?;
            Ok(Pair {
                variable,
                key,
                certificate,
            })
        };
        let seconds = new
            .now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Ok(Self {
            platform: pair(Variable::PlatformKey, "platform key")?,
            exchange: pair(Variable::KeyExchangeKeys, "key exchange key")?,
            allowed: pair(Variable::Allowed, "image signing key")?,
            time: DateTime::from_unix_duration(Duration::from_secs(seconds))?,
        })
    }

    /// The files by name; the flag marks those that are secret.
    fn files(&self) -> Result<Vec<(String, Vec<u8>, bool)>, SecureBootError> {
        // A list says who put a certificate there. Nobody evaluates it; that it follows from the platform key makes it
        // the same in all lists of a set.
        let owner: Uuid = uuid_from_digest(&self.platform.certificate.fingerprint());
        let mut files = Vec::new();
        for (pair, by) in [
            (&self.platform, &self.platform),
            (&self.exchange, &self.platform),
            (&self.allowed, &self.exchange),
        ] {
            let name = pair.variable.name();
            let list = variables::signature_list(&pair.certificate, owner);
            let update = variables::signed_update(
                pair.variable,
                &list,
                self.time,
                &by.key,
                &by.certificate,
            )?;
            let key = pair
                .key
                .to_pkcs8_pem(LineEnding::LF)
                .map_err(|error| SecureBootError::Builder(error.to_string()))?;
            let pem = pair.certificate.parsed().to_pem(LineEnding::LF)?;
            files.push((format!("{name}.key"), key.as_bytes().to_vec(), true));
            files.push((format!("{name}.pem"), pem.into_bytes(), false));
            files.push((
                format!("{name}.der"),
                pair.certificate.der().to_vec(),
                false,
            ));
            files.push((format!("{name}.esl"), list, false));
            files.push((format!("{name}.auth"), update, false));
        }
        Ok(files)
    }

    /// Writes the set into a folder, which is made if it is absent.
    ///
    /// # Errors
    /// [`SecureBootError::Write`]; where a file of the set is there already, nothing was written.
    pub fn write(&self, folder: &Path) -> Result<(), SecureBootError> {
        let files = self.files()?;
        let fail = |path: &Path, source| SecureBootError::Write {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(|error| fail(folder, error))?;
        for (name, ..) in &files {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() {
                return Err(fail(
                    &path,
                    std::io::Error::other("it is there already, and keys are never overwritten"),
                ));
            }
        }
        for (name, bytes, secret) in &files {
            let path = folder.join(name);
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(if *secret { 0o600 } else { 0o644 })
                .open(&path)
                .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
                .map_err(|error| fail(&path, error))?;
        }
        Ok(())
    }
}

/// A certificate of the key by itself, for the signing of code.
fn certificate(
    key: &RsaPrivateKey,
    name: &str,
    now: SystemTime,
) -> Result<Certificate, SecureBootError> {
    let builder = |error: &dyn std::fmt::Display| SecureBootError::Builder(error.to_string());
    let signer = SigningKey::<Sha256>::new(key.clone());
    let public =
        SubjectPublicKeyInfoOwned::from_key(key.to_public_key()).map_err(|e| builder(&e))?;
    // A serial number that follows from the key is as good as a random one, and positive with a first byte below 128.
    let digest = <sha2::Sha256 as sha2::Digest>::digest(public.to_der()?);
    let mut serial = digest[..16].to_vec();
    serial[0] = serial[0] & 0x7f | 0x40;
    let validity = Validity {
        not_before: (now - BACKDATED).try_into()?,
        not_after: (now + VALIDITY).try_into()?,
    };
    let subject = Name::from_str(&format!("CN={name}"))?;
    // Its issuer is itself; usage and constraints are those of one that certifies nothing.
    let profile = Profile::Leaf {
        issuer: subject.clone(),
        enable_key_agreement: false,
        enable_key_encipherment: false,
    };
    let mut certificate = CertificateBuilder::new(
        profile,
        SerialNumber::new(&serial)?,
        validity,
        subject,
        public,
        &signer,
    )
    .map_err(|e| builder(&e))?;
    certificate
        .add_extension(&ExtendedKeyUsage(vec![CODE_SIGNING]))
        .map_err(|e| builder(&e))?;
    let built = certificate.build::<Signature>().map_err(|e| builder(&e))?;
    Certificate::from_der(&built.to_der()?).map_err(|reason| builder(&reason))
}
