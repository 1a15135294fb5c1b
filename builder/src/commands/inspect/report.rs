//! The facts: the same for JSON and for the drawing, so that the two never differ. docs/reference.md describes the JSON;
//! keys may come with any version, and none changes its meaning without `format` changing.

use std::path::Path;

use config::boot::BootSpec;
use serde::Serialize;

use crate::contents::Contents;
use crate::disk::types;
use crate::failure::Failure;
use crate::format::fat;
use crate::format::gpt::Partition;
use crate::identity::hex;
use crate::image::{DiskImage, Uki};
use crate::secure_boot;

/// The report's format.
const FORMAT: u32 = 1;

/// All that is told of a disk.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) format: u32,
    pub(super) disk: Disk,
    pub(super) partitions: Vec<Part>,
    pub(super) esp: Vec<EspFile>,
    pub(super) uki: Kernel,
    pub(super) root_hash: String,
    pub(super) verified: bool,
    pub(super) machine: Option<serde_json::Value>,
    pub(super) layers: Vec<Layer>,
    pub(super) contents: Option<Contents>,
}

#[derive(Debug, Serialize)]
pub(super) struct Disk {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) guid: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) type_guid: String,
    pub(super) guid: String,
}

#[derive(Debug, Serialize)]
pub(super) struct EspFile {
    pub(super) path: String,
    pub(super) size: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Kernel {
    pub(super) path: String,
    pub(super) size: usize,
    pub(super) kernel: String,
    pub(super) command_line: String,
    pub(super) sections: Vec<Section>,
    pub(super) signed_by: Vec<Signer>,
}

/// Who has signed the kernel image, and whether the signature fits it.
#[derive(Debug, Serialize)]
pub(super) struct Signer {
    pub(super) subject: String,
    pub(super) fits: bool,
    pub(super) sha256: String,
    pub(super) not_after: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) size: u32,
    pub(super) address: u32,
}

/// A layer with the workloads that have it.
#[derive(Debug, Serialize)]
pub(super) struct Layer {
    pub(super) id: String,
    pub(super) path: String,
    pub(super) names: u64,
    pub(super) bytes: u64,
    pub(super) workloads: Vec<String>,
}

impl Report {
    pub(super) fn new(
        path: &Path,
        image: &DiskImage,
        uki: &Uki,
        verified: bool,
    ) -> Result<Self, Failure> {
        Ok(Self {
            format: FORMAT,
            disk: Disk {
                path: path.display().to_string(),
                size: image.table.disk_len,
                guid: image.table.disk_guid.to_string(),
            },
            partitions: image.table.partitions.iter().map(part).collect(),
            esp: esp_files(image)?,
            uki: kernel(uki)?,
            root_hash: uki.root_hash().unwrap_or_default(),
            verified,
            machine: None,
            layers: Vec::new(),
            contents: None,
        })
    }

    pub(super) fn with_machine(
        mut self,
        spec: Option<&BootSpec>,
        contents: Option<Contents>,
    ) -> Result<Self, Failure> {
        self.machine = spec.map(serde_json::to_value).transpose()?;
        if let Some(contents) = &contents {
            let layers = contents.layers.iter().enumerate();
            self.layers = layers
                .map(|(place, layer)| Layer {
                    id: layer.id.clone(),
                    path: layer.path.clone(),
                    names: layer.names,
                    bytes: layer.bytes,
                    workloads: contents.sharers(place).map(|w| w.name.clone()).collect(),
                })
                .collect();
        }
        self.contents = contents;
        Ok(self)
    }
}

fn part(partition: &Partition) -> Part {
    Part {
        name: partition.name.clone(),
        kind: match partition.type_guid {
            types::ESP => "EFI system (FAT32)",
            types::ROOT_X86_64 => "root (EROFS)",
            types::ROOT_X86_64_VERITY => "root verity (dm-verity)",
            types::LINUX_GENERIC => "state (ext4)",
            _ => "unknown",
        },
        start: partition.start,
        size: partition.len,
        type_guid: partition.type_guid.to_string(),
        guid: partition.unique_guid.to_string(),
    }
}

fn esp_files(image: &DiskImage) -> Result<Vec<EspFile>, Failure> {
    let esp = image.partition(types::ESP, "EFI system")?;
    let listed = fat::list(&esp)?.into_iter();
    Ok(listed
        .filter(|listed| !listed.directory)
        .map(|listed| EspFile {
            path: listed.path,
            size: listed.size,
        })
        .collect())
}

fn signers(image: &[u8]) -> Vec<Signer> {
    let found = secure_boot::signatures(image).unwrap_or_default();
    let signer = |signature: secure_boot::ImageSignature| Signer {
        subject: signature.certificate.subject().to_string(),
        fits: signature.fits,
        sha256: hex(&signature.certificate.fingerprint()),
        not_after: signature.certificate.not_after().to_string(),
    };
    found.into_iter().map(signer).collect()
}

fn kernel(uki: &Uki) -> Result<Kernel, Failure> {
    let release = uki.section(".uname").unwrap_or_default();
    let sections = uki.sections.iter();
    Ok(Kernel {
        path: uki.path.clone(),
        size: uki.bytes.len(),
        kernel: String::from_utf8_lossy(release).into_owned(),
        command_line: uki.command_line()?,
        sections: sections
            .map(|section| Section {
                name: section.name.clone(),
                size: section.virtual_size,
                address: section.virtual_address,
            })
            .collect(),
        signed_by: signers(&uki.bytes),
    })
}
