//! The formats of an image: what writes them and what reads them back.
//!
//! Every writer takes values (a [`Tree`](crate::tree::Tree), identifiers, times) and writes bytes; the same values
//! give the same bytes, always. The readers bound-check every number of the medium, so that a hostile image is
//! an error and never a panic or a huge allocation. Nothing here knows the command line, the configuration or
//! the clock, and nothing draws random numbers.

pub mod content;
pub mod cpio;
pub mod erofs;
pub mod ext4;
pub mod fat;
pub mod gpt;
pub mod pe;
pub mod pe_digest;
pub mod qcow2;
pub mod region;
pub mod verity;
pub mod vhd;
pub mod vmdk;

use uuid::Uuid;

/// A UUID that follows from a digest: its first 16 bytes, marked as version 8 (RFC 9562 §5.8).
///
/// # Panics
/// If the digest has fewer than 16 bytes.
pub fn uuid_from_digest(digest: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Whole lines of 64 bytes are folded without a branch, which the compiler turns into vector code.
    let mut lines = bytes.chunks_exact(64);
    lines.all(|line| line.iter().fold(0, |or, byte| or | byte) == 0)
        && lines.remainder().iter().all(|byte| *byte == 0)
}

/// The `N` bytes at `at`.
///
/// # Panics
/// If the slice ends before; callers look into buffers whose length they have checked.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_of_a_digest_is_version_8() {
        let uuid = uuid_from_digest(&[0xff; 32]);
        assert_eq!(uuid.to_string(), "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }

    #[test]
    fn zeros_are_told_from_the_rest_at_every_place() {
        for len in [0, 1, 63, 64, 65, 4096] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "{at} of {len}");
                bytes[at] = 0;
            }
        }
    }
}
