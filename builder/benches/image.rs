//! One step of an image build by itself, for `scripts/bench image` to time beside other tools:
//!
//!     image erofs none|lz4|lz4hc[:LEVEL] DIRECTORY IMAGE    a file system of a directory
//!     image verity IMAGE TREE                               the dm-verity tree of a file
//!
//! Prints the most memory that it had, in KiB.

use std::error::Error;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use builder::format::erofs::{self, Compression};
use builder::format::region::Region;
use builder::format::verity;
use builder::tree::{Content, Inode, InodeId, Kind, Metadata, Tree};
use uuid::Uuid;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["erofs", compression, from, to] => write_erofs(compression, from, to)?,
        ["verity", from, to] => write_verity(from, to)?,
        _ => return Err("image erofs COMPRESSION DIRECTORY IMAGE | verity IMAGE TREE".into()),
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.ok_or("no VmHWM")?.trim().trim_end_matches(" kB");
    println!("{peak}");
    Ok(())
}

fn write_erofs(compression: &str, from: &str, to: &str) -> Result<(), Box<dyn Error>> {
    let compression = match compression.split_once(':').unwrap_or((compression, "9")) {
        ("none", _) => None,
        ("lz4", _) => Some(Compression::Lz4),
        ("lz4hc", level) => Some(Compression::Lz4Hc(level.parse()?)),
        _ => return Err("none, lz4 or lz4hc".into()),
    };
    let mut tree = Tree::default();
    add(&mut tree, Tree::ROOT, Path::new(from))?;
    let options = erofs::Options {
        compression,
        ..erofs::Options::default()
    };
    let file = File::create(to)?;
    let window = Region::new(&file, 0, u64::MAX / 2).fresh();
    let written = erofs::write(&window, &tree, &options, None)?;
    file.set_len(written.len)?;
    Ok(())
}

/// What is in a directory, without reading it.
fn add(tree: &mut Tree, at: InodeId, directory: &Path) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let kind = if kind.is_dir() {
            Kind::Directory(Default::default())
        } else if kind.is_symlink() {
            Kind::Symlink(std::fs::read_link(&path)?.into_os_string().into_vec())
        } else {
            let len = entry.metadata()?.len();
            Kind::File(Content::Range {
                path: Arc::new(path.clone()),
                offset: 0,
                len,
            })
        };
        let is_directory = matches!(kind, Kind::Directory(_));
        let inode = Inode {
            metadata: Metadata::with_mode(0o755),
            kind,
        };
        let id = tree.insert(at, &entry.file_name().into_vec(), inode)?;
        if is_directory {
            add(tree, id, &path)?;
        }
    }
    Ok(())
}

fn write_verity(from: &str, to: &str) -> Result<(), Box<dyn Error>> {
    let data = File::open(from)?;
    let len = data.metadata()?.len();
    let tree = File::create(to)?;
    let tree_len = verity::hash_tree_len(len);
    tree.set_len(tree_len)?;
    let params = verity::Params {
        salt: vec![0x5a; 32],
        uuid: Uuid::from_u128(1),
    };
    verity::write(
        &data,
        0,
        len,
        &Region::new(&tree, 0, tree_len).fresh(),
        &params,
    )?;
    Ok(())
}
