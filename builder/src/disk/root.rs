//! The root and its hash tree.

use std::fs::File;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::DiskError;
use super::layout::{ALIGNMENT, Layout, types};
use crate::format::region::Region;
use crate::format::{erofs, verity};
use crate::identity::named_uuid;
use crate::plan::Plan;
use crate::progress::Progress;

/// What the rest of the disk needs to know of it.
pub(super) struct Root {
    /// The dm-verity root hash.
    pub(super) hash: verity::Hash,
}

/// The root and its hash tree; their GUIDs are the two halves of the hash (Discoverable Partitions Specification).
pub(super) fn write_root(
    file: &File,
    plan: &Plan,
    layout: &mut Layout,
    progress: &Progress,
) -> Result<Root, DiskError> {
    let start = layout.end();
    let salt = Sha256::digest(format!(
        "{}\0{}",
        plan.boot_spec.name, plan.boot_spec.version
    ))
    .to_vec();
    let params = verity::Params {
        salt,
        uuid: named_uuid(&["verity", &plan.boot_spec.name]),
    };
    let options = erofs::Options {
        uuid: named_uuid(&["root", &plan.boot_spec.name]),
        volume_name: "root".to_owned(),
        build_time: plan.epoch,
        compression: plan.compression,
        workers: 0,
    };
    let step = progress.step("writing the root file system", None);
    let window = Region::new(file, start, u64::MAX / 2 - start).fresh();
    let hasher = verity::Hasher::new(&params);
    let written = erofs::write(&window, &plan.root, &options, Some(&hasher))?;
    step.advance(written.len);
    let len = written.len;
    let tree_start = (start + len).next_multiple_of(ALIGNMENT);
    let tree_len = verity::hash_tree_len(len);
    file.set_len(tree_start + tree_len)
        .map_err(DiskError::Write)?;
    let tree = Region::new(file, tree_start, tree_len).fresh();
    let hash = verity::write_digests(written.digests, &tree, &params)?;
    layout.add(types::ROOT_X86_64, half(&hash, 0), "root", len);
    layout.add(
        types::ROOT_X86_64_VERITY,
        half(&hash, 16),
        "root-verity",
        tree_len,
    );
    Ok(Root { hash })
}

/// 16 bytes of the root hash as they stand, written as a UUID's text.
fn half(hash: &verity::Hash, at: usize) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[at..at + 16]);
    Uuid::from_bytes(bytes)
}
