//! How things are named: digests as text, and identifiers that follow from names. Nothing is drawn at random.

use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use crate::format::hex;
use crate::format::uuid_from_digest;

/// The project of a volume on the state's file system. It follows from the volume's name alone, so that each version
/// of the machine counts on; never 0, which is every file without a project. Two names of a machine meet with a
/// chance of one in a milliard; then they share the smaller limit of the two.
pub fn project_id(volume: &str) -> u32 {
    let digest = Sha256::digest(format!("coracle\0volume\0{volume}"));
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 2 | 1 << 30
}

/// A UUID that follows from names.
pub fn named_uuid(names: &[&str]) -> Uuid {
    uuid_from_digest(&Sha256::digest(format!("coracle\0{}", names.join("\0"))))
}
