//! The writer: everything is laid out first, then written front to back.

use std::collections::HashSet;
use std::io::{BufWriter, Write};

use super::geometry::Geometry;
use super::name::{self, Short};
use super::time::{DosTime, dos_time};
use super::{
    ATTRIBUTE_ARCHIVE, ATTRIBUTE_DIRECTORY, ATTRIBUTE_LABEL, END_OF_CHAIN, ENTRY_LEN, FatError,
    Options, ROOT_CLUSTER, SECTOR, SECTOR_LEN,
};
use crate::format::content::Copier;
use crate::tree::{Content, InodeId, Kind, Tree};

const BUFFER: usize = 1 << 18;
/// The most entries of a directory.
const MOST_ENTRIES: usize = 65_536;
const MEDIA: u8 = 0xf8;

/// Writes a filesystem of `len` bytes, all of them, with the content of `tree` to `out`, from where it stands.
///
/// # Errors
/// [`FatError`]; [`FatError::Full`] says what would be needed. Only an error of `out` or of a host file leaves
/// part of a filesystem behind.
pub fn write(
    out: &mut impl Write,
    len: u64,
    options: &Options,
    tree: &Tree,
) -> Result<(), FatError> {
    let geometry = Geometry::new(len)?;
    let label = label_bytes(&options.label)?;
    let mut volume = Volume {
        tree,
        geometry,
        label,
        time: dos_time(options.mtime),
        directories: Vec::new(),
        runs: Vec::new(),
    };
    volume.collect()?;
    volume.allocate(len)?;
    let mut out = BufWriter::with_capacity(BUFFER, out);
    volume
        .write_tables(options.volume_id, &mut out)
        .map_err(FatError::Write)?;
    volume.write_clusters(&mut out)?;
    out.flush().map_err(FatError::Write)
}

struct Volume<'t> {
    tree: &'t Tree,
    geometry: Geometry,
    label: Short,
    time: DosTime,
    /// The root first, each after its parent.
    directories: Vec<Directory<'t>>,
    /// Clusters of each chain from cluster 2 on, without gaps.
    runs: Vec<u32>,
}

struct Directory<'t> {
    path: String,
    parent: usize,
    first_cluster: u32,
    entries: Vec<Entry<'t>>,
}

struct Entry<'t> {
    /// The long name, if the short one does not say all.
    units: Option<Vec<u16>>,
    short: Short,
    target: Target<'t>,
    first_cluster: u32,
}

enum Target<'t> {
    /// An index of the volume's directories.
    Directory(usize),
    File(&'t Content),
}

impl Directory<'_> {
    /// Bytes of its entries, with the label or the dots.
    fn len(&self) -> u64 {
        let of_entry =
            |entry: &Entry<'_>| 1 + entry.units.as_ref().map_or(0, |u| name::pieces(u.len()));
        let entries: usize = self.entries.iter().map(of_entry).sum();
        ((entries + 2) * ENTRY_LEN) as u64
    }
}

impl<'t> Volume<'t> {
    fn collect(&mut self) -> Result<(), FatError> {
        let mut ids = vec![Tree::ROOT];
        self.directories.push(Directory {
            path: String::new(),
            parent: 0,
            first_cluster: 0,
            entries: Vec::new(),
        });
        let mut next = 0;
        while let Some(&id) = ids.get(next) {
            self.collect_directory(next, id, &mut ids)?;
            next += 1;
        }
        Ok(())
    }

    fn collect_directory(
        &mut self,
        index: usize,
        id: InodeId,
        ids: &mut Vec<InodeId>,
    ) -> Result<(), FatError> {
        let children = self.tree.entries(id).into_iter().flatten();
        let exact = children
            .clone()
            .filter_map(|(name, _)| name::exact_short(name));
        let mut taken: HashSet<Short> = exact.collect();
        let mut folded = HashSet::new();
        for (name, child) in children {
            let directory = &self.directories[index];
            let path = format!("{}/{}", directory.path, String::from_utf8_lossy(name));
            let bad = |reason| FatError::BadName {
                path: path.clone(),
                reason,
            };
            let units = name::long_units(name).map_err(bad)?;
            if !folded.insert(name::folded(name)) {
                return Err(bad("another name equals it but for upper and lower case"));
            }
            let (units, short) = match name::exact_short(name) {
                Some(short) => (None, short),
                None => (Some(units), name::numbered_short(name, &taken)),
            };
            taken.insert(short);
            let target = self.target(index, *child, &path)?;
            if let Target::Directory(_) = target {
                ids.push(*child);
            }
            self.directories[index].entries.push(Entry {
                units,
                short,
                target,
                first_cluster: 0,
            });
        }
        let directory = &self.directories[index];
        if directory.len() > (MOST_ENTRIES * ENTRY_LEN) as u64 {
            return Err(FatError::Unsupported {
                path: directory.path.clone(),
                what: "a directory of so many entries",
            });
        }
        Ok(())
    }

