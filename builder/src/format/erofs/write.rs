//! The writer: one pass over a [`Layout`], front to back, so any `Write` will do.

use std::io::{self, BufWriter, Write};

use super::directory::{self, Target};
use super::inode::{self, Fields};
use super::layout::{Layout, Node, path_of};
use super::{
    BLOCK, BLOCK_LEN, ErofsError, FEATURE_COMPAT_MTIME, FEATURE_COMPAT_SB_CHKSUM, MAGIC, Options,
    SUPERBLOCK_AT, SUPERBLOCK_LEN, xattr,
};
use crate::format::content::Copier;
use crate::tree::{Inode, Kind, Tree};

/// Small pieces are gathered to this many bytes.
const BUFFER: usize = 1 << 18;
/// Where the checksum is in the superblock.
const CHECKSUM_AT: usize = SUPERBLOCK_AT + 4;
/// What `i_u` says if there is no block.
const NO_BLOCK: u32 = u32::MAX;

/// Writes `tree` as an EROFS image to `out`, from where it stands; the image's length in bytes, a multiple of
/// 4096. [`Layout::image_len`] tells it beforehand.
///
/// # Errors
/// [`ErofsError`]; `out` then has part of an image.
pub fn write(out: &mut impl Write, tree: &Tree, options: &Options) -> Result<u64, ErofsError> {
    Layout::new(tree, options)?.write(out, tree, options)
}

impl Layout {
    /// Writes the image of the tree and options that this is the layout of.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn write(
        &self,
        out: &mut impl Write,
        tree: &Tree,
        options: &Options,
    ) -> Result<u64, ErofsError> {
        let mut writer = Writer {
            layout: self,
            tree,
            out: BufWriter::with_capacity(BUFFER, Head::new(out)),
            at: 0,
            copier: Copier::default(),
        };
        writer.put(&[0; SUPERBLOCK_AT])?;
        writer.put(&superblock(self, options))?;
        writer.metadata()?;
        writer.blocks()?;
        writer.out.flush()?;
        debug_assert_eq!(writer.at, self.image_len());
        Ok(self.image_len())
    }
}

struct Writer<'a, W: Write> {
    layout: &'a Layout,
    tree: &'a Tree,
    out: BufWriter<Head<W>>,
    at: u64,
    copier: Copier,
}

impl<W: Write> Writer<'_, W> {
    /// Inodes with their attributes and tails, by their place.
    fn metadata(&mut self) -> Result<(), ErofsError> {
        let mut order: Vec<usize> = (0..self.layout.nodes.len()).collect();
        order.sort_unstable_by_key(|index| self.layout.nodes[*index].at);
        for index in order {
            let node = &self.layout.nodes[index];
            self.pad_to(node.at)?;
            let mut head = Vec::new();
            self.render_head(node, index, &mut head);
            self.put(&head)?;
            self.content(node, node.in_blocks(), node.tail)?;
        }
        self.pad_to(self.layout.metadata_blocks * BLOCK)
    }

    /// The content that is in blocks, in the order in which the layout gave them out.
    fn blocks(&mut self) -> Result<(), ErofsError> {
        let nodes = self.layout.nodes.iter().filter(|node| !node.shared);
        let mut order: Vec<_> = nodes
            .filter_map(|node| node.first_block.map(|block| (block, node)))
            .collect();
        order.sort_unstable_by_key(|(block, _)| *block);
        for (block, node) in order {
            debug_assert_eq!(self.at, block * BLOCK);
            self.content(node, 0, node.in_blocks())?;
            self.pad_to(self.at.next_multiple_of(BLOCK))?;
        }
        Ok(())
    }

    fn render_head(&self, node: &Node, index: usize, head: &mut Vec<u8>) {
        let Inode { metadata, kind } = self.tree.inode(node.id);
        let fields = Fields {
            extended: node.extended,
            inline: node.tail > 0,
            xattr_icount: xattr::icount(node.xattr_len),
            file_mode: inode::type_bits(kind) | metadata.mode & 0o7777,
            links: node.links,
            size: node.size,
            union: match kind {
                Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                    inode::encode_device(*major, *minor)
                }
                Kind::Fifo | Kind::Socket => 0,
                _ => node.first_block.map_or(NO_BLOCK, |block| block as u32),
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
                let result = self.copier.copy(content, from, len, &mut self.out);
                result.map_err(|source| ErofsError::Content {
                    path: path_of(self.tree, node.id),
                    source,
                })?;
                self.at += len;
                Ok(())
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
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, end: u64) -> Result<(), ErofsError> {
        while self.at < end {
            let len = (end - self.at).min(BLOCK) as usize;
            self.put(&[0; BLOCK_LEN][..len])?;
        }
        Ok(())
    }
}

fn superblock(layout: &Layout, options: &Options) -> Vec<u8> {
    let root = layout.node(Tree::ROOT).nid();
    let root = u16::try_from(root).expect("the root is placed first, in block 0 or 1");
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
    out.extend([0; 8]); // metadata and shared attributes begin at block 0
    out.extend(options.uuid.as_bytes());
    out.extend(options.volume_name.as_bytes());
    out.resize(SUPERBLOCK_LEN, 0);
    out
}

/// Holds the first block back until it is whole, because its checksum is in it.
struct Head<W> {
    block: Vec<u8>,
    inner: W,
}

impl<W: Write> Head<W> {
    fn new(inner: W) -> Self {
        let block = Vec::with_capacity(BLOCK_LEN);
        Self { block, inner }
    }
}

impl<W: Write> Write for Head<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let missing = BLOCK_LEN - self.block.len();
        if missing == 0 {
            return self.inner.write(bytes);
        }
        let taken = missing.min(bytes.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if taken == missing {
            // The kernel's crc32c has no final inversion; the checksum field counts as zeros.
            let checksum = !crc32c::crc32c(&self.block[SUPERBLOCK_AT..]);
            self.block[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
            self.inner.write_all(&self.block)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
