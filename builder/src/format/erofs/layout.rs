//! Where everything of an image goes.
//!
//! Before a byte is read each inode is measured; when the pass over the files is over, inodes, attributes, indexes and
//! tails get their places behind the data, each in the smallest hole that holds it, and directories and long links
//! get blocks behind those. Only metadata is in memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::index::{self, Clusters};
use super::{BLOCK, ErofsError, Options, SLOT, directory, inode, xattr};
use crate::tree::{Inode, InodeId, Kind, Tree};

/// The first inode's place behind the metadata's begin: an inode of number 0 would be none to `readdir`.
const FIRST_AT: u64 = 64;

/// Where an inode's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// All of it beside the inode, or there is none.
    Beside,
    /// In blocks, but for the tail.
    Blocks {
        /// The first one.
        first: u64,
    },
    /// Compressed.
    Clusters(Clusters),
}

impl Place {
    /// Adds the next part of a file, made by a job whose blocks begin at `at`.
    pub(super) fn append(&mut self, part: Self, at: u64) {
        match (&mut *self, part) {
            (Self::Beside, Self::Blocks { first }) => *self = Self::Blocks { first: first + at },
            (Self::Beside, Self::Clusters(mut clusters)) => {
                clusters.first_block += at;
                *self = Self::Clusters(clusters);
            }
            (Self::Clusters(all), Self::Clusters(mut more)) => {
                all.blocks.append(&mut more.blocks);
                all.inline = more.inline;
            }
            // Blocks follow those of the part before; nothing else has a second part.
            _ => {}
        }
    }
}

/// An inode's place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: InodeId,
    pub(super) parent: InodeId,
    pub(super) links: u32,
    pub(super) extended: bool,
    pub(super) xattr_len: usize,
    /// Bytes of content.
    pub(super) size: u64,
    /// Bytes of content beside the inode; the rest is in blocks.
    pub(super) tail: u64,
    /// The inode's first byte, from the metadata's begin on.
    pub(super) at: u64,
    pub(super) place: Place,
}

impl Node {
    pub(super) fn nid(&self) -> u64 {
        self.at / SLOT
    }

    /// Bytes of content that are in blocks, as long as it is not compressed.
    pub(super) fn in_blocks(&self) -> u64 {
        self.size - self.tail
    }

    /// Bytes of the inode and its attributes.
    pub(super) fn head(&self) -> u64 {
        let inode = if self.extended {
            inode::EXTENDED_LEN
        } else {
            inode::COMPACT_LEN
        };
        (inode + self.xattr_len) as u64
    }

    /// Bytes of all that lies at the inode's place, and how many of the last must not be cut by the end of a block
    /// where the whole is longer than one.
    fn extent(&self) -> (u64, u64) {
        let head = self.head();
        match &self.place {
            Place::Clusters(clusters) => {
                let inline = clusters
                    .inline
                    .as_ref()
                    .map_or(0, |bytes| bytes.len() as u64);
                (
                    head + index::len(head as usize, self.size) as u64 + inline,
                    inline,
                )
            }
            _ => (head + self.tail, 0),
        }
    }
}

/// The layout of an image.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) nodes: Vec<Node>,
    pub(super) index: HashMap<InodeId, usize>,
    /// First block of metadata.
    pub(super) metadata: u64,
    /// First block of directories.
    pub(super) directories: u64,
    /// All blocks.
    pub(super) blocks: u64,
}

impl Layout {
    /// Lays out what comes behind the data, which ends before block `metadata`.
    ///
    /// # Errors
    /// More than 2³² blocks.
    pub(super) fn new(
        mut nodes: Vec<Node>,
        tree: &Tree,
        metadata: u64,
    ) -> Result<Self, ErofsError> {
        for node in &mut nodes {
            settle(node);
        }
        let directories = metadata + place(&mut nodes);
        let blocks = assign_blocks(&mut nodes, tree, directories);
        let ids = nodes.iter().enumerate();
        check_blocks(blocks)?;
        Ok(Self {
            index: ids.map(|(index, node)| (node.id, index)).collect(),
            nodes,
            metadata,
            directories,
            blocks,
        })
    }

    pub(super) fn node(&self, id: InodeId) -> &Node {
        &self.nodes[self.index[&id]]
    }
}

/// Every inode, measured; refuses what cannot be said in EROFS. No host file is opened.
pub(super) fn measured(tree: &Tree, options: &Options) -> Result<Vec<Node>, ErofsError> {
    if options.volume_name.len() > 16 {
        return Err(ErofsError::LongLabel(options.volume_name.clone()));
    }
    let mut nodes = collect(tree)?;
    let mut blocks: u64 = 0;
    for node in &mut nodes {
        measure(node, tree, options)?;
        blocks = blocks.saturating_add(node.size.div_ceil(BLOCK));
    }
    // Some of it may be stored once only or compressed, but nobody means this.
    check_blocks(blocks)?;
    Ok(nodes)
}

