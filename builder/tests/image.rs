//! The finished image, held against the standard tools; and builds that go wrong. Drives the real `coracle`.
//!
//! The inputs are real Debian packages: the first run fetches them into the cache.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers may fail like the test itself"
)]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

/// A machine with a workload of a folder, so that building needs the kernel's packages only.
const MACHINE: &str = r#"
name = "tested"
version = "1.2.3"
[state]
size = "64MiB"
[workload.w]
image = "dir:rootfs"
command = ["/bin/w"]
files = [{ path = "/etc/motd", content = "hello\n" }]
"#;

/// A folder with the machine's file and what it refers to.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("rootfs/bin")).unwrap();
    fs::write(folder.path().join("rootfs/bin/w"), "#!/bin/sh\n").unwrap();
    fs::write(folder.path().join("os.toml"), MACHINE).unwrap();
    folder
}

fn coracle(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

/// The first image; built once for all tests that only read it.
fn image() -> &'static Path {
    static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = IMAGE.get_or_init(|| {
        let folder = project();
        let output = coracle(folder.path(), &["build", "os.toml", "-o", "a.img"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a.img\n");
        let path = folder.path().join("a.img");
        (folder, path)
    });
    path
}

fn inspect() -> Value {
    let output = coracle(
        Path::new("."),
        &["inspect", image().to_str().unwrap(), "--json"],
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A partition's bytes as a file of their own.
fn partition(name: &str) -> tempfile::NamedTempFile {
    let report = inspect();
    let found = report["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == name)
        .unwrap();
    let mut disk = File::open(image()).unwrap();
    disk.seek(SeekFrom::Start(found["start"].as_u64().unwrap()))
        .unwrap();
    let mut bytes = vec![0; usize::try_from(found["size"].as_u64().unwrap()).unwrap()];
    disk.read_exact(&mut bytes).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

/// Runs a standard tool, which must accept what it is given.
fn accepted_by(tool: &str, package: &str, arguments: &[&str]) -> String {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new(tool)
        .env("PATH", path)
        .args(arguments)
        .output();
    let output = output
        .unwrap_or_else(|error| panic!("{tool}: {error}; it is in Debian's package {package}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{tool} {arguments:?}: {text}");
    text
}

#[test]
fn sgdisk_accepts_the_partition_table() {
    let text = accepted_by("sgdisk", "gdisk", &["-v", image().to_str().unwrap()]);
    assert!(text.contains("No problems found"), "{text}");
}

#[test]
fn fsck_vfat_accepts_the_esp() {
    accepted_by(
        "fsck.vfat",
        "dosfstools",
        &["-n", partition("esp").path().to_str().unwrap()],
    );
}

#[test]
fn fsck_erofs_accepts_the_root() {
    accepted_by(
        "fsck.erofs",
        "erofs-utils",
        &[partition("root").path().to_str().unwrap()],
    );
}

#[test]
fn veritysetup_accepts_the_root_under_its_hash() {
    let (data, tree) = (partition("root"), partition("root-verity"));
    let hash = inspect()["root_hash"].as_str().unwrap().to_owned();
    let paths = [data.path().to_str().unwrap(), tree.path().to_str().unwrap()];
    accepted_by(
        "veritysetup",
        "cryptsetup-bin",
        &["verify", paths[0], paths[1], &hash],
    );
}

#[test]
fn e2fsck_accepts_the_state() {
    accepted_by(
        "e2fsck",
        "e2fsprogs",
        &["-fn", partition("state").path().to_str().unwrap()],
    );
}

#[test]
fn objdump_reads_the_uki() {
    let esp = partition("esp");
    let uki = tempfile::NamedTempFile::new().unwrap();
    let (from, to) = (esp.path().to_str().unwrap(), uki.path().to_str().unwrap());
    accepted_by(
        "mcopy",
        "mtools",
        &["-n", "-o", "-i", from, "::EFI/Linux/tested_1.2.3.efi", to],
    );
    let text = accepted_by("objdump", "binutils", &["-h", to]);
    for section in [".osrel", ".cmdline", ".uname", ".initrd", ".linux"] {
        assert!(text.contains(section), "{section} is not in\n{text}");
    }
}

#[test]
fn partition_guids_are_the_halves_of_the_root_hash() {
    let report = inspect();
    let hash = report["root_hash"].as_str().unwrap();
    let guid = |name: &str| {
        let found = report["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["name"] == name)
            .unwrap();
        found["guid"].as_str().unwrap().replace('-', "")
    };
    assert_eq!(format!("{}{}", guid("root"), guid("root-verity")), hash);
    assert_eq!(report["verified"], true);
    assert_eq!(report["machine"]["workloads"][0]["name"], "w");
}

#[test]
fn two_builds_elsewhere_are_identical() {
    let folder = project();
    // Another folder, another time of the files, another name: the same bytes.
    let output = coracle(folder.path(), &["build", "os.toml", "-o", "other.img"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (one, two) = (
        fs::read(image()).unwrap(),
        fs::read(folder.path().join("other.img")).unwrap(),
    );
    let differs = one.iter().zip(&two).position(|(a, b)| a != b);
    assert!(
        one.len() == two.len() && differs.is_none(),
        "they differ at byte {differs:?}"
    );
}

#[test]
fn what_has_not_changed_is_not_written_again_and_what_has_is() {
    let folder = project();
    let path = folder.path().join("a.img");
    let build = |expect_written: bool, why: &str| {
        let before = fs::read(&path).ok();
        let output = coracle(folder.path(), &["build", "os.toml", "-o", "a.img"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{why}: {text}");
        assert_eq!(output.stdout, b"a.img\n");
        assert_eq!(
            text.contains("up to date"),
            !expect_written,
            "{why}: {text}"
        );
        (before, fs::read(&path).unwrap())
    };
    build(true, "there was none");
    let (before, after) = build(false, "nothing changed");
    assert!(before.as_ref() == Some(&after));
    // Of the same length, so that only its time tells.
    fs::write(folder.path().join("rootfs/bin/w"), "#!/bin/zz").unwrap();
    fs::write(folder.path().join("rootfs/bin/w"), "#!/bin/s2").unwrap();
    let (before, after) = build(true, "a file changed");
    assert!(before != Some(after));
    let image = fs::OpenOptions::new().write(true).open(&path).unwrap();
    image
        .set_len(fs::metadata(&path).unwrap().len() + 512)
        .unwrap();
    let (before, after) = build(true, "somebody wrote to the image");
    assert!(before.is_some_and(|before| before[..after.len()] == after[..]));
    fs::remove_file(&path).unwrap();
    build(true, "it was removed");
}

#[test]
fn the_image_is_sparse() {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(image()).unwrap();
    assert!(
        metadata.blocks() * 512 < metadata.len() / 2,
        "{} blocks of {} bytes",
        metadata.blocks(),
        metadata.len()
    );
}

#[test]
fn a_damaged_root_is_told_by_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("bad.img");
    fs::copy(image(), &copy).unwrap();
    let start = inspect()["partitions"][1]["start"].as_u64().unwrap();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .read(true)
        .open(&copy)
        .unwrap();
    let at = start + 4096 * 3 + 17;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    let output = coracle(folder.path(), &["inspect", "bad.img"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("does not fit its hash"), "{text}");
}

#[test]
fn a_module_that_the_kernel_lacks_is_named() {
    let folder = project();
    let text = MACHINE.replace(
        "[state]",
        "[kernel]\nextra_modules = [\"no_such_module\"]\n[state]",
    );
    fs::write(folder.path().join("os.toml"), text).unwrap();
    let output = coracle(folder.path(), &["build", "os.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("no_such_module") && text.contains("6."),
        "{text}"
    );
    assert_only_inputs(folder.path(), &[]);
}

/// The folder holds the inputs, the lock, and nothing else but `more`.
fn assert_only_inputs(folder: &Path, more: &[&str]) {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| !["rootfs", "os.toml", "coracle.lock"].contains(&name.as_str()));
    names.sort();
    assert_eq!(names, more);
}

#[test]
fn a_full_disk_leaves_the_earlier_image_and_no_litter() {
    let folder = project();
    image();
    let script = format!(
        "mkdir small && mount -t tmpfs -o size=6m tmpfs small && echo earlier > small/a.img && \
         {{ {} build os.toml -o small/a.img; code=$?; ls -A small; cat small/a.img; exit $code; }}",
        env!("CARGO_BIN_EXE_coracle")
    );
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a.img\nearlier\n");
    assert!(
        stderr.contains("small/a.img") && stderr.contains("hint: the file system is full"),
        "{stderr}"
    );
}

#[test]
fn an_interrupted_build_leaves_the_earlier_image_and_no_litter() {
    image();
    for signal in ["INT", "KILL"] {
        for delay in [5, 20, 60] {
            let folder = project();
            fs::write(folder.path().join("a.img"), "earlier").unwrap();
            let mut build = Command::new(env!("CARGO_BIN_EXE_coracle"))
                .current_dir(folder.path())
                .args(["build", "os.toml", "-o", "a.img"])
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            Command::new("kill")
                .args([&format!("-{signal}"), &build.id().to_string()])
                .status()
                .unwrap();
            let status = build.wait().unwrap();
            assert_only_inputs(folder.path(), &["a.img"]);
            if status.signal().is_some() {
                assert_eq!(
                    fs::read(folder.path().join("a.img")).unwrap(),
                    b"earlier",
                    "{signal} after {delay} ms"
                );
            }
        }
    }
}

#[test]
fn a_wrong_file_exits_with_2_and_a_failed_build_with_1() {
    let folder = project();
    fs::write(folder.path().join("bad.toml"), "name = \"x\"\nimgae = 1\n").unwrap();
    let output = coracle(folder.path(), &["check", "bad.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.toml:2:1"));
    assert_eq!(coracle(folder.path(), &["check"]).status.code(), Some(2));
    assert_eq!(
        coracle(folder.path(), &["check", "none.toml"])
            .status
            .code(),
        Some(2)
    );
    let output = coracle(folder.path(), &["build", "os.toml", "-o", "none/a.img"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none/a.img"));
    assert!(
        coracle(folder.path(), &["check", "os.toml"])
            .status
            .success()
    );
}
