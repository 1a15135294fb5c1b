//! A file tree as data: what a source yields and a format writer takes.
//!
//! Owners, modes, times, extended attributes, device nodes and hard links are plain values here, so nothing of
//! it needs root or touches the host's own files. Inodes live in an arena; two names of one inode are a hard
//! link. Directories are ordered by name (bytes), so a walk is always in the same order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A file name or symlink target: bytes, not necessarily UTF-8, without NUL.
pub type Name = Vec<u8>;

/// An inode's place in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(usize);

/// What an inode carries besides its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with set-id and sticky bits, `0o7777` at most; the file type is in [`Kind`].
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since the epoch.
    pub mtime: i64,
    /// Nanoseconds of the modification time, below 10⁹.
    pub mtime_nsec: u32,
    /// Extended attributes by full name (`user.a`, `security.capability`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// Root-owned, at time 0, without attributes.
    pub fn with_mode(mode: u16) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }
}

/// Where a regular file's bytes are. Bytes in memory are shown by their digest.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A range of a file of the host (a layer's tar in the cache, for one).
    Range {
        /// The host's file.
        path: Arc<PathBuf>,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({}, {:x})", bytes.len(), Sha256::digest(bytes)),
            Self::Range { path, offset, len } => {
                write!(f, "Range({}, {offset}, {len})", path.display())
            }
        }
    }
}