fn check_blocks(blocks: u64) -> Result<(), ErofsError> {
    if blocks >= u64::from(u32::MAX) {
        let bytes = blocks.saturating_mul(BLOCK);
        return Err(ErofsError::TooLarge { bytes });
    }
    Ok(())
}

/// Clusters of which none became smaller are plain blocks.
fn settle(node: &mut Node) {
    match &node.place {
        Place::Clusters(clusters) => {
            node.tail = 0;
            if clusters.inline.is_none() && clusters.blocks.iter().all(|count| *count == 0) {
                node.place = Place::Blocks {
                    first: clusters.first_block,
                };
            }
        }
        Place::Blocks { .. } | Place::Beside => {}
    }
}

/// Every inode once, in the order of the tree's walk, with its number of links.
fn collect(tree: &Tree) -> Result<Vec<Node>, ErofsError> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut index = HashMap::new();
    let mut stack = vec![(Tree::ROOT, Tree::ROOT)];
    while let Some((id, parent)) = stack.pop() {
        let entries = tree.entries(id);
        if let Some(&known) = index.get(&id) {
            if entries.is_some() {
                let path = path_of(tree, parent);
                return Err(ErofsError::LinkedDirectory { path });
            }
            let node: &mut Node = &mut nodes[known];
            node.links += 1;
            continue;
        }
        index.insert(id, nodes.len());
        let is_directory = |child: &&InodeId| tree.entries(**child).is_some();
        let links = entries.map_or(1, |entries| {
            2 + entries.values().filter(is_directory).count()
        });
        nodes.push(Node {
            id,
            parent,
            links: links as u32,
            extended: false,
            xattr_len: 0,
            size: 0,
            tail: 0,
            at: 0,
            place: Place::Beside,
        });
        let children = entries
            .into_iter()
            .flat_map(|entries| entries.values().rev());
        stack.extend(children.map(|child| (*child, id)));
    }
    Ok(nodes)
}

/// A path of an inode for an error, lossy. It also ends on a tree with loops.
pub(super) fn path_of(tree: &Tree, wanted: InodeId) -> String {
    let mut seen = HashSet::new();
    let mut stack = vec![(String::from("/"), Tree::ROOT)];
    while let Some((path, id)) = stack.pop() {
        if id == wanted {
            return path;
        }
        for (name, child) in tree.entries(id).into_iter().flatten() {
            if seen.insert(*child) {
                let slash = if path.ends_with('/') { "" } else { "/" };
                let name = String::from_utf8_lossy(name);
                stack.push((format!("{path}{slash}{name}"), *child));
            }
        }
    }
    String::from("/?")
}

/// Finds a node's form and sizes.
fn measure(node: &mut Node, tree: &Tree, options: &Options) -> Result<(), ErofsError> {
    let Inode { metadata, kind } = tree.inode(node.id);
    node.xattr_len =
        xattr::area_len(&metadata.xattrs).map_err(|(name, reason)| ErofsError::BadXattr {
            path: path_of(tree, node.id),
            name: String::from_utf8_lossy(&name).into_owned(),
            reason,
        })?;
    node.size = match kind {
        Kind::Directory(entries) => directory::size(entries),
        Kind::File(content) => content.len(),
        Kind::Symlink(target) if (1..4096).contains(&target.len()) => target.len() as u64,
        Kind::Symlink(target) => {
            return Err(ErofsError::BadSymlink {
                path: path_of(tree, node.id),
                len: target.len(),
            });
        }
        _ => 0,
    };
    node.extended = !inode::fits_compact(metadata, node.links, node.size, options.build_time);
    // A tail must lie in one block together with its inode, or else it is a block of its own.
    let tail = node.size % BLOCK;
    node.tail = if node.head() + tail <= BLOCK { tail } else { 0 };
    Ok(())
}

/// Gives every inode its place; the number of metadata blocks.
fn place(nodes: &mut [Node]) -> u64 {
    let mut holes = BTreeSet::from([(BLOCK - FIRST_AT, FIRST_AT)]);
    let mut end = BLOCK;
    for node in nodes {
        let (bytes, together) = node.extent();
        let len = bytes.next_multiple_of(SLOT);
        let hole = holes.range((len, 0)..).next().copied();
        let (mut free, mut at) = match hole {
            Some(hole) => {
                holes.remove(&hole);
                hole
            }
            None => {
                let opened = (len.next_multiple_of(BLOCK), end);
                end += opened.0;
                opened
            }
        };
        // Only what is longer than a block can cross one, and then it begins the newest block.
        let boundary = (at + bytes).saturating_sub(1) / BLOCK * BLOCK;
        let begin = at + bytes - together;
        if together > 0 && begin < boundary {
            let shift = (boundary - begin).next_multiple_of(SLOT);
            holes.insert((shift, at));
            at += shift;
            if free < len + shift {
                end += BLOCK;
                free += BLOCK;
            }
            free -= shift;
        }
        node.at = at;
        if free - len >= SLOT {
            holes.insert((free - len, at + len));
        }
    }
    end / BLOCK
}

