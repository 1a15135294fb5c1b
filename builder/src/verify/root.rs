//! The root against its hash tree and the root hash, with the damaged block named; and the record against what is in the
//! root.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::bundle::LAYERS_DIR;
use crate::contents::Contents;
use crate::disk::types;
use crate::format::erofs;
use crate::format::erofs::FileType;
use crate::format::is_zero;
use crate::format::region::Region;
use crate::format::verity::{self, Hash, Superblock};
use crate::image::{DiskImage, ImageError};

use super::{Check, What, chain, parse_hash};

const BLOCK: u64 = 4096;
/// Digests in a block.
const FAN_OUT: u64 = BLOCK / 32;
/// Where a superblock's salt begins, and what of its block is used without it.
const SALT_AT: usize = 88;
/// Damaged blocks that are told.
const MOST_BLOCKS: usize = 20;

/// Every block of root and hash tree.
pub(super) fn root(
    image: &DiskImage,
    hash_text: &str,
    expected: Option<&str>,
) -> Result<Check, ImageError> {
    let data = image.partition(types::ROOT_X86_64, "root")?;
    let tree = image.partition(types::ROOT_X86_64_VERITY, "root-verity")?;
    let Some(hash) = parse_hash(hash_text) else {
        let problem = "the kernel image's command line has no root hash".to_owned();
        return Ok(Check::new(What::Root, "", vec![problem]));
    };
    let mut problems = Vec::new();
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(hash_text)) {
        problems.push(format!("the root hash is {hash_text}, not {expected}"));
    }
    match verity::read_superblock(&tree) {
        Err(error) => problems.push(format!("hash tree: {}", chain(&error))),
        Ok(superblock) => {
            problems.extend(superblock_problems(&data, &tree, &superblock));
            if let Err(error) = verity::verify(&data, &tree, &hash) {
                let blocks = Blocks::new(&data, &tree, &superblock);
                let located = blocks.locate(&hash).unwrap_or_default();
                if located.is_empty() {
                    problems.push(chain(&error));
                }
                problems.extend(located);
            }
        }
    }
    let note = format!("{} blocks and their hash tree", data.len() / BLOCK);
    Ok(Check::new(What::Root, note, problems))
}

/// What of the superblock's block no digest covers.
fn superblock_problems(
    data: &Region<'_>,
    tree: &Region<'_>,
    superblock: &Superblock,
) -> Vec<String> {
    let mut problems = Vec::new();
    if superblock.data_len != data.len() {
        problems.push("hash tree: its superblock covers another length than the root's".to_owned());
    }
    let mut block = [0; BLOCK as usize];
    let read = tree.read_exact_at(&mut block, 0);
    let used = SALT_AT + superblock.params.salt.len();
    if read.is_err() || !is_zero(&block[82..SALT_AT]) || !is_zero(&block[used..]) {
        problems.push("hash tree: its superblock has bytes that mean nothing".to_owned());
    }
    let rest = verity::hash_tree_len(superblock.data_len);
    if rest < tree.len() {
        problems.push("hash tree: the partition is longer than the tree".to_owned());
    }
    problems
}

/// The blocks of a root and its tree, from the top.
struct Blocks<'a, 'f> {
    data: &'a Region<'f>,
    tree: &'a Region<'f>,
    salted: Sha256,
    /// First block and number of blocks of each level in the tree's partition, the topmost first; the data comes last.
    levels: Vec<(u64, u64)>,
}

impl<'a, 'f> Blocks<'a, 'f> {
    fn new(data: &'a Region<'f>, tree: &'a Region<'f>, superblock: &Superblock) -> Self {
        let mut counts = vec![superblock.data_len / BLOCK];
        while counts.last().is_some_and(|count| *count > 1) {
            let count = counts[counts.len() - 1].div_ceil(FAN_OUT);
            counts.push(count);
        }
        let mut at = 1;
        let mut levels = Vec::new();
        for count in counts.into_iter().rev() {
            levels.push((at, count));
            at += count;
        }
        Self {
            data,
            tree,
            salted: Sha256::new_with_prefix(&superblock.params.salt),
            levels,
        }
    }

