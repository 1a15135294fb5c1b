//! Random trees, the same in every run.

use std::path::PathBuf;
use std::sync::Arc;

use builder::tree::{Content, Inode, Kind, Metadata, Tree};

/// A small generator of pseudo-random numbers (SplitMix64), so that every run tries the same trees.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Bytes that compress, some parts of them better than others.
    fn text(&mut self, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 40);
        while text.len() < len {
            match self.below(200) {
                0 => text.extend(self.bytes(9000)),
                1 => text.resize(text.len() + 20_000, 0),
                word => text.extend(format!("word {word} of many ").bytes()),
            }
        }
        text.truncate(len);
        text
    }

    fn name(&mut self) -> Vec<u8> {
        let len = match self.below(10) {
            0 => 200 + self.below(56),
            _ => 1 + self.below(12),
        };
        let letters = b"abcXYZ019-_.!~\xc3\xa4\xff ";
        let mut name: Vec<u8> = (0..len)
            .map(|_| letters[self.below(letters.len() as u64) as usize])
            .collect();
        if name == b"." || name == b".." {
            name.push(b'x');
        }
        name
    }

    fn metadata(&mut self) -> Metadata {
        let mut metadata = Metadata::with_mode(self.below(0o10000) as u16);
        if self.below(2) == 0 {
            metadata.uid = self.below(1 << 20) as u32;
            metadata.gid = self.below(70000) as u32;
            metadata.mtime = self.below(1 << 33) as i64;
            metadata.mtime_nsec = self.below(1_000_000_000) as u32;
        }
        for _ in 0..self.below(8).saturating_sub(4) {
            let prefix = [&b"user."[..], b"trusted.", b"security."][self.below(3) as usize];
            let name_len = 1 + self.below(20) as usize;
            let name = [prefix, &vec![b'a' + self.below(26) as u8; name_len]].concat();
            let len = match self.below(8) {
                0 => self.below(9000),
                _ => self.below(40),
            };
            metadata.xattrs.insert(name, self.bytes(len as usize));
        }
        metadata
    }

    fn content(&mut self, big: &Arc<PathBuf>) -> Content {
        let len = match self.below(6) {
            0 => 0,
            1 => 4096 * self.below(4),
            2 => self.below(300_000),
            _ => self.below(5000),
        };
        match self.below(3) {
            0 => Content::Range {
                path: Arc::clone(big),
                offset: self.below(100_000),
                len,
            },
            1 => Content::Bytes(self.text(len as usize).into()),
            _ => Content::Bytes(self.bytes(len as usize).into()),
        }
    }
}

/// A tree of about `count` inodes of every kind; with `devices` and attributes that only root may make, or not.
pub(crate) fn random_tree(seed: u64, count: u64, big: &Arc<PathBuf>, devices: bool) -> Tree {
    let random = &mut Random(seed);
    let mut tree = Tree::default();
    let mut directories = vec![Tree::ROOT];
    let mut files = Vec::new();
    for _ in 0..count {
        let parent = directories[random.below(directories.len() as u64) as usize];
        let name = random.name();
        if tree.child(parent, &name).is_some() {
            continue;
        }
        if let (0, Some(&file)) = (random.below(12), files.last()) {
            tree.link(parent, &name, file).unwrap();
            continue;
        }
        let kind = match random.below(if devices { 20 } else { 14 }) {
            0..=3 => Kind::Directory(Default::default()),
            4..=5 => {
                let len = 1 + random.below(120) as usize;
                Kind::Symlink(vec![b'a' + random.below(26) as u8; len])
            }
            6..=13 => Kind::File(random.content(big)),
            14 => Kind::CharDevice { major: 0, minor: 0 },
            15 => Kind::CharDevice {
                major: random.below(4096) as u32,
                minor: random.below(1 << 20) as u32,
            },
            16 => Kind::BlockDevice {
                major: 8,
                minor: random.below(300) as u32,
            },
            17 => Kind::Socket,
            _ => Kind::Fifo,
        };
        let mut metadata = random.metadata();
        if !devices {
            metadata.xattrs.clear();
            metadata.mode |= 0o700;
        }
        let (is_directory, is_file) = (
            matches!(kind, Kind::Directory(_)),
            matches!(kind, Kind::File(_)),
        );
        let inode = Inode { metadata, kind };
        let id = tree.insert(parent, &name, inode).unwrap();
        if is_directory {
            directories.push(id);
        } else if is_file {
            files.push(id);
        }
    }
    tree
}