/// Gives directories and long links their blocks; the number of all blocks.
fn assign_blocks(nodes: &mut [Node], tree: &Tree, first: u64) -> u64 {
    let mut next = first;
    for node in nodes {
        let blocks = node.in_blocks().div_ceil(BLOCK);
        if !matches!(tree.inode(node.id).kind, Kind::File(_)) && blocks > 0 {
            node.place = Place::Blocks { first: next };
            next = next.saturating_add(blocks);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Metadata};
    use std::sync::Arc;

    fn file(tree: &mut Tree, path: &str, len: usize) -> InodeId {
        let bytes: Arc<[u8]> = vec![1; len].into();
        tree.put_file(path, 0o644, Content::Bytes(bytes)).unwrap()
    }

    fn laid_out(tree: &Tree, place: impl Fn(&Node) -> Place) -> Layout {
        let mut nodes = measured(tree, &Options::default()).unwrap();
        for node in nodes
            .iter_mut()
            .filter(|node| tree.entries(node.id).is_none())
        {
            node.place = place(node);
        }
        Layout::new(nodes, tree, 10).unwrap()
    }

    #[test]
    fn inodes_and_tails_never_overlap_nor_cross_a_block() {
        let mut tree = Tree::default();
        for number in 0..400 {
            file(&mut tree, &format!("f{number}"), number * 37 % 9000);
        }
        let layout = laid_out(&tree, |_| Place::Beside);
        let mut places: Vec<_> = layout
            .nodes
            .iter()
            .map(|node| (node.at, node.at + node.head() + node.tail))
            .collect();
        places.sort_unstable();
        assert!(places[0].0 >= SLOT, "no inode has the number 0");
        for (start, end) in &places {
            assert_eq!(start % SLOT, 0);
            assert_eq!(start / BLOCK, (end - 1) / BLOCK);
        }
        assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    #[test]
    fn compressed_ends_never_cross_a_block() {
        let mut tree = Tree::default();
        for number in 1..300 {
            file(&mut tree, &format!("f{number:03}"), number * number * 100);
        }
        let layout = laid_out(&tree, |node| {
            let inline = vec![1; node.size as usize % 3072 + 1];
            Place::Clusters(Clusters {
                first_block: 1,
                blocks: Vec::new(),
                inline: Some(inline.into()),
            })
        });
        let mut places = Vec::new();
        for node in &layout.nodes {
            let (bytes, together) = node.extent();
            let (start, end) = (node.at, node.at + bytes);
            assert!(end <= (layout.directories - layout.metadata) * BLOCK);
            assert!(together == 0 || (end - together) / BLOCK == (end - 1) / BLOCK);
            places.push((start, end));
        }
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    #[test]
    fn a_tail_that_does_not_fit_beside_its_inode_becomes_a_block() {
        let mut tree = Tree::default();
        file(&mut tree, "fits", 4096 - 32);
        file(&mut tree, "not", 4096 - 31);
        let nodes = measured(&tree, &Options::default()).unwrap();
        assert_eq!(nodes[1].in_blocks(), 0);
        assert_eq!(nodes[2].tail, 0);
    }

    #[test]
    fn what_erofs_cannot_say_is_refused() {
        let measured = |tree: &Tree| measured(tree, &Options::default()).unwrap_err();
        let mut tree = Tree::default();
        let directory = tree.make_directories("a/b").unwrap();
        tree.link(directory, b"c", directory).unwrap();
        assert!(matches!(
            measured(&tree),
            ErofsError::LinkedDirectory { .. }
        ));

        let mut tree = Tree::default();
        let kind = Kind::Symlink(vec![b'x'; 4096]);
        let metadata = Metadata::with_mode(0o777);
        tree.put("link", Inode { metadata, kind }).unwrap();
        assert_eq!(
            measured(&tree).to_string(),
            "/link: a symbolic link's target has 1 to 4095 bytes, not 4096"
        );

        let mut tree = Tree::default();
        let huge = Content::Range {
            path: Arc::new("/x".into()),
            offset: 0,
            len: u64::MAX / 2,
        };
        tree.put_file("huge", 0o644, huge).unwrap();
        assert!(matches!(measured(&tree), ErofsError::TooLarge { .. }));
    }
}
