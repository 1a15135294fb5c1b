//! cpio archives of the "newc" form, as the kernel unpacks them into its initramfs
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux).
//!
//! Inode numbers follow from the order of names. Hard links are kept; the last name carries the bytes. Times
//! outside 1970 to 2106 are clamped. Extended attributes cannot be said in newc and are refused, not dropped.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use super::content::{ContentError, Copier};
use crate::tree::{Content, Inode, InodeId, Kind, Tree};

const TRAILER: &[u8] = b"TRAILER!!!";
const HEADER_LEN: usize = 110;
const BUFFER: usize = 1 << 18;

/// Why an archive was not written.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// A file of 4 GiB or more, or extended attributes.
    #[error("/{path}: a cpio archive cannot hold {what}")]
    Unsupported {
        /// The name in the archive, lossy.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A file's bytes could not be copied.
    #[error("/{path}")]
    Content {
        /// The name in the archive, lossy.
        path: String,
        /// The reason.
        source: ContentError,
    },
    /// The archive does not write.
    #[error("cannot write the cpio archive")]
    Write(#[from] io::Error),
}

/// Writes `tree`, its root as `.`, to `out`; the archive's length in bytes, a multiple of 4.
///
/// # Errors
/// [`CpioError`]; `out` then has part of an archive.
pub fn write(out: &mut impl Write, tree: &Tree) -> Result<u64, CpioError> {
    let walk = tree.walk();
    let mut links: HashMap<InodeId, Links> = HashMap::new();
    for (_, id) in &walk {
        let number = links.len() as u32 + 1;
        let links = links.entry(*id).or_insert(Links {
            number,
            total: 0,
            left: 0,
        });
        links.total += 1;
        links.left += 1;
    }
    let mut writer = Writer {
        out: BufWriter::with_capacity(BUFFER, out),
        at: 0,
        copier: Copier::default(),
    };
    for (path, id) in &walk {
        let links = links.get_mut(id).expect("every inode was counted");
        links.left -= 1;
        writer.entry(path, tree.inode(*id), links)?;
    }
    let header = Header {
        links: 1,
        ..Header::default()
    };
    writer.header(&header, TRAILER)?;
    writer.out.flush()?;
    Ok(writer.at)
}

/// An inode's number in the archive and its names.
struct Links {
    number: u32,
    total: u32,
    /// Names still to come.
    left: u32,
}

#[derive(Default)]
struct Header {
    number: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
}

struct Writer<W: Write> {
    out: BufWriter<W>,
    at: u64,
    copier: Copier,
}

impl<W: Write> Writer<W> {
    fn entry(&mut self, path: &[u8], inode: &Inode, links: &Links) -> Result<(), CpioError> {
        let lossy = || String::from_utf8_lossy(path).into_owned();
        let refused = |what| CpioError::Unsupported {
            path: lossy(),
            what,
        };
        let metadata = &inode.metadata;
        if !metadata.xattrs.is_empty() {
            return Err(refused("extended attributes"));
        }
        let mut header = Header {
            number: links.number,
            mode: type_bits(&inode.kind) | u32::from(metadata.mode & 0o7777),
            uid: metadata.uid,
            gid: metadata.gid,
            links: links.total,
            mtime: metadata.mtime.clamp(0, i64::from(u32::MAX)) as u32,
            ..Header::default()
        };
        let name = if path.is_empty() { b"." } else { path };
        match &inode.kind {
            Kind::File(content) if links.left == 0 => {
                header.size =
                    u32::try_from(content.len()).map_err(|_| refused("a file of 4 GiB or more"))?;
                self.header(&header, name)?;
                self.content(content).map_err(|source| CpioError::Content {
                    path: lossy(),
                    source,
                })?;
            }
            Kind::Symlink(target) => {
                header.size = target.len() as u32;
                self.header(&header, name)?;
                self.put(target)?;
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                header.device = (*major, *minor);
                self.header(&header, name)?;
            }
            _ => self.header(&header, name)?,
        }
        Ok(self.pad()?)
    }

    fn content(&mut self, content: &Content) -> Result<(), ContentError> {
        self.copier.copy_all(content, &mut self.out)?;
        self.at += content.len();
        Ok(())
    }

    fn header(&mut self, header: &Header, name: &[u8]) -> io::Result<()> {
        let fields = [
            header.number,
            header.mode,
            header.uid,
            header.gid,
            header.links,
            header.mtime,
            header.size,
            0, // the device that the file is on
            0,
            header.device.0,
            header.device.1,
            name.len() as u32 + 1,
            0, // the checksum of another form
        ];
        let mut bytes = Vec::with_capacity(HEADER_LEN + name.len() + 4);
        bytes.extend(b"070701");
        for field in fields {
            write!(bytes, "{field:08x}")?;
        }
        bytes.extend_from_slice(name);
        bytes.push(0);
        self.put(&bytes)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let len = self.at.next_multiple_of(4) - self.at;
        self.put(&[0; 4][..len as usize])
    }
}

fn type_bits(kind: &Kind) -> u32 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice { .. } => 0o020_000,
        Kind::Directory(_) => 0o040_000,
        Kind::BlockDevice { .. } => 0o060_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len = write(&mut bytes, tree).unwrap();
        assert_eq!(len, bytes.len() as u64);
        assert_eq!(len % 4, 0);
        bytes
    }

    fn file(bytes: &[u8]) -> Content {
        Content::Bytes(bytes.into())
    }

    #[test]
    fn an_empty_tree_is_a_root_and_a_trailer() {
        let expected = "070701\
            00000001000041ed0000000000000000000000010000000000000000\
            000000000000000000000000000000000000000200000000.\0\
            070701\
            00000000000000000000000000000000000000010000000000000000\
            000000000000000000000000000000000000000b00000000TRAILER!!!\0\0\0\0";
        assert_eq!(
            String::from_utf8(archive(&Tree::default())).unwrap(),
            expected
        );
    }

    #[test]
    fn only_the_last_name_of_a_hard_link_has_bytes() {
        let mut tree = Tree::default();
        let id = tree.put_file("a", 0o644, file(b"0123456789")).unwrap();
        tree.link(Tree::ROOT, b"b", id).unwrap();
        let text = String::from_utf8(archive(&tree)).unwrap();
        assert_eq!(text.matches("0123456789").count(), 1);
        assert!(text.find("0123456789") > text.find("b\0"));
        assert_eq!(text.matches("07070100000002000081a4").count(), 2);
    }

    #[test]
    fn what_newc_cannot_say_is_refused() {
        let mut tree = Tree::default();
        let id = tree.put_file("d/a", 0o644, file(b"")).unwrap();
        let xattrs = &mut tree.inode_mut(id).metadata.xattrs;
        xattrs.insert(b"user.a".to_vec(), Vec::new());
        let error = write(&mut Vec::new(), &tree).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/d/a: a cpio archive cannot hold extended attributes"
        );
        let mut tree = Tree::new(Metadata::default());
        let large = Content::Range {
            path: std::sync::Arc::new("/x".into()),
            offset: 0,
            len: 1 << 32,
        };
        tree.put_file("large", 0o644, large).unwrap();
        assert!(write(&mut Vec::new(), &tree).is_err());
    }
}
