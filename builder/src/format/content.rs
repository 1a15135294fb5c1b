//! The bytes of a tree's files, copied piece by piece with bounded memory.
//!
//! It only reads the host's files; what is shorter than its [`Content`] says is an error, not zeros.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::tree::Content;

/// Bytes that are in memory at a time.
const BUFFER: usize = 1 << 20;

/// Why a file's bytes could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The host's file does not open.
    #[error("cannot open {}", path.display())]
    Open {
        /// The host's file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The host's file does not read, or ends too early.
    #[error("cannot read {len} bytes at {offset} of {}", path.display())]
    Read {
        /// The host's file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The bytes cannot be written.
    #[error("cannot write the image")]
    Write(#[from] io::Error),
}

/// Copies contents; keeps the file open that it read last.
#[derive(Debug)]
pub struct Copier {
    buffer: Vec<u8>,
    open: Option<(Arc<PathBuf>, File)>,
}

impl Default for Copier {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER],
            open: None,
        }
    }
}

impl Copier {
    /// Writes the `len` bytes of `content` from `from` on to `out`.
    ///
    /// # Errors
    /// [`ContentError`]. The range must lie inside the content.
    pub fn copy(
        &mut self,
        content: &Content,
        from: u64,
        len: u64,
        out: &mut impl Write,
    ) -> Result<(), ContentError> {
        match content {
            Content::Bytes(bytes) => {
                let from = usize::try_from(from).expect("inside a slice");
                let len = usize::try_from(len).expect("inside a slice");
                out.write_all(&bytes[from..from + len])?;
            }
            Content::Range { path, offset, .. } => {
                let mut at = offset + from;
                let end = at + len;
                while at < end {
                    let piece = BUFFER.min(usize::try_from(end - at).unwrap_or(BUFFER));
                    let mut buffer = std::mem::take(&mut self.buffer);
                    let done = self.read(path, at, &mut buffer[..piece]);
                    self.buffer = buffer;
                    done?;
                    out.write_all(&self.buffer[..piece])?;
                    at += piece as u64;
                }
            }
        }
        Ok(())
    }

    /// Fills `into` with what `content` has from `from` on.
    ///
    /// # Errors
    /// [`ContentError`]. The range must lie inside the content.
    pub fn fill(
        &mut self,
        content: &Content,
        from: u64,
        into: &mut [u8],
    ) -> Result<(), ContentError> {
        match content {
            Content::Bytes(bytes) => {
                let from = usize::try_from(from).expect("inside a slice");
                into.copy_from_slice(&bytes[from..from + into.len()]);
                Ok(())
            }
            Content::Range { path, offset, .. } => self.read(path, offset + from, into),
        }
    }

    /// All of the content, to `out`.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn copy_all(
        &mut self,
        content: &Content,
        out: &mut impl Write,
    ) -> Result<(), ContentError> {
        self.copy(content, 0, content.len(), out)
    }

    fn read(&mut self, path: &Arc<PathBuf>, at: u64, into: &mut [u8]) -> Result<(), ContentError> {
        let file = match self.open.take() {
            Some((open, file)) if Arc::ptr_eq(&open, path) || open == *path => file,
            _ => File::open(path.as_path()).map_err(|source| ContentError::Open {
                path: path.to_path_buf(),
                source,
            })?,
        };
        let result = file.read_exact_at(into, at);
        self.open = Some((path.clone(), file));
        result.map_err(|source| ContentError::Read {
            path: path.to_path_buf(),
            offset: at,
            len: into.len() as u64,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_copied_and_short_files_are_errors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let range = |offset, len| Content::Range {
            path: Arc::new(file.path().to_path_buf()),
            offset,
            len,
        };
        let mut copier = Copier::default();
        let mut out = Vec::new();
        copier
            .copy(&range(100, 2_900_000), 7, 2_500_000, &mut out)
            .unwrap();
        assert!(out == bytes[107..2_500_107]);
        let error = copier.copy_all(&range(2_999_999, 2), &mut out).unwrap_err();
        assert!(matches!(error, ContentError::Read { .. }));
        let missing = Content::Range {
            path: Arc::new("/nonexistent/file".into()),
            offset: 0,
            len: 1,
        };
        let error = copier.copy_all(&missing, &mut out).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/file"));
    }
}
