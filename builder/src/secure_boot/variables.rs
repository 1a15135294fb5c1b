//! The variables by which a firmware trusts: lists of certificates (UEFI specification §32.4.1), and updates of them that
//! carry the signature of who may change them (§8.2.2, `EFI_VARIABLE_AUTHENTICATION_2`).

use uuid::{Uuid, uuid};
use x509_cert::der::DateTime;

use super::{Certificate, RsaPrivateKey, SecureBootError, signed_data, signer};

/// `EFI_CERT_X509_GUID`.
const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
/// `EFI_CERT_TYPE_PKCS7_GUID`.
const PKCS7: Uuid = uuid!("4aafd29d-68df-49ee-8aa9-347d375665a7");
/// `WIN_CERTIFICATE`: its revision, and the type that a GUID tells.
const REVISION: u16 = 0x0200;
const TYPE_GUID: u16 = 0x0ef1;
/// Kept over a reset, seen by boot loaders and by systems, changed by signed updates with a time only.
pub const ATTRIBUTES: u32 = 0x27;

/// A variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// Who owns the machine: the platform key.
    PlatformKey,
    /// Who may change what is trusted: the key exchange keys.
    KeyExchangeKeys,
    /// What may be started.
    Allowed,
}

impl Variable {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PlatformKey => "PK",
            Self::KeyExchangeKeys => "KEK",
            Self::Allowed => "db",
        }
    }

    /// Whose name it is: `EFI_GLOBAL_VARIABLE` or `EFI_IMAGE_SECURITY_DATABASE_GUID`.
    pub fn vendor(self) -> Uuid {
        match self {
            Self::PlatformKey | Self::KeyExchangeKeys => {
                uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c")
            }
            Self::Allowed => uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f"),
        }
    }
}

/// An `EFI_SIGNATURE_LIST` of one certificate, put there by `owner`.
pub fn signature_list(certificate: &Certificate, owner: Uuid) -> Vec<u8> {
    let der = certificate.der();
    let entry_len = 16 + der.len() as u32;
    let mut list = X509.to_bytes_le().to_vec();
    for word in [28 + entry_len, 0, entry_len] {
        list.extend_from_slice(&word.to_le_bytes());
    }
    list.extend_from_slice(&owner.to_bytes_le());
    list.extend_from_slice(der);
    list
}

/// The variable's name in UTF-16.
pub fn name_utf16(variable: Variable) -> Vec<u8> {
    variable
        .name()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// The update that sets `variable` to `list`, as of `time`, by the holder of `key`.
///
/// # Errors
/// [`SecureBootError`], if it cannot be signed.
pub fn signed_update(
    variable: Variable,
    list: &[u8],
    time: DateTime,
    key: &RsaPrivateKey,
    certificate: &Certificate,
) -> Result<Vec<u8>, SecureBootError> {
    let time = efi_time(time);
    let mut covered = name_utf16(variable);
    covered.extend_from_slice(&variable.vendor().to_bytes_le());
    covered.extend_from_slice(&ATTRIBUTES.to_le_bytes());
    covered.extend_from_slice(&time);
    covered.extend_from_slice(list);
    let signature = signed_data::of_detached(&covered, certificate, |digest| {
        Ok(signer::sign_with(key, digest)?)
    })?;
    let mut update = time.to_vec();
    update.extend_from_slice(&(24 + signature.len() as u32).to_le_bytes());
    update.extend_from_slice(&REVISION.to_le_bytes());
    update.extend_from_slice(&TYPE_GUID.to_le_bytes());
    update.extend_from_slice(&PKCS7.to_bytes_le());
    update.extend_from_slice(&signature);
    update.extend_from_slice(list);
    Ok(update)
}

/// `EFI_TIME` of a moment in UTC; what is below a second is 0, as §8.2.2 asks.
pub fn efi_time(time: DateTime) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&time.year().to_le_bytes());
    bytes[2..7].copy_from_slice(&[
        time.month(),
        time.day(),
        time.hour(),
        time.minutes(),
        time.seconds(),
    ]);
    bytes
}
