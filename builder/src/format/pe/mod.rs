//! PE32+ images, as far as a unified kernel image needs them (UAPI group specification "Unified Kernel Image",
//! Microsoft's "PE Format").
//!
//! The writer adds sections to systemd's stub, drops its symbols and changes nothing of its code or data. Adding to a signed stub is refused,
//! for its signature would no longer hold.

pub mod authenticode;

use std::ops::Range;

use super::array_at;

/// Sections are placed at multiples of this, even if the stub asks for less: firmware protects whole pages.
const PAGE: u32 = 4096;
const SECTION_HEADER_LEN: usize = 40;
const COFF_LEN: usize = 24; // with the signature before it
const OPTIONAL_HEADER_MIN: usize = 112;
const PE32_PLUS: u16 = 0x20b;
/// The data directory of signatures.
const CERTIFICATE_TABLE: usize = 4;
/// Initialized data, readable.
const CHARACTERISTICS: u32 = 0x4000_0040;

/// Where the COFF header says where symbols are, and how many.
const SYMBOLS: usize = 12;

// Places in the optional header.
const SIZE_OF_INITIALIZED_DATA: usize = 8;
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const SIZE_OF_IMAGE: usize = 56;
const SIZE_OF_HEADERS: usize = 60;
const CHECKSUM: usize = 64;
const NUMBER_OF_DIRECTORIES: usize = 108;

/// A section of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name, lossy, without padding.
    pub name: String,
    /// Where it is loaded, relative to the image's base.
    pub virtual_address: u32,
    /// Its length in memory.
    pub virtual_size: u32,
    /// Its bytes in the file, cut to the length in memory; inside the file, always.
    pub file_range: Range<usize>,
}

impl Section {
    /// The section's bytes in the file that it was read from.
    pub fn data<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        file.get(self.file_range.clone()).unwrap_or_default()
    }
}

/// Why an image was not read or made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeError {
    /// No PE32+ image, or a broken one.
    #[error("not a PE32+ image: {0}")]
    BadImage(&'static str),
    /// Adding sections would break its signature.
    #[error("the stub is signed already")]
    Signed,
    /// The stub's headers have no room for more sections.
    #[error("the stub's headers have room for {room} more sections, not for {wanted}")]
    NoRoom {
        /// How many fit.
        room: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// An empty or long name, or one that is there already.
    #[error("section name {name:?}: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// The rule.
        reason: &'static str,
    },
    /// More than 4 GiB.
    #[error("the image would be larger than 4 GiB")]
    TooLarge,
}

