//! Detached OpenPGP signatures (RFC 9580): whether one of a policy's certificates made one, and may have.
//!
//! Strict: a signature counts if it is of binary data, by a strong hash, not of the future and not expired, and if its
//! key was meant to sign, is bound to its certificate in both directions, and neither key nor certificate is expired,
//! revoked or weak now. Refused: MD5, SHA-1, RIPEMD and SHA-224, DSA and ElGamal, RSA below 2048 bits, versions of
//! signatures before 4, critical parts that are not understood. A certificate counts as it is in the policy's file:
//! renewals and revocations elsewhere are not looked for.

use std::io::{self, BufReader, Read};

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SignatureVersion, SubpacketData};
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};
use rsa::traits::PublicKeyParts;

/// The fewest bits of an RSA key.
const LEAST_RSA_BITS: usize = 2048;
/// More signatures than this are not looked at: each costs a look at the whole file.
const SIGNATURE_CAP: usize = 16;
/// How far another's clock may be ahead, in seconds.
const CLOCK_TOLERANCE: u32 = 300;

/// A certificate: a primary key with its users and subkeys.
#[derive(Debug, Clone)]
pub struct Certificate(SignedPublicKey);

/// Reads certificates, armored or binary.
///
/// # Errors
/// There is none, or one is broken.
pub fn parse(bytes: &[u8]) -> Result<Vec<Certificate>, String> {
    if bytes.windows(19).any(|part| part == b"PGP PRIVATE KEY BLO") {
        return Err(
            "it is a private key: keep it away from here, and name the public one".to_owned(),
        );
    }
    let (certificates, _) = SignedPublicKey::from_reader_many(bytes)
        .map_err(|error| format!("it is no OpenPGP certificate: {error}"))?;
    let certificates: Vec<Certificate> = certificates
        .map(|certificate| certificate.map(Certificate))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is no OpenPGP certificate: {error}"))?;
    if certificates.is_empty() {
        return Err("it has no OpenPGP certificate".to_owned());
    }
    Ok(certificates)
}

/// Finds a signature that one of the certificates made of the data; tells the fingerprint of its primary key.
/// `now` are seconds since 1970.
///
/// # Errors
/// Why none counts: the nearest miss.
pub fn verify<R: Read>(
    certificates: &[Certificate],
    signatures: &[u8],
    open: impl Fn() -> io::Result<R>,
    now: u32,
) -> Result<String, String> {
    let (parsed, _) = DetachedSignature::from_reader_many(signatures)
        .map_err(|error| format!("it is no OpenPGP signature: {error}"))?;
    let mut miss = None;
    for parsed in parsed.take(SIGNATURE_CAP) {
        let signature = match parsed {
            Ok(parsed) => parsed.signature,
            Err(error) => {
                miss.get_or_insert(format!("it is no OpenPGP signature: {error}"));
                break;
            }
        };
        match verify_one(certificates, &signature, &open, now) {
            Ok(fingerprint) => return Ok(fingerprint),
            Err(reason) => miss = Some(reason),
        }
    }
    Err(miss.unwrap_or_else(|| "it has no OpenPGP signature".to_owned()))
}

fn verify_one<R: Read>(
    certificates: &[Certificate],
    signature: &Signature,
    open: impl Fn() -> io::Result<R>,
    now: u32,
) -> Result<String, String> {
    check_form(signature, now)?;
    let mut miss = "it is not by a key of the policy".to_owned();
    for certificate in certificates {
        let Some(key) = certificate.key_of(signature) else {
            continue;
        };
        let data = open().map_err(|error| format!("the file cannot be read: {error}"))?;
        let data = BufReader::with_capacity(1 << 16, data);
        let held = match key {
            Signing::Primary => signature.verify(&certificate.0.primary_key, data),
            Signing::Subkey(subkey) => signature.verify(&subkey.key, data),
        };
        let judged = match held {
            Err(_) => Err("the signature is not of this file".to_owned()),
            Ok(()) => certificate.judge(key, signature, now),
        };
        match judged {
            Ok(()) => return Ok(format!("{:X}", certificate.0.primary_key.fingerprint())),
            Err(reason) => miss = reason,
        }
    }
    Err(miss)
}

