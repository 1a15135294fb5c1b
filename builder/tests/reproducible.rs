//! The same machine built twice under as other circumstances as a host can have gives the same disk, byte for byte. Drives
//! the real `coracle`; the first run fetches Debian packages into the cache.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers may fail like the test itself"
)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const MACHINE: &str = r#"
name = "again"
version = "1.0.0"
[state]
size = "32MiB"
[workload.one]
image = "dir:rootfs"
command = ["/bin/w"]
files = [{ path = "/etc/motd", source = "motd" }]
[workload.two]
debian = ["busybox-static"]
command = ["busybox", "sleep", "1d"]
volumes = [{ name = "data", path = "/data" }]
"#;
/// Somebody who has no account.
const SOMEBODY: &str = "54321";

/// A project as a clone leaves it: what is in it is the same, when and in which order it was written is not.
fn project(folder: &Path, names: &[&str]) {
    let root = folder.join("rootfs");
    for name in names {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("w"), name.repeat(3000)).unwrap();
    }
    fs::hard_link(root.join("bin/w"), root.join("bin/x")).unwrap();
    symlink("bin/w", root.join("link")).unwrap();
    fs::write(folder.join("motd"), "hello\n").unwrap();
    fs::write(folder.join("os.toml"), MACHINE).unwrap();
    for entry in walk(folder) {
        let metadata = fs::symlink_metadata(&entry).unwrap();
        if !metadata.is_symlink() {
            let mode = if metadata.is_dir() || entry.ends_with("w") {
                0o755
            } else {
                0o644
            };
            fs::set_permissions(&entry, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() || !path.is_dir() {
            found.push(path);
        } else {
            found.extend(walk(&path));
        }
    }
    found
}

fn succeeded(output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

/// The first byte at which two disks differ, with its partition.
fn difference(coracle: &Path, one: &Path, two: &Path) -> Option<String> {
    let (a, b) = (File::open(one).unwrap(), File::open(two).unwrap());
    let len = a.metadata().unwrap().len();
    if len != b.metadata().unwrap().len() {
        return Some("the disks have other lengths".to_owned());
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < len {
        let piece = usize::try_from((len - at).min(1 << 20)).unwrap();
        a.read_exact_at(&mut left[..piece], at).unwrap();
        b.read_exact_at(&mut right[..piece], at).unwrap();
        if let Some(byte) = (0..piece).find(|&index| left[index] != right[index]) {
            let byte = at + byte as u64;
            return Some(format!("byte {byte}, {}", place(coracle, one, two, byte)));
        }
        at += piece as u64;
    }
    None
}

/// What lies at a byte of the first disk, and what the records of both say of other contents.
fn place(coracle: &Path, one: &Path, two: &Path, byte: u64) -> String {
    let report = |disk: &Path| -> Value {
        let output = Command::new(coracle)
            .args(["inspect", "--json"])
            .arg(disk)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let (one, two) = (report(one), report(two));
    let parts = one["partitions"].as_array().cloned().unwrap_or_default();
    let part = parts.iter().find(|part| {
        let start = part["start"].as_u64().unwrap_or(u64::MAX);
        (start..start + part["size"].as_u64().unwrap_or(0)).contains(&byte)
    });
    let part = part.map_or("in no partition".to_owned(), |part| {
        format!("in {}", part["name"])
    });
    let mut text = part;
    for key in [
        "packages",
        "layers",
        "programs",
        "crates",
        "boot",
        "workloads",
    ] {
        if one["contents"][key] != two["contents"][key] {
            text += &format!("; the records differ in {key}");
        }
    }
    text
}

#[test]
fn other_folder_user_umask_zone_language_day_and_processors_give_the_same_disk() {
    let folder = tempfile::tempdir().unwrap();
    let coracle = folder.path().join("coracle");
    fs::copy(env!("CARGO_BIN_EXE_coracle"), &coracle).unwrap();
    let one = folder.path().join("one");
    let two = folder.path().join("two with a longer name/deeper/ü");
    for (place, names) in [(&one, ["bin", "etc", "srv"]), (&two, ["srv", "etc", "bin"])] {
        fs::create_dir_all(place).unwrap();
        project(place, &names);
    }
    let output = Command::new("sh")
        .args(["-c", "umask 022; exec \"$0\" build os.toml -o a.img"])
        .arg(&coracle)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .current_dir(&one)
        .output();
    succeeded(&output.unwrap());
    // Pins are an input; what they pin comes from the same cache, of which the other user has a copy of his own.
    fs::copy(one.join("coracle.lock"), two.join("coracle.lock")).unwrap();
    let cache = folder.path().join("cache");
    let is_root = rustix::process::geteuid().is_root();
    let own_cache = std::env::var_os("CORACLE_CACHE").map(std::path::PathBuf::from);
    let home =
        || Some(std::path::PathBuf::from(std::env::var_os("XDG_CACHE_HOME")?).join("coracle"));
    let below_home = || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/coracle");
    let from = own_cache.or_else(home).unwrap_or_else(below_home);
    fs::create_dir(&cache).unwrap();
    copy_pinned(&one.join("coracle.lock"), &from, &cache);
    if is_root {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let status = Command::new("chown")
            .args(["-R", SOMEBODY])
            .arg(folder.path())
            .status();
        assert!(status.unwrap().success());
    }
    let mut words: Vec<&str> = vec!["faketime", "2033-04-05 06:07:08", "taskset", "-c", "0"];
    let id = [format!("--reuid={SOMEBODY}"), format!("--regid={SOMEBODY}")];
    if is_root {
        words.extend(["setpriv", &id[0], &id[1], "--clear-groups"]);
    }
    words.extend([
        "sh",
        "-c",
        "umask 077; exec \"$0\" build ./os.toml -o ../../b.img",
    ]);
    let output = Command::new(words[0])
        .args(&words[1..])
        .arg(&coracle)
        .env("TZ", "Asia/Kolkata")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("HOME", "/nonexistent")
        .env("CORACLE_CACHE", &cache)
        .current_dir(&two)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; see scripts/deps", words[0]));
    succeeded(&output);
    let (a, b) = (
        one.join("a.img"),
        folder.path().join("two with a longer name/b.img"),
    );
    assert_eq!(difference(&coracle, &a, &b), None);
    // The messages of a difference are only worth something if one is found.
    let copy = File::options().write(true).open(&b).unwrap();
    copy.write_all_at(&[0xff; 4], 300).unwrap();
    let found = difference(&coracle, &a, &b).unwrap();
    assert!(found.starts_with("byte 300, in no partition"), "{found}");
}

/// Copies the packages of a lock from one cache to another, as they are.
fn copy_pinned(lock: &Path, from: &Path, to: &Path) {
    let lock = fs::read_to_string(lock).unwrap();
    fs::create_dir_all(to.join("blob")).unwrap();
    for line in lock.lines() {
        let Some(digest) = line.strip_prefix("sha256 = ") else {
            continue;
        };
        let blob = Path::new("blob").join(digest.trim_matches('"'));
        let status = Command::new("cp")
            .arg("-p")
            .arg(from.join(&blob))
            .arg(to.join(&blob))
            .status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn no_guest_program_has_a_path_of_the_building_host() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    for program in [builder::guest::INIT, builder::guest::RUNTIME] {
        for path in [workspace.to_str().unwrap(), &home] {
            let found = program
                .windows(path.len())
                .any(|window| window == path.as_bytes());
            assert!(!found, "a guest program has {path} in it");
        }
    }
}
