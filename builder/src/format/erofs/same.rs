//! Files of the same bytes, found so that hardly any byte is read for it: only files of the same size are looked at,
//! and only those that begin alike are hashed.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;

use sha2::{Digest, Sha256};

use super::layout::{Node, path_of};
use super::{BLOCK, ErofsError};
use crate::format::content::{ContentError, Copier};
use crate::tree::{Content, Kind, Tree};

/// For each node, the first one with the same content in the same form.
pub(super) fn find(tree: &Tree, nodes: &[Node]) -> Result<Vec<Option<usize>>, ErofsError> {
    let mut same = vec![None; nodes.len()];
    let mut copier = Copier::default();
    let content = |index: usize| match &tree.inode(nodes[index].id).kind {
        Kind::File(content) => Some(content),
        _ => None,
    };
    // What fits beside its inode has no blocks to share. A tail changes how many bytes are in blocks.
    let files =
        (0..nodes.len()).filter(|index| nodes[*index].in_blocks() > 0 && content(*index).is_some());
    let groups = group(files.collect(), |index| {
        Ok((nodes[index].size, nodes[index].in_blocks()))
    })?;
    for candidates in groups {
        let mut ranges: HashMap<Range<'_>, usize> = HashMap::new();
        let mut distinct = Vec::new();
        for index in candidates {
            let range = Range::of(content(index).expect("only files are grouped"));
            match ranges.get(&range) {
                Some(first) => same[index] = Some(*first),
                None => {
                    ranges.insert(range, index);
                    distinct.push(index);
                }
            }
        }
        let mut digest = |index: usize, most: u64| {
            let content = content(index).expect("only files are grouped");
            let mut hash = Hashing(Sha256::new());
            let done = copier.copy(content, 0, content.len().min(most), &mut hash);
            let done = done.map_err(|source: ContentError| ErofsError::Content {
                path: path_of(tree, nodes[index].id),
                source,
            });
            done.map(|()| hash.0.finalize())
        };
        for alike in group(distinct, |index| digest(index, BLOCK))? {
            for equal in group(alike, |index| digest(index, u64::MAX))? {
                equal[1..]
                    .iter()
                    .for_each(|index| same[*index] = Some(equal[0]));
            }
        }
    }
    // What was the same range as a file that turned out to be the same as another.
    for index in 0..same.len() {
        if let Some(first) = same[index] {
            same[index] = same[first].or(Some(first));
        }
    }
    Ok(same)
}

/// Groups of two and more by key, each in order, by their first.
fn group<K: Hash + Eq>(
    items: Vec<usize>,
    mut key: impl FnMut(usize) -> Result<K, ErofsError>,
) -> Result<Vec<Vec<usize>>, ErofsError> {
    if items.len() < 2 {
        return Ok(Vec::new());
    }
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for item in items {
        let place = *places.entry(key(item)?).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups.retain(|group| group.len() > 1);
    Ok(groups)
}

/// Where content of a known size comes from.
#[derive(PartialEq, Eq, Hash)]
enum Range<'t> {
    Memory(*const u8),
    File(&'t std::path::Path, u64),
}

impl<'t> Range<'t> {
    fn of(content: &'t Content) -> Self {
        match content {
            Content::Bytes(bytes) => Self::Memory(bytes.as_ptr()),
            Content::Range { path, offset, .. } => Self::File(path, *offset),
        }
    }
}

struct Hashing(Sha256);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
