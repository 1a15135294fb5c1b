//! Names: the 8.3 name that every entry has, and the long one in pieces before it.

use std::collections::HashSet;

use super::{ATTRIBUTE_LONG_NAME, ENTRY_LEN};

/// An 8.3 name as stored: padded with blanks, without the dot.
pub(super) type Short = [u8; 11];

/// UTF-16 units in a piece of a long name, and where they are.
const PIECE_UNITS: usize = 13;
const PIECE_PLACES: [usize; PIECE_UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
const LAST_PIECE: u8 = 0x40;

/// Checks a name and makes UTF-16 of it.
pub(super) fn long_units(name: &[u8]) -> Result<Vec<u16>, &'static str> {
    let text = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    let forbidden = |c: char| c < ' ' || "\"*/:<>?\\|\u{7f}".contains(c);
    if text.contains(forbidden) {
        return Err("its name has a character that FAT forbids");
    }
    if text.ends_with(['.', ' ']) {
        return Err("its name ends with a dot or a blank");
    }
    let units: Vec<u16> = text.encode_utf16().collect();
    match units.len() {
        1..=255 => Ok(units),
        _ => Err("its name is longer than 255 UTF-16 units"),
    }
}

/// What two names must not share in one directory.
pub(super) fn folded(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_uppercase()
}

fn is_short_byte(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'0'..=b'9') || b"!#$%&'()-@^_`{}~".contains(&byte)
}

/// The 8.3 form of a name that needs no long one.
pub(super) fn exact_short(name: &[u8]) -> Option<Short> {
    let dot = name.iter().position(|byte| *byte == b'.');
    let (base, extension) = match dot {
        Some(dot) => (&name[..dot], &name[dot + 1..]),
        None => (name, &b""[..]),
    };
    let fits = (1..=8).contains(&base.len())
        && extension.len() <= 3
        && (dot.is_none() || !extension.is_empty())
        && base
            .iter()
            .chain(extension)
            .all(|byte| is_short_byte(*byte));
    fits.then(|| padded(base, extension))
}

fn padded(base: &[u8], extension: &[u8]) -> Short {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short
}

/// A numbered 8.3 name (`LONGNA~1.EXT`) that is not taken yet.
pub(super) fn numbered_short(name: &[u8], taken: &HashSet<Short>) -> Short {
    let text = folded(name);
    let (base, extension) = text.rsplit_once('.').unwrap_or((&text, ""));
    let clean = |part: &str, most: usize| -> Vec<u8> {
        let kept = part.chars().filter(|c| !matches!(c, ' ' | '.'));
        kept.map(|c| match u8::try_from(c) {
            Ok(byte) if is_short_byte(byte) => byte,
            _ => b'_',
        })
        .take(most)
        .collect()
    };
    let (base, extension) = (clean(base, 6), clean(extension, 3));
    (1_u32..)
        .map(|number| {
            let suffix = format!("~{number}").into_bytes();
            let kept = base.len().min(8 - suffix.len());
            padded(&[&base[..kept], &suffix].concat(), &extension)
        })
        .find(|short| !taken.contains(short))
        .expect("a directory has fewer entries than there are numbers")
}

