//! Compact indexes of a compressed file: where each of its logical clusters (blocks of 4096 bytes) is.
//!
//! Behind the inode and its attributes, at a multiple of 8, are a map header of 8 bytes and packs of entries: packs of
//! 2 entries in 8 bytes up to a multiple of 32, then packs of 16 entries in 32 bytes while they are full, then packs
//! of 2 again (`fs/erofs/zmap.c`). An entry has 2 bits of type and 12 of value; a pack ends with the block that its
//! entries count from. Our clusters begin at multiples of their size and their blocks follow each other.

use super::BLOCK;
use super::compress::CLUSTER_BLOCKS;
use crate::format::array_at;

/// Bytes of the map header.
pub(super) const HEADER_LEN: usize = 8;
/// The index and the header before it are aligned so.
const ALIGNMENT: usize = 8;
const VALUE_BITS: usize = 12;
const VALUE_MASK: u16 = (1 << VALUE_BITS) - 1;
/// Marks the value that is the number of a cluster's compressed blocks.
const BLOCK_COUNT: u16 = 1 << 11;
/// Entries and bytes of a small pack, and of a large one.
const SMALL: (usize, usize) = (2, 8);
const LARGE: (usize, usize) = (16, 32);

const ADVISE_COMPACTED_2B: u16 = 1;
/// For both types of head, as compact indexes want it.
const ADVISE_BIG_PCLUSTER: u16 = 2 | 4;
const ADVISE_INLINE_PCLUSTER: u16 = 8;
const ADVISE_KNOWN: u16 = ADVISE_COMPACTED_2B | ADVISE_BIG_PCLUSTER | ADVISE_INLINE_PCLUSTER;

const TYPE_PLAIN: u16 = 0;
const TYPE_HEAD: u16 = 1;
const TYPE_INNER: u16 = 2;

/// A file's clusters in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Clusters {
    /// First block of the first one that has blocks.
    pub(super) first_block: u64,
    /// Compressed blocks of each cluster; 0 where it is stored as it is.
    pub(super) blocks: Vec<u8>,
    /// The last cluster's compressed bytes, if they lie behind the index instead of in blocks.
    pub(super) inline: Option<Box<[u8]>>,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    /// A block as it is.
    Plain { block: u64 },
    /// The first of a compressed cluster.
    Head { block: u64 },
    /// Another of a compressed cluster: the cluster's blocks for the first of these, the distances to the head and to
    /// the next one.
    Inner {
        count: Option<u8>,
        back: u16,
        ahead: u16,
    },
}

/// Bytes before the map header, for an inode with attributes of `head` bytes.
pub(super) fn header_at(head: usize) -> usize {
    head.next_multiple_of(ALIGNMENT)
}

/// The packs of an index that begins at `base`: entry count and bytes of each form, in order.
fn packs(base: usize, entries: usize) -> [(usize, (usize, usize)); 3] {
    let first = ((LARGE.1 - base % LARGE.1) % LARGE.1 / SMALL.1 * SMALL.0)
        .min(entries.next_multiple_of(SMALL.0));
    let rest = entries.saturating_sub(first);
    let large = rest / LARGE.0;
    let last = (rest - large * LARGE.0).div_ceil(SMALL.0);
    [(first / SMALL.0, SMALL), (large, LARGE), (last, SMALL)]
}

/// Bytes of map header and index of a file of `size` bytes whose inode and attributes have `head` bytes.
pub(super) fn len(head: usize, size: u64) -> usize {
    let at = header_at(head);
    let entries = size.div_ceil(BLOCK) as usize;
    let packs = packs(at + HEADER_LEN, entries);
    let bytes: usize = packs.iter().map(|(count, (_, len))| count * len).sum();
    at - head + HEADER_LEN + bytes
}

