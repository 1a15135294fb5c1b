//! Whatever is cut, flipped or made too large in an input, the builder refuses it or takes it, and neither panics nor
//! leaves litter. What is broken here at random is broken by coverage in `fuzz/`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(
    unreachable_pub,
    reason = "it is a module of the fuzz targets' library as well"
)]
#[path = "../fuzz/src/properties.rs"]
mod properties;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use builder::format::region::Region;
use builder::format::{erofs, fat, pe};
use builder::tree::{Content, Tree};

use properties::Place;

/// Broken forms of each input. More are tried with `CORACLE_PROPERTY_ROUNDS`.
const ROUNDS: u64 = 150;

/// Numbers without chance, so that a failure comes again (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Breaks bytes in some places, mostly where they are not zero: there the meaning is.
fn broken(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=numbers.below(3) {
        let from = numbers.below(bytes.len());
        let at = (from..bytes.len())
            .find(|at| bytes[*at] != 0)
            .unwrap_or(from);
        let Some(rest) = bytes.get_mut(at..) else {
            break;
        };
        match (numbers.below(6), rest) {
            (0, _) => bytes.truncate(at),
            (1, [byte, ..]) => *byte ^= 1 << numbers.below(8),
            (2, [a, b, c, d, ..]) => [*a, *b, *c, *d] = [0xff; 4],
            (3, [a, b, c, d, ..]) => {
                [*a, *b, *c, *d] = (numbers.next() as u32 >> numbers.below(32)).to_le_bytes()
            }
            (4, rest) => {
                let copied = rest[..rest.len().min(600)].to_vec();
                bytes.splice(at..at, copied);
            }
            (_, rest) => {
                let len = numbers.below(rest.len().min(2000));
                rest[..len].fill(0);
            }
        }
    }
    bytes
}

fn each_broken(bytes: &[u8], check: impl Fn(&[u8])) {
    check(bytes);
    check(&[]);
    let rounds = std::env::var("CORACLE_PROPERTY_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |text| text.parse().unwrap());
    for round in 0..rounds {
        check(&broken(bytes, &mut Numbers(round)));
    }
}

/// Repairs the sums of a tar's headers, so that what lies behind is reached.
fn with_sums(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    bytes
}

fn run(folder: &Path, script: &str) {
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a script of the shell makes, in its folder.
fn made(script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &format!("{{ {script}; }} >&2"));
    fs::read(folder.path().join("made")).unwrap()
}

const FILES: &str = "mkdir -p f/d/e; echo text > f/d/x; ln f/d/x f/d/y; ln -s ../x f/d/e/s; \
                     : > f/d/.wh.gone; truncate -s 1M f/holes; echo end >> f/holes; mkfifo f/p; \
                     : > f/$(printf 'n%.0s' $(seq 95))";

#[test]
fn archives_in_each_format() {
    let place = Place::default();
    for options in [
        "--format=ustar",
        "--format=gnu -S",
        "--format=pax -S --xattrs",
        "--format=pax -S --sparse-version=0.0",
    ] {
        let tar = made(&format!("{FILES}; tar -C f {options} -cf made ."));
        each_broken(&tar, |bytes| {
            place.archive(bytes);
            place.archive(&with_sums(bytes.to_vec()));
        });
    }
}

#[test]
fn app_container_images() {
    let manifest = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a","app":{"exec":["/x"],"user":"0","group":"/d/x",
        "isolators":[{"name":"resource/memory","value":{"limit":"1G"}}]},"pathWhitelist":["/d/x"]}"#;
    let script =
        format!("{FILES}; mv f rootfs; echo '{manifest}' > manifest; tar -cf made manifest rootfs");
    let image = made(&script);
    let place = Place::default();
    each_broken(&image, |bytes| {
        place.aci(bytes);
        place.aci(&with_sums(bytes.to_vec()));
    });
    let place = Place::default();
    for program in ["gzip", "bzip2", "xz"] {
        let packed = made(&format!("{script}; {program} < made > m; mv m made"));
        each_broken(&packed, |bytes| place.aci(bytes));
    }
}

#[test]
fn layouts_and_docker_archives() {
    let base = format!(
        "{FILES}; tar -C f -cf l.tar .; umoci init --layout o; umoci new --image o:a; \
         umoci raw add-layer --image o:a l.tar; umoci config --image o:a --architecture amd64 --os linux"
    );
    let place = Place::default();
    let oci = made(&format!("{base}; tar -C o -cf made ."));
    each_broken(&oci, |bytes| place.oci_archive(bytes));
    let index = made(&format!("{base}; cp o/index.json made"));
    each_broken(&index, |bytes| place.index(bytes));
    let docker = made(&format!(
        "{base}; skopeo --insecure-policy copy -q oci:o:a docker-archive:made:a:a"
    ));
    each_broken(&docker, |bytes| place.docker_archive(bytes));
}

