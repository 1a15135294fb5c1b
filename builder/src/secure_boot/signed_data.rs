//! PKCS #7 `SignedData` as firmware reads it: of an image (Authenticode), and of an update of a variable.
//!
//! Version 1, SHA-256, one signer by issuer and serial number, no time: the same content gives the same bytes.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use sha2::{Digest as _, Sha256};
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::der::asn1::{OctetString, SetOfVec};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Any, AnyRef, Decode as _, Encode as _, Reader as _, SliceReader, Tag};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::signer::verifies;
use super::{Certificate, ImageSignature, SecureBootError};

type Result<T> = std::result::Result<T, SecureBootError>;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// `SPC_INDIRECT_DATA_OBJID`.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
/// The content of `SpcIndirectDataContent` up to the digest: type `SPC_PE_IMAGE_DATAOBJ` (1.3.6.1.4.1.311.2.1.15), whose
/// value has no flags and names no file, then `DigestInfo` of SHA-256.
const INDIRECT_DATA_HEAD: [u8; 44] = [
    0x30, 0x17, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01,
    0x0f, // the type
    0x30, 0x09, 0x03, 0x01, 0x00, 0xa0, 0x04, 0xa2, 0x02, 0x80, 0x00, // its value
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];
/// Where in it `DigestInfo` begins.
const DIGEST_INFO_AT: usize = 25;

/// The signature of an image with this digest. `sign` signs a digest.
pub(super) fn of_image(
    digest: &[u8; 32],
    certificate: &Certificate,
    sign: impl FnOnce(&[u8; 32]) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let mut content = INDIRECT_DATA_HEAD.to_vec();
    content.extend_from_slice(digest);
    let attributes = Attributes::try_from(vec![
        attribute(CONTENT_TYPE, Any::from(INDIRECT_DATA))?,
        attribute(
            MESSAGE_DIGEST,
            Any::new(Tag::OctetString, &Sha256::digest(&content)[..])?,
        )?,
    ])?;
    let signature = sign(&Sha256::digest(attributes.to_der()?).into())?;
    let content = EncapsulatedContentInfo {
        econtent_type: INDIRECT_DATA,
        econtent: Some(Any::new(Tag::Sequence, content)?),
    };
    let signed = signed_data(content, Some(attributes), certificate, &signature)?;
    Ok(ContentInfo {
        content_type: SIGNED_DATA,
        content: Any::from_der(&signed.to_der()?)?,
    }
    .to_der()?)
}

/// The signature of bytes that are elsewhere, as UEFI §8.2.2 wants it: no attributes, no `ContentInfo`.
pub(super) fn of_detached(
    bytes: &[u8],
    certificate: &Certificate,
    sign: impl FnOnce(&[u8; 32]) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let signature = sign(&Sha256::digest(bytes).into())?;
    let content = EncapsulatedContentInfo {
        econtent_type: DATA,
        econtent: None,
    };
    Ok(signed_data(content, None, certificate, &signature)?.to_der()?)
}

fn signed_data(
    encap_content_info: EncapsulatedContentInfo,
    signed_attrs: Option<Attributes>,
    certificate: &Certificate,
    signature: &[u8],
) -> Result<SignedData> {
    let tbs = &certificate.parsed().tbs_certificate;
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: tbs.issuer.clone(),
            serial_number: tbs.serial_number.clone(),
        }),
        digest_alg: algorithm(SHA_256),
        signed_attrs,
        signature_algorithm: algorithm(RSA),
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let certificates = vec![CertificateChoices::Certificate(
        certificate.parsed().clone(),
    )];
    Ok(SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![algorithm(SHA_256)])?,
        encap_content_info,
        certificates: Some(CertificateSet::try_from(certificates)?),
        crls: None,
        signer_infos: SignerInfos::try_from(vec![signer])?,
    })
}

fn algorithm(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid,
        parameters: Some(Any::null()),
    }
}

fn attribute(oid: ObjectIdentifier, value: Any) -> Result<Attribute> {
    Ok(Attribute {
        oid,
        values: SetOfVec::try_from(vec![value])?,
    })
}

/// Whose the signature of an image is (padding behind it is allowed), and whether it fits the image's digest. `None` for
/// what is no signature of a kind that this reads.
pub(super) fn judge(signature: &[u8], digest: &[u8; 32]) -> Option<ImageSignature> {
    let mut reader = SliceReader::new(signature).ok()?;
    let info: ContentInfo = reader.decode().ok()?;
    let signed = SignedData::from_der(&info.content.to_der().ok()?).ok()?;
    let [signer] = signed.signer_infos.0.as_slice() else {
        return None;
    };
    let SignerIdentifier::IssuerAndSerialNumber(who) = &signer.sid else {
        return None;
    };
    let certificate = signed
        .certificates
        .as_ref()?
        .0
        .iter()
        .find_map(|choice| match choice {
            CertificateChoices::Certificate(certificate)
                if certificate.tbs_certificate.serial_number == who.serial_number
                    && certificate.tbs_certificate.issuer == who.issuer =>
            {
                Certificate::from_der(&certificate.to_der().ok()?).ok()
            }
            _ => None,
        })?;
    let fits = fits(&signed, signer, &certificate, digest).unwrap_or(false);
    Some(ImageSignature { certificate, fits })
}

/// `None` counts as no.
fn fits(
    signed: &SignedData,
    signer: &SignerInfo,
    certificate: &Certificate,
    digest: &[u8; 32],
) -> Option<bool> {
    let content = signed.encap_content_info.econtent.as_ref()?.value();
    let own = content.last_chunk::<51>()?;
    let names_image = own[..19] == INDIRECT_DATA_HEAD[DIGEST_INFO_AT..] && own[19..] == *digest;
    let attributes = signer.signed_attrs.as_ref()?;
    let wanted = AnyRef::new(Tag::OctetString, &Sha256::digest(content))
        .ok()?
        .to_der()
        .ok()?;
    let names_content = attributes.iter().any(|attribute| {
        attribute.oid == MESSAGE_DIGEST
            && attribute
                .values
                .iter()
                .any(|value| value.to_der().ok().as_ref() == Some(&wanted))
    });
    let signature = Sha256::digest(attributes.to_der().ok()?).into();
    Some(
        names_image
            && names_content
            && verifies(certificate.key(), &signature, signer.signature.as_bytes()),
    )
}
