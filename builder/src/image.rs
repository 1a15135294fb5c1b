//! A disk image that was built before: its partitions, its UKI and its boot specification, read back.
//!
//! It trusts nothing: the image may be damaged or hostile, so every reader bounds what it takes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use config::boot::{BOOT_SPEC_FORMAT, BOOT_SPEC_PATH, BootSpec};
use uuid::Uuid;

use crate::contents::{CONTENTS_CAP, CONTENTS_PATH, Contents, ContentsError};
use crate::disk::types;
use crate::format::region::Region;
use crate::format::{erofs, fat, gpt, pe, verity};

/// The most bytes of a boot specification that are read.
const BOOT_SPEC_CAP: u64 = 16 << 20;

/// Why an image was not understood.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file does not open.
    #[error("cannot read {}", path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has no usable partition table.
    #[error("{} is no disk image of Coracle", path.display())]
    Table {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: gpt::GptError,
    },
    /// It is a disk in another form.
    #[error("{} is a disk in another form ({form})", path.display())]
    OtherForm {
        /// The image.
        path: PathBuf,
        /// Which.
        form: &'static str,
    },
    /// A partition is absent.
    #[error("the disk has no {0} partition")]
    NoPartition(&'static str),
    /// The ESP does not read.
    #[error("cannot read the EFI system partition")]
    Esp(#[from] fat::FatError),
    /// The ESP holds no UKI.
    #[error("the EFI system partition has no kernel image in EFI/Linux")]
    NoUki,
    /// The UKI does not read.
    #[error("cannot read the unified kernel image {name}")]
    Uki {
        /// Its path on the ESP.
        name: String,
        /// Why.
        #[source]
        source: pe::PeError,
    },
    /// The UKI lacks a section.
    #[error("the unified kernel image has no section {0}")]
    NoSection(&'static str),
    /// The root does not read.
    #[error("cannot read the root file system")]
    Root(#[from] erofs::ReadError),
    /// The boot specification is not one.
    #[error("the root's boot specification is damaged")]
    BootSpec(#[from] serde_json::Error),
    /// The record of contents is none of ours.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The disk does not read.
    #[error("cannot read the disk")]
    Io(#[source] io::Error),
    /// The boot specification is another version's.
    #[error("the root's boot specification has format {0}, this coracle reads {BOOT_SPEC_FORMAT}")]
    OtherFormat(u32),
    /// The hash tree does not read.
    #[error("cannot read the dm-verity tree")]
    Verity(#[from] verity::VerityError),
}

/// A disk image, open for reading.
#[derive(Debug)]
pub struct DiskImage {
    file: File,
    /// Its partition table.
    pub table: gpt::Table,
}

/// A unified kernel image of the ESP.
#[derive(Debug)]
pub struct Uki {
    /// Its path on the ESP.
    pub path: String,
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Its sections.
    pub sections: Vec<pe::Section>,
}

impl Uki {
    /// A section's bytes.
    ///
    /// # Errors
    /// [`ImageError::NoSection`].
    pub fn section(&self, name: &'static str) -> Result<&[u8], ImageError> {
        self.sections
            .iter()
            .find(|section| section.name == name)
            .map(|section| section.data(&self.bytes))
            .ok_or(ImageError::NoSection(name))
    }

    /// The kernel's command line.
    ///
    /// # Errors
    /// [`ImageError::NoSection`].
    pub fn command_line(&self) -> Result<String, ImageError> {
        let bytes = self.section(".cmdline")?;
        Ok(String::from_utf8_lossy(bytes)
            .trim_end_matches(['\0', '\n'])
            .to_owned())
    }

    /// The root hash of the command line, if it has one.
    pub fn root_hash(&self) -> Option<String> {
        let line = self.command_line().ok()?;
        line.split_whitespace()
            .find_map(|word| word.strip_prefix("roothash="))
            .map(str::to_owned)
    }
}

impl ImageError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherForm { path, form } => {
                let path = path.display();
                Some(match *form {
                    "zstd" => format!("unpack it: zstd -d {path} -o disk.img"),
                    _ => format!(
                        "make it a raw one: qemu-img convert -O raw {path} disk.img; or build that: -o disk.img"
                    ),
                })
            }
            _ => None,
        }
    }
}

/// The form of a disk that is no raw one, by what its file begins with.
fn other_form(file: &File) -> Option<&'static str> {
    let mut begin = [0; 4];
    file.read_exact_at(&mut begin, 0).ok()?;
    match &begin {
        b"QFI\xfb" => Some("qcow2"),
        b"KDMV" => Some("vmdk"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        _ => None,
    }
}

impl DiskImage {
    /// Opens an image and reads its partition table.
    ///
    /// # Errors
    /// [`ImageError::Open`] and [`ImageError::Table`].
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let fail = |source| ImageError::Open {
            path: path.to_owned(),
            source,
        };
        // Opening a FIFO would wait for somebody to write to it.
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(fail(io::Error::other("it is no regular file")));
        }
        let file = File::open(path).map_err(fail)?;
        if let Some(form) = other_form(&file) {
            let path = path.to_owned();
            return Err(ImageError::OtherForm { path, form });
        }
        let table = gpt::read(&file).map_err(|source| ImageError::Table {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { file, table })
    }

    /// The disk's file, once more.
    ///
    /// # Errors
    /// The process has too many files open.
    pub fn try_clone_file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The bytes of the first partition of a type.
    ///
    /// # Errors
    /// [`ImageError::NoPartition`] with `name`.
    pub fn partition(&self, type_guid: Uuid, name: &'static str) -> Result<Region<'_>, ImageError> {
        let found = self
            .table
            .partitions
            .iter()
            .find(|p| p.type_guid == type_guid);
        found
            .map(|p| Region::new(&self.file, p.start, p.len))
            .ok_or(ImageError::NoPartition(name))
    }

    /// The UKI that systemd-boot starts: the last by name.
    ///
    /// # Errors
    /// The ESP or the UKI is absent or damaged.
    pub fn uki(&self) -> Result<Uki, ImageError> {
        let esp = self.partition(types::ESP, "EFI system")?;
        let path = fat::list(&esp)?
            .into_iter()
            .map(|listed| listed.path)
            .filter(|path| path.starts_with("EFI/Linux/") && path.ends_with(".efi"))
            .max();
        let path = path.ok_or(ImageError::NoUki)?;
        let bytes = fat::read_file(&esp, &path)?;
        let sections = pe::sections(&bytes).map_err(|source| ImageError::Uki {
            name: path.clone(),
            source,
        })?;
        Ok(Uki {
            path,
            bytes,
            sections,
        })
    }

    /// The boot specification in the root.
    ///
    /// # Errors
    /// The root or the specification is absent, damaged or of another version.
    pub fn boot_spec(&self) -> Result<BootSpec, ImageError> {
        let root = erofs::Image::open(self.partition(types::ROOT_X86_64, "root")?)?;
        let bytes = root.read(BOOT_SPEC_PATH, BOOT_SPEC_CAP)?;
        let spec: BootSpec = serde_json::from_slice(&bytes)?;
        if spec.format == BOOT_SPEC_FORMAT {
            Ok(spec)
        } else {
            Err(ImageError::OtherFormat(spec.format))
        }
    }

    /// The record of contents in the root.
    ///
    /// # Errors
    /// The root or the record is absent, damaged or of another version.
    pub fn contents(&self) -> Result<Contents, ImageError> {
        let root = erofs::Image::open(self.partition(types::ROOT_X86_64, "root")?)?;
        let bytes = root.read(CONTENTS_PATH, CONTENTS_CAP)?;
        Ok(Contents::parse(&bytes)?)
    }

    /// Whether the whole root fits a root hash in hexadecimal.
    ///
    /// # Errors
    /// A partition is absent.
    pub fn verify(&self, root_hash: &str) -> Result<Result<(), verity::VerityError>, ImageError> {
        let data = self.partition(types::ROOT_X86_64, "root")?;
        let tree = self.partition(types::ROOT_X86_64_VERITY, "root-verity")?;
        let hash: Option<verity::Hash> = (0..32)
            .map(|i| u8::from_str_radix(root_hash.get(2 * i..2 * i + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()
            .and_then(|bytes| bytes.try_into().ok());
        Ok(verity::verify(&data, &tree, &hash.unwrap_or_default()))
    }
}
