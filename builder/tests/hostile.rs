//! Inputs and surroundings that are broken or mean harm, given to the real `coracle`: what it says, how it exits,
//! and what it leaves behind.
//!
//! The kernel is a real Debian package: the first run fetches it into the cache.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers may fail like the test itself"
)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};

fn coracle() -> Command {
    Command::new(env!("CARGO_BIN_EXE_coracle"))
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = coracle();
    command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

/// Asserts the exit code and what standard error has to say; nothing may be on standard output.
fn assert_fails(output: &Output, code: i32, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in says {
        assert!(stderr.contains(part), "no {part:?} in: {stderr}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A folder with a machine's file.
fn project(machine: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("os.toml"), machine).unwrap();
    folder
}

const OF_A_FOLDER: &str = r#"
name = "tested"
[workload.w]
image = "dir:rootfs"
command = ["/w"]
"#;

const OF_A_LAYOUT: &str = r#"
name = "tested"
[workload.w]
image = "oci:layout"
command = ["/w"]
"#;

/// An OCI layout of one layer, the tar of the entries. Returns the layer's digest.
fn make_layout(folder: &Path, entries: &[(&str, &str)]) -> String {
    let layout = folder.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let digest = format!("{:x}", Sha256::digest(bytes));
        fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({ "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let with_type = |mut descriptor: serde_json::Value, media_type: &str| {
        descriptor["mediaType"] = media_type.into();
        descriptor
    };
    let tar = tar(entries);
    let layer = with_type(put(&tar), "application/vnd.oci.image.layer.v1.tar");
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = put(config.to_string().as_bytes());
    let config = with_type(config, "application/vnd.oci.image.config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let manifest = put(manifest.to_string().as_bytes());
    let manifest = with_type(manifest, "application/vnd.oci.image.manifest.v1+json");
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let digest = layer["digest"].as_str().unwrap();
    digest.strip_prefix("sha256:").unwrap().to_owned()
}

/// A tar of files with a text each; `-> TARGET` makes a symbolic link.
fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, text) in entries {
        let link = text.strip_prefix("-> ");
        let data = if link.is_some() { "" } else { text };
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000755");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = if link.is_some() { b'2' } else { b'0' };
        let target = link.unwrap_or_default();
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(data.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Builds the layout's machine, which must fail with 1, say so, and leave nothing but the lock.
fn assert_layout_refused(folder: &Path, says: &[&str]) {
    let output = run(folder, &["build", "os.toml", "-o", "a.img"]);
    assert_fails(&output, 1, says);
    let mut left = names(folder);
    left.retain(|name| name != "coracle.lock");
    assert_eq!(left, ["layout", "os.toml"]);
}

#[test]
fn a_truncated_layer_fails_the_build_by_name() {
    let folder = project(OF_A_LAYOUT);
    let layer = make_layout(folder.path(), &[("w", "truncated")]);
    let blob = folder.path().join("layout/blobs/sha256").join(&layer);
    let file = File::options().write(true).open(blob).unwrap();
    file.set_len(700).unwrap();
    assert_layout_refused(folder.path(), &["oci:layout", &layer, "700 bytes"]);
}

#[test]
fn a_layer_with_another_digest_fails_the_build_by_name() {
    let folder = project(OF_A_LAYOUT);
    let layer = make_layout(folder.path(), &[("w", "another digest")]);
    let blob = folder.path().join("layout/blobs/sha256").join(&layer);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[512] ^= 1;
    fs::write(blob, bytes).unwrap();
    assert_layout_refused(folder.path(), &["oci:layout", &layer, "has SHA-256"]);
}

#[test]
fn a_layer_that_climbs_out_fails_the_build_by_name() {
    let outside = tempfile::tempdir().unwrap();
    let absolute = format!("-> {}", outside.path().display());
    let cases: [&[(&str, &str)]; 3] = [
        &[("../evil", "x")],
        &[("a/../../evil", "x")],
        &[("up", "-> ../.."), ("up/evil", "x")],
    ];
    for entries in cases {
        let folder = project(OF_A_LAYOUT);
        make_layout(folder.path(), entries);
        assert_layout_refused(folder.path(), &["evil", "leads out of the layer"]);
    }
    // What is absolute starts at the layer's own root.
    let folder = project(OF_A_LAYOUT);
    make_layout(
        folder.path(),
        &[("/evil", "x"), ("away", &absolute), ("away/evil", "x")],
    );
    run(folder.path(), &["build", "os.toml", "-o", "a.img", "-q"]);
    assert!(names(outside.path()).is_empty());
    assert!(!Path::new("/evil").exists());
}

#[test]
fn a_kernel_without_the_needed_modules_is_refused_by_their_name() {
    let folder = project(&OF_A_FOLDER.replace(
        "[workload.w]",
        "[kernel]\nimage = \"vmlinuz\"\nmodules = \"modules/6.99-bare\"\n[workload.w]",
    ));
    fs::create_dir_all(folder.path().join("modules/6.99-bare")).unwrap();
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    fs::write(folder.path().join("vmlinuz"), "kernel").unwrap();
    let output = run(folder.path(), &["build", "os.toml"]);
    assert_fails(&output, 1, &["6.99-bare", "virtio_pci"]);
    assert_eq!(
        names(folder.path()),
        ["modules", "os.toml", "rootfs", "vmlinuz"]
    );
}

#[test]
fn an_image_does_not_take_the_place_of_its_own_inputs() {
    let folder = project(OF_A_FOLDER);
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    fs::write(folder.path().join("coracle.lock"), "").unwrap();
    std::os::unix::fs::symlink("os.toml", folder.path().join("link.img")).unwrap();
    for target in ["os.toml", "./os.toml", "coracle.lock", "link.img"] {
        let output = run(folder.path(), &["build", "os.toml", "-o", target]);
        assert_fails(
            &output,
            2,
            &[target, "takes the place", "hint:", "tested.img"],
        );
    }
    let output = run(folder.path(), &["build", "os.toml", "-o", "/dev/null"]);
    assert_fails(&output, 1, &["/dev/null", "no regular file"]);
    assert_eq!(
        fs::read_to_string(folder.path().join("os.toml")).unwrap(),
        OF_A_FOLDER
    );
}

#[test]
fn a_lock_that_would_give_apt_options_is_refused_with_its_line() {
    let folder = project(OF_A_FOLDER);
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    let lock = format!(
        "version = 1\n[[debian]]\npackages = [\"linux-image-cloud-amd64\"]\nalone = true\n\
         [[debian.package]]\nname = \"-oAPT::Update::Pre-Invoke::=touch evil;\"\nversion = \"1\"\n\
         architecture = \"amd64\"\nsha256 = \"{}\"\nsize = 1\nfilename = \"x\"\n",
        "ab".repeat(32)
    );
    fs::write(folder.path().join("coracle.lock"), lock).unwrap();
    let output = run(folder.path(), &["build", "os.toml"]);
    let says = ["coracle.lock:6:", "is no package name", "hint: restore it"];
    assert_fails(&output, 1, &says);
    assert_eq!(names(folder.path()), ["coracle.lock", "os.toml", "rootfs"]);
}

#[test]
fn a_build_without_a_network_says_so() {
    let folder = project(OF_A_FOLDER);
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", env!("CARGO_BIN_EXE_coracle")])
        .args(["build", "os.toml"])
        .env("CORACLE_CACHE", folder.path().join("cache"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let says = ["the package lists cannot be fetched", "hint: see whether"];
    assert_fails(&output, 1, &says);
    assert_eq!(names(folder.path()), ["cache", "os.toml", "rootfs"]);
}

#[test]
fn a_host_without_apt_is_told_what_it_needs() {
    let folder = project(OF_A_FOLDER);
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    let mut command = coracle();
    command
        .args(["build", "os.toml"])
        .env("CORACLE_CACHE", folder.path().join("cache"))
        .env("PATH", "/nonexistent");
    let output = command.current_dir(folder.path()).output().unwrap();
    let says = ["apt-get is not here", "hint: Debian packages need a host"];
    assert_fails(&output, 1, &says);
}

#[test]
fn a_reader_that_has_gone_ends_nothing_and_a_full_disk_is_told() {
    let folder = project(OF_A_FOLDER);
    fs::create_dir(folder.path().join("rootfs")).unwrap();
    let check = |stdout: Stdio| {
        let mut command = coracle();
        command
            .current_dir(folder.path())
            .args(["check", "os.toml"]);
        let child = command.stdout(stdout).stderr(Stdio::piped()).spawn();
        child.unwrap().wait_with_output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = check(writer.into());
    assert!(output.status.success() && output.stderr.is_empty());
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_fails(&check(full.into()), 1, &["cannot write to standard output"]);
    // Nobody hears the error, and the exit code still tells it.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = coracle();
    let status = command.args(["check", "none.toml"]).stderr(full).status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn what_is_no_machine_and_no_disk_is_refused_by_every_command() {
    let folder = project(OF_A_FOLDER);
    let path = |name: &str| folder.path().join(name);
    fs::write(path("garbage.img"), [0xa5, 0, 7].repeat(100_000)).unwrap();
    fs::write(path("short.img"), [0; 600]).unwrap();
    fs::write(path("qcow2.img"), b"QFI\xfb\0\0\0\x03").unwrap();
    let fifo = Command::new("mkfifo").arg(path("fifo")).status().unwrap();
    assert!(fifo.success());
    for (name, check_and_build, run_it, inspect) in [
        ("garbage.img", 2, 1, 1),
        ("short.img", 2, 1, 1),
        ("qcow2.img", 2, 1, 1),
        ("fifo", 2, 2, 2),
        (".", 2, 2, 2),
        ("none", 2, 2, 2),
    ] {
        for (command, code) in [
            ("check", check_and_build),
            ("build", check_and_build),
            ("run", run_it),
            ("inspect", inspect),
        ] {
            let output = run(folder.path(), &[command, name]);
            assert_fails(&output, code, &["error: ", name]);
        }
    }
}

#[test]
fn a_bomb_is_refused_by_a_limit_that_the_environment_sets() {
    let folder = project(OF_A_LAYOUT);
    make_layout(folder.path(), &[("w", &"0".repeat(3 << 20))]);
    let mut command = coracle();
    command
        .current_dir(folder.path())
        .args(["build", "os.toml", "-o", "a.img"]);
    // The kernel is there already: a limit for what else is unpacked.
    run(
        folder.path(),
        &["build", "os.toml", "-o", "first.img", "-q"],
    );
    fs::remove_file(folder.path().join("first.img")).unwrap();
    make_layout(folder.path(), &[("w", &"1".repeat(3 << 20))]);
    let update = ["update", "os.toml", "--workload", "w"];
    assert!(run(folder.path(), &update).status.success());
    command.env("CORACLE_UNPACK_LIMIT", "1MiB");
    let output = command.output().unwrap();
    assert_fails(
        &output,
        1,
        &[
            "oci:layout",
            "unpacks more than 1048576 bytes",
            "CORACLE_UNPACK_LIMIT",
        ],
    );
    command.env("CORACLE_UNPACK_LIMIT", "lots");
    let output = command.output().unwrap();
    assert_fails(&output, 1, &["CORACLE_UNPACK_LIMIT: `lots` is no size"]);
    assert!(!folder.path().join("a.img").exists());
}

/// A project that has been built once: its image, its lock, and a cache of its own with what the common one has.
struct Built {
    folder: tempfile::TempDir,
    image: Vec<u8>,
    lock: Vec<u8>,
}

impl Built {
    fn new() -> Self {
        let folder = project(OF_A_FOLDER);
        fs::create_dir(folder.path().join("rootfs")).unwrap();
        fs::write(folder.path().join("rootfs/w"), vec![7; 3 << 20]).unwrap();
        let output = run(folder.path(), &["build", "os.toml", "-o", "a.img", "-q"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        let (image, lock) = (read("a.img"), read("coracle.lock"));
        Self {
            folder,
            image,
            lock,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Another time on the image, so that it does not count as up to date and is written again.
    fn touch(&self) {
        let image = fs::File::options()
            .write(true)
            .open(self.path().join("a.img"));
        image.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    fn command(&self) -> Command {
        self.touch();
        let mut command = coracle();
        command
            .current_dir(self.path())
            .args(["build", "os.toml", "-o", "a.img", "-q"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert!(fs::read(self.path().join("a.img")).unwrap() == self.image);
        assert_eq!(
            fs::read(self.path().join("coracle.lock")).unwrap(),
            self.lock
        );
    }

    #[track_caller]
    fn assert_no_litter(&self) {
        assert_eq!(
            names(self.path()),
            ["a.img", "coracle.lock", "os.toml", "rootfs"]
        );
    }
}

#[test]
fn a_build_that_is_ended_at_any_moment_leaves_the_earlier_image_and_the_next_one_no_litter() {
    let built = Built::new();
    let begun = std::time::Instant::now();
    assert!(built.command().status().unwrap().success());
    let whole = begun.elapsed();
    for (round, signal) in ["INT", "TERM", "KILL"]
        .into_iter()
        .cycle()
        .take(9)
        .enumerate()
    {
        let mut child = built.command().spawn().unwrap();
        std::thread::sleep(whole * (round as u32 * 7 % 9) / 8);
        let _ = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        child.wait().unwrap();
        built.assert_untouched();
    }
    // What a build leaves that is killed while it gives the image its name.
    fs::write(built.path().join(".a.img.99999999.tmp"), "left").unwrap();
    assert!(built.command().status().unwrap().success());
    built.assert_untouched();
    built.assert_no_litter();
}

#[test]
fn a_limit_on_the_size_of_files_is_told_like_a_full_disk() {
    let built = Built::new();
    built.touch();
    let script = format!(
        "ulimit -f 2000; exec {} build os.toml -o a.img -q",
        env!("CARGO_BIN_EXE_coracle")
    );
    let mut command = Command::new("sh");
    let output = command
        .args(["-c", &script])
        .current_dir(built.path())
        .output()
        .unwrap();
    assert_fails(
        &output,
        1,
        &["cannot write a.img", "File too large", "hint: "],
    );
    built.assert_untouched();
    built.assert_no_litter();
}

#[test]
fn builds_at_once_to_one_output_leave_one_whole_image() {
    let built = Built::new();
    let children: Vec<_> = (0..3).map(|_| built.command().spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    built.assert_untouched();
    built.assert_no_litter();
}