    fn read(&self, level: usize, index: u64) -> Option<[u8; BLOCK as usize]> {
        let mut block = [0; BLOCK as usize];
        let done = if level + 1 == self.levels.len() {
            self.data.read_exact_at(&mut block, index * BLOCK)
        } else {
            let at = self.levels[level].0 + index;
            self.tree.read_exact_at(&mut block, at * BLOCK)
        };
        done.ok().map(|()| block)
    }

    /// The damaged blocks. What lies below a damaged block of the tree cannot be judged. `None`: the disk does not read.
    fn locate(&self, root_hash: &Hash) -> Option<Vec<String>> {
        let mut problems = Vec::new();
        // The digests that the level's blocks should have, where they are known.
        let mut expected: BTreeMap<u64, [u8; 32]> = BTreeMap::from([(0, *root_hash)]);
        for level in 0..self.levels.len() {
            let is_data = level + 1 == self.levels.len();
            let mut below = BTreeMap::new();
            for (index, digest) in expected {
                let block = self.read(level, index)?;
                let found: [u8; 32] = self.salted.clone().chain_update(block).finalize().into();
                if found != digest {
                    problems.push(if is_data {
                        format!("block {index} of the root is damaged")
                    } else if level == 0 {
                        "the top of the hash tree does not fit the root hash".to_owned()
                    } else {
                        format!(
                            "block {} of the hash tree is damaged",
                            self.levels[level].0 + index
                        )
                    });
                    if problems.len() == MOST_BLOCKS {
                        return Some(problems);
                    }
                } else if !is_data {
                    let count = self.levels[level + 1].1;
                    let children = (index * FAN_OUT)..((index + 1) * FAN_OUT).min(count);
                    for (child, digest) in children.zip(block.chunks_exact(32)) {
                        below.insert(child, crate::format::array_at(digest, 0));
                    }
                }
            }
            expected = below;
        }
        Some(problems)
    }
}

/// The record against the boot specification and the layers.
pub(super) fn contents(image: &DiskImage, contents: &Contents) -> Check {
    let problems = contents_problems(image, contents).unwrap_or_else(|error| vec![chain(&error)]);
    let note = format!(
        "{} workloads, {} layers, {} packages",
        contents.workloads.len(),
        contents.layers.len(),
        contents.packages.len()
    );
    Check::new(What::Contents, note, problems)
}

fn contents_problems(image: &DiskImage, contents: &Contents) -> Result<Vec<String>, ImageError> {
    let mut problems = Vec::new();
    let spec = image.boot_spec()?;
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>();
    if (&spec.name, &spec.version) != (&contents.name, &contents.version) {
        problems.push("the record is of another machine".to_owned());
    }
    let started = names(&mut spec.workloads.iter().map(|workload| &workload.name));
    if started != names(&mut contents.workloads.iter().map(|workload| &workload.name)) {
        problems.push("the record has other workloads than the machine starts".to_owned());
    }
    let root = erofs::Image::open(image.partition(types::ROOT_X86_64, "root")?)?;
    let measured = measure_layers(&root)?;
    for layer in &contents.layers {
        let found = measured.get(&layer.path).copied().unwrap_or_default();
        if found != (layer.names, layer.bytes) {
            problems.push(format!(
                "layer {} has {} names and {} bytes, not {} and {}",
                layer.path, found.0, found.1, layer.names, layer.bytes
            ));
        }
    }
    Ok(problems)
}

/// Names and bytes of each layer's folder, by its path.
fn measure_layers(root: &erofs::Image<'_>) -> Result<BTreeMap<String, (u64, u64)>, ImageError> {
    let mut measured: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (path, node) in root.walk()? {
        let path = String::from_utf8_lossy(&path);
        let inside = path.strip_prefix(LAYERS_DIR.trim_start_matches('/'));
        let inside = inside.and_then(|path| path.strip_prefix('/')?.split_once('/'));
        let Some((layer, _)) = inside else {
            continue;
        };
        let (names, bytes) = measured.entry(format!("{LAYERS_DIR}/{layer}")).or_default();
        *names += 1;
        if node.file_type == FileType::File {
            *bytes += node.size;
        }
    }
    Ok(measured)
}
