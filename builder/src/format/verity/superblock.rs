//! The superblock before a hash tree.

use uuid::Uuid;

use super::{BLOCK, BLOCK_LEN, Params, Superblock, VerityError};
use crate::format::array_at;

const SIGNATURE: &[u8; 8] = b"verity\0\0";
const SALT_MAX: usize = 256;

/// Reads a superblock, or says what is wrong with it.
pub(super) fn parse(bytes: &[u8; 512]) -> Result<Superblock, &'static str> {
    let u32_at = |at| u32::from_le_bytes(array_at(bytes, at));
    if !bytes.starts_with(SIGNATURE) {
        return Err("no signature");
    }
    if u32_at(8) != 1 || u32_at(12) != 1 {
        return Err("its version is not 1");
    }
    if bytes[32..64] != algorithm_field() {
        return Err("its algorithm is not sha256");
    }
    if u64::from(u32_at(64)) != BLOCK || u64::from(u32_at(68)) != BLOCK {
        return Err("its blocks are not of 4096 bytes");
    }
    let salt_len = usize::from(u16::from_le_bytes(array_at(bytes, 80)));
    if salt_len > SALT_MAX {
        return Err("its salt is too long");
    }
    let data_len = u64::from_le_bytes(array_at(bytes, 72))
        .checked_mul(BLOCK)
        .filter(|len| *len > 0)
        .ok_or("its number of data blocks is wrong")?;
    Ok(Superblock {
        params: Params {
            salt: bytes[88..88 + salt_len].to_vec(),
            uuid: Uuid::from_bytes(array_at(bytes, 16)),
        },
        data_len,
    })
}

fn algorithm_field() -> [u8; 32] {
    let mut field = [0; 32];
    field[..6].copy_from_slice(b"sha256");
    field
}

/// The superblock's block.
pub(super) fn render(params: &Params, data_len: u64) -> Result<[u8; BLOCK_LEN], VerityError> {
    if data_len == 0 || !data_len.is_multiple_of(BLOCK) {
        return Err(VerityError::BadLength { len: data_len });
    }
    let salt_len = params.salt.len();
    if salt_len > SALT_MAX {
        return Err(VerityError::SaltTooLong { len: salt_len });
    }
    let mut bytes = [0; BLOCK_LEN];
    bytes[..8].copy_from_slice(SIGNATURE);
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&1_u32.to_le_bytes());
    bytes[16..32].copy_from_slice(params.uuid.as_bytes());
    bytes[32..64].copy_from_slice(&algorithm_field());
    bytes[64..68].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    bytes[68..72].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    bytes[72..80].copy_from_slice(&(data_len / BLOCK).to_le_bytes());
    bytes[80..82].copy_from_slice(&(salt_len as u16).to_le_bytes());
    bytes[88..88 + salt_len].copy_from_slice(&params.salt);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_are_read_back_and_foreign_ones_refused() {
        let params = Params {
            salt: vec![0xab; 32],
            uuid: Uuid::from_u128(3),
        };
        let bytes = render(&params, 5 * BLOCK).unwrap();
        let parsed = parse(&array_at(&bytes, 0)).unwrap();
        assert_eq!(parsed.params, params);
        assert_eq!(parsed.data_len, 5 * BLOCK);
        for at in [0, 8, 12, 33, 65, 69, 81] {
            let mut changed: [u8; 512] = array_at(&bytes, 0);
            changed[at] ^= 0x7f;
            assert!(parse(&changed).is_err(), "byte {at}");
        }
    }
}
