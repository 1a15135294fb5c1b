//! Directory blocks: fixed-size entries, then the names; all entries of a directory in the order of their names.

use std::collections::BTreeMap;

use super::{BLOCK, BLOCK_LEN};
use crate::format::array_at;
use crate::tree::{InodeId, Name};

pub(super) const ENTRY_LEN: usize = 12;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// `.`
    This,
    /// `..`
    Parent,
    /// An inode of the tree.
    Inode(InodeId),
}

/// All names of a directory in their order, `.` and `..` among them.
pub(super) fn names(entries: &BTreeMap<Name, InodeId>) -> Vec<(&[u8], Target)> {
    let mut names: Vec<(&[u8], Target)> = entries
        .iter()
        .map(|(name, id)| (name.as_slice(), Target::Inode(*id)))
        .collect();
    for (dots, target) in [(&b"."[..], Target::This), (b"..", Target::Parent)] {
        let at = names.partition_point(|(name, _)| *name < dots);
        names.insert(at, (dots, target));
    }
    names
}

/// The names that go into each block, as ranges of `names`, with the bytes they take.
fn blocks(names: &[(&[u8], Target)]) -> Vec<(std::ops::Range<usize>, usize)> {
    let mut blocks = Vec::new();
    let (mut first, mut used) = (0, 0);
    for (index, (name, _)) in names.iter().enumerate() {
        let cost = ENTRY_LEN + name.len();
        if used + cost > BLOCK_LEN {
            blocks.push((first..index, used));
            (first, used) = (index, 0);
        }
        used += cost;
    }
    blocks.push((first..names.len(), used));
    blocks
}

/// Bytes of a directory: whole blocks, and what the last one uses.
pub(super) fn size(entries: &BTreeMap<Name, InodeId>) -> u64 {
    let blocks = blocks(&names(entries));
    let last = blocks.last().map_or(0, |(_, used)| *used);
    (blocks.len() as u64 - 1) * BLOCK + last as u64
}

/// Renders a directory; every block but the last is padded. `resolve` gives a target's nid and file type.
pub(super) fn render(
    entries: &BTreeMap<Name, InodeId>,
    resolve: impl Fn(Target) -> (u64, u8),
) -> Vec<u8> {
    let names = names(entries);
    let mut out = Vec::new();
    for (range, _) in blocks(&names) {
        out.resize(out.len().next_multiple_of(BLOCK_LEN), 0);
        let names = &names[range];
        let mut name_offset = names.len() * ENTRY_LEN;
        for (name, target) in names {
            let (nid, file_type) = resolve(*target);
            out.extend(nid.to_le_bytes());
            out.extend((name_offset as u16).to_le_bytes());
            out.extend([file_type, 0]);
            name_offset += name.len();
        }
        names.iter().for_each(|(name, _)| out.extend(*name));
    }
    out
}

/// The names of a directory block with their nids, or what is wrong with it.
pub(super) fn parse(block: &[u8]) -> Result<Vec<(&[u8], u64)>, &'static str> {
    let name_offset = |entry: usize| {
        let at = entry * ENTRY_LEN + 8;
        usize::from(u16::from_le_bytes(array_at(block, at)))
    };
    if block.len() < ENTRY_LEN {
        return Err("a directory block is cut off");
    }
    let names_at = name_offset(0);
    let count = names_at / ENTRY_LEN;
    if names_at > block.len() || count == 0 || !names_at.is_multiple_of(ENTRY_LEN) {
        return Err("a directory block's names are not after its entries");
    }
    let mut found = Vec::with_capacity(count);
    for entry in 0..count {
        let start = name_offset(entry);
        let end = if entry + 1 < count {
            name_offset(entry + 1)
        } else {
            let rest = block.get(start..).unwrap_or_default();
            let len = rest.iter().position(|byte| *byte == 0);
            start + len.unwrap_or(rest.len())
        };
        let name = block.get(start..end).unwrap_or_default();
        if start < names_at || !(1..=255).contains(&name.len()) || name.contains(&b'/') {
            return Err("a directory block has a bad name");
        }
        let nid = u64::from_le_bytes(array_at(block, entry * ENTRY_LEN));
        found.push((name, nid));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Inode, Kind, Metadata, Tree};

    #[test]
    fn dots_are_sorted_among_the_names() {
        let mut tree = Tree::default();
        for name in [&b"a"[..], b"-", b"...", b".z", b"\xff"] {
            let inode = Inode {
                metadata: Metadata::default(),
                kind: Kind::Fifo,
            };
            tree.insert(Tree::ROOT, name, inode).unwrap();
        }
        let found: Vec<_> = names(tree.entries(Tree::ROOT).unwrap())
            .iter()
            .map(|(name, _)| name.to_vec())
            .collect();
        let expected = [&b"-"[..], b".", b"..", b"...", b".z", b"a", b"\xff"];
        assert_eq!(found, expected);
    }

    #[test]
    fn rendered_size_is_the_announced_one() {
        for count in [0, 1, 100, 200, 300, 5000] {
            let mut tree = Tree::default();
            for number in 0..count {
                let name = format!("{number:05}{}", "x".repeat(number % 251));
                let inode = Inode {
                    metadata: Metadata::default(),
                    kind: Kind::Fifo,
                };
                tree.insert(Tree::ROOT, name.as_bytes(), inode).unwrap();
            }
            let entries = tree.entries(Tree::ROOT).unwrap();
            let bytes = render(entries, |_| (1, 2));
            assert_eq!(bytes.len() as u64, size(entries), "{count}");
        }
    }
}
