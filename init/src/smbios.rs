//! The OEM strings of an SMBIOS table (DMTF DSP0134, structure type 11), and systemd's credentials among them.
//!
//! Pure, over bytes that a hypervisor or firmware wrote: each length is checked, and a table that does not fit together
//! is refused as a whole. Nothing else of the table is looked at.

/// The structure that holds strings of the machine's maker.
const OEM_STRINGS: u8 = 11;
/// The structure that ends the table.
const END_OF_TABLE: u8 = 127;
/// Type, length and handle.
const HEADER_SIZE: usize = 4;

/// The prefixes of systemd's convention.
const PLAIN: &[u8] = b"io.systemd.credential:";
const BINARY: &[u8] = b"io.systemd.credential.binary:";

/// Why a table is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A structure does not fit in the table.
    #[error("the SMBIOS table is damaged at byte {0}")]
    Damaged(usize),
    /// The value of a binary credential is no Base64.
    #[error("the SMBIOS string of the credential is no Base64")]
    NoBase64,
}

/// The value of the first credential of this name; `None` if there is none.
///
/// # Errors
/// [`TableError`].
pub fn credential(table: &[u8], name: &str) -> Result<Option<Vec<u8>>, TableError> {
    let value = |string: &[u8], prefix: &[u8]| -> Option<Vec<u8>> {
        let rest = string.strip_prefix(prefix)?;
        let rest = rest.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(rest.to_vec())
    };
    for string in oem_strings(table)? {
        if let Some(value) = value(string, PLAIN) {
            return Ok(Some(value));
        }
        if let Some(mut value) = value(string, BINARY) {
            let decoded = decode_base64(&value).ok_or(TableError::NoBase64);
            value.fill(0);
            return decoded.map(Some);
        }
    }
    Ok(None)
}

/// All strings of all structures of type 11.
fn oem_strings(table: &[u8]) -> Result<Vec<&[u8]>, TableError> {
    let mut strings = Vec::new();
    let mut at = 0;
    while at < table.len() {
        let damaged = TableError::Damaged(at);
        let rest = &table[at..];
        let [kind, length, ..] = *rest else {
            return Err(damaged);
        };
        let length = usize::from(length);
        if length < HEADER_SIZE || rest.len() < length {
            return Err(damaged);
        }
        let (own, size) = structure_strings(&rest[length..]).ok_or(damaged)?;
        match kind {
            OEM_STRINGS => strings.extend(own),
            END_OF_TABLE => break,
            _ => {}
        }
        at += length + size;
    }
    Ok(strings)
}

/// The strings behind a structure, each ended by a zero, and how many bytes they take with the zero that ends them all.
/// Without any string there are two zeros.
fn structure_strings(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    if bytes.starts_with(&[0, 0]) {
        return Some((Vec::new(), 2));
    }
    let end = bytes.windows(2).position(|pair| pair == [0, 0])?;
    Some((bytes[..end].split(|byte| *byte == 0).collect(), end + 2))
}

/// RFC 4648 §4, with its padding, and without blanks.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text[..text.len() - padding].chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            bits = bits << 6 | u32::from(digit(*byte)?);
        }
        let missing = 4 - group.len();
        bits <<= 6 * missing;
        // The bits that no byte takes are zero in what an encoder wrote.
        if bits & ((1 << (8 * missing)) - 1) != 0 {
            return None;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - missing]);
    }
    Some(bytes)
}

const fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(kind: u8, body: &[u8], strings: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind, u8::try_from(4 + body.len()).unwrap(), 1, 0];
        bytes.extend(body);
        for string in strings {
            bytes.extend(string.bytes());
            bytes.push(0);
        }
        bytes.extend(if strings.is_empty() {
            &[0, 0][..]
        } else {
            &[0]
        });
        bytes
    }

    fn table() -> Vec<u8> {
        [
            structure(0, &[1, 2, 0], &["SeaBIOS", "io.systemd.credential:fake=x"]),
            structure(32, &[0; 7], &[]),
            structure(
                11,
                &[3],
                &[
                    "something else",
                    "io.systemd.credential:token=a=b c",
                    "io.systemd.credential.binary:key=AAH+/w==",
                    "io.systemd.credential.binary:bad=A",
                ],
            ),
            structure(127, &[], &[]),
            vec![11, 255],
        ]
        .concat()
    }

    #[test]
    fn credentials_are_found_by_their_whole_name_in_oem_strings_only() {
        let table = table();
        assert_eq!(
            credential(&table, "token").unwrap().as_deref(),
            Some(&b"a=b c"[..])
        );
        let key = credential(&table, "key").unwrap();
        assert_eq!(key.as_deref(), Some(&[0, 1, 254, 255][..]));
        for name in ["fake", "tok", ""] {
            assert_eq!(credential(&table, name).unwrap(), None, "{name}");
        }
        assert_eq!(credential(&table, "bad"), Err(TableError::NoBase64));
        assert_eq!(credential(&[], "token"), Ok(None));
    }

    #[test]
    fn a_hostile_table_is_refused_and_never_read_beyond_its_end() {
        let good = table();
        for cut in 0..good.len() {
            let _ = credential(&good[..cut], "token");
        }
        for damaged in [
            &[11][..],
            &[11, 0, 0, 0, 0, 0],
            &[11, 3, 0, 0, 0, 0],
            &[11, 200, 0, 0, 0, 0],
            &[11, 5, 0, 0, 1, b'a', 0],
        ] {
            assert_eq!(
                credential(damaged, "a"),
                Err(TableError::Damaged(0)),
                "{damaged:?}"
            );
        }
        // Each length and string count of a small table, as anybody could write them.
        for length in 0..=255 {
            for byte in [0, 1, 11, 127, 255] {
                let mut bytes = good.clone();
                bytes[1] = length;
                bytes[20] = byte;
                let _ = credential(&bytes, "token");
            }
        }
    }

    #[test]
    fn base64_is_strict() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
        ] {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Some(bytes));
        }
        for text in [
            "Zg", "Zg=", "Z===", "====", "Zh==", "Zm 8", "Z=8=", "Zm8=Zg==",
        ] {
            assert_eq!(decode_base64(text.as_bytes()), None, "{text}");
        }
    }
}