/// Appends padding, map header and index to `out`, which begins with the inode, for a file of `size` bytes.
pub(super) fn render(clusters: &Clusters, algorithm: u8, size: u64, out: &mut Vec<u8>) {
    out.resize(header_at(out.len()), 0);
    let inline_len = clusters
        .inline
        .as_ref()
        .map_or(0, |bytes| bytes.len() as u16);
    let mut advise = ADVISE_COMPACTED_2B | ADVISE_BIG_PCLUSTER;
    if inline_len > 0 {
        advise |= ADVISE_INLINE_PCLUSTER;
    }
    out.extend([0; 2]);
    out.extend(inline_len.to_le_bytes());
    out.extend(advise.to_le_bytes());
    out.extend([algorithm, 0]);
    let entries = entries(clusters, size.div_ceil(BLOCK));
    let mut rest = &entries[..];
    for (count, (capacity, len)) in packs(out.len(), entries.len()) {
        for _ in 0..count {
            let (pack, after) = rest.split_at(capacity.min(rest.len()));
            render_pack(pack, capacity, len, out);
            rest = after;
        }
    }
}

fn entries(clusters: &Clusters, total: u64) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(total as usize);
    let mut block = clusters.first_block;
    let last = clusters.blocks.len().saturating_sub(1);
    for (index, &count) in clusters.blocks.iter().enumerate() {
        let left = total - entries.len() as u64;
        let members = left.min(CLUSTER_BLOCKS);
        if count == 0 {
            entries.extend((0..members).map(|at| Entry::Plain { block: block + at }));
            block += members;
            continue;
        }
        entries.push(Entry::Head { block });
        entries.extend((1..members).map(|at| Entry::Inner {
            count: (at == 1).then_some(count),
            back: at as u16,
            ahead: (members - at) as u16,
        }));
        if index != last || clusters.inline.is_none() {
            block += u64::from(count);
        }
    }
    entries
}

/// A pack of `capacity` entries; those that are missing are zeros.
fn render_pack(pack: &[Entry], capacity: usize, len: usize, out: &mut Vec<u8>) {
    let bits = (len - 4) * 8 / capacity;
    let start = out.len();
    out.resize(start + len, 0);
    let bytes = &mut out[start..];
    for (index, entry) in pack.iter().enumerate() {
        let (kind, value) = match *entry {
            Entry::Plain { .. } => (TYPE_PLAIN, 0),
            Entry::Head { .. } => (TYPE_HEAD, 0),
            Entry::Inner {
                count: Some(count), ..
            } => (TYPE_INNER, u16::from(count) | BLOCK_COUNT),
            // The last of a pack tells the way on; the way back follows from the one before it.
            Entry::Inner { ahead, .. } if index + 1 == capacity => (TYPE_INNER, ahead),
            Entry::Inner { back, .. } => (TYPE_INNER, back),
        };
        let value = u32::from(kind << VALUE_BITS | value) << (index * bits % 8);
        let at = index * bits / 8;
        for (byte, bits) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
            *byte |= bits;
        }
    }
    bytes[len - 4..].copy_from_slice(&(base_block(pack) as u32).to_le_bytes());
}

/// The block that a reader counts the pack's blocks from.
fn base_block(pack: &[Entry]) -> u64 {
    let mut before = 0;
    for entry in pack {
        match *entry {
            Entry::Plain { block } | Entry::Head { block } => return block - before,
            // Only the count of a head in the pack before is met here.
            Entry::Inner { count, .. } => before += u64::from(count.unwrap_or(0)),
        }
    }
    0
}

/// Where the index of a file lies, for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Map {
    /// First byte of the index in the image.
    at: u64,
    /// Entries.
    total: u64,
    pub(super) algorithm: u8,
    /// Bytes of the last cluster that lie behind the index; 0 if it is in blocks.
    pub(super) inline_len: u64,
}

/// Where a cluster is, as a reader finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First entry.
    pub(super) first: u64,
    /// Entries.
    pub(super) len: u64,
    /// First block.
    pub(super) block: u64,
    /// Compressed blocks; 0 for a block as it is.
    pub(super) count: u64,
}

