//! Decompression and digests while bytes stream through, into the cache.
//!
//! Nothing is taken that was not hashed: a stream is written to a temporary file and becomes an entry only when its
//! digests and sizes are the promised ones. Output is bounded by a budget, so a small input cannot fill the disk.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest, Sha256};

use super::budget::Budget;
use crate::identity::hex;
use crate::progress::Step;

/// The most memory that the xz decoder may use, in KiB; `xz -9` needs 65 MiB.
const XZ_MEMORY_KIB: u32 = 256 << 10;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// The .bz2 format.
    Bzip2,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// By the first bytes.
    pub fn sniff(begin: &[u8]) -> Self {
        match begin {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, as zstd:chunked layers may begin with.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// A reader of the plain bytes.
    pub fn reader<'a>(self, inner: impl Read + 'a) -> Box<dyn Read + 'a> {
        match self {
            Self::None => Box::new(inner),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(
                BufReader::with_capacity(1 << 16, inner),
            )),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(
                BufReader::with_capacity(1 << 16, inner),
            )),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
                BufReader::with_capacity(1 << 16, inner),
                true,
                XZ_MEMORY_KIB,
            )),
            Self::Zstd => Box::new(ZstdReader::new(inner)),
        }
    }
}

/// What went through a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Bytes as they came.
    pub len: u64,
    /// Their SHA-256, hex.
    pub sha256: String,
    /// SHA-256 of the plain bytes, hex.
    pub plain_sha256: String,
}

/// Decompresses `input` into `output`, hashing both sides; input after the compressed data is hashed as well.
///
/// # Errors
/// The reader's, the writer's, or that the budget is used up.
pub fn decompress(
    input: impl Read,
    compression: Compression,
    output: &mut File,
    budget: &Budget,
    step: &Step,
) -> io::Result<Passed> {
    let mut counted = Counted {
        inner: input,
        hash: Sha256::new(),
        len: 0,
        step,
    };
    let mut plain = Sha256::new();
    if compression == Compression::None {
        copy(&mut counted, |part| {
            budget.take(part.len() as u64)?;
            output.write_all(part)
        })?;
        let sha256 = hex(&counted.hash.finalize());
        return Ok(Passed {
            len: counted.len,
            plain_sha256: sha256.clone(),
            sha256,
        });
    }
    copy(&mut compression.reader(&mut counted), |part| {
        budget.take(part.len() as u64)?;
        plain.update(part);
        output.write_all(part)
    })?;
    copy(&mut counted, |_| Ok(()))?;
    Ok(Passed {
        len: counted.len,
        sha256: hex(&counted.hash.finalize()),
        plain_sha256: hex(&plain.finalize()),
    })
}

/// The SHA-256 of all that a reader gives, hex, and its length.
///
/// # Errors
/// The reader's.
pub fn digest(mut input: impl Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut len = 0;
    copy(&mut input, |part| {
        hash.update(part);
        len += part.len() as u64;
        Ok(())
    })?;
    Ok((hex(&hash.finalize()), len))
}

fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to(&buffer[..len])?;
    }
}

/// Reads a part of a file.
#[derive(Debug)]
pub struct Section<'a> {
    /// The file.
    pub file: &'a File,
    /// The next byte.
    pub at: u64,
    /// How many are left.
    pub left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let len = self.file.read_at(&mut buffer[..len], self.at)?;
        if len == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

/// Hashes and counts what is read.
struct Counted<'a, R> {
    inner: R,
    hash: Sha256,
    len: u64,
    step: &'a Step,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hash.update(&buffer[..len]);
        self.len += len as u64;
        self.step.advance(len as u64);
        Ok(len)
    }
}

