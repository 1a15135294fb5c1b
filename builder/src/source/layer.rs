//! A layer's tar as a [`Tree`], by the rules of the OCI image specification ("Image Layer Filesystem Changeset").
//!
//! File contents stay in the tar: they become [`Content::Range`]. Whiteouts become what overlayfs takes for them, a
//! character device 0:0 for a removed name and `trusted.overlay.opaque` on a directory that hides what is below.
//! Nothing may leave the layer: `..` in a name, a hard link or a symbolic link that climbs out is refused with the
//! entry's name. Attributes `trusted.overlay.*` that the archive brings itself are dropped, they would steer the
//! overlay.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::{Cache, CacheError, CacheKind};
use super::error::FileError;
use super::tar::{Archive, Entry, EntryKind, TarError};
use crate::tree::{Content, Inode, InodeId, Kind, Metadata, Tree, TreeError};

/// The attribute by which overlayfs knows a directory that hides what is below it.
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

const LINK_LIMIT: usize = 40;
/// Most folders on the way to a file: what the longest path has room for (PATH_MAX). Links could add up to more.
const DEPTH_LIMIT: usize = 2048;
/// All sparse files of a layer together, expanded.
const SPARSE_CAP: u64 = 16 << 30;

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive is broken or cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A sparse file cannot be expanded into the cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// An entry would reach outside the layer.
    #[error("{}: {entry:?} leads out of the layer: {reason}", archive.display())]
    Escape {
        /// The archive.
        archive: PathBuf,
        /// The entry's name.
        entry: String,
        /// What about it climbs.
        reason: String,
    },
    /// An entry does not fit to what is there.
    #[error("{}: {entry:?}: {reason}", archive.display())]
    Entry {
        /// The archive.
        archive: PathBuf,
        /// The entry's name.
        entry: String,
        /// What is wrong.
        reason: String,
    },
}

/// A layer that was read.
#[derive(Debug, Clone)]
pub struct LayerTree {
    /// Its files.
    pub tree: Tree,
    /// Directories that no entry describes: they are there because something is in them. The root is one of them
    /// unless the archive has an entry for it.
    pub implied: BTreeSet<InodeId>,
}

/// Reads the uncompressed tar `archive`, which stays in the cache; `id` names it there (its digest).
///
/// # Errors
/// [`LayerError`], naming the entry.
pub fn read_tar(archive: &Path, id: &str, cache: &Cache) -> Result<LayerTree, LayerError> {
    let mut builder = LayerBuilder::new(Dialect::Layer);
    builder.read(archive, id, cache, |_| true)?;
    Ok(builder.finish())
}

/// Writes a sparse file with its holes into the cache, where it is sparse as well.
fn expand_sparse(
    tar: &File,
    archive: &Path,
    id: &str,
    entry: &Entry,
    size: u64,
    segments: &[(u64, u64)],
    cache: &Cache,
) -> Result<Content, LayerError> {
    let key = format!("{id}-{}", entry.offset);
    let path = match cache.get(CacheKind::Sparse, &key) {
        Some(path) => path,
        None => cache.put(CacheKind::Sparse, &key, |file| {
            cache
                .budget()
                .take(size)
                .map_err(FileError::of("expand a sparse file of", archive))?;
            copy_segments(tar, entry.offset, segments, file)
                .and_then(|()| file.set_len(size))
                .map_err(FileError::of("expand a sparse file of", archive))
                .map_err(LayerError::from)
        })?,
    };
    Ok(Content::Range {
        path: Arc::new(path),
        offset: 0,
        len: size,
    })
}

fn copy_segments(tar: &File, mut at: u64, segments: &[(u64, u64)], to: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    for (offset, len) in segments {
        let mut done = 0;
        while done < *len {
            let part = usize::try_from(len - done).map_or(buffer.len(), |n| n.min(buffer.len()));
            tar.read_exact_at(&mut buffer[..part], at)?;
            to.write_all_at(&buffer[..part], offset + done)?;
            done += part as u64;
            at += part as u64;
        }
    }
    Ok(())
}

