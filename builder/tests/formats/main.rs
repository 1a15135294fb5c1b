//! The standard tools accept what the format writers write.
//!
//! Each test writes an image and hands it to the tool that is authoritative for its format. A missing tool is a
//! failure, with the Debian package that has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod linux;
mod random;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use builder::format::content::Copier;
use builder::format::region::Region;
use builder::format::{cpio, erofs, ext4, fat, gpt, pe, verity};
use builder::tree::{Content, Inode, InodeId, Kind, Metadata, Tree};
use uuid::Uuid;

use crate::random::{Random, random_tree};

const MIB: u64 = 1 << 20;

/// Runs a tool that must succeed; its output, both streams.
fn tool(package: &str, program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let (ok, text) = try_tool(package, program, arguments);
    assert!(ok, "{program} refuses:\n{text}");
    text
}

fn try_tool(
    package: &str,
    program: &str,
    arguments: &[&dyn AsRef<std::ffi::OsStr>],
) -> (bool, String) {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new(program)
        .args(arguments.iter().map(|argument| argument.as_ref()))
        .env("PATH", path)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} (Debian package {package}): {error}"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn sparse(path: &Path, len: u64) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file.set_len(len).unwrap();
    file
}

#[test]
fn sgdisk_verifies_the_partition_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let disk = sparse(&path, 32 * MIB);
    let table = gpt::Table {
        disk_guid: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        disk_len: 32 * MIB,
        partitions: vec![
            gpt::Partition {
                type_guid: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap(),
                unique_guid: Uuid::from_u128(1),
                name: "ESP".into(),
                start: MIB,
                len: 10 * MIB,
            },
            gpt::Partition {
                type_guid: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709".parse().unwrap(),
                unique_guid: Uuid::from_u128(2),
                name: "root".into(),
                start: 11 * MIB,
                len: 20 * MIB,
            },
        ],
    };
    gpt::write(&disk, &table).unwrap();
    let text = tool("gdisk", "sgdisk", &[&"-v", &path]);
    assert!(text.contains("No problems found"), "{text}");
    let text = tool("gdisk", "sgdisk", &[&"-p", &path]);
    assert!(
        text.contains("00112233-4455-6677-8899-AABBCCDDEEFF"),
        "{text}"
    );
    let text = tool("gdisk", "sgdisk", &[&"-i", &"1", &path]);
    assert!(text.contains("EFI system partition"), "{text}");
    assert!(
        text.contains("00000000-0000-0000-0000-000000000001"),
        "{text}"
    );
}

#[test]
fn veritysetup_verifies_hash_trees_of_each_depth() {
    for blocks in [1, 2, 128, 129, 700, 128 * 128 + 1] {
        let dir = tempfile::tempdir().unwrap();
        let (data_path, tree_path) = (dir.path().join("data"), dir.path().join("tree"));
        let len = blocks * verity::BLOCK;
        let data = sparse(&data_path, len);
        for block in 0..blocks {
            data.write_all_at(&block.to_le_bytes(), block * verity::BLOCK + 9)
                .unwrap();
        }
        let tree_len = verity::hash_tree_len(len);
        let tree = sparse(&tree_path, tree_len);
        let params = verity::Params {
            salt: vec![7; 32],
            uuid: Uuid::from_u128(9),
        };
        let window = Region::new(&tree, 0, tree_len);
        let root = verity::write(&data, 0, len, &window, &params).unwrap();
        let hex: String = root.iter().map(|byte| format!("{byte:02x}")).collect();
        tool(
            "cryptsetup-bin",
            "veritysetup",
            &[&"verify", &data_path, &tree_path, &hex],
        );
        data.write_all_at(&[1], len - 1).unwrap();
        let (ok, _) = try_tool(
            "cryptsetup-bin",
            "veritysetup",
            &[&"verify", &data_path, &tree_path, &hex],
        );
        assert!(!ok, "veritysetup must see the changed byte");
    }
}