    fn target(&mut self, parent: usize, id: InodeId, path: &str) -> Result<Target<'t>, FatError> {
        let what = match &self.tree.inode(id).kind {
            Kind::Directory(_) => {
                self.directories.push(Directory {
                    path: path.to_owned(),
                    parent,
                    first_cluster: 0,
                    entries: Vec::new(),
                });
                return Ok(Target::Directory(self.directories.len() - 1));
            }
            Kind::File(content) if content.len() <= u64::from(u32::MAX) => {
                return Ok(Target::File(content));
            }
            Kind::File(_) => "a file of 4 GiB or more",
            Kind::Symlink(_) => "a symbolic link",
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
            Kind::Fifo => "a pipe",
            Kind::Socket => "a socket",
        };
        let path = path.to_owned();
        Err(FatError::Unsupported { path, what })
    }

    /// Gives every directory, then every file, its run of clusters.
    fn allocate(&mut self, len: u64) -> Result<(), FatError> {
        let cluster_len = self.geometry.cluster_len();
        let mut lengths: Vec<u64> = self.directories.iter().map(Directory::len).collect();
        let files = self
            .directories
            .iter()
            .flat_map(|directory| &directory.entries);
        lengths.extend(files.filter_map(|entry| match entry.target {
            Target::File(content) if !content.is_empty() => Some(content.len()),
            _ => None,
        }));
        let counts: Vec<u64> = lengths
            .iter()
            .map(|len| len.div_ceil(cluster_len))
            .collect();
        let needed: u64 = counts.iter().sum();
        if needed > u64::from(self.geometry.clusters) {
            let needed = self.geometry.data_at() + needed * cluster_len;
            return Err(FatError::Full { len, needed });
        }
        self.runs = counts.iter().map(|count| *count as u32).collect();
        let mut next = ROOT_CLUSTER;
        let mut firsts = self.runs.iter().map(|count| {
            next += count;
            next - count
        });
        let mut first = || firsts.next().expect("one run for each directory and file");
        for directory in &mut self.directories {
            directory.first_cluster = first();
        }
        let of_directories: Vec<u32> = self
            .directories
            .iter()
            .map(|directory| directory.first_cluster)
            .collect();
        for entry in self.directories.iter_mut().flat_map(|d| &mut d.entries) {
            entry.first_cluster = match entry.target {
                Target::Directory(index) => of_directories[index],
                Target::File(content) if content.is_empty() => 0,
                Target::File(_) => first(),
            };
        }
        Ok(())
    }

    fn write_tables(&self, volume_id: u32, out: &mut impl Write) -> std::io::Result<()> {
        let boot = self.boot_sector(volume_id);
        let info = self.info_sector();
        let mut reserved = vec![0; self.geometry.reserved_sectors as usize * SECTOR_LEN];
        for (sector, bytes) in [(0, &boot), (1, &info), (6, &boot), (7, &info)] {
            reserved[sector * SECTOR_LEN..][..SECTOR_LEN].copy_from_slice(bytes);
        }
        out.write_all(&reserved)?;
        for _ in 0..self.geometry.tables {
            self.write_table(out)?;
        }
        Ok(())
    }

    fn write_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(&(END_OF_CHAIN & !0xff | u32::from(MEDIA)).to_le_bytes())?;
        out.write_all(&END_OF_CHAIN.to_le_bytes())?;
        let mut cluster = ROOT_CLUSTER;
        for count in &self.runs {
            let last = cluster + count - 1;
            while cluster < last {
                cluster += 1;
                out.write_all(&cluster.to_le_bytes())?;
            }
            out.write_all(&END_OF_CHAIN.to_le_bytes())?;
            cluster += 1;
        }
        let table = u64::from(self.geometry.table_sectors) * SECTOR;
        write_zeros(out, table - u64::from(cluster) * 4)
    }

    fn boot_sector(&self, volume_id: u32) -> [u8; SECTOR_LEN] {
        let geometry = &self.geometry;
        let mut sector = [0; SECTOR_LEN];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xeb, 0x58, 0x90]);
        put(3, b"CORACLE ");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[geometry.sectors_per_cluster as u8]);
        put(14, &(geometry.reserved_sectors as u16).to_le_bytes());
        put(16, &[geometry.tables as u8]);
        put(21, &[MEDIA]);
        put(24, &63_u16.to_le_bytes());
        put(26, &255_u16.to_le_bytes());
        put(32, &geometry.sectors.to_le_bytes());
        put(36, &geometry.table_sectors.to_le_bytes());
        put(44, &ROOT_CLUSTER.to_le_bytes());
        put(48, &1_u16.to_le_bytes()); // the information sector
        put(50, &6_u16.to_le_bytes()); // the copy of this sector
        put(64, &[0x80, 0, 0x29]);
        put(67, &volume_id.to_le_bytes());
        put(71, &self.label);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xaa]);
        sector
    }

    fn info_sector(&self) -> [u8; SECTOR_LEN] {
        let used: u32 = self.runs.iter().sum();
        let mut sector = [0; SECTOR_LEN];
        for (at, value) in [
            (0, 0x4161_5252),
            (484, 0x6141_7272),
            (488, self.geometry.clusters - used),
            (492, ROOT_CLUSTER + used - 1), // the last cluster given out
            (508, 0xaa55_0000),
        ] {
            sector[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        sector
    }

    fn write_clusters(&self, out: &mut impl Write) -> Result<(), FatError> {
        let cluster_len = self.geometry.cluster_len();
        let pad = |out: &mut _, len: u64| {
            write_zeros(out, len.next_multiple_of(cluster_len) - len).map_err(FatError::Write)
        };
        for directory in &self.directories {
            let bytes = self.directory_bytes(directory);
            out.write_all(&bytes).map_err(FatError::Write)?;
            pad(out, bytes.len() as u64)?;
        }
        let mut copier = Copier::default();
        for directory in &self.directories {
            for entry in &directory.entries {
                let Target::File(content) = entry.target else {
                    continue;
                };
                copier
                    .copy_all(content, out)
                    .map_err(|source| FatError::Content {
                        path: format!("{}/{}", directory.path, entry.text()),
                        source,
                    })?;
                pad(out, content.len())?;
            }
        }
        let used: u64 = self.runs.iter().map(|count| u64::from(*count)).sum();
        let written = self.geometry.data_at() + used * cluster_len;
        let len = u64::from(self.geometry.sectors) * SECTOR;
        write_zeros(out, len - written).map_err(FatError::Write)
    }

    fn directory_bytes(&self, directory: &Directory<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let time = self.time;
        if directory.first_cluster == ROOT_CLUSTER {
            bytes.extend(entry_bytes(&self.label, ATTRIBUTE_LABEL, time, 0, 0));
        } else {
            let parent = match self.directories[directory.parent].first_cluster {
                ROOT_CLUSTER => 0, // the root is always 0 here
                cluster => cluster,
            };
            for (name, cluster) in [
                (b".          ", directory.first_cluster),
                (b"..         ", parent),
            ] {
                bytes.extend(entry_bytes(name, ATTRIBUTE_DIRECTORY, time, cluster, 0));
            }
        }
        for entry in &directory.entries {
            if let Some(units) = &entry.units {
                name::render_long(units, &entry.short, &mut bytes);
            }
            let (attributes, size) = match entry.target {
                Target::Directory(_) => (ATTRIBUTE_DIRECTORY, 0),
                Target::File(content) => (ATTRIBUTE_ARCHIVE, content.len() as u32),
            };
            let cluster = entry.first_cluster;
            bytes.extend(entry_bytes(&entry.short, attributes, time, cluster, size));
        }
        bytes
    }
}

impl Entry<'_> {
    fn text(&self) -> String {
        match &self.units {
            Some(units) => String::from_utf16_lossy(units),
            None => name::short_text(&self.short),
        }
    }
}

