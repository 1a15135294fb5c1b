//! The EFI system partition: the boot loader, in the place where firmware looks for it unasked, and the UKI.

use std::fs::File;

use super::DiskError;
use super::layout::ALIGNMENT;
use crate::contents::{BootFile, BootFiles};
use crate::format::region::Region;
use crate::format::{array_at, fat, gpt};
use crate::plan::Plan;
use crate::tree::{Content, Kind, Tree};

/// Where systemd-boot looks for keys for a firmware that has none.
const KEYS: &str = "loader/keys/auto";
/// The ESP's least size: less makes no FAT32.
const LEAST_ESP: u64 = 34 << 20;

/// Room for so many UKIs beside the loader, its second copy and the file system's own tables.
pub(super) fn esp_len(kernels: u64, uki: usize, loader: usize) -> u64 {
    let needed = kernels * (uki as u64 + (1 << 20)) + 2 * loader as u64 + (2 << 20);
    needed.next_multiple_of(ALIGNMENT).max(LEAST_ESP)
}

/// loader.conf(5). A virtual machine has no option ROMs that its own keys would lock out, so there systemd-boot writes keys
/// of its own accord into a firmware that has none; elsewhere somebody chooses that in its menu.
fn loader_conf(plan: &Plan) -> &'static str {
    let offers = plan
        .secure_boot
        .as_ref()
        .is_some_and(|input| !input.updates.is_empty());
    match (offers, plan.enroll_at_once) {
        (false, _) => "timeout 0\neditor no\n",
        (true, true) => "timeout 0\neditor no\nsecure-boot-enroll force\n",
        (true, false) => "timeout 0\neditor no\nsecure-boot-enroll manual\n",
    }
}

/// Its files.
pub(super) fn esp_tree(plan: &Plan, loader: Vec<u8>, uki: Vec<u8>) -> Result<Tree, DiskError> {
    let mut tree = Tree::default();
    let loader = Content::Bytes(loader.into());
    tree.put_file("EFI/BOOT/BOOTX64.EFI", 0o755, loader.clone())?;
    tree.put_file("EFI/systemd/systemd-bootx64.efi", 0o755, loader)?;
    tree.put_file(
        "loader/loader.conf",
        0o644,
        Content::Bytes(loader_conf(plan).as_bytes().into()),
    )?;
    let updates = plan.secure_boot.iter().flat_map(|input| &input.updates);
    for (name, bytes) in updates {
        let path = format!("{KEYS}/{name}");
        tree.put_file(&path, 0o644, Content::Bytes(bytes[..].into()))?;
    }
    tree.put_file(&plan.uki_path(), 0o755, Content::Bytes(uki.into()))?;
    Ok(tree)
}

/// What the root's record of contents says of its files.
pub(super) fn record(tree: &Tree) -> Result<BootFiles, DiskError> {
    let mut files = Vec::new();
    for (path, id) in tree.walk() {
        if let Kind::File(Content::Bytes(bytes)) = &tree.inode(id).kind {
            let path = String::from_utf8_lossy(&path).into_owned();
            files.push(BootFile::of(path, bytes)?);
        }
    }
    Ok(BootFiles { files })
}

/// Writes it whole.
pub(super) fn write_esp(
    file: &File,
    esp: &gpt::Partition,
    epoch: i64,
    tree: &Tree,
) -> Result<(), DiskError> {
    let mut window = Region::new(file, esp.start, esp.len).fresh();
    Ok(fat::write(
        &mut window,
        esp.len,
        &esp_options(esp, epoch),
        tree,
    )?)
}

/// What its file system is made with.
pub(crate) fn esp_options(esp: &gpt::Partition, epoch: i64) -> fat::Options {
    fat::Options {
        volume_id: u32::from_le_bytes(array_at(esp.unique_guid.as_bytes(), 0)),
        label: "ESP".to_owned(),
        mtime: epoch,
    }
}