impl Content {
    /// The file's size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range { len, .. } => *len,
        }
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory: its entries by name.
    Directory(BTreeMap<Name, InodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link with its target.
    Symlink(Name),
    /// A character device.
    CharDevice {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, times, attributes.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// A file tree; [`Tree::ROOT`] is always a directory.
#[derive(Debug, Clone)]
pub struct Tree {
    inodes: Vec<Inode>,
}

/// Why a tree operation was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// The parent is missing or no directory.
    #[error("{path}: its parent is not a directory")]
    ParentNotADirectory {
        /// The path, lossy.
        path: String,
    },
    /// The name is empty, `.`, `..`, has a slash or NUL, or is longer than 255 bytes.
    #[error("{path:?} is not a file name")]
    BadName {
        /// The name, lossy.
        path: String,
    },
}

impl Default for Tree {
    fn default() -> Self {
        Self::new(Metadata::with_mode(0o755))
    }
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// A tree of an empty root directory.
    pub fn new(root: Metadata) -> Self {
        Self {
            inodes: vec![Inode {
                metadata: root,
                kind: Kind::Directory(BTreeMap::new()),
            }],
        }
    }

    /// The inode. Ids are only ever made by this tree, so the lookup cannot fail for one of its own.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0]
    }

    /// Every inode that was ever put in, in that order.
    pub fn inodes(&self) -> impl Iterator<Item = &Inode> {
        self.inodes.iter()
    }

    /// The inode, to change.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.0]
    }

    /// The entries of a directory; `None` if it is none.
    pub fn entries(&self, id: InodeId) -> Option<&BTreeMap<Name, InodeId>> {
        match &self.inode(id).kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// The inode of one name in a directory.
    pub fn child(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.entries(directory)?.get(name).copied()
    }

    /// Puts a new inode into `directory` under `name`, in place of what was there.
    ///
    /// # Errors
    /// [`TreeError`], if `directory` is no directory or `name` no file name.
    pub fn insert(
        &mut self,
        directory: InodeId,
        name: &[u8],
        inode: Inode,
    ) -> Result<InodeId, TreeError> {
        let id = InodeId(self.inodes.len());
        self.link(directory, name, id)?;
        self.inodes.push(inode);
        Ok(id)
    }

    /// Gives an inode another name: a hard link.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn link(&mut self, directory: InodeId, name: &[u8], id: InodeId) -> Result<(), TreeError> {
        let lossy = || String::from_utf8_lossy(name).into_owned();
        if name.is_empty()
            || name.len() > 255
            || name == b"."
            || name == b".."
            || name.iter().any(|b| matches!(b, 0 | b'/'))
        {
            return Err(TreeError::BadName { path: lossy() });
        }
        match &mut self.inodes[directory.0].kind {
            Kind::Directory(entries) => {
                entries.insert(name.to_vec(), id);
                Ok(())
            }
            _ => Err(TreeError::ParentNotADirectory { path: lossy() }),
        }
    }

    /// Takes a name out of a directory; what it named goes with its last name.
    pub fn remove(&mut self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        match &mut self.inodes[directory.0].kind {
            Kind::Directory(entries) => entries.remove(name),
            _ => None,
        }
    }

    /// The inode at an absolute or relative path of plain components, symlinks not followed.
    pub fn lookup(&self, path: &str) -> Option<InodeId> {
        path.split('/')
            .filter(|c| !c.is_empty())
            .try_fold(Self::ROOT, |at, name| self.child(at, name.as_bytes()))
    }

    /// Makes each missing directory of `path` (mode 0755, root's) and returns the last.
    ///
    /// # Errors
    /// [`TreeError`], if something on the way is no directory.
    pub fn make_directories(&mut self, path: &str) -> Result<InodeId, TreeError> {
        let mut at = Self::ROOT;
        for name in path.split('/').filter(|c| !c.is_empty()) {
            at = match self.child(at, name.as_bytes()) {
                Some(id) => id,
                None => {
                    let kind = Kind::Directory(BTreeMap::new());
                    self.insert(
                        at,
                        name.as_bytes(),
                        Inode {
                            metadata: Metadata::with_mode(0o755),
                            kind,
                        },
                    )?
                }
            };
        }
        Ok(at)
    }

    /// Puts a regular file at `path`, making directories on the way.
    ///
    /// # Errors
    /// As [`Tree::make_directories`] and [`Tree::insert`].
    pub fn put_file(
        &mut self,
        path: &str,
        mode: u16,
        content: Content,
    ) -> Result<InodeId, TreeError> {
        self.put(
            path,
            Inode {
                metadata: Metadata::with_mode(mode),
                kind: Kind::File(content),
            },
        )
    }

    /// Puts an inode at `path`, making directories on the way.
    ///
    /// # Errors
    /// As [`Tree::make_directories`] and [`Tree::insert`].
    pub fn put(&mut self, path: &str, inode: Inode) -> Result<InodeId, TreeError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.make_directories(parent)?;
        self.insert(parent, name.as_bytes(), inode)
    }

    /// Moves all of `other` below the directory `at` of this tree (its root's metadata onto `at`).
    ///
    /// # Errors
    /// [`TreeError`], if `at` is no directory.
    pub fn graft(&mut self, at: InodeId, other: Tree) -> Result<(), TreeError> {
        if self.entries(at).is_none() {
            return Err(TreeError::ParentNotADirectory {
                path: String::new(),
            });
        }
        let base = self.inodes.len() - 1; // other's root is merged, its inode 1 becomes base + 1
        for (index, mut inode) in other.inodes.into_iter().enumerate() {
            if let Kind::Directory(entries) = &mut inode.kind {
                entries.values_mut().for_each(|id| id.0 += base);
            }
            if index == 0 {
                self.inodes[at.0].metadata = inode.metadata;
                let Kind::Directory(new) = inode.kind else {
                    unreachable!("a tree's root is a directory")
                };
                let Kind::Directory(entries) = &mut self.inodes[at.0].kind else {
                    unreachable!("checked above")
                };
                entries.extend(new);
            } else {
                self.inodes.push(inode);
            }
        }
        Ok(())
    }

    /// No file is of a later time than `latest`, in seconds since the epoch.
    pub fn clamp_times(&mut self, latest: i64) {
        for inode in &mut self.inodes {
            let metadata = &mut inode.metadata;
            if (metadata.mtime, metadata.mtime_nsec) > (latest, 0) {
                (metadata.mtime, metadata.mtime_nsec) = (latest, 0);
            }
        }
    }

    /// Every name with its path, a directory before what is in it, by name within each directory. The root comes
    /// first with an empty path; paths have no leading slash.
    pub fn walk(&self) -> Vec<(Vec<u8>, InodeId)> {
        let mut found = Vec::new();
        let mut stack = vec![(Vec::new(), Self::ROOT)];
        while let Some((path, id)) = stack.pop() {
            if let Some(entries) = self.entries(id) {
                for (name, child) in entries.iter().rev() {
                    let mut child_path = path.clone();
                    if !child_path.is_empty() {
                        child_path.push(b'/');
                    }
                    child_path.extend_from_slice(name);
                    stack.push((child_path, *child));
                }
            }
            found.push((path, id));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_is_ordered_and_keeps_hard_links() {
        let mut tree = Tree::default();
        let file = tree
            .put_file("/b/x", 0o644, Content::Bytes(Arc::from(&b"1"[..])))
            .unwrap();
        let a = tree.make_directories("a").unwrap();
        tree.link(a, b"y", file).unwrap();
        let paths: Vec<_> = tree
            .walk()
            .into_iter()
            .map(|(p, id)| (String::from_utf8(p).unwrap(), id))
            .collect();
        assert_eq!(
            paths.iter().map(|(p, _)| p.as_str()).collect::<Vec<_>>(),
            ["", "a", "a/y", "b", "b/x"]
        );
        assert_eq!(paths[2].1, paths[4].1);
    }

    #[test]
    fn graft_moves_a_whole_tree_with_its_hard_links() {
        let mut layer = Tree::new(Metadata::with_mode(0o700));
        let file = layer
            .put_file("d/x", 0o600, Content::Bytes(Arc::from(&b"1"[..])))
            .unwrap();
        layer.link(Tree::ROOT, b"y", file).unwrap();
        let mut tree = Tree::default();
        tree.put_file("other", 0o644, Content::Bytes(Arc::from(&b""[..])))
            .unwrap();
        let at = tree.make_directories("layers/one").unwrap();
        tree.graft(at, layer).unwrap();
        assert_eq!(tree.lookup("layers/one/y"), tree.lookup("/layers/one/d/x"));
        assert!(tree.lookup("layers/one/y").is_some());
        assert_eq!(tree.inode(at).metadata.mode, 0o700);
    }

    #[test]
    fn times_are_clamped_and_never_raised() {
        let mut tree = Tree::default();
        let at = |mtime, mtime_nsec| Inode {
            metadata: Metadata {
                mtime,
                mtime_nsec,
                ..Metadata::default()
            },
            kind: Kind::Fifo,
        };
        let times = [(-5, 9), (99, 999_999_999), (100, 0), (100, 1), (500, 3)];
        let ids = times.map(|(s, ns)| tree.put(&format!("{s}.{ns}"), at(s, ns)).unwrap());
        tree.clamp_times(100);
        let found = ids.map(|id| {
            let metadata = &tree.inode(id).metadata;
            (metadata.mtime, metadata.mtime_nsec)
        });
        assert_eq!(
            found,
            [(-5, 9), (99, 999_999_999), (100, 0), (100, 0), (100, 0)]
        );
    }

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        let mut tree = Tree::default();
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            let inode = Inode {
                metadata: Metadata::default(),
                kind: Kind::Fifo,
            };
            assert!(
                matches!(
                    tree.insert(Tree::ROOT, bad, inode),
                    Err(TreeError::BadName { .. })
                ),
                "{bad:?}"
            );
        }
    }
}