/// Reads all frames of a zstd stream, skippable ones skipped, and checks their checksums.
struct ZstdReader<R: Read> {
    input: BufReader<R>,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: Read> ZstdReader<R> {
    fn new(inner: R) -> Self {
        Self {
            input: BufReader::with_capacity(1 << 16, inner),
            decoder: FrameDecoder::new(),
            in_frame: false,
        }
    }

    /// Begins the next frame; `false` at the end of the input.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.input) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(broken(e)),
            }
        }
        Ok(false)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let said = self.decoder.get_checksum_from_data();
        if said.is_some() && said != self.decoder.get_calculated_checksum() {
            return Err(broken("a zstd frame's checksum is wrong"));
        }
        Ok(())
    }
}

fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: Read> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(broken)?;
            }
            match self.decoder.read(buffer)? {
                0 if self.decoder.is_finished() => self.end_frame()?,
                len => return Ok(len),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// What a tool of the host makes of the bytes.
    fn compressed(tool: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut input).unwrap();
        let output = Command::new(tool)
            .args(arguments)
            .stdin(input)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn sample() -> Vec<u8> {
        (0..700_000u32)
            .flat_map(|i| (i / 7).wrapping_mul(2_654_435_761).to_le_bytes())
            .collect()
    }

    fn pass(bytes: &[u8]) -> io::Result<(Passed, Vec<u8>)> {
        let mut output = tempfile::NamedTempFile::new()?;
        let budget = Budget::new(1 << 30);
        let step = crate::progress::Progress::silent().step("", None);
        let passed = decompress(
            bytes,
            Compression::sniff(bytes),
            output.as_file_mut(),
            &budget,
            &step,
        )?;
        Ok((passed, std::fs::read(output.path())?))
    }

    #[test]
    fn output_of_each_tool_is_read_back() {
        let plain = sample();
        for (tool, arguments) in [
            ("cat", &[][..]),
            ("gzip", &["-c"]),
            ("bzip2", &["-c"]),
            ("xz", &["-c", "-1"]),
            ("xz", &["-c", "-1", "--check=sha256"]),
            ("zstd", &["-c", "-q"]),
            ("zstd", &["-c", "-q", "--check"]),
        ] {
            let bytes = compressed(tool, arguments, &plain);
            let (passed, output) = pass(&bytes).unwrap();
            assert!(output == plain, "{tool}");
            assert_eq!(passed.len, bytes.len() as u64);
            assert_eq!(passed.sha256, digest(&bytes[..]).unwrap().0);
            assert_eq!(passed.plain_sha256, digest(&plain[..]).unwrap().0);
            let twice = [&bytes[..], &bytes[..]].concat();
            assert!(
                pass(&twice).unwrap().1 == [&plain[..], &plain[..]].concat(),
                "{tool} twice"
            );
            if tool != "cat" {
                for cut in [1, 20, bytes.len() / 2, bytes.len() - 1] {
                    let cut = pass(&bytes[..cut]);
                    assert!(cut.is_err() || cut.unwrap().1 != plain, "{tool} cut");
                }
            }
        }
    }

    #[test]
    fn a_bomb_unpacks_no_further_than_the_budget() {
        let plain = vec![0; 32 << 20];
        for tool in ["gzip", "bzip2", "xz", "zstd"] {
            let bomb = compressed(tool, &["-c", "-q"], &plain);
            assert!(bomb.len() < 64 << 10, "{tool}");
            let mut output = tempfile::NamedTempFile::new().unwrap();
            let step = crate::progress::Progress::silent().step("", None);
            let error = decompress(
                &bomb[..],
                Compression::sniff(&bomb),
                output.as_file_mut(),
                &Budget::new(1 << 20),
                &step,
            )
            .unwrap_err();
            assert!(error.to_string().contains("unpacks more than"), "{error}");
            assert!(
                output.as_file().metadata().unwrap().len() <= 1 << 20,
                "{tool}"
            );
        }
    }

    #[test]
    fn skippable_frames_are_skipped() {
        let frame = compressed("zstd", &["-c", "-q"], b"data");
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let bytes = [&skippable[..], &frame, &skippable].concat();
        assert_eq!(pass(&bytes).unwrap().1, b"data");
        assert!(pass(&skippable[..10]).is_err());
    }
}
