//! Names of the DNS as DHCP and routers tell them: as text, and as labels with their lengths (RFC 1035 §3.1).
//!
//! What comes out of here is written into `resolv.conf` and shown: only letters, digits, hyphens, underscores and dots.
//! Bounded: no more than [`MOST`] names, none longer than 253 characters, no pointer is followed forwards.

/// The most names that are taken of one list.
pub const MOST: usize = 8;
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A name as text; `None` for what is none. A dot at its end is left out.
#[must_use]
pub fn checked(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(is_plain)
    };
    let valid = text.len() <= LONGEST && text.split('.').all(is_label);
    valid.then(|| text.to_owned())
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A list of names without pointers: RFC 8106 §5.2 (which pads with zeros) and RFC 8415 §10. Ends at what is torn.
#[must_use]
pub fn read(bytes: &[u8]) -> Vec<String> {
    read_list(bytes, false)
}

/// A list of names in which one may point into an earlier one (RFC 3397).
#[must_use]
pub fn read_compressed(bytes: &[u8]) -> Vec<String> {
    read_list(bytes, true)
}

fn read_list(bytes: &[u8], pointers: bool) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() && names.len() < MOST {
        let Some((text, next)) = read_name(bytes, at, pointers) else {
            break;
        };
        at = next;
        let name = checked(&text);
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

/// A name and where the next one begins.
fn read_name(bytes: &[u8], start: usize, pointers: bool) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut at = start;
    // Where labels may be pointed to: always before what was read, so that this ends.
    let mut limit = start;
    let mut next = None;
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((text, next.unwrap_or(at + 1))),
            1..=LONGEST_LABEL => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                if text.len() + length > LONGEST {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                // A byte that no name has makes the name one that `checked` refuses.
                text.extend(label.iter().map(|&byte| {
                    if is_plain(byte) {
                        char::from(byte)
                    } else {
                        ' '
                    }
                }));
                at += 1 + length;
            }
            _ if pointers && length & 0xc0 == 0xc0 => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                next.get_or_insert(at + 2);
                if target >= limit {
                    return None;
                }
                limit = target;
                at = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for (text, name) in [
            ("example.org", Some("example.org")),
            ("example.org.", Some("example.org")),
            ("_tcp.a-b.c", Some("_tcp.a-b.c")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a b", None),
            ("-a", None),
            ("x\nnameserver 6.6.6.6", None),
        ] {
            assert_eq!(checked(text).as_deref(), name, "{text:?}");
        }
        assert_eq!(checked(&"a.".repeat(128)), None);
    }

    #[test]
    fn lists_are_read_and_padding_ends_them() {
        let list = b"\x07example\x03org\x00\x03lan\x00\x00\x00";
        assert_eq!(read(list), ["example.org", "lan"]);
        assert_eq!(read(b"\x07example\x03or"), [""; 0]);
        assert_eq!(read(b"\x02a\n\x00\x03lan\x00"), ["lan"]);
    }

    #[test]
    fn pointers_lead_back_only() {
        let list = b"\x03eng\x07example\x03org\x00\x03lab\xc0\x04\x01x\xc0\x11";
        assert_eq!(
            read_compressed(list),
            ["eng.example.org", "lab.example.org", "x.lab.example.org"]
        );
        for bad in [
            &b"\xc0\x00"[..],
            b"\x01a\xc0\x00",
            b"\x01a\xc0\x05\x00",
            b"\xc0",
        ] {
            assert_eq!(read_compressed(bad), [""; 0], "{bad:?}");
        }
        assert_eq!(read(b"\x01a\x00\xc0\x00"), ["a"]);
    }

    #[test]
    fn random_bytes_are_read_within_the_bounds() {
        crate::net::random::random_bytes(20_000, 300, |bytes| {
            for names in [read(bytes), read_compressed(bytes)] {
                assert!(names.len() <= MOST);
                assert!(
                    names
                        .iter()
                        .all(|name| checked(name).as_ref() == Some(name))
                );
            }
        });
    }
}
