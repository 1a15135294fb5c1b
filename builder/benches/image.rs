//! One step of an image build by itself, for `scripts/bench image` to time beside other tools:
//!
//!     image erofs none|lz4|lz4hc[:LEVEL] DIRECTORY IMAGE    a file system of a directory
//!     image verity IMAGE TREE                               the dm-verity tree of a file
//!
//! Prints the most memory that it had, in KiB.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use builder::format::erofs::{self, Compression};
use builder::format::region::Region;
use builder::format::verity;
use builder::progress::Progress;
use builder::source::dir;
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
    let image = dir::load(Path::new(from), &Progress::silent())?;
    let options = erofs::Options {
        compression,
        ..erofs::Options::default()
    };
    let file = File::create(to)?;
    let window = Region::new(&file, 0, u64::MAX / 2).fresh();
    let written = erofs::write(&window, &image.layers[0].tree, &options, None)?;
    file.set_len(written.len)?;
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