#[test]
fn objdump_reads_the_unified_kernel_image() {
    let stub = Path::new("/usr/lib/systemd/boot/efi/linuxx64.efi.stub");
    let stub = std::fs::read(stub).expect("systemd's stub (Debian package systemd-boot-efi)");
    let kernel = vec![0x90; 70_000];
    let added = [
        (".osrel", &b"ID=coracle\n"[..]),
        (".cmdline", b"quiet"),
        (".uname", b"6.1.0"),
        (".initrd", &[1; 10_000]),
        (".linux", &kernel),
    ];
    let image = pe::append_sections(&stub, &added).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uki.efi");
    std::fs::write(&path, &image).unwrap();
    let text = tool("binutils", "objdump", &[&"-h", &path]);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (name, data) in added {
        let row = rows.iter().find(|row| row.get(1) == Some(&name)).unwrap();
        assert_eq!(usize::from_str_radix(row[2], 16).unwrap(), data.len());
        assert_eq!(u64::from_str_radix(row[3], 16).unwrap() % 4096, 0);
        let at = usize::from_str_radix(row[5], 16).unwrap();
        assert_eq!(&image[at..at + data.len()], data);
    }
    assert!(
        pe::sections(&image)
            .unwrap()
            .iter()
            .any(|section| section.name == ".sbat")
    );
}

#[test]
fn fsck_vfat_finds_nothing_to_repair() {
    for (mib, label) in [(34, "ESP"), (64, "EFI SYSTEM"), (67, "A"), (300, "B")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("esp");
        let file = sparse(&path, mib * MIB);
        let mut tree = Tree::default();
        for number in 0..700_u32 {
            let name = format!(
                "dir{}/A rather long name, number {number:03}.efi",
                number % 5
            );
            let content = vec![number as u8; number as usize * 13 % 3000];
            tree.put_file(&name, 0o644, Content::Bytes(content.into()))
                .unwrap();
        }
        tree.put_file(
            "EFI/BOOT/BOOTX64.EFI",
            0o644,
            Content::Bytes(vec![7; 1 << 20].into()),
        )
        .unwrap();
        tree.make_directories("EMPTY/\u{e4}\u{1f6f6}").unwrap();
        let options = fat::Options {
            volume_id: 0x1234_abcd,
            label: label.into(),
            mtime: 1_700_000_000,
        };
        let mut window = Region::new(&file, 0, mib * MIB).fresh();
        fat::write(&mut window, mib * MIB, &options, &tree).unwrap();
        let text = tool("dosfstools", "fsck.vfat", &[&"-n", &"-v", &path]);
        assert!(text.contains("711 files"), "{text}");
        assert!(file.metadata().unwrap().blocks() * 512 < 8 * MIB);
    }
}

fn write_ext4(path: &Path, len: u64) -> File {
    let file = sparse(path, len);
    let options = ext4::Options {
        uuid: Uuid::from_u128(0x0e40_0000_0000_4000_8000_0000_0000_0004),
        label: "state".into(),
        time: 1_700_000_000,
    };
    ext4::write(&Region::new(&file, 0, len).fresh(), &options).unwrap();
    file
}

#[test]
fn e2fsck_finds_a_clean_filesystem_of_any_size() {
    for mib in [
        16,
        64,
        127,
        128,
        129,
        130,
        256,
        1000,
        2049,
        2176,
        5000,
        20 << 10,
        300 << 10,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = write_ext4(&path, mib * MIB);
        let text = tool("e2fsprogs", "e2fsck", &[&"-fn", &path]);
        assert!(text.contains("state: 12/"), "{mib}: {text}");
        for complaint in ["rror", "Fix", "differ", "corrupt"] {
            assert!(!text.contains(complaint), "{mib}: {text}");
        }
        let allocated = file.metadata().unwrap().blocks() * 512;
        assert!(allocated < 2 * MIB + mib * 1024, "{mib}: {allocated}");
        let text = tool("e2fsprogs", "dumpe2fs", &[&path]);
        for line in [
            "Filesystem volume name:   state",
            "Filesystem state:         clean",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("invalid"), "{text}");
    }
}

/// A file of the host that contents are ranges of.
fn big_file(dir: &Path) -> Arc<PathBuf> {
    let path = dir.join("big");
    std::fs::write(&path, Random(1).bytes(500_000)).unwrap();
    Arc::new(path)
}

fn erofs_options() -> erofs::Options {
    erofs::Options {
        uuid: Uuid::from_u128(0xe0),
        volume_name: "root".into(),
        ..erofs::Options::default()
    }
}

