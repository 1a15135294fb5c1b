//! Signatures of PE images (Microsoft's "Windows Authenticode Portable Executable Signature Format"): what of an image
//! is hashed, and where signatures lie. Making and judging them is [`crate::secure_boot`]'s.
//!
//! Refused: images in which bytes lie between headers and sections, for firmwares do not agree on what of those is hashed.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::{CERTIFICATE_TABLE, CHECKSUM, Headers, OPTIONAL_HEADER_MIN, PeError, u16_at, u32_at};

/// `WIN_CERTIFICATE`: length, revision, type.
const ENTRY_HEADER: usize = 8;
const REVISION_2: u16 = 0x0200;
/// PKCS #7 `SignedData`.
const PKCS_SIGNED_DATA: u16 = 2;
/// The table and each entry of it begin at multiples of this.
const TABLE_ALIGNMENT: usize = 8;

/// SHA-256 of all that a signature covers: the image without its checksum, and without its signatures.
///
/// # Errors
/// [`PeError::BadImage`].
pub fn digest(file: &[u8]) -> Result<[u8; 32], PeError> {
    let headers = Headers::parse(file)?;
    let end = hashed_end(file, &headers)?;
    let checksum = headers.optional + CHECKSUM;
    let directory = directory_at(&headers);
    let mut hash = Sha256::new();
    hash.update(&file[..checksum]);
    hash.update(&file[checksum + 4..directory]);
    hash.update(&file[directory + 8..end]);
    // The table begins at a multiple of 8: the zeros before it will be covered.
    hash.update(&[0; TABLE_ALIGNMENT][..end.next_multiple_of(TABLE_ALIGNMENT) - end]);
    Ok(hash.finalize().into())
}

/// Adds a signature (DER of a PKCS #7 `ContentInfo`) behind those that are there.
///
/// # Errors
/// [`PeError`], if the image is none or becomes too large.
pub fn attach(file: &mut Vec<u8>, signature: &[u8]) -> Result<(), PeError> {
    let headers = Headers::parse(file)?;
    hashed_end(file, &headers)?;
    file.resize(file.len().next_multiple_of(TABLE_ALIGNMENT), 0);
    let start = table(file, &headers)?.map_or(file.len(), |table| table.start);
    // GNU tools read the length as the whole entry, Microsoft's round it: an entry of a round length is both.
    let len = (ENTRY_HEADER + signature.len()).next_multiple_of(TABLE_ALIGNMENT);
    let entry_end = file.len() + len;
    let length = u32::try_from(len).map_err(|_| PeError::TooLarge)?;
    let table_len = u32::try_from(entry_end - start).map_err(|_| PeError::TooLarge)?;
    let table_at = u32::try_from(start).map_err(|_| PeError::TooLarge)?;
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(&REVISION_2.to_le_bytes());
    file.extend_from_slice(&PKCS_SIGNED_DATA.to_le_bytes());
    file.extend_from_slice(signature);
    file.resize(entry_end, 0);
    let directory = directory_at(&headers);
    file[directory..directory + 4].copy_from_slice(&table_at.to_le_bytes());
    file[directory + 4..directory + 8].copy_from_slice(&table_len.to_le_bytes());
    Ok(())
}

/// The signatures of an image, padding included.
///
/// # Errors
/// [`PeError::BadImage`].
pub fn signatures(file: &[u8]) -> Result<Vec<&[u8]>, PeError> {
    let headers = Headers::parse(file)?;
    let Some(table) = table(file, &headers)? else {
        return Ok(Vec::new());
    };
    let mut rest = &file[table];
    let mut found = Vec::new();
    while rest.len() >= ENTRY_HEADER {
        let len = u32_at(rest, 0) as usize;
        let kind = u16_at(rest, 6);
        let entry = rest
            .get(ENTRY_HEADER..len)
            .ok_or(PeError::BadImage("a signature is cut off"))?;
        if kind == PKCS_SIGNED_DATA {
            found.push(entry);
        }
        rest = rest
            .get(len.next_multiple_of(TABLE_ALIGNMENT)..)
            .unwrap_or_default();
    }
    Ok(found)
}

