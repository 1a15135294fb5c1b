//! The reader: whole files by path, and a list of everything.
//!
//! Chains that loop or leave the filesystem are errors; memory is bounded by the filesystem's length.

use std::collections::HashSet;

use super::geometry::Geometry;
use super::name::{self, LongName};
use super::{
    ATTRIBUTE_DIRECTORY, ATTRIBUTE_LABEL, ATTRIBUTE_LONG_NAME, ENTRY_LEN, FatError, SECTOR,
    SECTOR_LEN,
};
use crate::format::array_at;
use crate::format::region::Region;

/// The most bytes of a directory, by the specification.
const DIRECTORY_MAX: u64 = 65_536 * ENTRY_LEN as u64;
/// The most entries that [`list`] goes through.
const LIST_MAX: usize = 1 << 16;
const DELETED: u8 = 0xe5;

/// A file or directory of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path without a leading slash.
    pub path: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Its size in bytes; 0 for a directory.
    pub size: u64,
}

/// Reads the file at `path` (components divided by `/`, case does not count).
///
/// # Errors
/// [`FatError`], [`FatError::NotFound`] among them.
pub fn read_file(filesystem: &Region<'_>, path: &str) -> Result<Vec<u8>, FatError> {
    let volume = Volume::open(filesystem)?;
    let not_found = || FatError::NotFound {
        path: path.to_owned(),
    };
    let mut at = volume.root();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if !at.directory {
            return Err(not_found());
        }
        let wanted = component.to_uppercase();
        let mut entries = volume.entries(&at)?.into_iter();
        at = entries
            .find(|entry| entry.name.to_uppercase() == wanted)
            .ok_or_else(not_found)?;
    }
    if at.directory {
        return Err(not_found());
    }
    volume.read_chain(at.first_cluster, at.size)
}

/// Everything in the filesystem, a directory before what is in it.
///
/// # Errors
/// [`FatError`], also for more than 65536 entries.
pub fn list(filesystem: &Region<'_>) -> Result<Vec<Listed>, FatError> {
    let volume = Volume::open(filesystem)?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut stack = vec![(String::new(), volume.root())];
    while let Some((path, entry)) = stack.pop() {
        if entry.directory {
            let prefix = if path.is_empty() {
                String::new()
            } else {
                format!("{path}/")
            };
            if !seen.insert(entry.first_cluster) {
                return Err(FatError::BadFilesystem("two directories are one"));
            }
            let entries = volume.entries(&entry)?;
            if found.len() + stack.len() + entries.len() > LIST_MAX || path.len() > 4096 {
                return Err(FatError::BadFilesystem("it has too many entries"));
            }
            let children = entries.into_iter().rev();
            stack.extend(children.map(|child| (format!("{prefix}{}", child.name), child)));
        }
        if !path.is_empty() {
            found.push(Listed {
                path,
                directory: entry.directory,
                size: u64::from(entry.size),
            });
        }
    }
    Ok(found)
}

struct Volume<'r, 'f> {
    region: &'r Region<'f>,
    geometry: Geometry,
    root_cluster: u32,
    /// The first table.
    table: Vec<u8>,
}

struct Entry {
    name: String,
    directory: bool,
    first_cluster: u32,
    size: u32,
}

impl<'r, 'f> Volume<'r, 'f> {
    fn open(region: &'r Region<'f>) -> Result<Self, FatError> {
        let mut boot = [0; SECTOR_LEN];
        region.read_exact_at(&mut boot, 0).map_err(FatError::Read)?;
        let geometry = parse_geometry(&boot, region.len()).map_err(FatError::BadFilesystem)?;
        let mut table = vec![0; (geometry.clusters as usize + 2) * 4];
        let table_at = u64::from(geometry.reserved_sectors) * SECTOR;
        region
            .read_exact_at(&mut table, table_at)
            .map_err(FatError::Read)?;
        Ok(Self {
            region,
            geometry,
            root_cluster: u32::from_le_bytes(array_at(&boot, 44)),
            table,
        })
    }

    fn root(&self) -> Entry {
        Entry {
            name: String::new(),
            directory: true,
            first_cluster: self.root_cluster,
            size: 0,
        }
    }

    /// The cluster after `cluster`, `None` at the chain's end.
    fn next(&self, cluster: u32) -> Option<u32> {
        let value = u32::from_le_bytes(array_at(&self.table, cluster as usize * 4)) & 0x0fff_ffff;
        (value < 0x0fff_fff8).then_some(value)
    }

