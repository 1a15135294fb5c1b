//! `coracle verify`, `inspect` and `sbom` on a real image: whatever byte of it is flipped, it is found and named. Drives
//! the real `coracle`; the first run fetches Debian packages into the cache.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers may fail like the test itself"
)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

const MACHINE: &str = r#"
name = "told"
version = "1.2.3"
[state]
size = "32MiB"
[workload.one]
image = "dir:rootfs"
command = ["/bin/w"]
files = [{ path = "/etc/motd", content = "hello\n" }]
[workload.two]
image = "dir:rootfs"
command = ["/bin/w"]
[workload.three]
debian = ["busybox-static"]
command = ["/bin/busybox", "sleep", "1d"]
"#;

fn coracle(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command
        .env("LC_ALL", "C")
        .current_dir(folder)
        .args(arguments);
    command.output().unwrap()
}

/// The folder of the image `a.img`; built once.
fn built() -> &'static Path {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("rootfs/bin")).unwrap();
        fs::write(
            folder.path().join("rootfs/bin/w"),
            "#!/bin/sh\n".repeat(5000),
        )
        .unwrap();
        fs::write(folder.path().join("os.toml"), MACHINE).unwrap();
        let output = coracle(
            folder.path(),
            &["build", "os.toml", "-o", "a.img", "--json"],
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["type"], "artifact", "{text}");
        assert_eq!(last["root_hash"].as_str().unwrap().len(), 64);
        folder
    });
    folder.path()
}

