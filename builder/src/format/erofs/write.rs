//! The writer: one pass over the files, then the metadata, which knows by then where they are, and the superblock last.

use super::directory::{self, Target};
use super::inode::{self, Fields};
use super::layout::{Layout, Node, Place, measured, path_of};
use super::pack::{Packed, Packing};
use super::{
    BLOCK, BLOCK_LEN, COMPRESSED_COMPACT, Compression, ErofsError, FEATURE_COMPAT_MTIME,
    FEATURE_COMPAT_SB_CHKSUM, FEATURE_INCOMPAT_COMPR_CFGS, FEATURE_INCOMPAT_ZERO_PADDING,
    FEATURE_INCOMPAT_ZTAILPACKING, FLAT_INLINE, FLAT_PLAIN, Hashing, MAGIC, Options, SUPERBLOCK_AT,
    SUPERBLOCK_LEN, compress, index, same, xattr,
};
use crate::format::content::Copier;
use crate::format::region::Region;
use crate::format::verity;
use crate::tree::{Inode, Kind, Tree};

/// Metadata is written in pieces of this many bytes.
const BUFFER: usize = 1 << 20;
/// Where the checksum is in the superblock.
const CHECKSUM_AT: usize = SUPERBLOCK_AT + 4;
/// What `i_u` says if there is no block.
const NO_BLOCK: u32 = u32::MAX;
/// The superblock has the first block for itself.
const FIRST_BLOCK: u64 = 1;

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its length in bytes, a multiple of 4096.
    pub len: u64,
    /// The digest of each block, if they were asked for.
    pub digests: Vec<verity::Hash>,
}

/// Writes `tree` as an EROFS image from the start of `out`.
///
/// # Errors
/// [`ErofsError`]; `out` then has part of an image.
pub fn write(
    out: &Region<'_>,
    tree: &Tree,
    options: &Options,
    hashing: Hashing<'_>,
) -> Result<Written, ErofsError> {
    let nodes = measured(tree, options)?;
    let same = same::find(tree, &nodes)?;
    let packing = Packing {
        tree,
        nodes: &nodes,
        same: &same,
        compression: options.compression,
        hashing,
        out,
    };
    let workers = match options.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let packed = packing.run(FIRST_BLOCK, workers)?;
    let (layout, mut digests) = lay_out(nodes, &same, packed, tree)?;
    // The superblock's block, which comes last.
    digests.insert(0, [0; 32]);
    let mut writer = Writer {
        layout: &layout,
        tree,
        options,
        hashing,
        out,
        at: layout.metadata * BLOCK,
        buffer: Vec::with_capacity(BUFFER + BLOCK_LEN),
        digests,
        copier: Copier::default(),
    };
    writer.metadata()?;
    writer.directories()?;
    writer.flush()?;
    writer.superblock()?;
    Ok(Written {
        len: layout.blocks * BLOCK,
        digests: if hashing.is_some() {
            writer.digests
        } else {
            Vec::new()
        },
    })
}

fn lay_out(
    mut nodes: Vec<Node>,
    same: &[Option<usize>],
    mut packed: Packed,
    tree: &Tree,
) -> Result<(Layout, Vec<verity::Hash>), ErofsError> {
    for (index, first) in same.iter().enumerate() {
        if let Some(first) = first {
            packed.places[index] = packed.places[*first].clone();
        }
    }
    for (node, place) in nodes.iter_mut().zip(packed.places) {
        node.place = place;
    }
    Ok((Layout::new(nodes, tree, packed.end)?, packed.digests))
}

struct Writer<'a> {
    layout: &'a Layout,
    tree: &'a Tree,
    options: &'a Options,
    hashing: Hashing<'a>,
    out: &'a Region<'a>,
    /// Bytes of the image before those in the buffer.
    at: u64,
    buffer: Vec<u8>,
    digests: Vec<verity::Hash>,
    copier: Copier,
}