    /// The first `size` bytes of a chain.
    fn read_chain(&self, first: u32, size: u32) -> Result<Vec<u8>, FatError> {
        let cluster_len = self.geometry.cluster_len();
        let mut left = u64::from(size);
        let mut bytes = Vec::new();
        let mut cluster = Some(first);
        while left > 0 {
            // A run of clusters that follow each other is read at once.
            let start = cluster.ok_or(FatError::BadFilesystem("a chain is too short"))?;
            let at = self.geometry.cluster_at(start);
            let at = at.ok_or(FatError::BadFilesystem("a chain leaves the filesystem"))?;
            let (mut end, mut run) = (start, cluster_len);
            cluster = self.next(end);
            while cluster == Some(end + 1) && run < left && end - 1 < self.geometry.clusters {
                end += 1;
                run += cluster_len;
                cluster = self.next(end);
            }
            let take = run.min(left);
            if bytes.len() as u64 + take > self.region.len() {
                return Err(FatError::BadFilesystem("a chain is a loop"));
            }
            let done = bytes.len();
            bytes.resize(done + take as usize, 0);
            self.region
                .read_exact_at(&mut bytes[done..], at)
                .map_err(FatError::Read)?;
            left -= take;
        }
        Ok(bytes)
    }

    /// Bytes of a directory's chain.
    fn chain_len(&self, first: u32) -> Result<u32, FatError> {
        let mut len = 0;
        let mut cluster = Some(first);
        while let Some(current) = cluster {
            len += self.geometry.cluster_len();
            if len > DIRECTORY_MAX || self.geometry.cluster_at(current).is_none() {
                return Err(FatError::BadFilesystem("a directory's chain is broken"));
            }
            cluster = self.next(current);
        }
        Ok(len as u32)
    }

    fn entries(&self, directory: &Entry) -> Result<Vec<Entry>, FatError> {
        let len = self.chain_len(directory.first_cluster)?;
        let bytes = self.read_chain(directory.first_cluster, len)?;
        let mut entries = Vec::new();
        let mut long = LongName::default();
        for raw in bytes.chunks_exact(ENTRY_LEN) {
            let raw: [u8; ENTRY_LEN] = array_at(raw, 0);
            match (raw[0], raw[11]) {
                (0, _) => break,
                (DELETED, _) => long = LongName::default(),
                (_, ATTRIBUTE_LONG_NAME) => long.piece(&raw),
                (_, attributes) if attributes & ATTRIBUTE_LABEL != 0 => {}
                (b'.', _) => {}
                _ => entries.push(parse_entry(&raw, &mut long)),
            }
        }
        Ok(entries)
    }
}

fn parse_entry(raw: &[u8; ENTRY_LEN], long: &mut LongName) -> Entry {
    let short = array_at(raw, 0);
    let word = |at| u32::from(u16::from_le_bytes(array_at(raw, at)));
    let directory = raw[11] & ATTRIBUTE_DIRECTORY != 0;
    Entry {
        name: long
            .take(&short)
            .unwrap_or_else(|| name::short_text(&short)),
        directory,
        first_cluster: word(20) << 16 | word(26),
        size: if directory {
            0
        } else {
            u32::from_le_bytes(array_at(raw, 28))
        },
    }
}