fn json(arguments: &[&str]) -> Value {
    let output = coracle(built(), arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {error}"))
}

/// A copy of the image, with holes, so that flipping bytes costs little.
fn copy(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let status = Command::new("cp")
        .args(["--sparse=always", "a.img"])
        .arg(&path)
        .current_dir(built())
        .status();
    assert!(status.unwrap().success());
    (folder, path)
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn find(file: &File, from: u64, len: u64, text: &[u8]) -> u64 {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    file.read_exact_at(&mut bytes, from).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text);
    from + at.unwrap() as u64
}

#[test]
fn a_new_image_is_whole() {
    let report = json(&["verify", "a.img", "--lock", "coracle.lock", "--json"]);
    assert_eq!(report["whole"], true, "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 7);
    for check in checks {
        assert_eq!(check["outcome"], "fits", "{check:#}");
    }
    let state = checks.iter().find(|check| check["what"] == "state");
    assert_eq!(state.unwrap()["note"], "as it was made");
    let hash = report["root_hash"].as_str().unwrap();
    let output = coracle(built(), &["verify", "a.img", "--root-hash", hash]);
    assert!(output.status.success());
    let output = coracle(
        built(),
        &["verify", "a.img", "--root-hash", &"0".repeat(64)],
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_flipped_byte_is_found_and_named_wherever_it_is() {
    let report = json(&["inspect", "a.img", "--json"]);
    let part = |name: &str| {
        let parts = report["partitions"].as_array().unwrap().iter();
        let part = parts.clone().find(|part| part["name"] == name).unwrap();
        (
            part["start"].as_u64().unwrap(),
            part["size"].as_u64().unwrap(),
        )
    };
    let disk_len = report["disk"]["size"].as_u64().unwrap();
    let (folder, path) = copy("bad.img");
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let (esp, esp_len) = part("esp");
    let (root, root_len) = part("root");
    let (verity, verity_len) = part("root-verity");
    let (state, _) = part("state");
    let in_esp = |text: &[u8]| find(&disk, esp, esp_len, text);
    let command_line = in_esp(b"panic=");
    // The kernel's section follows that of the initrd, a cpio archive.
    let mut sections = report["uki"]["sections"].as_array().unwrap().iter();
    let initrd_len = sections.find(|section| section["name"] == ".initrd");
    let initrd_len = initrd_len.unwrap()["size"].as_u64().unwrap();
    let initrd = in_esp(b"0707010000");
    let cases = [
        ("MBR", 450, "the partition table differs at byte 450"),
        ("primary header", 512 + 56, "the partition table differs"),
        ("primary entries", 1024 + 16, "the partition table differs"),
        (
            "unused entry",
            1024 + 128 * 100,
            "the partition table differs",
        ),
        (
            "before the first partition",
            40_000,
            "byte 40000, in no partition",
        ),
        (
            "backup entries",
            disk_len - 33 * 512 + 3,
            "the backup of the partition table differs",
        ),
        (
            "backup header",
            disk_len - 512 + 60,
            "the backup of the partition table differs",
        ),
        (
            "between partitions",
            state - 100,
            "in no partition, is not zero",
        ),
        (
            "ESP's boot sector",
            esp + 3,
            "the file system differs at byte",
        ),
        (
            "ESP's free space",
            esp + esp_len - 77,
            "outside of its files",
        ),
        (
            "ESP's loader.conf",
            in_esp(b"timeout 0"),
            "loader/loader.conf: the file is another",
        ),
        ("command line", command_line, "section .cmdline differs"),
        (
            "os-release",
            in_esp(b"PRETTY_NAME=\"told"),
            "section .osrel differs",
        ),
        (
            "kernel",
            initrd + initrd_len + 1_000_000,
            "section .linux differs",
        ),
        ("initrd", initrd + 50_000, "section .initrd differs"),
        (
            "stub",
            in_esp(b"#### LoaderInfo: systemd-stub"),
            "section .sdmagic differs",
        ),
        (
            "loader",
            in_esp(b"#### LoaderInfo: systemd-boot"),
            "EFI/BOOT/BOOTX64.EFI: section",
        ),
        (
            "root's first block",
            root + 1024,
            "block 0 of the root is damaged",
        ),
        (
            "root's middle",
            root + root_len / 2,
            "of the root is damaged",
        ),
        ("root's end", root + root_len - 1, "of the root is damaged"),
        ("verity's superblock", verity + 17, "hash tree"),
        (
            "behind verity's superblock",
            verity + 600,
            "hash tree: its superblock has bytes",
        ),
        (
            "verity's top",
            verity + 4096,
            "the top of the hash tree does not fit",
        ),
        ("verity's leaves", verity + verity_len - 4096, "block"),
    ];
    for (what, at, want) in cases {
        flip(&disk, at);
        let output = coracle(folder.path(), &["verify", "bad.img"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{what} at {at}: {text}{error}"
        );
        assert!(
            text.contains(want),
            "{what} at {at}, no {want:?} in: {text}{error}"
        );
        flip(&disk, at);
    }
    // The root hash itself: nothing fits any more, and the root is not what it says.
    let hash = in_esp(b"roothash=") + 12;
    flip(&disk, hash);
    let output = coracle(folder.path(), &["verify", "bad.img"]);
    assert_eq!(output.status.code(), Some(1));
    flip(&disk, hash);
    // The state is the machine's own to write to.
    flip(&disk, state + 5000);
    let output = coracle(folder.path(), &["verify", "bad.img"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("written to since it was made"), "{text}");
}

#[test]
fn another_lock_is_told_by_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("coracle.lock");
    let text = fs::read_to_string(built().join("coracle.lock")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("sha256 = "))
        .unwrap();
    fs::write(
        &lock,
        text.replace(line, &format!("sha256 = \"{}\"", "0".repeat(64))),
    )
    .unwrap();
    let lock = lock.to_str().unwrap();
    let output = coracle(built(), &["verify", "a.img", "--lock", lock]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("has another digest in the lock"), "{text}");
    let output = coracle(built(), &["verify", "a.img", "--lock", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn inspect_tells_what_workloads_share_and_what_they_are_made_of() {
    let report = json(&["inspect", "a.img", "--json"]);
    assert_eq!(report["format"], 1);
    let shared = report["layers"].as_array().unwrap().iter();
    let shared: Vec<_> = shared
        .filter(|layer| layer["workloads"].as_array().unwrap().len() == 2)
        .collect();
    assert_eq!(shared.len(), 1, "{report:#}");
    let packages = report["contents"]["packages"].as_array().unwrap();
    assert!(
        packages
            .iter()
            .any(|package| package["name"] == "busybox-static")
    );
    let output = coracle(built(), &["inspect", "a.img"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.is_ascii(), "{text}");
    for want in [
        "| esp",
        "shared with two",
        "verified",
        "busybox-static",
        ".initrd",
    ] {
        assert!(text.contains(want), "no {want} in {text}");
    }
}
