//! What lies on the EFI system partition, as the record has it: without signatures, and where a kernel's command line has
//! the root hash as if that were all zeros, for it follows from the record.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::format::pe::PeError;
use crate::format::pe_digest::{self, Digests};
use crate::identity::hex;

/// The word of a command line before the root hash.
const ROOT_HASH: &[u8] = b"roothash=";
/// Its length in hexadecimal digits.
const ROOT_HASH_LEN: usize = 64;

/// The files of the EFI system partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFiles {
    /// In the order of their paths.
    pub files: Vec<BootFile>,
}

/// A file of the EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Its path on the partition.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub content: BootContent,
}

/// What a file of the EFI system partition is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootContent {
    /// An EFI program: a boot loader, a unified kernel image.
    Program(Digests),
    /// Anything else: SHA-256 of it.
    Sha256(String),
}

impl BootFile {
    /// The record of a file.
    ///
    /// # Errors
    /// [`PeError`], if a program is none.
    pub fn of(path: String, bytes: &[u8]) -> Result<Self, PeError> {
        let content = if is_program(&path) {
            BootContent::Program(pe_digest::digests(bytes, without_root_hash)?)
        } else {
            BootContent::Sha256(hex(&Sha256::digest(bytes)))
        };
        Ok(Self { path, content })
    }

    /// The path without the boot loader's count of tries (`NAME+LEFT-DONE.efi`).
    pub fn counted_off(path: &str) -> String {
        let Some((stem, count)) = path.strip_suffix(".efi").and_then(|p| p.rsplit_once('+')) else {
            return path.to_owned();
        };
        let is_count = |c: char| c.is_ascii_digit() || c == '-';
        if !count.is_empty() && count.chars().all(is_count) {
            format!("{stem}.efi")
        } else {
            path.to_owned()
        }
    }

    /// What is another in the file that was found at this path; nothing if it fits.
    pub fn differences(&self, bytes: &[u8]) -> Vec<String> {
        let whole = || vec!["the file is another".to_owned()];
        let Ok(found) = Self::of(self.path.clone(), bytes) else {
            return vec!["it is no EFI program any more".to_owned()];
        };
        match (&self.content, &found.content) {
            (BootContent::Program(known), BootContent::Program(found)) => {
                let signed = pe_digest::is_signed(bytes).unwrap_or(false);
                known.differences(found, signed)
            }
            (known, found) if known == found => Vec::new(),
            _ => whole(),
        }
    }
}

fn is_program(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".efi")
}

/// A command line with zeros for its root hash.
fn without_root_hash(section: &str, data: &[u8]) -> Option<Vec<u8>> {
    if section != ".cmdline" {
        return None;
    }
    let at = data
        .windows(ROOT_HASH.len())
        .position(|word| word == ROOT_HASH)?;
    let mut data = data.to_vec();
    let hash = data.get_mut(at + ROOT_HASH.len()..)?;
    hash.get_mut(..ROOT_HASH_LEN)?.fill(b'0');
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_counts_without_its_root_hash() {
        let line = |hash: &str| format!("quiet roothash={} x", hash.repeat(32)).into_bytes();
        let zeros = without_root_hash(".cmdline", &line("ab"));
        assert_eq!(zeros, Some(line("00")));
        assert_eq!(zeros, without_root_hash(".cmdline", &line("cd")));
        assert_eq!(without_root_hash(".linux", &line("ab")), None);
        assert_eq!(without_root_hash(".cmdline", b"roothash=ab"), None);
    }

    #[test]
    fn a_counted_image_is_the_same_file() {
        for (path, want) in [
            ("EFI/Linux/web_1.0.0+3.efi", "EFI/Linux/web_1.0.0.efi"),
            ("EFI/Linux/web_1.0.0+2-1.efi", "EFI/Linux/web_1.0.0.efi"),
            ("EFI/Linux/web_1.0.0+x.efi", "EFI/Linux/web_1.0.0+x.efi"),
            ("loader/a+1.conf", "loader/a+1.conf"),
        ] {
            assert_eq!(BootFile::counted_off(path), want);
        }
    }

    #[test]
    fn a_file_that_was_changed_is_found() {
        let file = BootFile::of("loader/loader.conf".to_owned(), b"timeout 0\n").unwrap();
        assert!(file.differences(b"timeout 0\n").is_empty());
        assert_eq!(file.differences(b"timeout 9\n"), ["the file is another"]);
    }
}
