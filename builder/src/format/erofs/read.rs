//! The reader, for images in the form that the writer makes.
//!
//! Every number of the image is checked before it is used: a hostile image gives an error, never a panic, an endless
//! walk or an allocation larger than the image or a cluster. Symbolic links are not followed. Chunked files, clusters
//! that begin inside a block and images on several devices are refused.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use super::compress::decompress;
use super::index::{self, Map};
use super::inode::{COMPACT_LEN, EXTENDED_LEN};
use super::node::{FileType, Node, Storage, Superblock, parse_inode, parse_superblock};
use super::{BLOCK, BLOCK_LEN, SLOT, directory, xattr};
use crate::format::array_at;
use crate::format::region::Region;

/// Content is copied in pieces of this many bytes.
const PIECE: u64 = 1 << 20;
/// The most blocks of a cluster (`Z_EROFS_PCLUSTER_MAX_SIZE`).
const MOST_IN_CLUSTER: u64 = 256;
/// The least bytes that an index has for a block.
const LEAST_ENTRY: u64 = 2;

/// Why an image was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The image does not read.
    #[error("cannot read the EROFS image at byte {at}")]
    Io {
        /// Where.
        at: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// What was read cannot be written where it is wanted.
    #[error("cannot write what was read from the EROFS image")]
    Write(#[source] io::Error),
    /// No EROFS image, or a broken one.
    #[error("broken EROFS image at byte {at}: {reason}")]
    Broken {
        /// Where.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A form of EROFS that this reader does not know.
    #[error("the EROFS image has {0}, which is not supported")]
    Unsupported(&'static str),
    /// No such file, or the way to it leads over something that is no directory.
    #[error("{path}: no such file in the EROFS image")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A file longer than asked for.
    #[error("a file of {size} bytes is longer than {most}")]
    TooLong {
        /// Its size.
        size: u64,
        /// The most that was asked for.
        most: u64,
    },
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image<'f> {
    region: Region<'f>,
    superblock: Superblock,
}

impl<'f> Image<'f> {
    /// Opens the image at the start of a window and checks its superblock.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn open(region: Region<'f>) -> Result<Self, ReadError> {
        let mut block = vec![0; BLOCK_LEN];
        let done = region.read_exact_at(&mut block, 0);
        done.map_err(|source| ReadError::Io { at: 0, source })?;
        let superblock = parse_superblock(&block)?;
        let region = region.part(0, superblock.len);
        let region = region.map_err(|_| broken(0, "it is longer than its partition"))?;
        Ok(Self { region, superblock })
    }

    /// What the superblock says.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The root directory.
    ///
    /// # Errors
    /// [`ReadError`], as of every inode.
    pub fn root(&self) -> Result<Node, ReadError> {
        let root = self.node(self.superblock.root_nid)?;
        match root.file_type {
            FileType::Directory => Ok(root),
            _ => Err(broken(0, "its root is no directory")),
        }
    }

    /// The inode at a path of plain components.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] and others.
    pub fn lookup(&self, path: &str) -> Result<Node, ReadError> {
        let not_found = || ReadError::NotFound {
            path: path.to_owned(),
        };
        let mut node = self.root()?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            if node.file_type != FileType::Directory {
                return Err(not_found());
            }
            let mut found = None;
            self.for_each_entry(&node, |name, nid| {
                if name == component.as_bytes() {
                    found = Some(nid);
                }
            })?;
            node = self.node(found.ok_or_else(not_found)?)?;
        }
        Ok(node)
    }

    /// The bytes of the regular file at `path`, `most` at most.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, ReadError> {
        let node = self.lookup(path)?;
        match node.file_type {
            FileType::File => self.content(&node, most),
            _ => Err(ReadError::NotFound {
                path: path.to_owned(),
            }),
        }
    }

    /// The content of a file or symbolic link, `most` bytes at most.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn content(&self, node: &Node, most: u64) -> Result<Vec<u8>, ReadError> {
        let size = node.size;
        if size > most {
            return Err(ReadError::TooLong { size, most });
        }
        let mut bytes = Vec::new();
        self.copy(node, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies the content of a file or symbolic link to `out`, piece by piece.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn copy(&self, node: &Node, out: &mut impl Write) -> Result<(), ReadError> {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < node.size {
            buffer.resize(PIECE.min(node.size - at) as usize, 0);
            self.read_content(node, at, &mut buffer)?;
            out.write_all(&buffer).map_err(ReadError::Write)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    /// The names in a directory with their inodes, `.` and `..` left out, in order.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn entries(&self, directory: &Node) -> Result<Vec<(Vec<u8>, Node)>, ReadError> {
        let mut found = Vec::new();
        self.for_each_entry(directory, |name, nid| {
            if name != b"." && name != b".." {
                found.push((name.to_vec(), nid));
            }
        })?;
        let nodes = found.into_iter();
        nodes
            .map(|(name, nid)| Ok((name, self.node(nid)?)))
            .collect()
    }

    /// Every path with its inode, a directory before what is in it; the root comes first with an empty path.
    ///
    /// # Errors
    /// [`ReadError`]; a directory with two names is broken, and so are more names than the image can hold.
    pub fn walk(&self) -> Result<Vec<(Vec<u8>, Node)>, ReadError> {
        let most = self.superblock.len / directory::ENTRY_LEN as u64;
        let mut seen = HashSet::new();
        let mut directories_len: u64 = 0;
        let mut found = Vec::new();
        let mut stack = vec![(Vec::new(), self.root()?)];
        while let Some((path, node)) = stack.pop() {
            if node.file_type == FileType::Directory {
                let at = self.inode_at(node.nid)?;
                directories_len = directories_len.saturating_add(node.size);
                if !seen.insert(node.nid) || directories_len > self.superblock.len {
                    return Err(broken(at, "two directories are one"));
                }
                for (name, child) in self.entries(&node)?.into_iter().rev() {
                    let slash = if path.is_empty() { &b""[..] } else { b"/" };
                    stack.push(([&path, slash, &name].concat(), child));
                }
                // A path of the kernel's is no longer either.
                if (found.len() + stack.len()) as u64 > most || path.len() > 1 << 16 {
                    return Err(broken(at, "it has more names than room for them"));
                }
            }
            found.push((path, node));
        }
        Ok(found)
    }

    /// The extended attributes of an inode by full name.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn xattrs(&self, node: &Node) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
        let mut found = BTreeMap::new();
        if node.xattrs_len == 0 {
            return Ok(found);
        }
        let bad = |reason| broken(node.xattrs_at, reason);
        let mut area = vec![0; node.xattrs_len as usize];
        self.bytes(node.xattrs_at, &mut area)?;
        let shared = usize::from(area[4]);
        let inline = area.get(xattr::HEADER_LEN + 4 * shared..);
        let mut rest = inline.ok_or_else(|| bad("its shared attributes are cut off"))?;
        for index in 0..shared {
            let id = u32::from_le_bytes(array_at(&area, xattr::HEADER_LEN + 4 * index));
            let at = self.superblock.xattr_at + 4 * u64::from(id);
            let (name, value) = self.shared_xattr(at)?;
            found.insert(name, value);
        }
        while rest.len() >= xattr::ENTRY_LEN {
            let (name, value, len) = xattr::parse(rest).map_err(bad)?;
            found.insert(name, value);
            rest = &rest[len.min(rest.len())..];
        }
        Ok(found)
    }

    fn shared_xattr(&self, at: u64) -> Result<(Vec<u8>, Vec<u8>), ReadError> {
        let mut head = [0; xattr::ENTRY_LEN];
        self.bytes(at, &mut head)?;
        let mut entry = vec![0; xattr::entry_len(&head)];
        self.bytes(at, &mut entry)?;
        let (name, value, _) = xattr::parse(&entry).map_err(|reason| broken(at, reason))?;
        Ok((name, value))
    }

    fn bytes(&self, at: u64, into: &mut [u8]) -> Result<(), ReadError> {
        let done = self.region.read_exact_at(into, at);
        done.map_err(|source| ReadError::Io { at, source })
    }

    fn inode_at(&self, nid: u64) -> Result<u64, ReadError> {
        nid.checked_mul(SLOT)
            .and_then(|at| at.checked_add(self.superblock.meta_at))
            .filter(|at| at.saturating_add(COMPACT_LEN as u64) <= self.superblock.len)
            .ok_or_else(|| broken(nid, "an inode's number leads out of the image"))
    }

    fn node(&self, nid: u64) -> Result<Node, ReadError> {
        let at = self.inode_at(nid)?;
        let mut bytes = [0; EXTENDED_LEN];
        self.bytes(at, &mut bytes[..COMPACT_LEN])?;
        let mut len = COMPACT_LEN;
        if bytes[0] & 1 != 0 {
            self.bytes(at, &mut bytes)?;
            len = EXTENDED_LEN;
        }
        let node = parse_inode(&bytes, nid, at + len as u64, self.superblock.build_time);
        let node = node.map_err(|reason| broken(at, reason))?;
        // What is not compressed is no longer than the image, and of what is each block has an entry in an index.
        let least = match node.storage {
            Storage::Clusters => node.size / BLOCK * LEAST_ENTRY,
            Storage::Blocks | Storage::Tail => node.size,
        };
        match least > self.superblock.len {
            true => Err(broken(at, "a file is longer than the image")),
            false => Ok(node),
        }
    }

    /// Fills `into` from `at` of the content, which it must not leave.
    fn read_content(&self, node: &Node, at: u64, into: &mut [u8]) -> Result<(), ReadError> {
        let tail = match node.storage {
            Storage::Clusters => return self.read_clusters(node, at, into),
            Storage::Tail => node.size % BLOCK,
            Storage::Blocks => 0,
        };
        let in_blocks = node.size - tail;
        let split = in_blocks.saturating_sub(at).min(into.len() as u64) as usize;
        let (blocks, rest) = into.split_at_mut(split);
        if !blocks.is_empty() {
            self.bytes(node.first_block * BLOCK + at, blocks)?;
        }
        if !rest.is_empty() {
            let tail_at = node.xattrs_at + node.xattrs_len;
            if tail_at % BLOCK + tail > BLOCK {
                return Err(broken(tail_at, "a tail crosses a block"));
            }
            self.bytes(tail_at + (at + split as u64 - in_blocks), rest)?;
        }
        Ok(())
    }

    /// As [`Image::read_content`], of a compressed file.
    fn read_clusters(&self, node: &Node, at: u64, into: &mut [u8]) -> Result<(), ReadError> {
        let mut header = [0; index::HEADER_LEN];
        let end = node.xattrs_at + node.xattrs_len;
        self.bytes(Map::header_at(end), &mut header)?;
        let map = Map::parse(&header, end, node.size).map_err(|reason| broken(end, reason))?;
        let read = |at: u64, into: &mut [u8]| self.bytes(at, into).map_err(Fault::Read);
        let mut done = 0;
        while done < into.len() {
            let from = at + done as u64;
            let extent = map.extent(from / BLOCK, MOST_IN_CLUSTER, &read);
            let extent = extent.map_err(|fault| fault.at(end))?;
            let begin = extent.first * BLOCK;
            let len = (extent.len * BLOCK).min(node.size - begin);
            let mut plain = vec![0; len as usize];
            self.read_cluster(&map, &extent, begin + len == node.size, &mut plain)?;
            let plain = &plain[(from - begin) as usize..];
            let taken = plain.len().min(into.len() - done);
            into[done..done + taken].copy_from_slice(&plain[..taken]);
            done += taken;
        }
        Ok(())
    }

    fn read_cluster(
        &self,
        map: &Map,
        extent: &index::Extent,
        last: bool,
        plain: &mut [u8],
    ) -> Result<(), ReadError> {
        let (at, len) = match last && map.inline_len > 0 {
            true => (map.end(), map.inline_len),
            false if extent.count == 0 => return self.bytes(extent.block * BLOCK, plain),
            false if extent.count <= MOST_IN_CLUSTER => {
                (extent.block * BLOCK, extent.count * BLOCK)
            }
            false => return Err(broken(extent.block, "a cluster has too many blocks")),
        };
        let mut packed = vec![0; len as usize];
        self.bytes(at, &mut packed)?;
        decompress(map.algorithm, &packed, plain)
            .map_err(|_| broken(at, "compressed bytes do not give what they should"))
    }

    fn for_each_entry(
        &self,
        node: &Node,
        mut visit: impl FnMut(&[u8], u64),
    ) -> Result<(), ReadError> {
        let at = self.inode_at(node.nid)?;
        if node.file_type != FileType::Directory {
            return Err(broken(at, "it is no directory"));
        }
        let mut block = vec![0; BLOCK_LEN];
        let mut done = 0;
        while done < node.size {
            let len = BLOCK.min(node.size - done) as usize;
            self.read_content(node, done, &mut block[..len])?;
            let entries = directory::parse(&block[..len]);
            for (name, nid) in entries.map_err(|reason| broken(at, reason))? {
                visit(name, nid);
            }
            done += len as u64;
        }
        Ok(())
    }
}

/// Why an index was not read.
enum Fault {
    Read(ReadError),
    Broken(&'static str),
}

impl Fault {
    fn at(self, at: u64) -> ReadError {
        match self {
            Self::Read(error) => error,
            Self::Broken(reason) => broken(at, reason),
        }
    }
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self::Broken(reason)
    }
}

pub(super) fn broken(at: u64, reason: &'static str) -> ReadError {
    ReadError::Broken { at, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::erofs::{Compression, Options, SUPERBLOCK_AT, write};
    use crate::tree::{Content, Inode, Kind, Metadata, Tree};
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use uuid::Uuid;

    fn tree(many: usize) -> Tree {
        let mut tree = Tree::default();
        for (path, len) in [
            ("etc/os-release", 20),
            ("big", 10_000),
            ("empty", 0),
            ("d/four", 4096),
        ] {
            let bytes: Vec<u8> = (0..len).map(|i: u32| (i % 250) as u8).collect();
            tree.put_file(path, 0o640, Content::Bytes(bytes.into()))
                .unwrap();
        }
        for number in 0..many {
            let kind = Kind::Symlink(format!("target {number}").into_bytes());
            let mut metadata = Metadata::with_mode(0o777);
            metadata
                .xattrs
                .insert(b"trusted.a".to_vec(), vec![1; number % 9]);
            metadata.mtime = number as i64 % 3;
            let path = format!("many/link {number}");
            tree.put(&path, Inode { metadata, kind }).unwrap();
        }
        let metadata = Metadata::with_mode(0o600);
        let kind = Kind::CharDevice {
            major: 5,
            minor: 300,
        };
        tree.put("dev/x", Inode { metadata, kind }).unwrap();
        tree
    }

    fn image(tree: &Tree) -> Vec<u8> {
        image_with(tree, None)
    }

    fn image_with(tree: &Tree, compression: Option<Compression>) -> Vec<u8> {
        let options = Options {
            uuid: Uuid::from_u128(77),
            volume_name: "root".into(),
            build_time: 1,
            compression,
            workers: 2,
        };
        let file = tempfile::tempfile().unwrap();
        let written = write(&Region::new(&file, 0, 1 << 30), tree, &options, None).unwrap();
        let mut bytes = vec![0; written.len as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn paths_are_looked_up_and_read() {
        let bytes = image(&tree(400));
        let file = file(&bytes);
        let image = Image::open(Region::new(&file, 0, bytes.len() as u64)).unwrap();
        assert_eq!(image.superblock().uuid, Uuid::from_u128(77));
        assert_eq!(image.superblock().volume_name, "root");
        assert_eq!(image.read("/etc/os-release", 20).unwrap().len(), 20);
        assert_eq!(
            image.read("big", 10_000).unwrap()[9_999],
            (9_999 % 250) as u8
        );
        assert!(matches!(
            image.read("big", 9_999),
            Err(ReadError::TooLong { .. })
        ));
        for missing in ["x", "big/x", "etc", "many/link 400"] {
            let error = image.read(missing, 1).unwrap_err();
            assert!(matches!(error, ReadError::NotFound { .. }), "{missing}");
        }
        let device = FileType::CharDevice {
            major: 5,
            minor: 300,
        };
        assert_eq!(image.lookup("dev/x").unwrap().file_type, device);
    }

    /// Everything that a user of the reader may do.
    fn exercise(file: &File, len: u64) -> Result<(), ReadError> {
        let image = Image::open(Region::new(file, 0, len))?;
        let _ = image.read("etc/os-release", 1 << 20);
        for (_, node) in image.walk()? {
            let _ = image.xattrs(&node);
            let _ = image.content(&node, 1 << 20);
        }
        Ok(())
    }

    #[test]
    fn cut_and_changed_images_never_panic() {
        for compression in [None, Some(Compression::Lz4)] {
            let bytes = image_with(&tree(30), compression);
            let len = bytes.len() as u64;
            let file = file(&bytes);
            exercise(&file, len).unwrap();
            for cut in (0..len).step_by(500) {
                assert!(exercise(&file, cut).is_err());
            }
            // Without the checksum feature, changes of the superblock are seen too.
            let mut unsigned = bytes.clone();
            unsigned[SUPERBLOCK_AT + 8] = 0;
            file.write_all_at(&unsigned, 0).unwrap();
            let superblock = SUPERBLOCK_AT..SUPERBLOCK_AT + 144;
            let metadata =
                u32::from_le_bytes(array_at(&bytes, SUPERBLOCK_AT + 40)) as usize * BLOCK_LEN;
            for at in superblock.chain((metadata..unsigned.len()).step_by(5)) {
                for value in [0, 1, 0x80, 0xff] {
                    file.write_all_at(&[value], at as u64).unwrap();
                    let _ = exercise(&file, len);
                }
                file.write_all_at(&unsigned[at..=at], at as u64).unwrap();
            }
        }
    }

    #[test]
    fn a_changed_superblock_is_seen() {
        let bytes = image(&tree(1));
        let file = file(&bytes);
        file.write_all_at(b"x", SUPERBLOCK_AT as u64 + 64).unwrap();
        let error = exercise(&file, bytes.len() as u64).unwrap_err();
        assert!(
            error.to_string().ends_with("its checksum is wrong"),
            "{error}"
        );
    }
}
