//! A firmware's store of variables with keys in it, made from the empty one that OVMF ships (EDK II's "authenticated
//! variable store", `MdeModulePkg/Include/Guid/VariableFormat.h`): a machine that is in Secure Boot mode from its first start.

use uuid::{Uuid, uuid};

use crate::format::array_at;
use crate::secure_boot::Certificate;
use crate::secure_boot::variables::{ATTRIBUTES, Variable, name_utf16, signature_list};

/// `gEfiAuthenticatedVariableGuid`.
const AUTHENTICATED_STORE: Uuid = uuid!("aaf32c78-947b-439a-a180-2e144ec37792");
const STORE_HEADER: usize = 28;
const VARIABLE_HEADER: usize = 60;
/// What a variable begins with, and that it is whole and counts.
const START: u16 = 0x55aa;
const ADDED: u8 = 0x3f;
/// Who put the certificate there: ourselves.
const OWNER: Uuid = uuid!("9c1f4d0e-6a4b-8c52-b2f7-0c0f2a61e001");

/// The store with a machine's keys: all three are `certificate`. `None` if it is none, or full.
pub(super) fn enroll(template: &[u8], certificate: &Certificate) -> Option<Vec<u8>> {
    let list = signature_list(certificate, OWNER);
    let mut store = template.to_vec();
    let mut at = first_free(&store)?;
    for variable in [
        Variable::PlatformKey,
        Variable::KeyExchangeKeys,
        Variable::Allowed,
    ] {
        let entry = entry(variable, &list);
        store
            .get_mut(at.0..at.0 + entry.len())
            .filter(|_| at.0 + entry.len() <= at.1)?
            .copy_from_slice(&entry);
        at.0 = (at.0 + entry.len()).next_multiple_of(4);
    }
    Some(store)
}

/// Where the variables end, and where the store does.
fn first_free(bytes: &[u8]) -> Option<(usize, usize)> {
    if bytes.get(40..44)? != b"_FVH" {
        return None;
    }
    let store = usize::from(u16::from_le_bytes(array_at(bytes, 48)));
    let header = bytes.get(store..store + STORE_HEADER)?;
    if header[..16] != AUTHENTICATED_STORE.to_bytes_le() {
        return None;
    }
    let end = store.checked_add(u32::from_le_bytes(array_at(header, 16)) as usize)?;
    let mut at = store + STORE_HEADER;
    while let Some(variable) = bytes.get(at..at + VARIABLE_HEADER)
        && u16::from_le_bytes(array_at(variable, 0)) == START
    {
        let len = |at| u32::from_le_bytes(array_at(variable, at)) as usize;
        at = (at + VARIABLE_HEADER)
            .checked_add(len(36))?
            .checked_add(len(40))?
            .next_multiple_of(4);
    }
    (end <= bytes.len()).then_some((at, end))
}

/// `AUTHENTICATED_VARIABLE_HEADER`, name and data. The time is 0: each signed update is later.
fn entry(variable: Variable, data: &[u8]) -> Vec<u8> {
    let mut name = name_utf16(variable);
    name.extend_from_slice(&[0, 0]);
    let mut entry = START.to_le_bytes().to_vec();
    entry.extend_from_slice(&[ADDED, 0]);
    entry.extend_from_slice(&ATTRIBUTES.to_le_bytes());
    entry.extend_from_slice(&[0; 8 + 16 + 4]);
    entry.extend_from_slice(&(name.len() as u32).to_le_bytes());
    entry.extend_from_slice(&(data.len() as u32).to_le_bytes());
    entry.extend_from_slice(&variable.vendor().to_bytes_le());
    entry.extend_from_slice(&name);
    entry.extend_from_slice(data);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_follow_each_other_and_a_full_or_foreign_store_is_refused() {
        let mut store = vec![0xff; 400];
        store[40..44].copy_from_slice(b"_FVH");
        store[48..50].copy_from_slice(&72_u16.to_le_bytes());
        store[72..88].copy_from_slice(&AUTHENTICATED_STORE.to_bytes_le());
        store[88..92].copy_from_slice(&328_u32.to_le_bytes());
        assert_eq!(first_free(&store), Some((100, 400)));
        let entry = entry(Variable::Allowed, b"12345");
        assert_eq!(entry.len(), VARIABLE_HEADER + 6 + 5);
        store[100..100 + entry.len()].copy_from_slice(&entry);
        assert_eq!(first_free(&store), Some((172, 400)));
        assert_eq!(first_free(&store[..300]), None);
        store[72] ^= 1;
        assert_eq!(first_free(&store), None);
    }
}
