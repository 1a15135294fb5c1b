//! qcow2 version 3 of a raw disk (QEMU's docs/interop/qcow2.txt): clusters of zeros are not stored.
//!
//! No snapshots, no backing file, no compression: the file grows where the machine writes, as from any other tool.

use std::io;

use super::is_zero;
use super::region::Region;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of 8 bytes in a cluster of a table.
const ENTRIES: u64 = CLUSTER / 8;
/// Reference counts of 16 bits in a cluster.
const COUNTS: u64 = CLUSTER / 2;
const HEADER_LEN: u32 = 104;
/// Entries that are the only reference to what they name.
const COPIED: u64 = 1 << 63;

/// Where everything is, in clusters.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    l1: u64,
    l1_len: u64,
    counts_table: u64,
    counts_table_len: u64,
    counts: u64,
    counts_len: u64,
    l2: u64,
    data: u64,
    end: u64,
}

impl Layout {
    /// `l1_entries` tables of the second level could be, `l2_len` are; `data_len` clusters have something in them.
    fn new(l1_entries: u64, l2_len: u64, data_len: u64) -> Self {
        let l1_len = l1_entries.div_ceil(ENTRIES).max(1);
        let mut counts_len: u64 = 1;
        loop {
            let counts_table_len = (counts_len * 8).div_ceil(CLUSTER);
            let counts_table = 1 + l1_len;
            let counts = counts_table + counts_table_len;
            let l2 = counts + counts_len;
            let data = l2 + l2_len;
            let end = data + data_len;
            if counts_len >= end.div_ceil(COUNTS) {
                return Self {
                    l1: 1,
                    l1_len,
                    counts_table,
                    counts_table_len,
                    counts,
                    counts_len,
                    l2,
                    data,
                    end,
                };
            }
            counts_len = end.div_ceil(COUNTS);
        }
    }
}

/// Writes the `len` bytes of `raw`; returns the length of the file.
///
/// # Errors
/// Reading or writing fails.
pub fn write(raw: &Region<'_>, out: &Region<'_>) -> io::Result<u64> {
    let len = raw.len();
    let clusters = len.div_ceil(CLUSTER);
    let mut filled = Vec::new();
    let mut buffer = vec![0; CLUSTER as usize];
    for cluster in 0..clusters {
        let bytes = read(raw, cluster, &mut buffer)?;
        if !is_zero(bytes) {
            filled.push(cluster);
        }
    }
    let mut tables: Vec<u64> = filled.iter().map(|cluster| cluster / ENTRIES).collect();
    tables.dedup();
    let layout = Layout::new(
        clusters.div_ceil(ENTRIES),
        tables.len() as u64,
        filled.len() as u64,
    );
    out.write_all_at(&header(len, clusters.div_ceil(ENTRIES), &layout), 0)?;
    for (index, table) in tables.iter().enumerate() {
        let entry = ((layout.l2 + index as u64) * CLUSTER) | COPIED;
        out.write_all_at(&entry.to_be_bytes(), layout.l1 * CLUSTER + table * 8)?;
    }
    for index in 0..layout.counts_len {
        let entry = (layout.counts + index) * CLUSTER;
        out.write_all_at(
            &entry.to_be_bytes(),
            layout.counts_table * CLUSTER + index * 8,
        )?;
    }
    let counts = [0, 1].repeat(layout.end as usize);
    out.write_all_at(&counts, layout.counts * CLUSTER)?;
    for (index, cluster) in filled.iter().enumerate() {
        let table = tables
            .binary_search(&(cluster / ENTRIES))
            .unwrap_or_default() as u64;
        let place = layout.data + index as u64;
        let entry = (place * CLUSTER) | COPIED;
        let at = (layout.l2 + table) * CLUSTER + cluster % ENTRIES * 8;
        out.write_all_at(&entry.to_be_bytes(), at)?;
        let bytes = read(raw, *cluster, &mut buffer)?;
        out.write_all_at(bytes, place * CLUSTER)?;
    }
    Ok(layout.end * CLUSTER)
}

/// A cluster; the last one may be short.
fn read<'b>(raw: &Region<'_>, cluster: u64, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let at = cluster * CLUSTER;
    let bytes = &mut buffer[..CLUSTER.min(raw.len() - at) as usize];
    raw.read_exact_at(bytes, at)?;
    Ok(bytes)
}

fn header(len: u64, l1_entries: u64, layout: &Layout) -> Vec<u8> {
    let mut header = b"QFI\xfb".to_vec();
    let mut word = |value: u32| header.extend_from_slice(&value.to_be_bytes());
    let high = |value: u64| (value >> 32) as u32;
    let low = |value: u64| value as u32;
    let l1 = layout.l1 * CLUSTER;
    let counts = layout.counts_table * CLUSTER;
    for value in [
        3,
        0,
        0,
        0, // version, no backing file
        CLUSTER_BITS,
        high(len),
        low(len),
        0, // size, no encryption
        l1_entries as u32,
        high(l1),
        low(l1),
        high(counts),
        low(counts),
        layout.counts_table_len as u32,
        0,
        0,
        0, // no snapshots
        0,
        0,
        0,
        0,
        0,
        0, // no features
        4,
        HEADER_LEN, // counts of 2⁴ bits
    ] {
        word(value);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_count_their_own_tables() {
        let small = Layout::new(1, 1, 10);
        assert_eq!(
            (
                small.l1,
                small.counts_table,
                small.counts,
                small.l2,
                small.data,
                small.end
            ),
            (1, 2, 3, 4, 5, 15)
        );
        for data in [32_000, 32_762, 32_763, 32_764, 40_000, 10_000_000] {
            let layout = Layout::new(data / ENTRIES + 1, data / ENTRIES + 1, data);
            assert!(layout.counts_len * COUNTS >= layout.end, "{layout:?}");
            assert!(
                layout.counts_table_len * ENTRIES >= layout.counts_len,
                "{layout:?}"
            );
        }
    }

    #[test]
    fn the_header_has_its_length() {
        assert_eq!(
            header(1 << 20, 1, &Layout::new(1, 1, 1)).len(),
            HEADER_LEN as usize
        );
    }
}
