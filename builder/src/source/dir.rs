//! A directory of the host as an image of one layer (`dir:`).
//!
//! Modes, times, hard links, symbolic links and the attributes `user.*` and `security.capability` are kept; owners
//! become root, since those of the host mean nothing in the image. Sockets are left out with a note. Contents are
//! read by the image's writer, so the directory must not change meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::blob::digest;
use super::error::FileError;
use super::image::{Image, ImageConfig, Layer};
use crate::identity::hex;
use crate::progress::{Progress, Step};
use crate::tree::{Content, Inode, InodeId, Kind, Metadata, Tree, TreeError};

/// Why a directory cannot be an image.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Something in it cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no directory.
    #[error("{} is no directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A name in it cannot be a name in an image.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Reads a directory.
///
/// # Errors
/// [`DirError`].
pub fn load(path: &Path, progress: &Progress) -> Result<Image, DirError> {
    let root = fs::canonicalize(path).map_err(FileError::of("find", path))?;
    let metadata = fs::symlink_metadata(&root).map_err(FileError::of("read", &root))?;
    if !metadata.is_dir() {
        return Err(DirError::NotADirectory { path: root });
    }
    let mut reader = Reader {
        tree: Tree::new(read_metadata(&root, &metadata)?),
        links: HashMap::new(),
        hash: Sha256::new(),
        step: progress.step(format!("reading {}", path.display()), None),
        progress,
    };
    reader.hash.update(b"coracle directory layer 1\n");
    reader.read_directory(&root, Tree::ROOT)?;
    let id = hex(&reader.hash.finalize());
    Ok(Image {
        digest: format!("sha256:{id}"),
        layers: vec![Layer {
            id,
            tree: reader.tree,
        }],
        config: ImageConfig::default(),
    })
}

struct Reader<'a> {
    tree: Tree,
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), InodeId>,
    hash: Sha256,
    step: Step,
    progress: &'a Progress,
}

impl Reader<'_> {
    fn read_directory(&mut self, path: &Path, at: InodeId) -> Result<(), DirError> {
        let entries = fs::read_dir(path).map_err(FileError::of("read", path))?;
        let mut names = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(FileError::of("read", path))?;
            names.insert(entry.file_name().into_vec(), entry.path());
        }
        for (name, path) in names {
            self.read_entry(&path, &name, at)?;
        }
        Ok(())
    }

    fn read_entry(&mut self, path: &Path, name: &[u8], at: InodeId) -> Result<(), DirError> {
        let host = fs::symlink_metadata(path).map_err(FileError::of("read", path))?;
        let key = (host.dev(), host.ino());
        let shared = !host.is_dir() && host.nlink() > 1;
        if let Some(id) = self.links.get(&key).filter(|_| shared) {
            self.tree.link(at, name, *id)?;
            self.note_link(name, *id);
            return Ok(());
        }
        let Some(kind) = self.read_kind(path, &host)? else {
            self.progress
                .note(format!("{}: a socket, left out", path.display()));
            return Ok(());
        };
        let metadata = read_metadata(path, &host)?;
        self.note_inode(path, name, &metadata, &kind)?;
        let is_directory = matches!(kind, Kind::Directory(_));
        let id = self.tree.insert(at, name, Inode { metadata, kind })?;
        if shared {
            self.links.insert(key, id);
        }
        if is_directory {
            self.read_directory(path, id)?;
            self.hash.update(b"end\n");
        }
        Ok(())
    }

    fn read_kind(&self, path: &Path, host: &fs::Metadata) -> Result<Option<Kind>, DirError> {
        let kind = host.file_type();
        let device = || (major(host.rdev()), minor(host.rdev()));
        Ok(Some(if kind.is_dir() {
            Kind::Directory(BTreeMap::new())
        } else if kind.is_file() {
            Kind::File(Content::Range {
                path: Arc::new(path.to_owned()),
                offset: 0,
                len: host.len(),
            })
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(FileError::of("read", path))?;
            Kind::Symlink(target.as_os_str().as_bytes().to_vec())
        } else if kind.is_char_device() {
            let (major, minor) = device();
            Kind::CharDevice { major, minor }
        } else if kind.is_block_device() {
            let (major, minor) = device();
            Kind::BlockDevice { major, minor }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            return Ok(None);
        }))
    }

    /// The layer's id follows from all that goes into the image, times left out.
    fn note_inode(
        &mut self,
        path: &Path,
        name: &[u8],
        metadata: &Metadata,
        kind: &Kind,
    ) -> Result<(), DirError> {
        let what = match kind {
            Kind::Directory(_) => "directory".to_owned(),
            Kind::File(_) => {
                let file = File::open(path).map_err(FileError::of("open", path))?;
                let (sha256, len) = digest(file).map_err(FileError::of("read", path))?;
                self.step.advance(len);
                format!("file {len} {sha256}")
            }
            other => format!("{other:?}"),
        };
        let line = format!(
            "{name:?} {:o} {:?} {what}\n",
            metadata.mode, metadata.xattrs
        );
        self.hash.update(line);
        Ok(())
    }

    fn note_link(&mut self, name: &[u8], id: InodeId) {
        self.hash.update(format!("{name:?} link {id:?}\n"));
    }
}

fn read_metadata(path: &Path, host: &fs::Metadata) -> Result<Metadata, FileError> {
    Ok(Metadata {
        mode: (host.mode() & 0o7777) as u16,
        uid: 0,
        gid: 0,
        // A checkout's times say when it was made, not what it holds.
        mtime: 0,
        mtime_nsec: 0,
        xattrs: read_xattrs(path)?,
    })
}

/// The attributes that mean something in an image; a filesystem without any has none.
fn read_xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, FileError> {
    use rustix::fs::{lgetxattr, llistxattr};
    use rustix::io::Errno;
    let failed = |e: Errno| FileError::of("read the attributes of", path)(e.into());
    let mut list = vec![0; 65536]; // the kernel's limit (XATTR_LIST_MAX)
    let len = match llistxattr(path, &mut list[..]) {
        Ok(len) => len,
        Err(Errno::NOTSUP | Errno::PERM) => 0,
        Err(e) => return Err(failed(e)),
    };
    let mut found = BTreeMap::new();
    for name in list[..len].split(|b| *b == 0) {
        if !name.starts_with(b"user.") && name != b"security.capability" {
            continue;
        }
        let mut value = vec![0; 65536];
        match lgetxattr(path, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                found.insert(name.to_vec(), value);
            }
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(found)
}

fn major(device: u64) -> u32 {
    rustix::fs::major(device)
}

fn minor(device: u64) -> u32 {
    rustix::fs::minor(device)
}