/// All ways to write a file system.
const COMPRESSIONS: [Option<erofs::Compression>; 3] = [
    None,
    Some(erofs::Compression::Lz4),
    Some(erofs::Compression::Lz4Hc(9)),
];

fn bytes_of(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    Copier::default().copy_all(content, &mut bytes).unwrap();
    bytes
}

fn write_erofs(path: &Path, tree: &Tree, options: &erofs::Options) -> u64 {
    let image = sparse(path, 0);
    let window = Region::new(&image, 0, u64::MAX / 2).fresh();
    let written = erofs::write(&window, tree, options, None).unwrap();
    image.set_len(written.len).unwrap();
    assert_eq!(written.len % 4096, 0);
    written.len
}

fn options_with(compression: Option<erofs::Compression>, workers: usize) -> erofs::Options {
    erofs::Options {
        compression,
        workers,
        ..erofs_options()
    }
}

#[test]
fn cpio_extracts_what_was_written() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let big = big_file(dir.path());
        let tree = random_tree(seed, 400, &big, false);
        let archive = dir.path().join("archive");
        cpio::write(&mut File::create_new(&archive).unwrap(), &tree).unwrap();
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let (options, file) = (["-idmu", "--quiet", "--no-preserve-owner", "-D"], &archive);
        let arguments: Vec<&dyn AsRef<OsStr>> = options.iter().map(|o| o as _).collect();
        let arguments = [arguments, vec![&out, &"-F", file]].concat();
        tool("cpio", "cpio", &arguments);
        assert_extracted(&tree, &out, true);
    }
}

#[test]
fn fsck_erofs_accepts_random_trees() {
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let big = big_file(dir.path());
        let count = [0, 10, 300, 3000][seed as usize % 4];
        let compression = COMPRESSIONS[seed as usize / 4];
        let tree = random_tree(seed, count, &big, true);
        let image = dir.path().join("image");
        write_erofs(&image, &tree, &options_with(compression, 1));
        let text = tool("erofs-utils", "fsck.erofs", &[&"-d1", &"--extract", &image]);
        assert!(!text.contains("rror"), "seed {seed}: {text}");
        for workers in [2, 3, 8] {
            let again = dir.path().join(format!("with {workers}"));
            write_erofs(&again, &tree, &options_with(compression, workers));
            assert!(std::fs::read(&image).unwrap() == std::fs::read(&again).unwrap());
        }
    }
}

#[test]
fn fsck_erofs_extracts_what_was_written() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let big = big_file(dir.path());
        let tree = random_tree(seed, 400, &big, false);
        let image = dir.path().join("image");
        let compression = COMPRESSIONS[seed as usize % 3];
        write_erofs(&image, &tree, &options_with(compression, 2));
        let out = dir.path().join("out");
        let extract = format!("--extract={}", out.display());
        tool(
            "erofs-utils",
            "fsck.erofs",
            &[&extract, &"--no-preserve", &image],
        );
        assert_extracted(&tree, &out, false);
    }
}

#[test]
fn files_of_the_same_bytes_are_stored_once() {
    for compression in COMPRESSIONS {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let one = Random(7).bytes(3 << 20);
        let mut tree = Tree::default();
        let len = |tree: &Tree| {
            let _ = std::fs::remove_file(&image);
            write_erofs(&image, tree, &options_with(compression, 2))
        };
        tree.put_file("a/one", 0o644, Content::Bytes(one.clone().into()))
            .unwrap();
        let before = len(&tree);
        let on_host = dir.path().join("host");
        std::fs::write(&on_host, [&b"head"[..], &one].concat()).unwrap();
        let range = Content::Range {
            path: Arc::new(on_host),
            offset: 4,
            len: one.len() as u64,
        };
        tree.put_file("b/two", 0o600, range).unwrap();
        let mut other = one.clone();
        other[2 << 20] ^= 1;
        let after = len(&tree);
        assert!(after <= before + 4096, "{before} and {after}");
        tree.put_file("c/other", 0o644, Content::Bytes(other.into()))
            .unwrap();
        assert!(len(&tree) > after + (2 << 20));
    }
}