/// Adds sections to a stub, in the order given.
///
/// # Errors
/// [`PeError`], if the stub is no PE32+ image or the sections do not go into it.
pub fn append_sections(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, PeError> {
    let headers = Headers::parse(stub)?;
    let existing = read_sections(stub, &headers)?;
    check_room(stub, &headers, &existing, sections)?;
    let total: usize = sections.iter().map(|(_, data)| data.len()).sum();
    let mut image = Vec::with_capacity(stub.len() + total + (sections.len() + 1) * PAGE as usize);
    image.extend_from_slice(&stub[..sections_end(stub, &headers)]);
    let file_alignment = headers.file_alignment as usize;
    image.resize(image.len().next_multiple_of(file_alignment), 0);

    let alignment = headers.section_alignment.max(PAGE);
    let end_of = |section: &Section| section.virtual_address.checked_add(section.virtual_size);
    let mut end = existing
        .iter()
        .map(end_of)
        .try_fold(0, |end: u32, next| Some(end.max(next?)))
        .ok_or(PeError::TooLarge)?;
    let mut table_at = headers.table_end();
    let mut added: u32 = 0;
    for (name, data) in sections {
        let size = u32::try_from(data.len()).map_err(|_| PeError::TooLarge)?;
        let address = end
            .checked_next_multiple_of(alignment)
            .ok_or(PeError::TooLarge)?;
        end = address.checked_add(size).ok_or(PeError::TooLarge)?;
        let pointer = u32::try_from(image.len()).map_err(|_| PeError::TooLarge)?;
        let raw_size = data.len().next_multiple_of(file_alignment);
        let raw_size = u32::try_from(raw_size).map_err(|_| PeError::TooLarge)?;
        let header = section_header(name, size, address, raw_size, pointer);
        image[table_at..table_at + SECTION_HEADER_LEN].copy_from_slice(&header);
        table_at += SECTION_HEADER_LEN;
        image.extend_from_slice(data);
        image.resize(image.len().next_multiple_of(file_alignment), 0);
        added = added.checked_add(raw_size).ok_or(PeError::TooLarge)?;
    }
    let size = end
        .checked_next_multiple_of(alignment)
        .ok_or(PeError::TooLarge)?;
    headers.update(&mut image, sections.len(), added, size);
    Ok(image)
}

/// Where the last section ends. A linker's symbols may follow, which nothing loads: what a signature covers has no gaps.
fn sections_end(stub: &[u8], headers: &Headers) -> usize {
    headers
        .section_headers(stub)
        .map(|header| (u32_at(header, 20) as usize).saturating_add(u32_at(header, 16) as usize))
        .max()
        .unwrap_or_default()
        .max(headers.table_end().max(headers.headers_len))
        .min(stub.len())
}

/// The sections of an image, in the order of its table. Every range lies inside `file`.
///
/// # Errors
/// [`PeError::BadImage`].
pub fn sections(file: &[u8]) -> Result<Vec<Section>, PeError> {
    read_sections(file, &Headers::parse(file)?)
}

/// What is needed of an image's headers, checked to lie inside the file.
struct Headers {
    coff: usize,
    optional: usize,
    table: usize,
    count: usize,
    section_alignment: u32,
    file_alignment: u32,
    headers_len: usize,
    has_directory: bool,
    signed: bool,
}

impl Headers {
    fn parse(file: &[u8]) -> Result<Self, PeError> {
        let bad = PeError::BadImage;
        if !file.starts_with(b"MZ") || file.len() < 64 {
            return Err(bad("no DOS header"));
        }
        let coff = u32_at(file, 0x3c) as usize;
        let rest = file.get(coff..).unwrap_or_default();
        if !rest.starts_with(b"PE\0\0") || rest.len() < COFF_LEN {
            return Err(bad("no PE signature"));
        }
        let count = usize::from(u16_at(rest, 6));
        let optional_len = usize::from(u16_at(rest, 20));
        let table_at = COFF_LEN + optional_len;
        if optional_len < OPTIONAL_HEADER_MIN || rest.len() < table_at + count * SECTION_HEADER_LEN
        {
            return Err(bad("its headers are cut off"));
        }
        let optional = &rest[COFF_LEN..table_at];
        if u16_at(optional, 0) != PE32_PLUS {
            return Err(bad("its optional header is of another kind"));
        }
        let section_alignment = u32_at(optional, SECTION_ALIGNMENT);
        let file_alignment = u32_at(optional, FILE_ALIGNMENT);
        let sane = |n: u32| n.is_power_of_two() && (16..=1 << 16).contains(&n);
        if !sane(section_alignment) || !sane(file_alignment) {
            return Err(bad("its alignments are no powers of two from 16 to 65536"));
        }
        let directories = u32_at(optional, NUMBER_OF_DIRECTORIES) as usize;
        let certificates = OPTIONAL_HEADER_MIN + CERTIFICATE_TABLE * 8;
        let has_directory = directories > CERTIFICATE_TABLE && optional.len() >= certificates + 8;
        let signed = has_directory && optional[certificates..certificates + 8] != [0; 8];
        Ok(Self {
            coff,
            optional: coff + COFF_LEN,
            table: coff + table_at,
            count,
            section_alignment,
            file_alignment,
            headers_len: u32_at(optional, SIZE_OF_HEADERS) as usize,
            has_directory,
            signed,
        })
    }

    fn section_headers<'a>(&self, file: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        file[self.table..self.table_end()].chunks_exact(SECTION_HEADER_LEN)
    }

    fn table_end(&self) -> usize {
        self.table + self.count * SECTION_HEADER_LEN
    }

    /// Announces `added` more sections of `data` bytes; the checksum, which nobody reads in EFI, is cleared.
    fn update(&self, image: &mut [u8], added: usize, data: u32, size_of_image: u32) {
        let mut put = |at: usize, value: u32| {
            image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(self.optional + SIZE_OF_IMAGE, size_of_image);
        put(self.optional + CHECKSUM, 0);
        put(self.coff + SYMBOLS, 0);
        put(self.coff + SYMBOLS + 4, 0);
        let initialized = self.optional + SIZE_OF_INITIALIZED_DATA;
        let sum = u32_at(image, initialized).saturating_add(data);
        image[initialized..initialized + 4].copy_from_slice(&sum.to_le_bytes());
        let count = (self.count + added) as u16;
        image[self.coff + 6..self.coff + 8].copy_from_slice(&count.to_le_bytes());
    }
}

fn read_sections(file: &[u8], headers: &Headers) -> Result<Vec<Section>, PeError> {
    headers
        .section_headers(file)
        .map(|header| read_section(file, header))
        .collect()
}

fn read_section(file: &[u8], header: &[u8]) -> Result<Section, PeError> {
    let name_len = header[..8].iter().position(|byte| *byte == 0).unwrap_or(8);
    let virtual_size = u32_at(header, 8);
    let start = u32_at(header, 20) as usize;
    let len = u32_at(header, 16).min(virtual_size) as usize;
    let end = start.saturating_add(len);
    if len > 0 && end > file.len() {
        return Err(PeError::BadImage("a section is not in the file"));
    }
    Ok(Section {
        name: String::from_utf8_lossy(&header[..name_len]).into_owned(),
        virtual_address: u32_at(header, 12),
        virtual_size,
        file_range: if len == 0 { 0..0 } else { start..end },
    })
}

fn check_room(
    stub: &[u8],
    headers: &Headers,
    existing: &[Section],
    sections: &[(&str, &[u8])],
) -> Result<(), PeError> {
    if headers.signed {
        return Err(PeError::Signed);
    }
    let first_data = existing
        .iter()
        .filter(|section| !section.file_range.is_empty())
        .map(|section| section.file_range.start)
        .min()
        .unwrap_or(stub.len());
    let end = headers.headers_len.min(first_data).min(stub.len());
    let room = end.saturating_sub(headers.table_end()) / SECTION_HEADER_LEN;
    if sections.len() > room {
        let wanted = sections.len();
        return Err(PeError::NoRoom { room, wanted });
    }
    let mut names: Vec<&str> = existing.iter().map(|section| &*section.name).collect();
    for (name, _) in sections {
        let reason = match name.len() {
            1..=8 if !names.contains(name) => {
                names.push(name);
                continue;
            }
            1..=8 => "there is such a section already",
            _ => "a name has 1 to 8 bytes",
        };
        let name = (*name).to_owned();
        return Err(PeError::BadName { name, reason });
    }
    Ok(())
}

fn section_header(
    name: &str,
    virtual_size: u32,
    virtual_address: u32,
    raw_size: u32,
    pointer: u32,
) -> [u8; SECTION_HEADER_LEN] {
    let mut header = [0; SECTION_HEADER_LEN];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let words = [virtual_size, virtual_address, raw_size, pointer];
    for (place, word) in header[8..24].chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    header[36..].copy_from_slice(&CHARACTERISTICS.to_le_bytes());
    header
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stub of one section with room for `room` more.
    pub(super) fn stub(room: usize) -> Vec<u8> {
        let table = 64 + COFF_LEN + 240;
        let headers_len = (table + (1 + room) * SECTION_HEADER_LEN) as u32;
        let mut stub = vec![0; 0x400];
        stub[..2].copy_from_slice(b"MZ");
        stub[0x3c] = 64;
        stub[64..68].copy_from_slice(b"PE\0\0");
        stub[64 + 6] = 1;
        stub[64 + 20] = 240;
        let optional = 64 + COFF_LEN;
        stub[optional..optional + 2].copy_from_slice(&PE32_PLUS.to_le_bytes());
        for (at, value) in [
            (SECTION_ALIGNMENT, 0x200),
            (FILE_ALIGNMENT, 0x200),
            (SIZE_OF_HEADERS, headers_len),
            (NUMBER_OF_DIRECTORIES, 16),
            (CHECKSUM, 0x1234),
        ] {
            stub[optional + at..optional + at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        let header = section_header(".text", 0x123, 0x1000, 0x600 - headers_len, headers_len);
        stub[table..table + SECTION_HEADER_LEN].copy_from_slice(&header);
        stub.resize(0x600, 0xcc);
        stub
    }

    #[test]
    fn added_sections_are_read_back_page_aligned() {
        let initrd = vec![7; 5000];
        let added = [(".cmdline", &b"quiet"[..]), (".initrd", &initrd)];
        let image = append_sections(&stub(2), &added).unwrap();
        let found = sections(&image).unwrap();
        assert_eq!(found.len(), 3);
        for ((name, data), section) in added.iter().zip(&found[1..]) {
            assert_eq!(section.name, *name);
            assert_eq!(section.data(&image), *data);
            assert_eq!(section.virtual_address % PAGE, 0);
            assert_eq!(section.file_range.start % 0x200, 0);
        }
        assert_eq!(found[1].virtual_address, 0x2000);
        assert_eq!(found[2].virtual_address, 0x3000);
        let optional = 64 + COFF_LEN;
        assert_eq!(u32_at(&image, optional + SIZE_OF_IMAGE), 0x5000);
        assert_eq!(u32_at(&image, optional + CHECKSUM), 0);
        assert_eq!(image.len() % 0x200, 0);
    }

    #[test]
    fn sections_that_do_not_go_in_are_refused() {
        let two = [(".a", &b""[..]), (".b", b"")];
        assert_eq!(
            append_sections(&stub(1), &two).unwrap_err(),
            PeError::NoRoom { room: 1, wanted: 2 }
        );
        for name in [".text", "", ".toolongx"] {
            let error = append_sections(&stub(4), &[(name, b"")]).unwrap_err();
            assert!(matches!(error, PeError::BadName { .. }), "{name}");
        }
        let mut signed = stub(1);
        signed[64 + COFF_LEN + OPTIONAL_HEADER_MIN + 32] = 1;
        assert_eq!(append_sections(&signed, &[]).unwrap_err(), PeError::Signed);
    }

    #[test]
    fn no_cut_or_changed_image_makes_the_reader_panic() {
        let image = append_sections(&stub(2), &[(".a", &[1; 600])]).unwrap();
        for len in 0..image.len() {
            let _ = sections(&image[..len]);
            let _ = append_sections(&image[..len], &[(".b", b"x")]);
        }
        for at in 0..0x400 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = image.clone();
                changed[at] = value;
                for section in sections(&changed).into_iter().flatten() {
                    assert!(section.file_range.end <= changed.len());
                }
                let _ = append_sections(&changed, &[(".b", b"x")]);
            }
        }
    }
}