/// Where the directory of signatures is announced; [`Headers::parse`] has seen that it is in the headers.
fn directory_at(headers: &Headers) -> usize {
    headers.optional + OPTIONAL_HEADER_MIN + CERTIFICATE_TABLE * 8
}

/// The table of signatures: the last of the file, as the loader of a UEFI firmware wants it.
fn table(file: &[u8], headers: &Headers) -> Result<Option<Range<usize>>, PeError> {
    if !headers.has_directory {
        return Err(PeError::BadImage(
            "its headers have no place for a signature",
        ));
    }
    let at = directory_at(headers);
    let (start, len) = (u32_at(file, at) as usize, u32_at(file, at + 4) as usize);
    match (start, len, start.checked_add(len)) {
        (0, 0, _) => Ok(None),
        (_, 1.., Some(end)) if end == file.len() && start % TABLE_ALIGNMENT == 0 => {
            Ok(Some(start..end))
        }
        _ => Err(PeError::BadImage("its signatures are not at its end")),
    }
}

/// Where the hashed part of the file ends, having seen that headers and sections follow each other without a gap.
fn hashed_end(file: &[u8], headers: &Headers) -> Result<usize, PeError> {
    let end = table(file, headers)?.map_or(file.len(), |table| table.start);
    let mut raw: Vec<(usize, usize)> = headers
        .section_headers(file)
        .map(|header| (u32_at(header, 20) as usize, u32_at(header, 16) as usize))
        .filter(|(_, len)| *len > 0)
        .collect();
    raw.sort_unstable();
    let mut next = headers.headers_len;
    for (start, len) in raw {
        if start != next {
            return Err(PeError::BadImage("its sections do not follow each other"));
        }
        next = start.saturating_add(len);
    }
    if directory_at(headers) + 8 > headers.headers_len || next > end {
        return Err(PeError::BadImage("its sections reach past its end"));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::super::tests::stub;
    use super::*;
    use crate::format::pe::append_sections;

    fn image() -> Vec<u8> {
        append_sections(&stub(2), &[(".cmdline", b"quiet"), (".linux", &[7; 700])]).unwrap()
    }

    #[test]
    fn signatures_are_read_back_and_change_no_digest() {
        let mut image = image();
        let unsigned = digest(&image).unwrap();
        assert_eq!(signatures(&image).unwrap().len(), 0);
        attach(&mut image, b"one").unwrap();
        attach(&mut image, b"another one").unwrap();
        assert_eq!(digest(&image).unwrap(), unsigned);
        let found = signatures(&image).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with(b"one") && found[1].starts_with(b"another one"));
    }

    #[test]
    fn every_byte_but_the_checksum_and_the_signatures_counts() {
        let image = image();
        let whole = digest(&image).unwrap();
        let headers = Headers::parse(&image).unwrap();
        let checksum = headers.optional + CHECKSUM;
        let directory = directory_at(&headers);
        for at in 0..image.len() {
            let mut changed = image.clone();
            changed[at] ^= 1;
            let counts = digest(&changed) != Ok(whole);
            let left_out = (checksum..checksum + 4).contains(&at);
            assert_eq!(counts, !left_out, "byte {at} (directory at {directory})");
        }
    }

    #[test]
    fn gaps_and_cut_tables_are_refused_and_nothing_panics() {
        let mut image = image();
        attach(&mut image, b"signature").unwrap();
        for len in 0..image.len() {
            let cut = &image[..len];
            assert!(digest(cut).is_err(), "{len}");
            let _ = signatures(cut);
        }
        for at in 0..0x400 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = image.clone();
                changed[at] = value;
                let _ = digest(&changed);
                let _ = signatures(&changed);
                let _ = attach(&mut changed, b"x");
            }
        }
    }
}