#[test]
fn digests_of_the_writer_are_those_of_the_image() {
    for compression in COMPRESSIONS {
        let dir = tempfile::tempdir().unwrap();
        let big = big_file(dir.path());
        let tree = random_tree(3, 300, &big, true);
        let path = dir.path().join("image");
        let image = sparse(&path, 0);
        let params = verity::Params {
            salt: vec![9; 32],
            uuid: Uuid::from_u128(1),
        };
        let hasher = verity::Hasher::new(&params);
        let window = Region::new(&image, 0, u64::MAX / 2).fresh();
        let written =
            erofs::write(&window, &tree, &options_with(compression, 3), Some(&hasher)).unwrap();
        image.set_len(written.len).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(hasher.blocks(&bytes).eq(written.digests.iter().copied()));
    }
}

/// Names, kinds and contents below `root` are the tree's, and with `links` so are hard links (`fsck.erofs` extracts
/// each name as a file of its own).
fn assert_extracted(tree: &Tree, root: &Path, links: bool) {
    let mut inodes: HashMap<InodeId, u64> = HashMap::new();
    let mut count = 0;
    for (name, id) in tree.walk() {
        let path = root.join(OsStr::from_bytes(&name));
        let found = std::fs::symlink_metadata(&path).unwrap();
        match &tree.inode(id).kind {
            Kind::Directory(entries) => {
                count += entries.len();
                let listed = std::fs::read_dir(&path).unwrap().count();
                assert_eq!(listed, entries.len(), "{path:?}");
            }
            Kind::File(content) => {
                assert!(
                    std::fs::read(&path).unwrap() == bytes_of(content),
                    "{path:?}"
                );
                let known = *inodes.entry(id).or_insert(found.ino());
                assert!(!links || known == found.ino(), "{path:?}");
            }
            Kind::Symlink(target) => {
                let found = std::fs::read_link(&path).unwrap();
                assert_eq!(found.as_os_str().as_bytes(), target);
            }
            _ => {}
        }
    }
    assert_eq!(count + 1, tree.walk().len());
}

#[test]
fn our_reader_reads_the_tree_that_was_written() {
    for seed in 20..32 {
        let dir = tempfile::tempdir().unwrap();
        let big = big_file(dir.path());
        let tree = random_tree(seed, seed % 4 * 500, &big, true);
        let path = dir.path().join("image");
        let compression = COMPRESSIONS[seed as usize % 3];
        let len = write_erofs(&path, &tree, &options_with(compression, 2));
        let file = File::open(&path).unwrap();
        let image = erofs::Image::open(Region::new(&file, 0, len)).unwrap();
        let (expected, found) = (tree.walk(), image.walk().unwrap());
        assert_eq!(expected.len(), found.len());
        let mut nids = HashMap::new();
        for ((path, id), (found_path, node)) in expected.iter().zip(&found) {
            assert_eq!(path, found_path);
            assert_node(tree.inode(*id), &image, node);
            assert_eq!(*nids.entry(*id).or_insert(node.nid), node.nid);
        }
        let distinct: std::collections::HashSet<_> = nids.values().collect();
        assert_eq!(distinct.len(), nids.len());
        assert_eq!(image.superblock().inodes, nids.len() as u64);
    }
}

fn assert_node(inode: &Inode, image: &erofs::Image<'_>, node: &erofs::Node) {
    let metadata = Metadata {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        mtime_nsec: node.mtime_nsec,
        xattrs: image.xattrs(node).unwrap(),
    };
    assert_eq!(metadata, inode.metadata);
    let content = || image.content(node, u64::MAX).unwrap();
    use erofs::FileType as Type;
    match (&inode.kind, node.file_type) {
        (Kind::Directory(_), Type::Directory)
        | (Kind::Fifo, Type::Fifo)
        | (Kind::Socket, Type::Socket) => {}
        (Kind::File(expected), Type::File) => assert!(content() == bytes_of(expected)),
        (Kind::Symlink(target), Type::Symlink) => assert_eq!(content(), *target),
        (Kind::CharDevice { major, minor }, Type::CharDevice { major: a, minor: b })
        | (Kind::BlockDevice { major, minor }, Type::BlockDevice { major: a, minor: b }) => {
            assert_eq!((*major, *minor), (a, b));
        }
        (kind, found) => panic!("{kind:?} became {found:?}"),
    }
}
