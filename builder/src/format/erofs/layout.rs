//! Where everything of an image goes, decided before a byte is written.
//!
//! Metadata comes first: superblock, inodes, attributes and tails, each inode in the smallest hole that holds it.
//! Directory blocks and file blocks follow in the order of the tree. Files that are the same range of the same
//! host file share their blocks. Only metadata is in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    BLOCK, ErofsError, Options, SLOT, SUPERBLOCK_AT, SUPERBLOCK_LEN, directory, inode, xattr,
};
use crate::tree::{Content, Inode, InodeId, Kind, Tree};

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
    /// The inode's first byte.
    pub(super) at: u64,
    /// First block of content, if there is one.
    pub(super) first_block: Option<u64>,
    /// Whether an earlier node has these blocks, so that they are not written again.
    pub(super) shared: bool,
}

impl Node {
    pub(super) fn nid(&self) -> u64 {
        self.at / SLOT
    }

    /// Bytes of content that are in blocks.
    pub(super) fn in_blocks(&self) -> u64 {
        self.size - self.tail
    }

    fn head(&self) -> u64 {
        let inode = if self.extended {
            inode::EXTENDED_LEN
        } else {
            inode::COMPACT_LEN
        };
        (inode + self.xattr_len) as u64
    }
}

/// The layout of an image.
#[derive(Debug)]
pub struct Layout {
    pub(super) nodes: Vec<Node>,
    pub(super) index: HashMap<InodeId, usize>,
    /// Blocks of metadata.
    pub(super) metadata_blocks: u64,
    /// All blocks.
    pub(super) blocks: u64,
}

impl Layout {
    /// Lays `tree` out.
    ///
    /// # Errors
    /// [`ErofsError`], if the tree cannot be said in EROFS. No host file is opened.
    pub fn new(tree: &Tree, options: &Options) -> Result<Self, ErofsError> {
        if options.volume_name.len() > 16 {
            return Err(ErofsError::LongLabel(options.volume_name.clone()));
        }
        let mut nodes = collect(tree)?;
        for node in &mut nodes {
            measure(node, tree, options)?;
        }
        let metadata_blocks = place(&mut nodes);
        let blocks = assign_blocks(&mut nodes, tree, metadata_blocks);
        if blocks >= u64::from(u32::MAX) {
            let bytes = blocks.saturating_mul(BLOCK);
            return Err(ErofsError::TooLarge { bytes });
        }
        let ids = nodes.iter().enumerate();
        Ok(Self {
            index: ids.map(|(index, node)| (node.id, index)).collect(),
            nodes,
            metadata_blocks,
            blocks,
        })
    }

    /// The image's length in bytes, a multiple of 4096.
    pub fn image_len(&self) -> u64 {
        self.blocks * BLOCK
    }

