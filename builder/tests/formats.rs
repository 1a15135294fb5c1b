//! The standard tools accept what the format writers write.
//!
//! Each test writes an image and hands it to the tool that is authoritative for its format. A missing tool is a
//! failure, with the Debian package that has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use builder::format::region::Region;
use builder::format::{gpt, verity};
use uuid::Uuid;

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
