//! Packages and images from the tools that make them, as the builder reads them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use builder::lock::{Lock, Pinned, Pins};
use builder::progress::Progress;
use builder::source::cache::{Cache, CacheKind};
use builder::source::debian::{self, DebianError};
use builder::source::efi::Efi;
use builder::source::image::read_content;
use builder::source::kernel::{Kernel, KernelError};
use builder::source::modules;
use builder::tree::{Kind, Tree};

/// The mirrors must answer for these tests; where they do not, a test says so and ends.
fn mirrors_answer(result: &Result<Vec<Pinned>, DebianError>) -> bool {
    if let Err(DebianError::Apt(error)) = result {
        eprintln!("SKIPPED: apt does not answer here: {error}");
        return false;
    }
    true
}

fn link(tree: &Tree, path: &str) -> String {
    match &tree.inode(tree.lookup(path).expect(path)).kind {
        Kind::Symlink(target) => String::from_utf8(target.clone()).unwrap(),
        other => panic!("{path} is {other:?}"),
    }
}

fn blob_count(cache: &Cache) -> usize {
    fs::read_dir(cache.root().join("blob")).unwrap().count()
}

#[test]
fn nginx_of_debian_becomes_a_layer_that_can_run() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(&directory.path().join("cache"))).unwrap();
    let path = directory.path().join("coracle.lock");
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    let progress = Progress::silent();
    let request = debian::request(&["nginx-light".into()], None, false);
    let pins = debian::resolve(&request, &mut lock, &cache, &progress);
    if !mirrors_answer(&pins) {
        return;
    }
    let pins = pins.unwrap();
    lock.save().unwrap();
    let unpacked = debian::unpack(&pins, None, &cache, &progress).unwrap();
    let tree = &unpacked.layer.tree;
    for path in [
        "usr/sbin/nginx",
        "usr/lib64/ld-linux-x86-64.so.2",
        "var/www/html/index.nginx-debian.html",
        "var/lib/nginx",
        "etc/resolv.conf",
        "usr/share/doc/nginx/copyright",
        "var/lib/dpkg/status.d/libc6",
    ] {
        assert!(tree.lookup(path).is_some(), "{path} is missing");
    }
    assert!(tree.lookup("usr/share/man").is_none());
    assert_eq!(link(tree, "lib64"), "usr/lib64");
    assert_eq!(
        link(tree, "etc/nginx/sites-enabled/default"),
        "/etc/nginx/sites-available/default"
    );
    let tmp = &tree.inode(tree.lookup("tmp").unwrap()).metadata;
    assert_eq!(tmp.mode, 0o1777);
    let log = &tree
        .inode(tree.lookup("var/log/nginx/access.log").unwrap())
        .metadata;
    assert_eq!((log.uid, log.gid, log.mode), (33, 4, 0o640));

    // The second build has it all from lock and cache, and gets the same.
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    let again = debian::resolve(&request, &mut lock, &cache, &progress).unwrap();
    assert_eq!(again, pins);
    let again = debian::unpack(&again, None, &cache, &progress).unwrap();
    assert_eq!(again.layer.id, unpacked.layer.id);
    assert_eq!(again.layer.tree.walk(), tree.walk());

    pinned_version_that_is_gone_is_told(&pins, &cache);
    package_with_another_digest_is_refused(&pins, &cache);
}