fn write_zeros(out: &mut impl Write, len: u64) -> std::io::Result<()> {
    let zeros = [0; 1 << 16];
    let mut left = len;
    while left > 0 {
        let piece = left.min(zeros.len() as u64);
        out.write_all(&zeros[..piece as usize])?;
        left -= piece;
    }
    Ok(())
}

fn label_bytes(label: &str) -> Result<Short, FatError> {
    let good = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b' ');
    if label.trim().is_empty() || label.len() > 11 || !label.bytes().all(good) {
        return Err(FatError::BadLabel(label.to_owned()));
    }
    let mut bytes = [b' '; 11];
    bytes[..label.len()].copy_from_slice(label.as_bytes());
    Ok(bytes)
}

fn entry_bytes(
    name: &Short,
    attributes: u8,
    time: DosTime,
    cluster: u32,
    size: u32,
) -> [u8; ENTRY_LEN] {
    let mut entry = [0; ENTRY_LEN];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    for (at, value) in [
        (14, time.time),
        (16, time.date),
        (18, time.date),
        (20, (cluster >> 16) as u16),
        (22, time.time),
        (24, time.date),
        (26, cluster as u16),
    ] {
        entry[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_break_a_rule_are_refused() {
        for bad in ["", " ", "esp", "TWELVE BYTES", "A/B"] {
            assert!(label_bytes(bad).is_err(), "{bad:?}");
        }
        assert_eq!(label_bytes("ESP").unwrap(), *b"ESP        ");
    }
}