/// What a signature of data must be, whoever made it.
fn check_form(signature: &Signature, now: u32) -> Result<(), String> {
    check_strength(signature)?;
    if signature.typ() != Some(SignatureType::Binary) {
        return Err("the signature is not one of binary data".to_owned());
    }
    let created = created(signature)?;
    if created > now.saturating_add(CLOCK_TOLERANCE) {
        return Err("the signature is of the future: see to the clock".to_owned());
    }
    if is_over(
        created,
        signature
            .signature_expiration_time()
            .map(|time| time.as_secs()),
        now,
    ) {
        return Err("the signature is expired".to_owned());
    }
    if signature.issuer_key_id().is_empty() && signature.issuer_fingerprint().is_empty() {
        return Err("the signature does not say who made it".to_owned());
    }
    Ok(())
}

/// Version, hash, and that all that is critical is understood.
fn check_strength(signature: &Signature) -> Result<(), String> {
    if !matches!(
        signature.version(),
        SignatureVersion::V4 | SignatureVersion::V6
    ) {
        return Err("the signature is of an old version".to_owned());
    }
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => {}
        Some(weak) => return Err(format!("the signature is by the weak hash {weak}")),
        None => return Err("the signature is by an unknown hash".to_owned()),
    }
    let config = signature
        .config()
        .ok_or("the signature is of an unknown version")?;
    let unknown = |data: &SubpacketData| {
        matches!(
            data,
            SubpacketData::Experimental(..) | SubpacketData::Other(..) | SubpacketData::Notation(_)
        )
    };
    if config
        .hashed_subpackets()
        .any(|part| part.is_critical && unknown(&part.data))
    {
        return Err("a critical part of the signature is not understood".to_owned());
    }
    Ok(())
}

fn created(signature: &Signature) -> Result<u32, String> {
    let created = signature.created().ok_or("the signature has no time")?;
    Ok(created.as_secs())
}

/// Whether something that lasts so many seconds is over; without a number, or with 0, it lasts for ever.
fn is_over(created: u32, lasts: Option<u32>, now: u32) -> bool {
    lasts.is_some_and(|lasts| lasts > 0 && created.saturating_add(lasts) <= now)
}

/// The key of a certificate that a signature names.
#[derive(Clone, Copy)]
enum Signing<'a> {
    Primary,
    Subkey(&'a SignedPublicSubKey),
}