/// Whose rules an archive follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OCI layers: whiteouts have a meaning, a directory replaces a symbolic link.
    Layer,
    /// App Container images: no whiteouts, all below a folder `rootfs`, and nothing stands twice.
    AppImage,
    /// Debian packages: no whiteouts, and a directory that is already there stays as it is, also behind a link.
    Package,
}

/// Puts a layer together entry by entry, from one or more archives.
pub(super) struct LayerBuilder {
    dialect: Dialect,
    archive: Arc<PathBuf>,
    tree: Tree,
    implied: BTreeSet<InodeId>,
    opaque: BTreeSet<InodeId>,
}

/// What a name's last component says.
enum Name<'a> {
    /// The layer's root itself.
    Root,
    /// A file.
    Plain(&'a [u8]),
    /// The name is removed from the layers below.
    Whiteout(&'a [u8]),
    /// The directory hides what is below.
    Opaque,
    /// AUFS's own bookkeeping.
    Ignored,
}

impl LayerBuilder {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            archive: Arc::default(),
            tree: Tree::default(),
            implied: BTreeSet::from([Tree::ROOT]),
            opaque: BTreeSet::new(),
        }
    }

    /// What is there so far, to add to it by hand.
    pub(super) fn tree_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Adds the entries of an archive whose path (without leading `./`) `keep` wants.
    pub(super) fn read(
        &mut self,
        archive: &Path,
        id: &str,
        cache: &Cache,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<(), LayerError> {
        self.archive = Arc::new(archive.to_owned());
        let mut reader = Archive::open(archive)?;
        let mut sparse = 0u64;
        while let Some(entry) = reader.next_entry()? {
            if !keep(entry.path.strip_prefix(b"./").unwrap_or(&entry.path)) {
                continue;
            }
            let content = match &entry.kind {
                EntryKind::File => self.range(entry.offset, entry.len),
                EntryKind::Sparse { size, segments } => {
                    sparse = sparse.saturating_add(*size);
                    if sparse > SPARSE_CAP {
                        return Err(self.refuse(&entry, "the layer's sparse files are too large"));
                    }
                    expand_sparse(reader.file(), archive, id, &entry, *size, segments, cache)?
                }
                _ => self.range(0, 0),
            };
            self.add(&entry, content)?;
        }
        Ok(())
    }

    fn range(&self, offset: u64, len: u64) -> Content {
        if len == 0 {
            return Content::Bytes(Arc::from(&b""[..]));
        }
        Content::Range {
            path: Arc::clone(&self.archive),
            offset,
            len,
        }
    }

    fn add(&mut self, entry: &Entry, content: Content) -> Result<(), LayerError> {
        let components = self.components(entry, &entry.path)?;
        let (parents, name) = match components.split_last() {
            Some((last, parents)) if self.dialect == Dialect::Layer => (parents, classify(last)),
            Some((last, parents)) => (parents, Name::Plain(last)),
            None => (&components[..], Name::Root),
        };
        if let Name::Ignored = name {
            return Ok(());
        }
        if self.dialect == Dialect::Package && entry.kind == EntryKind::Directory {
            // The first package that describes a directory decides.
            if let Some(id) = self.resolve(entry, &components, false)? {
                if self.implied.contains(&id) {
                    self.set_metadata(id, entry);
                }
                return Ok(());
            }
        }
        let parent = self.walk(entry, parents)?;
        match name {
            Name::Root if entry.kind == EntryKind::Directory => {
                self.set_metadata(parent, entry);
                Ok(())
            }
            Name::Root => Err(self.refuse(entry, "the layer's root is a directory")),
            Name::Opaque => {
                self.opaque.insert(parent);
                Ok(())
            }
            Name::Whiteout(b"" | b"." | b"..") => Err(self.refuse(entry, "it removes no name")),
            Name::Whiteout(name) => self.whiteout(entry, parent, name),
            Name::Plain(name) => self.place(entry, parent, name, content),
            Name::Ignored => Ok(()),
        }
    }

    /// A file and a whiteout of one name in one layer: the file is this layer's, what is below it is hidden.
    fn whiteout(&mut self, entry: &Entry, parent: InodeId, name: &[u8]) -> Result<(), LayerError> {
        match self.tree.child(parent, name) {
            Some(id) if self.tree.entries(id).is_some() => {
                self.opaque.insert(id);
            }
            Some(_) => {}
            None => {
                let kind = Kind::CharDevice { major: 0, minor: 0 };
                self.insert(entry, parent, name, Metadata::with_mode(0), kind)?;
            }
        }
        Ok(())
    }

    fn place(
        &mut self,
        entry: &Entry,
        parent: InodeId,
        name: &[u8],
        content: Content,
    ) -> Result<(), LayerError> {
        let there = self.tree.child(parent, name);
        if let (Dialect::AppImage, Some(id)) = (self.dialect, there) {
            let described = !self.implied.contains(&id);
            if described || entry.kind != EntryKind::Directory {
                return Err(self.refuse(entry, "it stands twice"));
            }
        }
        let kind = match &entry.kind {
            EntryKind::Directory => {
                match there {
                    Some(id) if self.tree.entries(id).is_some() => self.set_metadata(id, entry),
                    _ => {
                        let id = self.make_directory(entry, parent, name, there)?;
                        self.set_metadata(id, entry);
                    }
                }
                return Ok(());
            }
            EntryKind::HardLink(target) => return self.hard_link(entry, parent, name, target),
            EntryKind::File | EntryKind::Sparse { .. } => Kind::File(content),
            EntryKind::Symlink(target) if target.is_empty() => {
                return Err(self.refuse(entry, "its target is empty"));
            }
            EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
            EntryKind::CharDevice(major, minor) => Kind::CharDevice {
                major: *major,
                minor: *minor,
            },
            EntryKind::BlockDevice(major, minor) => Kind::BlockDevice {
                major: *major,
                minor: *minor,
            },
            EntryKind::Fifo => Kind::Fifo,
        };
        self.insert(entry, parent, name, metadata(entry), kind)?;
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: InodeId,
        name: &[u8],
        target: &[u8],
    ) -> Result<(), LayerError> {
        let target_name = String::from_utf8_lossy(target).into_owned();
        let missing = |builder: &Self| {
            builder.refuse(
                entry,
                format!(
                    "it is a hard link to {target_name:?}, which is no earlier file of the layer"
                ),
            )
        };
        let components = self.components(entry, target)?;
        let Some((last, parents)) = components.split_last() else {
            return Err(missing(self));
        };
        let id = self
            .find_parent(entry, parents)?
            .and_then(|directory| self.tree.child(directory, last))
            .filter(|id| self.tree.entries(*id).is_none() && !self.is_whiteout(*id))
            .ok_or_else(|| missing(self))?;
        self.tree
            .link(parent, name, id)
            .map_err(|e| self.bad_name(entry, &e))
    }

    /// The components of a path of the archive; a leading slash means nothing, as for tar.
    fn components<'a>(&self, entry: &Entry, path: &'a [u8]) -> Result<Vec<&'a [u8]>, LayerError> {
        let components: Vec<&[u8]> = path
            .split(|b| *b == b'/')
            .filter(|c| !c.is_empty() && *c != b".")
            .collect();
        if components.contains(&&b".."[..]) {
            let reason = if path == entry.path {
                "it has \"..\" in its name".to_owned()
            } else {
                format!("it is a hard link to {:?}", String::from_utf8_lossy(path))
            };
            return Err(self.escape(entry, reason));
        }
        if self.dialect != Dialect::AppImage {
            return Ok(components);
        }
        match components.split_first() {
            Some((&b"rootfs", inside)) => Ok(inside.to_vec()),
            _ => Err(self.escape(entry, "it is not below `rootfs`")),
        }
    }

    /// The directory at `parents`, symbolic links resolved inside the layer, missing directories made.
    fn walk(&mut self, entry: &Entry, parents: &[&[u8]]) -> Result<InodeId, LayerError> {
        let found = self.resolve(entry, parents, true)?;
        Ok(found.expect("missing directories are made"))
    }

    /// The same without making anything.
    fn find_parent(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
    ) -> Result<Option<InodeId>, LayerError> {
        self.resolve(entry, parents, false)
    }

    fn resolve(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        make: bool,
    ) -> Result<Option<InodeId>, LayerError> {
        let mut todo: Vec<Vec<u8>> = parents.iter().rev().map(|c| c.to_vec()).collect();
        let mut way = vec![Tree::ROOT];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                way.pop();
                if way.is_empty() {
                    return Err(
                        self.escape(entry, "a symbolic link on its way climbs above the root")
                    );
                }
                continue;
            }
            if way.len() > DEPTH_LIMIT {
                return Err(self.refuse(entry, "it lies too deep"));
            }
            let at = *way.last().expect("the root is never popped");
            let child = self.tree.child(at, &name);
            match child.map(|id| (id, &self.tree.inode(id).kind)) {
                Some((id, Kind::Directory(_))) => way.push(id),
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(self.refuse(entry, "too many symbolic links are on its way"));
                    }
                    let target = target.clone();
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    let parts = target.split(|b| *b == b'/');
                    let parts = parts.filter(|c| !c.is_empty() && *c != b".");
                    todo.extend(parts.rev().map(<[u8]>::to_vec));
                }
                _ if !make => return Ok(None),
                Some((id, _)) if !self.is_whiteout(id) => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    return Err(self.refuse(entry, format!("{name:?} on its way is no directory")));
                }
                _ => {
                    let id = self.make_directory(entry, at, &name, child)?;
                    self.implied.insert(id);
                    way.push(id);
                }
            }
        }
        Ok(way.last().copied())
    }

    /// A new directory in place of what was `there`; in place of a whiteout it hides what is below.
    fn make_directory(
        &mut self,
        entry: &Entry,
        parent: InodeId,
        name: &[u8],
        there: Option<InodeId>,
    ) -> Result<InodeId, LayerError> {
        let opaque = there.is_some_and(|id| self.is_whiteout(id));
        let kind = Kind::Directory(Default::default());
        let id = self.insert(entry, parent, name, Metadata::with_mode(0o755), kind)?;
        if opaque {
            self.opaque.insert(id);
        }
        Ok(id)
    }

    fn insert(
        &mut self,
        entry: &Entry,
        parent: InodeId,
        name: &[u8],
        metadata: Metadata,
        kind: Kind,
    ) -> Result<InodeId, LayerError> {
        self.tree
            .insert(parent, name, Inode { metadata, kind })
            .map_err(|e| self.bad_name(entry, &e))
    }

    fn set_metadata(&mut self, id: InodeId, entry: &Entry) {
        self.implied.remove(&id);
        self.tree.inode_mut(id).metadata = metadata(entry);
    }

    fn is_whiteout(&self, id: InodeId) -> bool {
        is_whiteout(self.tree.inode(id))
    }

    pub(super) fn finish(mut self) -> LayerTree {
        for id in &self.opaque {
            let xattrs = &mut self.tree.inode_mut(*id).metadata.xattrs;
            xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
        }
        LayerTree {
            tree: self.tree,
            implied: self.implied,
        }
    }

    fn bad_name(&self, entry: &Entry, error: &TreeError) -> LayerError {
        self.refuse(entry, error.to_string())
    }

    fn refuse(&self, entry: &Entry, reason: impl Into<String>) -> LayerError {
        LayerError::Entry {
            archive: self.archive.to_path_buf(),
            entry: entry.name(),
            reason: reason.into(),
        }
    }

    fn escape(&self, entry: &Entry, reason: impl Into<String>) -> LayerError {
        LayerError::Escape {
            archive: self.archive.to_path_buf(),
            entry: entry.name(),
            reason: reason.into(),
        }
    }
}

/// Whether overlayfs takes the inode for a removed name.
pub fn is_whiteout(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::CharDevice { major: 0, minor: 0 })
}

fn classify(name: &[u8]) -> Name<'_> {
    match name.strip_prefix(b".wh.") {
        None => Name::Plain(name),
        Some(b".wh..opq") => Name::Opaque,
        Some(rest) if rest.starts_with(b".wh.") => Name::Ignored,
        Some(rest) => Name::Whiteout(rest),
    }
}

fn metadata(entry: &Entry) -> Metadata {
    Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        mtime_nsec: entry.mtime_nsec,
        xattrs: entry
            .xattrs
            .iter()
            .filter(|(name, _)| !name.starts_with(b"trusted.overlay."))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}
