//! How things are named: digests as text, and identifiers that follow from names. Nothing is drawn at random.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::format::uuid_from_digest;

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A UUID that follows from names.
pub fn named_uuid(names: &[&str]) -> Uuid {
    uuid_from_digest(&Sha256::digest(format!("coracle\0{}", names.join("\0"))))
}