impl Certificate {
    fn key_of(&self, signature: &Signature) -> Option<Signing<'_>> {
        if names(signature, &self.0.primary_key) {
            return Some(Signing::Primary);
        }
        let mut subkeys = self.0.public_subkeys.iter();
        subkeys
            .find(|subkey| names(signature, &subkey.key))
            .map(Signing::Subkey)
    }

    /// Whether the key may have made the signature, and may be trusted now.
    fn judge(&self, key: Signing<'_>, signature: &Signature, now: u32) -> Result<(), String> {
        let primary = &self.0.primary_key;
        check_key(primary, created(signature)?)?;
        // A revocation counts however weakly it is made.
        let revoked = |revocation: &Signature| revocation.verify_key(primary).is_ok();
        if self.0.details.revocation_signatures.iter().any(revoked) {
            return Err("its certificate is revoked".to_owned());
        }
        let own = self.own_signatures(now);
        let newest = own.iter().max_by_key(|own| created(own).unwrap_or(0));
        let Some(newest) = newest else {
            return Err(
                "its certificate is not signed by itself, or weakly so, or no more".to_owned(),
            );
        };
        let made = primary.created_at().as_secs();
        for own in &own {
            // The newest of each kind counts; a shorter time than that of another kind does as well.
            let is_newest =
                created(own) == created(newest) || own.typ() == Some(SignatureType::Key);
            if is_newest && is_over(made, own.key_expiration_time().map(|t| t.as_secs()), now) {
                return Err("its certificate is expired".to_owned());
            }
        }
        match key {
            Signing::Primary if newest.key_flags().sign() => Ok(()),
            Signing::Primary => Err("its key is not meant to sign".to_owned()),
            Signing::Subkey(subkey) => self.judge_subkey(subkey, signature, now),
        }
    }

    fn judge_subkey(
        &self,
        subkey: &SignedPublicSubKey,
        signature: &Signature,
        now: u32,
    ) -> Result<(), String> {
        let primary = &self.0.primary_key;
        check_key(&subkey.key, created(signature)?)?;
        let bound =
            |binding: &&Signature| binding.verify_subkey_binding(primary, &subkey.key).is_ok();
        let of_type = |wanted: SignatureType| {
            let all = subkey.signatures.iter();
            all.filter(move |binding| binding.typ() == Some(wanted))
        };
        if of_type(SignatureType::SubkeyRevocation).any(|revocation| bound(&revocation)) {
            return Err("its key is revoked".to_owned());
        }
        let newest = of_type(SignatureType::SubkeyBinding)
            .filter(|binding| counts(binding, now))
            .filter(bound)
            .max_by_key(|binding| created(binding).unwrap_or(0))
            .ok_or("its key is not bound to the certificate, or weakly so")?;
        if !newest.key_flags().sign() {
            return Err("its key is not meant to sign".to_owned());
        }
        let back = newest.embedded_signature().filter(|back| {
            check_strength(back).is_ok()
                && back
                    .verify_primary_key_binding(&subkey.key, primary)
                    .is_ok()
        });
        if back.is_none() {
            return Err("its key does not own to the certificate".to_owned());
        }
        let made = subkey.key.created_at().as_secs();
        if is_over(made, newest.key_expiration_time().map(|t| t.as_secs()), now) {
            return Err("its key is expired".to_owned());
        }
        Ok(())
    }

    /// What the primary key says of itself and holds now: directly, and of its users. Of each user the newest word
    /// counts, and one that is taken back does not.
    fn own_signatures(&self, now: u32) -> Vec<&Signature> {
        let primary = &self.0.primary_key;
        let direct = self.0.details.direct_signatures.iter().filter(|own| {
            own.typ() == Some(SignatureType::Key)
                && counts(own, now)
                && own.verify_key(primary).is_ok()
        });
        let mut found: Vec<&Signature> = direct
            .max_by_key(|own| created(own).unwrap_or(0))
            .into_iter()
            .collect();
        for user in &self.0.details.users {
            let holds = |own: &&Signature| {
                names(own, primary)
                    && own
                        .verify_certification(primary, Tag::UserId, &user.id)
                        .is_ok()
            };
            let is_revocation = |own: &&Signature| own.typ() == Some(SignatureType::CertRevocation);
            let newest = user
                .signatures
                .iter()
                .filter(|own| own.is_certification() && counts(own, now))
                .filter(holds)
                .max_by_key(|own| created(own).unwrap_or(0));
            let mut revocations = user.signatures.iter().filter(is_revocation).filter(holds);
            if let Some(newest) = newest
                && !revocations.any(|revocation| created(revocation) >= created(newest))
            {
                found.push(newest);
            }
        }
        found
    }
}

/// Whether a key's word about a key is strong, made already, and not over.
fn counts(own: &Signature, now: u32) -> bool {
    let Ok(created) = created(own) else {
        return false;
    };
    let lasts = own.signature_expiration_time().map(|time| time.as_secs());
    check_strength(own).is_ok()
        && created <= now.saturating_add(CLOCK_TOLERANCE)
        && !is_over(created, lasts, now)
}

/// Whether the signature says that the key made it.
fn names(signature: &Signature, key: &impl KeyDetails) -> bool {
    let mut ids = signature.issuer_key_id().into_iter();
    let mut fingerprints = signature.issuer_fingerprint().into_iter();
    ids.any(|id| *id == key.legacy_key_id()) || fingerprints.any(|it| *it == key.fingerprint())
}

/// A strong key that was there when the signature was made.
fn check_key(key: &impl VerifyingKey, signed: u32) -> Result<(), String> {
    if key.created_at().as_secs() > signed {
        return Err("the signature is older than its key".to_owned());
    }
    match key.public_params() {
        PublicParams::RSA(rsa) if rsa.key.n().bits() < LEAST_RSA_BITS => Err(format!(
            "its RSA key has {} bits: {LEAST_RSA_BITS} are the least",
            rsa.key.n().bits()
        )),
        PublicParams::RSA(_)
        | PublicParams::ECDSA(_)
        | PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_) => Ok(()),
        _ => Err("its key is of a weak or unknown algorithm".to_owned()),
    }
}
