//! Inline extended attributes: a header, then entries padded to 4 bytes.

use std::collections::BTreeMap;

pub(super) const HEADER_LEN: usize = 12;
pub(super) const ENTRY_LEN: usize = 4;
/// The most that `i_xattr_icount` can say.
const AREA_MAX: usize = HEADER_LEN + 4 * (u16::MAX as usize - 1);

/// Name prefixes and their numbers (`EROFS_XATTR_INDEX_*`).
const PREFIXES: [(u8, &[u8]); 6] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (5, b"lustre."),
    (6, b"security."),
];

/// The number of a name's prefix, and the rest of the name.
fn split(name: &[u8]) -> Result<(u8, &[u8]), &'static str> {
    for (index, prefix) in PREFIXES {
        match name.strip_prefix(prefix) {
            // The two ACL names are whole names, the others are namespaces.
            Some(rest) if rest.is_empty() == (index == 2 || index == 3) => {
                return match rest.len() {
                    0..=255 => Ok((index, rest)),
                    _ => Err("its name is longer than 255 bytes"),
                };
            }
            _ => {}
        }
    }
    Err("EROFS has no such namespace")
}

/// Checks the attributes; the length of their area, 0 without any.
pub(super) fn area_len(
    xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<usize, (Vec<u8>, &'static str)> {
    let mut len = if xattrs.is_empty() { 0 } else { HEADER_LEN };
    for (name, value) in xattrs {
        let bad = |reason| (name.clone(), reason);
        let (_, rest) = split(name).map_err(bad)?;
        if value.len() > usize::from(u16::MAX) {
            return Err(bad("its value is longer than 65535 bytes"));
        }
        len += (ENTRY_LEN + rest.len() + value.len()).next_multiple_of(4);
        if len > AREA_MAX {
            return Err(bad("all attributes together are longer than 256 KiB"));
        }
    }
    Ok(len)
}

/// `i_xattr_icount` for an area of `len` bytes.
pub(super) fn icount(len: usize) -> u16 {
    match len {
        0 => 0,
        _ => u16::try_from((len - HEADER_LEN) / 4 + 1).expect("checked by area_len"),
    }
}

/// Appends the area to `out`. The attributes have passed [`area_len`].
pub(super) fn render(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    let start = out.len();
    out.extend([0; HEADER_LEN]);
    for (name, value) in xattrs {
        let (index, rest) = split(name).expect("checked by area_len");
        out.extend([rest.len() as u8, index]);
        out.extend((value.len() as u16).to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    }
}

/// Bytes of the entry that begins with `head`, without padding.
pub(super) fn entry_len(head: &[u8; ENTRY_LEN]) -> usize {
    let value_len = u16::from_le_bytes([head[2], head[3]]);
    ENTRY_LEN + usize::from(head[0]) + usize::from(value_len)
}

/// A full name, its value, and the padded length of their entry.
type Entry = (Vec<u8>, Vec<u8>, usize);

/// Reads the entry that `bytes`, at least [`ENTRY_LEN`] of them, begin with.
pub(super) fn parse(bytes: &[u8]) -> Result<Entry, &'static str> {
    let head = crate::format::array_at(bytes, 0);
    let len = entry_len(&head);
    let entry = bytes.get(ENTRY_LEN..len).ok_or("an attribute is cut off")?;
    let mut prefixes = PREFIXES.iter();
    let prefix = prefixes.find(|(index, _)| *index == head[1]);
    let (_, prefix) = prefix.ok_or("an attribute has no known namespace")?;
    let (name, value) = entry.split_at(usize::from(head[0]));
    let name = [prefix, name].concat();
    Ok((name, value.to_vec(), len.next_multiple_of(4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_their_namespace() {
        type Case<'a> = (&'a [u8], Option<(u8, &'a [u8])>);
        let cases: [Case<'_>; 7] = [
            (b"user.a", Some((1, b"a"))),
            (b"trusted.overlay.opaque", Some((4, b"overlay.opaque"))),
            (b"security.capability", Some((6, b"capability"))),
            (b"system.posix_acl_access", Some((2, b""))),
            (b"system.posix_acl_accessx", None),
            (b"user.", None),
            (b"system.nfs4_acl", None),
        ];
        for (name, expected) in cases {
            assert_eq!(split(name).ok(), expected);
        }
    }

    #[test]
    fn rendered_length_is_the_announced_one() {
        let mut xattrs = BTreeMap::new();
        for len in 0..20 {
            xattrs.insert(format!("user.{len:x}").into_bytes(), vec![1; len]);
            let mut out = vec![0; 64];
            render(&xattrs, &mut out);
            assert_eq!(out.len() - 64, area_len(&xattrs).unwrap());
        }
        assert_eq!(area_len(&BTreeMap::new()).unwrap(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let one = |name: &str, len| BTreeMap::from([(name.as_bytes().to_vec(), vec![0; len])]);
        assert!(area_len(&one("user.a", 65536)).is_err());
        assert!(area_len(&one("other.a", 1)).is_err());
        assert!(area_len(&one(&format!("user.{}", "x".repeat(256)), 1)).is_err());
        let many = (0..5).map(|n| (format!("user.{n}").into_bytes(), vec![0; 65535]));
        assert!(area_len(&many.collect()).is_err());
    }
}
