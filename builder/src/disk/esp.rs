//! The EFI system partition: the boot loader, in the place where firmware looks for it unasked, and the UKI.

use std::fs::File;

use super::DiskError;
use super::layout::{ALIGNMENT, Layout};
use crate::format::fat;
use crate::format::region::Region;
use crate::plan::Plan;
use crate::tree::{Content, Tree};

/// The ESP's least size: systemd-boot and three UKIs of a small machine.
const LEAST_ESP: u64 = 64 << 20;

/// Room for three UKIs beside the loader, its second copy and the file system's own tables.
pub(super) fn esp_len(uki: usize, loader: usize) -> u64 {
    let needed = 3 * (uki as u64 + (1 << 20)) + 2 * loader as u64 + (2 << 20);
    needed.next_multiple_of(ALIGNMENT).max(LEAST_ESP)
}

/// Writes it whole.
pub(super) fn write_esp(
    file: &File,
    plan: &Plan,
    layout: &Layout,
    loader: Vec<u8>,
    uki: Vec<u8>,
) -> Result<(), DiskError> {
    let esp = &layout.partitions[0];
    let mut tree = Tree::default();
    let loader = Content::Bytes(loader.into());
    tree.put_file("EFI/BOOT/BOOTX64.EFI", 0o755, loader.clone())?;
    tree.put_file("EFI/systemd/systemd-bootx64.efi", 0o755, loader)?;
    tree.put_file(
        "loader/loader.conf",
        0o644,
        Content::Bytes(b"timeout 0\neditor no\n"[..].into()),
    )?;
    tree.put_file(&plan.uki_path(), 0o755, Content::Bytes(uki.into()))?;
    let volume_id = u32::from_le_bytes(
        esp.unique_guid.as_bytes()[..4]
            .try_into()
            .unwrap_or_default(),
    );
    let options = fat::Options {
        volume_id,
        label: "ESP".to_owned(),
        mtime: plan.epoch,
    };
    let mut window = Region::new(file, esp.start, esp.len).fresh();
    Ok(fat::write(&mut window, esp.len, &options, &tree)?)
}
