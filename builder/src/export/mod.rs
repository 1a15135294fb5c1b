//! A finished raw disk in the form that somebody else wants: the same disk, to the byte, once it is unpacked.

pub mod direct;

use std::fs::File;
use std::io;
use std::path::Path;

use clap::ValueEnum;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::format::region::Region;
use crate::format::{is_zero, qcow2, vhd, vmdk};

/// The forms of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A raw disk, sparse.
    Disk,
    /// A raw disk, compressed with zstd.
    #[value(name = "disk.zst")]
    DiskZst,
    /// QEMU's, sparse.
    Qcow2,
    /// VMware's, stream-optimized.
    Vmdk,
    /// Microsoft's, fixed: what Azure takes.
    Vhd,
    /// A folder of kernel, initrd, command line and a disk without boot loader, for what loads a kernel itself.
    Direct,
}

impl Format {
    /// By the ending of a file's name; a raw disk where it says nothing.
    pub fn of_name(path: &Path) -> Self {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_ascii_lowercase().as_str() {
            "zst" => Self::DiskZst,
            "qcow2" => Self::Qcow2,
            "vmdk" => Self::Vmdk,
            "vhd" => Self::Vhd,
            _ => Self::Disk,
        }
    }

    /// What names of it end with.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Disk => ".img",
            Self::DiskZst => ".img.zst",
            Self::Qcow2 => ".qcow2",
            Self::Vmdk => ".vmdk",
            Self::Vhd => ".vhd",
            Self::Direct => "",
        }
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::DiskZst => "disk.zst",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Direct => "direct",
        }
    }
}

/// What zstd compresses at once: frames of their own, so that as much is in memory.
const FRAME: usize = 4 << 20;

/// Writes the first `len` bytes of `raw` into the empty file `out`. `id` names the content, `name` is the file's own.
///
/// # Errors
/// Reading or writing fails.
pub fn write(
    format: Format,
    raw: &File,
    len: u64,
    out: &File,
    id: [u8; 16],
    name: &str,
) -> io::Result<()> {
    let disk = Region::new(raw, 0, len);
    let window = Region::new(out, 0, u64::MAX / 2).fresh();
    let written = match format {
        Format::Disk | Format::Direct => copy(&disk, &window)?,
        Format::DiskZst => compress(&disk, &window)?,
        Format::Qcow2 => qcow2::write(&disk, &window)?,
        Format::Vmdk => {
            let [a, b, c, d, ..] = id;
            vmdk::write(&disk, &window, u32::from_be_bytes([a, b, c, d]), name)?
        }
        Format::Vhd => {
            copy(&disk, &window)?;
            window.write_all_at(&vhd::footer(len, id), len)?;
            len + vhd::FOOTER_LEN
        }
    };
    out.set_len(written)
}

fn copy(disk: &Region<'_>, out: &Region<'_>) -> io::Result<u64> {
    each_frame(disk, |at, bytes| out.write_all_at(bytes, at))?;
    Ok(disk.len())
}

/// A disk is zeros for the most part, which compress to the same each time.
fn compress(disk: &Region<'_>, out: &Region<'_>) -> io::Result<u64> {
    let mut end = 0;
    let mut zeros: Option<Vec<u8>> = None;
    each_frame(disk, |_, bytes| {
        let fresh;
        let frame = if bytes.len() == FRAME && is_zero(bytes) {
            zeros.get_or_insert_with(|| compress_to_vec(bytes, CompressionLevel::Fastest))
        } else {
            fresh = compress_to_vec(bytes, CompressionLevel::Fastest);
            &fresh
        };
        out.write_all_at(frame, end)?;
        end += frame.len() as u64;
        Ok(())
    })?;
    Ok(end)
}

fn each_frame(
    disk: &Region<'_>,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; FRAME];
    let mut at = 0;
    while at < disk.len() {
        let bytes = &mut buffer[..FRAME.min(usize::try_from(disk.len() - at).unwrap_or(FRAME))];
        disk.read_exact_at(bytes, at)?;
        take(at, bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;
    use std::process::Command;

    /// A disk of 70 MiB with something at its start, its end, over a boundary and in the middle of nothing.
    fn disk() -> (File, u64) {
        let file = tempfile::tempfile().unwrap();
        let len = 70 << 20;
        file.set_len(len).unwrap();
        let noise: Vec<u8> = (0..200_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for at in [0, (4 << 20) - 1000, (33 << 20) + 77, len - 200_000] {
            file.write_all_at(&noise, at).unwrap();
        }
        (file, len)
    }

    #[test]
    fn formats_follow_from_names() {
        for (name, format) in [
            ("a.img", Format::Disk),
            ("a", Format::Disk),
            ("a.IMG.ZST", Format::DiskZst),
            ("a.qcow2", Format::Qcow2),
        ] {
            assert_eq!(Format::of_name(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn qemu_finds_the_same_disk_in_each_form() {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            eprintln!("skipped: qemu-img is not installed (Debian package qemu-utils)");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (raw, len) = disk();
        let write_as = |format: Format, name: &str| {
            let path = folder.path().join(name);
            let out = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            write(format, &raw, len, &out, [7; 16], name).unwrap();
            path
        };
        let plain = write_as(Format::Disk, "a.img");
        for (format, driver, checks) in [
            (Format::Qcow2, "qcow2", true),
            (Format::Vmdk, "vmdk", true),
            (Format::Vhd, "vpc", false),
        ] {
            let path = write_as(format, &format!("a{}", format.ending()));
            let qemu_img = |arguments: &[&str]| {
                let output = Command::new("qemu-img")
                    .args(arguments)
                    .arg(&path)
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{format:?}: {output:?}");
            };
            if checks {
                qemu_img(&["check", "-f", driver]);
            }
            qemu_img(&[
                "compare",
                "-f",
                "raw",
                "-F",
                driver,
                plain.to_str().unwrap(),
            ]);
            assert_eq!(
                std::fs::read(&path).unwrap(),
                std::fs::read(write_as(format, &format!("a{}", format.ending()))).unwrap()
            );
        }
    }

    #[test]
    fn a_compressed_disk_unpacks_to_the_same() {
        let (raw, len) = disk();
        let out = tempfile::tempfile().unwrap();
        write(Format::DiskZst, &raw, len, &out, [7; 16], "a").unwrap();
        let mut packed = vec![0; out.metadata().unwrap().len() as usize];
        assert!(packed.len() < 2 << 20, "{}", packed.len());
        out.read_exact_at(&mut packed, 0).unwrap();
        let mut plain = Vec::new();
        let mut rest = &packed[..];
        while !rest.is_empty() {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).unwrap();
            io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        }
        let mut wanted = vec![0; len as usize];
        raw.read_exact_at(&mut wanted, 0).unwrap();
        assert!(plain == wanted);
    }
}