/// One entry as read.
#[derive(Debug, Clone, Copy)]
struct Raw {
    kind: u16,
    value: u16,
}

impl Raw {
    fn count(self) -> Option<u64> {
        let is_count = self.kind == TYPE_INNER && self.value & BLOCK_COUNT != 0;
        is_count.then(|| u64::from(self.value & !BLOCK_COUNT))
    }
}

/// Reads bytes of the image.
pub(super) type ReadAt<'a, E> = &'a dyn Fn(u64, &mut [u8]) -> Result<(), E>;

impl Map {
    /// Reads the map header of a file of `size` bytes whose inode and attributes end at `end`.
    pub(super) fn parse(
        header: &[u8; HEADER_LEN],
        end: u64,
        size: u64,
    ) -> Result<Self, &'static str> {
        let u16_at = |at| u16::from_le_bytes(array_at(header, at));
        let advise = u16_at(4);
        if advise & !ADVISE_KNOWN != 0
            || advise & ADVISE_BIG_PCLUSTER != ADVISE_BIG_PCLUSTER
            || header[7] != 0
        {
            return Err("an index has another form than ours");
        }
        let inline = advise & ADVISE_INLINE_PCLUSTER != 0;
        Ok(Self {
            at: Self::header_at(end) + HEADER_LEN as u64,
            total: size.div_ceil(BLOCK),
            algorithm: header[6] & 15,
            inline_len: if inline { u64::from(u16_at(2)) } else { 0 },
        })
    }

    /// Where the map header is.
    pub(super) fn header_at(end: u64) -> u64 {
        end.next_multiple_of(ALIGNMENT as u64)
    }

    /// First byte behind the index.
    pub(super) fn end(&self) -> u64 {
        let packs = packs(self.at as usize, self.total as usize);
        self.at
            + packs
                .iter()
                .map(|(count, (_, len))| (count * len) as u64)
                .sum::<u64>()
    }

    /// The cluster that entry `wanted` belongs to; `most` entries at most.
    pub(super) fn extent<E: From<&'static str>>(
        &self,
        wanted: u64,
        most: u64,
        read: ReadAt<'_, E>,
    ) -> Result<Extent, E> {
        let mut first = wanted;
        while self.entry(first, read)?.0.kind == TYPE_INNER {
            if first == 0 || wanted - first >= most {
                return Err("a cluster has no beginning".into());
            }
            first -= 1;
        }
        let (head, block) = self.entry(first, read)?;
        if head.value != 0 {
            return Err("a cluster begins inside a block".into());
        }
        let mut extent = Extent {
            first,
            len: 1,
            block,
            count: 0,
        };
        if head.kind == TYPE_PLAIN {
            return Ok(extent);
        }
        extent.count = 1;
        while first + extent.len < self.total {
            let (inner, _) = self.entry(first + extent.len, read)?;
            if inner.kind != TYPE_INNER {
                break;
            }
            match (extent.len, inner.count()) {
                (1, Some(count)) if count > 0 => extent.count = count,
                (1, _) => return Err("a cluster does not say its length".into()),
                (len, _) if len >= most => return Err("a cluster is too long".into()),
                _ => {}
            }
            extent.len += 1;
        }
        Ok(extent)
    }

    /// An entry, and the block that it stands for if it is the first of a cluster.
    fn entry<E: From<&'static str>>(
        &self,
        number: u64,
        read: ReadAt<'_, E>,
    ) -> Result<(Raw, u64), E> {
        let (at, capacity, len, index) = self.place(number as usize);
        let mut bytes = [0; LARGE.1];
        read(self.at + at as u64, &mut bytes[..len])?;
        let bits = (len - 4) * 8 / capacity;
        let raw = |index: usize| {
            let word = u32::from_le_bytes(array_at(&bytes, index * bits / 8)) >> (index * bits % 8);
            Raw {
                kind: (word as u16) >> VALUE_BITS & 3,
                value: word as u16 & VALUE_MASK,
            }
        };
        let entry = raw(index);
        let mut block = u64::from(u32::from_le_bytes(array_at(&bytes, len - 4)));
        for before in 0..index {
            let (this, next) = (raw(before), raw(before + 1));
            block += match (this.kind, this.count(), next.count()) {
                (TYPE_INNER, Some(count), _) => count,
                (TYPE_INNER, None, _) => 0,
                // The count of its blocks follows.
                (_, _, Some(_)) if before + 1 < index => 0,
                _ => 1,
            };
        }
        match entry.kind {
            TYPE_PLAIN..=TYPE_INNER => Ok((entry, block)),
            _ => Err("a cluster is of a second algorithm".into()),
        }
    }

    /// A pack's offset, its capacity and length, and the entry's place in it.
    fn place(&self, number: usize) -> (usize, usize, usize, usize) {
        let mut at = 0;
        let mut first = 0;
        for (count, (capacity, len)) in packs(self.at as usize, self.total as usize) {
            if number < first + count * capacity {
                let pack = (number - first) / capacity;
                return (at + pack * len, capacity, len, (number - first) % capacity);
            }
            first += count * capacity;
            at += count * len;
        }
        unreachable!("callers ask for entries that there are")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    enum Wrong {}

    impl From<&'static str> for Wrong {
        fn from(reason: &'static str) -> Self {
            panic!("{reason}")
        }
    }

    /// Renders and reads back: the extents in order.
    fn round(head: usize, clusters: &Clusters, size: u64) -> Vec<Extent> {
        let mut out = vec![0; head];
        render(clusters, 0, size, &mut out);
        assert_eq!(out.len(), head + len(head, size));
        let at = Map::header_at(head as u64);
        let map = Map::parse(&array_at(&out, at as usize), head as u64, size).unwrap();
        assert_eq!(map.end(), out.len() as u64);
        let read = |at: u64, into: &mut [u8]| -> Result<(), Wrong> {
            into.copy_from_slice(&out[at as usize..at as usize + into.len()]);
            Ok(())
        };
        let mut found = Vec::new();
        let mut next = 0;
        while next < map.total {
            let extent = map.extent(next, CLUSTER_BLOCKS, &read).unwrap();
            let last = map
                .extent(next + extent.len - 1, CLUSTER_BLOCKS, &read)
                .unwrap();
            assert_eq!(extent, last, "each entry leads to its cluster");
            next += extent.len;
            found.push(extent);
        }
        found
    }

    #[test]
    fn extents_come_back_from_indexes_of_every_length_and_place() {
        for head in [32, 36, 64, 76, 88, 100] {
            for blocks in [1, 2, 3, 15, 16, 17, 31, 32, 33, 48, 49, 100, 160, 999] {
                let many = u64::div_ceil(blocks, CLUSTER_BLOCKS);
                let counts = (0..many).map(|cluster| {
                    let members = CLUSTER_BLOCKS.min(blocks - cluster * CLUSTER_BLOCKS);
                    (cluster * 7 % members) as u8
                });
                let clusters = Clusters {
                    first_block: 100,
                    blocks: counts.collect(),
                    inline: None,
                };
                let mut expected = Vec::new();
                let (mut first, mut block) = (0, 100);
                for &count in &clusters.blocks {
                    let len = CLUSTER_BLOCKS.min(blocks - first);
                    if count == 0 {
                        expected.extend((0..len).map(|at| Extent {
                            first: first + at,
                            len: 1,
                            block: block + at,
                            count: 0,
                        }));
                        block += len;
                    } else {
                        expected.push(Extent {
                            first,
                            len,
                            block,
                            count: u64::from(count),
                        });
                        block += u64::from(count);
                    }
                    first += len;
                }
                assert_eq!(
                    round(head, &clusters, blocks * BLOCK - 1),
                    expected,
                    "{head} {blocks}"
                );
            }
        }
    }
}
