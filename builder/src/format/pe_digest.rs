//! Digests of a PE image by its parts, so that a change is found in whatever byte it is and named by its section.
//!
//! What signing changes is left out: the checksum, the announcement of the signatures, and they themselves.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pe::{self, PeError};
use super::{array_at, hex};

// Microsoft's "PE Format": where the COFF header is, and places from there on.
const COFF_AT: usize = 0x3c;
const CHECKSUM: usize = 24 + 64;
const SIGNATURES: usize = 24 + 112 + 4 * 8;
/// Signatures begin at multiples of this.
const ALIGNMENT: usize = 8;

/// The digests of an image, each SHA-256 in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Its length in bytes, without signatures.
    pub size: u64,
    /// Its sections in the order of its table.
    pub sections: Vec<Section>,
    /// All that is in no section: headers and what lies in between.
    pub rest: String,
    /// The checksum in its headers, which only counts as long as it is not signed.
    pub checksum: u32,
}

/// A section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: String,
}

/// What of an image signing changes.
struct Frame {
    checksum: Range<usize>,
    directory: Range<usize>,
    /// Where the signed part ends.
    end: usize,
}

impl Frame {
    fn of(file: &[u8]) -> Result<Self, PeError> {
        let short = || PeError::BadImage("its headers are cut off");
        let coff = file.get(COFF_AT..COFF_AT + 4).ok_or_else(short)?;
        let coff = u32::from_le_bytes(array_at(coff, 0)) as usize;
        let checksum = coff + CHECKSUM..coff + CHECKSUM + 4;
        let directory = coff + SIGNATURES..coff + SIGNATURES + 8;
        let entry = file.get(directory.clone()).ok_or_else(short)?;
        let at = u32::from_le_bytes(array_at(entry, 0)) as usize;
        let len = u32::from_le_bytes(array_at(entry, 4)) as usize;
        let end = match (at, at.checked_add(len)) {
            (0, Some(0)) => file.len(),
            (1.., Some(end)) if end == file.len() => at,
            _ => return Err(PeError::BadImage("its signatures are not at its end")),
        };
        Ok(Self {
            checksum,
            directory,
            end,
        })
    }
}

/// Whether an image carries signatures.
///
/// # Errors
/// [`PeError`].
pub fn is_signed(file: &[u8]) -> Result<bool, PeError> {
    Ok(Frame::of(file)?.end < file.len())
}

/// The digests of an image; `replace` gives another content for a section, of the same length, or `None`.
///
/// # Errors
/// [`PeError`], if it is no PE image.
pub fn digests(
    file: &[u8],
    replace: impl Fn(&str, &[u8]) -> Option<Vec<u8>>,
) -> Result<Digests, PeError> {
    let table = pe::sections(file)?;
    let frame = Frame::of(file)?;
    let mut sections = Vec::new();
    for section in &table {
        let data = section.data(file);
        let data = replace(&section.name, data).map_or(Cow::Borrowed(data), Cow::Owned);
        sections.push(Section {
            name: section.name.clone(),
            size: data.len() as u64,
            sha256: hex(&Sha256::digest(&data)),
        });
    }
    let mut holes: Vec<Range<usize>> = table.into_iter().map(|s| s.file_range).collect();
    let checksum = file.get(frame.checksum.clone()).unwrap_or(&[0; 4]);
    let checksum = u32::from_le_bytes(array_at(checksum, 0));
    holes.extend([frame.checksum, frame.directory]);
    Ok(Digests {
        size: frame.end as u64,
        sections,
        rest: hex(&rest(&file[..frame.end], holes)),
        checksum,
    })
}

/// The digest of what is in no hole; signing may add zeros up to the next multiple of eight.
fn rest(file: &[u8], mut holes: Vec<Range<usize>>) -> [u8; 32] {
    holes.sort_by_key(|hole| hole.start);
    let mut hash = Sha256::new();
    let mut at = 0;
    for hole in holes {
        hash.update(&file[at..hole.start.clamp(at, file.len())]);
        at = at.max(hole.end.min(file.len()));
    }
    hash.update(&file[at..]);
    hash.update(&[0; ALIGNMENT][..file.len().next_multiple_of(ALIGNMENT) - file.len()]);
    hash.finalize().into()
}

impl Digests {
    /// What is another in an image that was found, by name; `signed`: whether that one carries signatures.
    pub fn differences(&self, found: &Self, signed: bool) -> Vec<String> {
        let mut differ = Vec::new();
        for section in &self.sections {
            let other = found.sections.iter().find(|s| s.name == section.name);
            if other != Some(section) {
                differ.push(format!("section {}", section.name));
            }
        }
        let unknown = found
            .sections
            .iter()
            .filter(|section| !self.sections.iter().any(|known| known.name == section.name));
        differ.extend(unknown.map(|section| format!("section {}, which is new", section.name)));
        if self.rest != found.rest || (!signed && self.checksum != found.checksum) {
            differ.push("its headers, or what lies between sections".to_owned());
        }
        differ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers and one section, with room for two more.
    fn stub() -> Vec<u8> {
        let mut stub = vec![0; 0x600];
        let optional = 64 + 24;
        let table = optional + 240;
        stub[..2].copy_from_slice(b"MZ");
        stub[COFF_AT] = 64;
        stub[64..68].copy_from_slice(b"PE\0\0");
        stub[64 + 6] = 1; // sections
        stub[64 + 20] = 240; // length of the optional header
        stub[optional..optional + 2].copy_from_slice(&0x20b_u16.to_le_bytes());
        for (at, value) in [
            (optional + 32, 0x1000_u32),
            (optional + 36, 0x200),
            (optional + 60, 0x400),
            (optional + 108, 16),
            (table + 8, 0x200),
            (table + 12, 0x1000),
            (table + 16, 0x200),
            (table + 20, 0x400),
        ] {
            stub[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        stub[table..table + 5].copy_from_slice(b".text");
        stub
    }

    fn image() -> Vec<u8> {
        let stub = stub();
        let sections: [(&str, &[u8]); 2] = [(".cmdline", b"root=1"), (".linux", b"kernel")];
        pe::append_sections(&stub, &sections).unwrap()
    }

    #[test]
    fn each_byte_of_an_image_is_covered() {
        let image = image();
        let good = digests(&image, |_, _| None).unwrap();
        for at in 0..image.len() {
            let mut bad = image.clone();
            bad[at] ^= 1;
            // Most of the headers that are damaged are none any more.
            if let (Ok(found), Ok(signed)) = (digests(&bad, |_, _| None), is_signed(&bad)) {
                let announced = good.size != found.size;
                let found = good.differences(&found, signed);
                assert!(
                    announced || !found.is_empty(),
                    "byte {at} counts for nothing"
                );
            }
        }
    }

    #[test]
    fn what_differs_is_named() {
        let image = image();
        let good = digests(&image, |_, _| None).unwrap();
        let at = image.windows(6).position(|w| w == b"kernel").unwrap();
        let mut bad = image.clone();
        bad[at] = b'K';
        let found = digests(&bad, |_, _| None).unwrap();
        assert_eq!(good.differences(&found, false), ["section .linux"]);
        let zeroed = |name: &str, data: &[u8]| (name == ".linux").then(|| vec![0; data.len()]);
        assert_eq!(digests(&bad, zeroed), digests(&image, zeroed));
    }
}