/// Ties the pieces of a long name to their 8.3 name.
pub(super) fn checksum(short: &Short) -> u8 {
    short
        .iter()
        .fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Entries that a long name takes.
pub(super) fn pieces(units: usize) -> usize {
    units.div_ceil(PIECE_UNITS)
}

/// Appends the pieces of a long name, the last piece first, as they are stored.
pub(super) fn render_long(units: &[u16], short: &Short, out: &mut Vec<u8>) {
    let pieces = pieces(units.len());
    for index in (0..pieces).rev() {
        let mut entry = [0; ENTRY_LEN];
        entry[0] = index as u8 + 1;
        if index + 1 == pieces {
            entry[0] |= LAST_PIECE;
        }
        entry[11] = ATTRIBUTE_LONG_NAME;
        entry[13] = checksum(short);
        // The name ends with a zero unit if there is room; what follows is all ones.
        let rest = units[index * PIECE_UNITS..].iter().copied();
        let ended = rest.chain([0]).chain(std::iter::repeat(0xffff));
        for (place, unit) in PIECE_PLACES.iter().zip(ended) {
            entry[*place..*place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend(entry);
    }
}

/// A long name as its pieces are read, the last piece first.
#[derive(Debug, Default)]
pub(super) struct LongName {
    units: Vec<u16>,
    missing: u8,
    checksum: u8,
}

impl LongName {
    /// Takes one piece; one out of order makes the name forgotten.
    pub(super) fn piece(&mut self, entry: &[u8; ENTRY_LEN]) {
        let number = entry[0] & !LAST_PIECE;
        if entry[0] & LAST_PIECE != 0 {
            *self = Self {
                units: Vec::new(),
                missing: number,
                checksum: entry[13],
            };
        } else if number == 0 || number != self.missing || entry[13] != self.checksum {
            *self = Self::default();
            return;
        }
        if !(1..=20).contains(&number) {
            *self = Self::default();
            return;
        }
        let units = PIECE_PLACES.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
        self.units.splice(0..0, units);
        self.missing = number - 1;
    }

    /// The whole name, if all its pieces were there and belong to `short`.
    pub(super) fn take(&mut self, short: &Short) -> Option<String> {
        let name = std::mem::take(self);
        if name.units.is_empty() || name.missing != 0 || name.checksum != checksum(short) {
            return None;
        }
        let end = name.units.iter().position(|unit| *unit == 0);
        let units = &name.units[..end.unwrap_or(name.units.len())];
        Some(String::from_utf16_lossy(units))
    }
}

/// An 8.3 name as text.
pub(super) fn short_text(short: &Short) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match (part(&short[..8]), part(&short[8..])) {
        (base, extension) if extension.is_empty() => base,
        (base, extension) => format!("{base}.{extension}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_upper_case_8_3_names_need_no_long_name() {
        for (name, short) in [
            (&b"BOOTX64.EFI"[..], Some(b"BOOTX64 EFI")),
            (b"EFI", Some(b"EFI        ")),
            (b"efi", None),
            (b"A.B.C", None),
            (b"TOOLONGNAME", None),
            (b".X", None),
            (b"X.", None),
        ] {
            assert_eq!(exact_short(name).as_ref(), short);
        }
    }

    #[test]
    fn numbered_names_are_unique() {
        let mut taken = HashSet::new();
        for number in 0..1200 {
            let name = format!("systemd-boot{number}.conf");
            let short = numbered_short(name.as_bytes(), &taken);
            assert!(taken.insert(short), "{}", short_text(&short));
        }
        assert!(taken.contains(b"SYSTEM~1CON"));
        assert!(taken.contains(b"SYST~100CON"));
    }

    #[test]
    fn long_names_come_back_from_their_pieces() {
        let lengths = ["a", "loader.conf", "web_1.0.0+3.efi", "thirteen.name"];
        for text in lengths
            .map(String::from)
            .into_iter()
            .chain(["\u{1f6f6}".repeat(100)])
        {
            let units = long_units(text.as_bytes()).unwrap();
            let short = numbered_short(text.as_bytes(), &HashSet::new());
            let mut bytes = Vec::new();
            render_long(&units, &short, &mut bytes);
            assert_eq!(bytes.len(), pieces(units.len()) * ENTRY_LEN);
            let mut long = LongName::default();
            for entry in bytes.chunks_exact(ENTRY_LEN) {
                long.piece(entry.try_into().unwrap());
            }
            assert_eq!(long.take(&short), Some(text));
            assert_eq!(long.take(&short), None);
        }
    }

    #[test]
    fn names_that_fat_forbids_are_refused() {
        let long = "x".repeat(256);
        for bad in ["a:b", "a?", "a\u{1}", "a.", "a ", &long] {
            assert!(long_units(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(long_units(b"\xff").is_err());
    }
}