fn pinned_version_that_is_gone_is_told(pins: &[Pinned], cache: &Cache) {
    let mut pin = pins[0].clone();
    pin.version = "0.0.1".into();
    pin.sha256 = "ab".repeat(32);
    let error = debian::fetch(&[pin.clone()], None, cache, &Progress::silent()).unwrap_err();
    assert!(matches!(error, DebianError::Gone { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{} 0.0.1", pin.name)));
    assert!(error.hint().unwrap().contains("coracle update"));
}

fn package_with_another_digest_is_refused(pins: &[Pinned], cache: &Cache) {
    let pin = pins.iter().min_by_key(|pin| pin.size).unwrap();
    let before = blob_count(cache);
    fs::remove_file(cache.get(CacheKind::Blob, &pin.sha256).unwrap()).unwrap();
    let mut wrong = pin.clone();
    wrong.sha256 = "cd".repeat(32);
    let error = debian::fetch(&[wrong], None, cache, &Progress::silent()).unwrap_err();
    assert!(matches!(error, DebianError::WrongDigest { .. }), "{error}");
    assert_eq!(blob_count(cache), before - 1, "nothing unchecked is kept");
}

#[test]
fn unknown_package_is_an_error_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(directory.path())).unwrap();
    let mut lock = Lock::open(&directory.path().join("coracle.lock"), Pins::Keep).unwrap();
    let request = debian::request(&["no-such-package-here".into()], None, false);
    let error = debian::resolve(&request, &mut lock, &cache, &Progress::silent()).unwrap_err();
    let text = error.to_string();
    if text.contains("lists cannot be fetched") {
        eprintln!("SKIPPED: apt does not answer here: {text}");
        return;
    }
    assert!(text.contains("no-such-package-here"), "{text}");
    assert!(!directory.path().join("coracle.lock").exists());
}

/// What every image needs of a kernel.
const WANTED: [&str; 8] = [
    "virtio_blk",
    "virtio_net",
    "dm-verity",
    "erofs",
    "ext4",
    "overlay",
    "vfat",
    "loop",
];

/// Kept from run to run: kernels are large. What is in it is checked by digest.
fn kept_cache() -> Cache {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sources-cache");
    Cache::open(Some(&path)).unwrap()
}

fn kernel_of(suite: &str, suffix: &str) {
    let directory = tempfile::tempdir().unwrap();
    let cache = kept_cache();
    let mut lock = Lock::open(&directory.path().join("coracle.lock"), Pins::Keep).unwrap();
    let progress = Progress::silent();
    let package = "linux-image-cloud-amd64";
    let kernel = match Kernel::from_package(package, Some(suite), &mut lock, &cache, &progress) {
        Err(KernelError::Package { source, .. }) if matches!(*source, DebianError::Apt(_)) => {
            eprintln!("SKIPPED: apt does not answer here: {source}");
            return;
        }
        other => other.unwrap(),
    };
    assert!(
        kernel.release.ends_with("-cloud-amd64"),
        "{}",
        kernel.release
    );
    let image = read_content(&kernel.image).unwrap();
    assert_eq!(&image[0x202..0x206], b"HdrS");
    assert!(
        kernel
            .config
            .as_ref()
            .unwrap()
            .contains("CONFIG_DM_VERITY=")
    );
    let found = modules::resolve(&kernel, &WANTED, &cache).unwrap();
    let place = |name: &str| found.iter().position(|m| m.name == name).expect(name);
    assert!(place("dm_bufio") < place("dm_verity") && place("dm_mod") < place("dm_bufio"));
    assert!(place("fat") < place("vfat") && place("virtio_blk") < found.len());
    assert!(!found.iter().any(|m| m.name == "ext4"), "it is built in");
    assert!(
        found.iter().all(|m| m.file_name.ends_with(suffix)),
        "{found:?}"
    );
    // The second time everything is known: the same without opening a module.
    let again = modules::resolve(&kernel, &WANTED, &cache).unwrap();
    assert_eq!(again, found);
    let error = modules::resolve(&kernel, &["no-such-thing"], &cache)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no_such_thing") && error.contains(&kernel.release),
        "{error}"
    );
}

#[test]
fn kernel_of_bookworm_has_its_modules() {
    kernel_of("bookworm", ".ko");
}

#[test]
fn kernel_of_trixie_has_its_modules_compressed() {
    kernel_of("trixie", ".ko.xz");
}

#[test]
fn boot_loader_of_debian_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let cache = kept_cache();
    let mut lock = Lock::open(&directory.path().join("coracle.lock"), Pins::Keep).unwrap();
    match Efi::from_package(None, &mut lock, &cache, &Progress::silent()) {
        Err(error) if error.to_string().contains("cannot be had") => {
            eprintln!("SKIPPED: {error}");
        }
        efi => {
            let efi = efi.unwrap();
            let loader = read_content(&efi.loader).unwrap();
            let stub = read_content(&efi.stub).unwrap();
            assert!(loader.starts_with(b"MZ") && stub.starts_with(b"MZ") && loader != stub);
            assert!(efi.version.starts_with(|c: char| c.is_ascii_digit()));
        }
    }
}