#[test]
fn debian_packages() {
    let control = "mkdir -p f/DEBIAN; printf 'Package: a\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: a\\n' > f/DEBIAN/control";
    let place = Place::default();
    for compression in ["xz", "gzip", "none", "zstd"] {
        let package = made(&format!(
            "umask 022; {FILES}; rm f/p; chmod 755 f; {control}; dpkg-deb -Z{compression} -b f made"
        ));
        each_broken(&package, |bytes| place.package(bytes));
    }
}

#[test]
fn kernel_modules() {
    let module = made(
        "printf '__attribute__((section(\".modinfo\"))) const char m[] = \"name=a\\\\0depends=b,c\\\\0alias=pci:v1*\";\\n' > m.c; \
         gcc -c -o made m.c",
    );
    let place = Place::default();
    each_broken(&module, |bytes| place.module(bytes));
    let packed = made("head -c 3000 /dev/zero | xz > made");
    each_broken(&packed, |bytes| place.module(bytes));
}

/// A small tree with content of several kinds.
fn tree() -> Tree {
    let mut tree = Tree::default();
    for number in 0..40_u32 {
        let bytes = vec![number as u8; number as usize * 331];
        let path = format!("d{}/a longer name {number}", number % 3);
        tree.put_file(&path, 0o644, Content::Bytes(bytes.into()))
            .unwrap();
    }
    tree
}

fn written(len: u64, write: impl FnOnce(&File)) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    write(file.as_file());
    fs::read(file.path()).unwrap()
}

#[test]
fn file_systems_of_images() {
    let place = Place::default();
    for compression in [None, Some(erofs::Compression::Lz4)] {
        let image = written(0, |file| {
            let options = erofs::Options {
                compression,
                ..erofs::Options::default()
            };
            let window = Region::new(file, 0, u64::MAX / 2).fresh();
            let written = erofs::write(&window, &tree(), &options, None).unwrap();
            file.set_len(written.len).unwrap();
        });
        each_broken(&image, |bytes| place.erofs(bytes));
    }
    let len = 34 << 20;
    let image = written(len, |file| {
        let options = fat::Options {
            volume_id: 1,
            label: "ESP".into(),
            mtime: 0,
        };
        fat::write(
            &mut Region::new(file, 0, len).fresh(),
            len,
            &options,
            &tree(),
        )
        .unwrap();
    });
    // What says where everything lies is at the beginning; the rest is long.
    let (head, rest) = image.split_at(1 << 16);
    for round in 0..40 {
        let mut bytes = broken(head, &mut Numbers(round));
        bytes.resize(head.len(), 0);
        bytes.extend(&rest[..2 << 20]);
        place.fat(&bytes);
    }
}

#[test]
fn partition_tables_and_disks() {
    let place = Place::default();
    let disk = made(
        "truncate -s 4M made; sgdisk -n 1:2048:4000 -t 1:ef00 -c 1:esp -n 2:4001:6000 -c 2:root made",
    );
    each_broken(&disk, |bytes| {
        place.partition_table(bytes);
        place.disk(bytes);
    });
    place.disk(&[0; 4 << 20]);
}

#[test]
fn efi_binaries() {
    let stub = fs::read("/usr/lib/systemd/boot/efi/linuxx64.efi.stub").unwrap();
    let uki =
        pe::append_sections(&stub, &[(".cmdline", b"quiet"), (".linux", &[7; 9000])]).unwrap();
    // The headers say where everything lies.
    let (head, rest) = uki.split_at(2048);
    each_broken(head, |bytes| {
        properties::pe(bytes);
        properties::pe(&[bytes, rest].concat());
    });
}

#[test]
fn keys_signatures_and_locks() {
    let place = Place::default();
    let gpg = "mkdir -m 700 h; g() { gpg --homedir h --batch --quiet --pinentry-mode loopback --passphrase '' \"$@\"; }; \
               g --quick-gen-key a ed25519 cert,sign never; echo x > x";
    let end = "gpgconf --homedir h --kill all";
    for last in [
        "g --export > made",
        "g --armor --export > made",
        "g --detach-sign < x > made",
        "g --armor --detach-sign < x > made",
    ] {
        each_broken(
            &made(&format!("{gpg}; {last}; {end}")),
            properties::signature,
        );
    }
    let key = made(
        "openssl genpkey -quiet -algorithm ed25519 -out k; openssl pkey -in k -pubout -out made",
    );
    each_broken(&key, properties::signature);
    let lock = "version = 1\n[[debian]]\npackages = [\"a\"]\n[[debian.package]]\nname = \"a\"\nversion = \"1\"\n\
                architecture = \"all\"\nsha256 = \"00\"\nsize = 1\nfilename = \"pool/a.deb\"\n";
    each_broken(
        lock.replace("\"00\"", &format!("{:?}", "0a".repeat(32)))
            .as_bytes(),
        |bytes| place.lock(bytes),
    );
}