    pub(super) fn node(&self, id: InodeId) -> &Node {
        &self.nodes[self.index[&id]]
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
            first_block: None,
            shared: false,
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
    let begin = (SUPERBLOCK_AT + SUPERBLOCK_LEN) as u64;
    let mut holes = BTreeSet::from([(BLOCK - begin, begin)]);
    let mut end = BLOCK;
    for node in nodes {
        let len = (node.head() + node.tail).next_multiple_of(SLOT);
        let hole = holes.range((len, 0)..).next().copied();
        let (free, at) = match hole {
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
        node.at = at;
        if free - len >= SLOT {
            holes.insert((free - len, at + len));
        }
    }
    end / BLOCK
}

/// What tells whether two files have the same bytes without looking at them: where they come from, how many they
/// are, and how many of them are in blocks.
#[derive(PartialEq, Eq, Hash)]
struct ContentKey<'t> {
    memory: Option<*const u8>,
    range: Option<(&'t Arc<PathBuf>, u64)>,
    size: u64,
    in_blocks: u64,
}

impl<'t> ContentKey<'t> {
    fn new(content: &'t Content, node: &Node) -> Self {
        let (memory, range) = match content {
            Content::Bytes(bytes) => (Some(bytes.as_ptr()), None),
            Content::Range { path, offset, .. } => (None, Some((path, *offset))),
        };
        Self {
            memory,
            range,
            size: node.size,
            in_blocks: node.in_blocks(),
        }
    }
}

/// Gives content its blocks, directories' first; the number of all blocks.
fn assign_blocks(nodes: &mut [Node], tree: &Tree, first: u64) -> u64 {
    let mut next = first;
    let mut seen = HashMap::new();
    for directories in [true, false] {
        for node in nodes.iter_mut() {
            let kind = &tree.inode(node.id).kind;
            let blocks = node.in_blocks().div_ceil(BLOCK);
            if matches!(kind, Kind::Directory(_)) != directories || blocks == 0 {
                continue;
            }
            if let Kind::File(content) = kind {
                let key = ContentKey::new(content, node);
                let block = *seen.entry(key).or_insert(next);
                node.shared = block != next;
                node.first_block = Some(block);
            } else {
                node.first_block = Some(next);
            }
            if !node.shared {
                next = next.saturating_add(blocks);
            }
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;
    use uuid::Uuid;

    fn options() -> Options {
        Options {
            uuid: Uuid::nil(),
            volume_name: String::new(),
            build_time: 0,
        }
    }

    fn file(tree: &mut Tree, path: &str, len: usize) -> InodeId {
        let bytes: Arc<[u8]> = vec![1; len].into();
        tree.put_file(path, 0o644, Content::Bytes(bytes)).unwrap()
    }

    #[test]
    fn inodes_and_tails_never_overlap_nor_cross_a_block() {
        let mut tree = Tree::default();
        for number in 0..400 {
            file(&mut tree, &format!("f{number}"), number * 37 % 9000);
        }
        let layout = Layout::new(&tree, &options()).unwrap();
        let mut places: Vec<_> = layout
            .nodes
            .iter()
            .map(|node| (node.at, node.at + node.head() + node.tail))
            .collect();
        places.sort_unstable();
        assert!(places[0].0 >= 1152);
        for (start, end) in &places {
            assert_eq!(start % SLOT, 0);
            assert_eq!(start / BLOCK, (end - 1) / BLOCK);
        }
        assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    #[test]
    fn a_tail_that_does_not_fit_beside_its_inode_becomes_a_block() {
        let mut tree = Tree::default();
        let fits = file(&mut tree, "fits", 4096 - 32);
        let not = file(&mut tree, "not", 4096 - 31);
        let layout = Layout::new(&tree, &options()).unwrap();
        assert_eq!(layout.node(fits).first_block, None);
        assert_eq!(layout.node(not).tail, 0);
        assert!(layout.node(not).first_block.is_some());
    }

    #[test]
    fn same_ranges_share_their_blocks() {
        let mut tree = Tree::default();
        let path = Arc::new("/layer.tar".into());
        let range = |offset, len| Content::Range {
            path: Arc::clone(&path),
            offset,
            len,
        };
        tree.put_file("a", 0o644, range(512, 8192)).unwrap();
        tree.put_file("b", 0o600, range(512, 8192)).unwrap();
        tree.put_file("c", 0o600, range(512, 4096)).unwrap();
        let layout = Layout::new(&tree, &options()).unwrap();
        assert_eq!(layout.blocks - layout.metadata_blocks, 3);
        assert_eq!(layout.nodes[1].first_block, layout.nodes[2].first_block);
    }

    #[test]
    fn what_erofs_cannot_say_is_refused() {
        let mut tree = Tree::default();
        let directory = tree.make_directories("a/b").unwrap();
        tree.link(directory, b"c", directory).unwrap();
        let error = Layout::new(&tree, &options()).unwrap_err();
        assert!(matches!(error, ErofsError::LinkedDirectory { .. }));

        let mut tree = Tree::default();
        let kind = Kind::Symlink(vec![b'x'; 4096]);
        let metadata = Metadata::with_mode(0o777);
        tree.put("link", Inode { metadata, kind }).unwrap();
        let error = Layout::new(&tree, &options()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/link: a symbolic link's target has 1 to 4095 bytes, not 4096"
        );

        let mut tree = Tree::default();
        let huge = Content::Range {
            path: Arc::new("/x".into()),
            offset: 0,
            len: u64::MAX / 2,
        };
        tree.put_file("huge", 0o644, huge).unwrap();
        let error = Layout::new(&tree, &options()).unwrap_err();
        assert!(matches!(error, ErofsError::TooLarge { .. }));
    }
}