impl Writer<'_> {
    /// Inodes with their attributes, indexes and tails, by their place.
    fn metadata(&mut self) -> Result<(), ErofsError> {
        let layout = self.layout;
        let mut order: Vec<usize> = (0..layout.nodes.len()).collect();
        order.sort_unstable_by_key(|index| layout.nodes[*index].at);
        let mut head = Vec::new();
        for index in order {
            let node = &layout.nodes[index];
            self.pad_to(layout.metadata * BLOCK + node.at)?;
            head.clear();
            self.render_head(node, index, &mut head);
            match &node.place {
                Place::Clusters(clusters) => {
                    let algorithm = self.options.compression.map_or(0, Compression::algorithm);
                    index::render(clusters, algorithm, node.size, &mut head);
                    head.extend_from_slice(clusters.inline.as_deref().unwrap_or_default());
                    self.put(&head)?;
                }
                _ => {
                    self.put(&head)?;
                    self.content(node, node.in_blocks(), node.tail)?;
                }
            }
        }
        self.pad_to(layout.directories * BLOCK)
    }

    /// What else has blocks: directories and long links.
    fn directories(&mut self) -> Result<(), ErofsError> {
        let layout = self.layout;
        for node in &layout.nodes {
            if let Place::Blocks { first } = node.place
                && first >= layout.directories
            {
                self.pad_to(first * BLOCK)?;
                self.content(node, 0, node.in_blocks())?;
            }
        }
        self.pad_to(layout.blocks * BLOCK)
    }

    fn render_head(&self, node: &Node, index: usize, head: &mut Vec<u8>) {
        let Inode { metadata, kind } = self.tree.inode(node.id);
        let (data_layout, union) = match &node.place {
            Place::Clusters(clusters) => {
                (COMPRESSED_COMPACT, compressed_blocks(node, clusters) as u32)
            }
            Place::Blocks { first } if node.tail > 0 => (FLAT_INLINE, *first as u32),
            Place::Blocks { first } => (FLAT_PLAIN, *first as u32),
            Place::Beside if node.tail > 0 => (FLAT_INLINE, NO_BLOCK),
            Place::Beside => (FLAT_PLAIN, NO_BLOCK),
        };
        let fields = Fields {
            extended: node.extended,
            data_layout,
            xattr_icount: xattr::icount(node.xattr_len),
            file_mode: inode::type_bits(kind) | metadata.mode & 0o7777,
            links: node.links,
            size: node.size,
            union: match kind {
                Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                    inode::encode_device(*major, *minor)
                }
                Kind::Fifo | Kind::Socket => 0,
                _ => union,
            },
            number: index as u32 + 1,
        };
        inode::render(&fields, metadata, head);
        xattr::render(&metadata.xattrs, head);
    }

    /// A range of an inode's content.
    fn content(&mut self, node: &Node, from: u64, len: u64) -> Result<(), ErofsError> {
        let range = from as usize..(from + len) as usize;
        match &self.tree.inode(node.id).kind {
            Kind::File(content) => {
                let start = self.buffer.len();
                self.buffer.resize(start + len as usize, 0);
                let result = self.copier.fill(content, from, &mut self.buffer[start..]);
                result.map_err(|source| ErofsError::Content {
                    path: path_of(self.tree, node.id),
                    source,
                })
            }
            Kind::Symlink(target) => self.put(&target[range]),
            Kind::Directory(entries) => {
                let bytes = directory::render(entries, |target| self.resolve(node, target));
                self.put(&bytes[range])
            }
            _ => Ok(()),
        }
    }

    fn resolve(&self, directory: &Node, target: Target) -> (u64, u8) {
        let id = match target {
            Target::This => directory.id,
            Target::Parent => directory.parent,
            Target::Inode(id) => id,
        };
        let file_type = inode::entry_type(&self.tree.inode(id).kind);
        (self.layout.node(id).nid(), file_type)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ErofsError> {
        self.buffer.extend_from_slice(bytes);
        match self.buffer.len() >= BUFFER {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn pad_to(&mut self, end: u64) -> Result<(), ErofsError> {
        let missing = end - self.at - self.buffer.len() as u64;
        self.buffer.resize(self.buffer.len() + missing as usize, 0);
        Ok(())
    }

    /// Writes the whole blocks that are in the buffer.
    fn flush(&mut self) -> Result<(), ErofsError> {
        let whole = self.buffer.len() / BLOCK_LEN * BLOCK_LEN;
        let bytes = &self.buffer[..whole];
        if let Some(hasher) = self.hashing {
            self.digests.extend(hasher.blocks(bytes));
        }
        self.out.write_all_at(bytes, self.at)?;
        self.at += whole as u64;
        self.buffer.drain(..whole);
        Ok(())
    }

    fn superblock(&mut self) -> Result<(), ErofsError> {
        let mut block = vec![0; SUPERBLOCK_AT];
        block.extend(superblock(self.layout, self.options));
        block.resize(BLOCK_LEN, 0);
        // The kernel's crc32c has no final inversion; the checksum field counts as zeros.
        let checksum = !crc32c::crc32c(&block[SUPERBLOCK_AT..]);
        block[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        if let Some(digest) = self.hashing.and_then(|hasher| hasher.blocks(&block).next()) {
            self.digests[0] = digest;
        }
        Ok(self.out.write_all_at(&block, 0)?)
    }
}

/// The blocks that a compressed file has, its inline end left out.
fn compressed_blocks(node: &Node, clusters: &index::Clusters) -> u64 {
    let inline = usize::from(clusters.inline.is_some());
    let counted = &clusters.blocks[..clusters.blocks.len() - inline];
    let blocks = counted
        .iter()
        .enumerate()
        .map(|(cluster, count)| match count {
            0 => {
                let before = cluster as u64 * compress::CLUSTER_BLOCKS;
                compress::CLUSTER_BLOCKS.min(node.size.div_ceil(BLOCK) - before)
            }
            count => u64::from(*count),
        });
    blocks.sum()
}

/// The superblock, and behind it what its algorithms want to know.
fn superblock(layout: &Layout, options: &Options) -> Vec<u8> {
    let root = layout.node(Tree::ROOT).nid();
    let root = u16::try_from(root).expect("the root is placed first");
    let clusters = |node: &Node| matches!(node.place, Place::Clusters(_));
    let compression = options
        .compression
        .filter(|_| layout.nodes.iter().any(clusters));
    let incompatible =
        FEATURE_INCOMPAT_ZERO_PADDING | FEATURE_INCOMPAT_COMPR_CFGS | FEATURE_INCOMPAT_ZTAILPACKING;
    let mut out = Vec::with_capacity(SUPERBLOCK_LEN);
    out.extend(MAGIC.to_le_bytes());
    out.extend([0; 4]); // the checksum
    out.extend((FEATURE_COMPAT_SB_CHKSUM | FEATURE_COMPAT_MTIME).to_le_bytes());
    out.extend([BLOCK.trailing_zeros() as u8, 0]);
    out.extend(root.to_le_bytes());
    out.extend((layout.nodes.len() as u64).to_le_bytes());
    out.extend(options.build_time.to_le_bytes());
    out.extend([0; 4]); // its nanoseconds
    out.extend((layout.blocks as u32).to_le_bytes());
    out.extend((layout.metadata as u32).to_le_bytes());
    out.extend([0; 4]); // shared attributes
    out.extend(options.uuid.as_bytes());
    out.extend(options.volume_name.as_bytes());
    out.resize(80, 0);
    if let Some(compression) = compression {
        out.extend(incompatible.to_le_bytes());
        out.extend((1_u16 << compression.algorithm()).to_le_bytes());
        out.resize(SUPERBLOCK_LEN, 0);
        let settings = compression.settings();
        out.extend((settings.len() as u16).to_le_bytes());
        out.extend(settings);
    }
    out.resize(SUPERBLOCK_LEN.max(out.len()), 0);
    out
}