fn parse_geometry(boot: &[u8; SECTOR_LEN], len: u64) -> Result<Geometry, &'static str> {
    let u16_at = |at| u32::from(u16::from_le_bytes(array_at(boot, at)));
    let u32_at = |at| u32::from_le_bytes(array_at(boot, at));
    if boot[510..] != [0x55, 0xaa] || u64::from(u16_at(11)) != SECTOR {
        return Err("no boot sector of 512 bytes");
    }
    let (per_cluster, tables) = (u32::from(boot[13]), u32::from(boot[16]));
    if u16_at(17) != 0 || u16_at(22) != 0 || !per_cluster.is_power_of_two() || tables == 0 {
        return Err("its boot sector is not FAT32's");
    }
    let (reserved, table, sectors) = (u16_at(14), u32_at(36), u32_at(32));
    if u64::from(sectors) * SECTOR > len {
        return Err("it is longer than its partition");
    }
    let head = u64::from(reserved) + u64::from(tables) * u64::from(table);
    let data = u64::from(sectors)
        .checked_sub(head)
        .ok_or("its tables are larger than it is")?;
    let clusters = (data / u64::from(per_cluster)) as u32;
    if (u64::from(clusters) + 2) * 4 > u64::from(table) * SECTOR {
        return Err("its tables are too small");
    }
    Ok(Geometry {
        sectors,
        reserved_sectors: reserved,
        table_sectors: table,
        tables,
        sectors_per_cluster: per_cluster,
        clusters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::fat::{Options, write};
    use crate::tree::{Content, Inode, Kind, Metadata, Tree};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const LEN: u64 = 34 << 20;

    fn options() -> Options {
        Options {
            volume_id: 1,
            label: "ESP".into(),
            mtime: 1_700_000_000,
        }
    }

    fn filesystem(tree: &Tree) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let mut window = Region::new(&file, 0, LEN).fresh();
        write(&mut window, LEN, &options(), tree).unwrap();
        file
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        for (path, len) in [
            ("EFI/BOOT/BOOTX64.EFI", 100_000),
            ("EFI/Linux/web_1.0.0+3.efi", 3_000_000),
            ("loader/loader.conf", 11),
            ("loader/empty", 0),
        ] {
            let bytes: Vec<u8> = (0..len).map(|i: u32| (i / 3) as u8).collect();
            tree.put_file(path, 0o644, Content::Bytes(bytes.into()))
                .unwrap();
        }
        for number in 0..300 {
            let path = format!("many/entry number {number}");
            tree.put_file(&path, 0o644, Content::Bytes([1][..].into()))
                .unwrap();
        }
        tree
    }

    #[test]
    fn what_is_written_is_read() {
        let tree = tree();
        let file = filesystem(&tree);
        let region = Region::new(&file, 0, LEN);
        let listed = list(&region).unwrap();
        assert_eq!(listed.len() + 1, tree.walk().len());
        for Listed {
            path,
            directory,
            size,
        } in &listed
        {
            let inode = tree.inode(tree.lookup(path).unwrap());
            match &inode.kind {
                Kind::File(Content::Bytes(bytes)) => {
                    assert_eq!(*size, bytes.len() as u64);
                    assert!(read_file(&region, path).unwrap() == **bytes);
                }
                _ => assert!(directory),
            }
        }
        assert!(read_file(&region, "/efi/boot/bootx64.efi").is_ok());
        for missing in ["", "EFI", "EFI/x", "loader/loader.conf/x"] {
            let error = read_file(&region, missing).unwrap_err();
            assert!(matches!(error, FatError::NotFound { .. }), "{missing}");
        }
    }

    #[test]
    fn what_fat_cannot_hold_is_refused() {
        let attempt = |build: fn(&mut Tree)| {
            let mut tree = Tree::default();
            build(&mut tree);
            write(&mut Vec::new(), LEN, &options(), &tree).unwrap_err()
        };
        let full = attempt(|tree| {
            let content = Content::Bytes(vec![0; 35 << 20].into());
            tree.put_file("big", 0o644, content).unwrap();
        });
        let FatError::Full { needed, .. } = full else {
            panic!("{full}")
        };
        assert!((35 << 20..37 << 20).contains(&needed));
        let clash = attempt(|tree| {
            tree.make_directories("Loader").unwrap();
            tree.make_directories("loader").unwrap();
        });
        assert!(matches!(clash, FatError::BadName { .. }), "{clash}");
        let link = attempt(|tree| {
            let (metadata, kind) = (Metadata::default(), Kind::Symlink(b"x".to_vec()));
            tree.put("a/link", Inode { metadata, kind }).unwrap();
        });
        assert_eq!(link.to_string(), "/a/link: FAT cannot hold a symbolic link");
    }

    #[test]
    fn loops_and_wild_numbers_are_errors() {
        let tree = tree();
        let file = filesystem(&tree);
        for at in [
            11, 13, 14, 16, 17, 22, 32, 33, 34, 35, 36, 37, 38, 39, 44, 47, 510,
        ] {
            let mut good = [0];
            file.read_exact_at(&mut good, at).unwrap();
            for value in [0, 1, 0x80, 0xff, good[0]] {
                file.write_all_at(&[value], at).unwrap();
                let region = Region::new(&file, 0, LEN);
                let _ = list(&region);
                let _ = read_file(&region, "EFI/BOOT/BOOTX64.EFI");
            }
        }
        // The root's chain, the first after the two reserved entries, becomes a loop of itself.
        file.write_all_at(&2_u32.to_le_bytes(), 32 * 512 + 8)
            .unwrap();
        let error = list(&Region::new(&file, 0, LEN)).unwrap_err();
        assert!(matches!(error, FatError::BadFilesystem(_)), "{error}");
    }
}
