//! Layers written by GNU tar and by hand, read as trees.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::source::cache::Cache;
use builder::source::layer::{LayerError, LayerTree, OPAQUE, read_tar};
use builder::tree::{Content, Kind, Tree};

/// A tar archive made by hand, so that it can be wrong in one place.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0001750");
        header[116..123].copy_from_slice(b"0001751");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000007");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..336].copy_from_slice(b"0000001");
        header[337..344].copy_from_slice(b"0000003");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name, "", data)
    }
    fn directory(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }
    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }
    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"")
    }
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3; // space, '=', newline
            let mut len = body + 1;
            while len != body + len.to_string().len() {
                len = body + len.to_string().len();
            }
            data.extend_from_slice(format!("{len} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(b'x', "pax", "", &data)
    }
    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

struct Place {
    directory: tempfile::TempDir,
    cache: Cache,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&directory.path().join("cache"))).unwrap();
        Self { directory, cache }
    }
    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join("layer.tar");
        fs::write(&path, bytes).unwrap();
        path
    }
    fn read(&self, bytes: &[u8]) -> Result<LayerTree, LayerError> {
        read_tar(&self.write(bytes), "00", &self.cache)
    }
}

fn content(tree: &Tree, path: &str) -> Vec<u8> {
    let Kind::File(content) = &tree.inode(tree.lookup(path).expect(path)).kind else {
        panic!("{path} is no file")
    };
    match content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::Range { path, offset, len } => {
            let mut bytes = vec![0; usize::try_from(*len).unwrap()];
            fs::File::open(path.as_path())
                .unwrap()
                .read_exact_at(&mut bytes, *offset)
                .unwrap();
            bytes
        }
    }
}

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .status()
        .unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

#[test]
fn archives_of_gnu_tar_are_read_in_every_format() {
    let place = Place::new();
    let root = place.directory.path().join("root");
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir(root.join("d".repeat(200))).unwrap();
    fs::write(root.join("etc/a"), b"alpha").unwrap();
    fs::write(root.join(&long), b"deep").unwrap();
    fs::hard_link(root.join(&long), root.join("z-link")).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), root.join("symlink")).unwrap();
    for format in ["gnu", "posix"] {
        let tar = place.directory.path().join("layer.tar");
        run(
            "tar",
            &[
                "--format",
                format,
                "--owner=big:3000000",
                "--group=g:7",
                "--sort=name",
                "--mtime=2001-02-03 04:05:06.789 UTC",
                "-cf",
                tar.to_str().unwrap(),
                ".",
            ],
            &root,
        );
        let layer = read_tar(&tar, "00", &place.cache).unwrap();
        assert!(layer.implied.is_empty(), "{format}");
        let tree = layer.tree;
        assert_eq!(content(&tree, "etc/a"), b"alpha");
        assert_eq!(content(&tree, &long), b"deep");
        assert_eq!(tree.lookup(&long), tree.lookup("z-link"));
        let metadata = &tree.inode(tree.lookup("etc/a").unwrap()).metadata;
        assert_eq!((metadata.uid, metadata.gid), (3_000_000, 7));
        assert_eq!(metadata.mtime, 981_173_106);
        let nanos = if format == "posix" { 789_000_000 } else { 0 };
        assert_eq!(metadata.mtime_nsec, nanos);
        let link = &tree.inode(tree.lookup("symlink").unwrap()).kind;
        assert_eq!(*link, Kind::Symlink(vec![b't'; 300]));
    }
}

#[test]
fn sparse_files_of_gnu_tar_are_expanded() {
    let place = Place::new();
    let root = place.directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let file = fs::File::create(root.join("holes")).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    for index in 0..40 {
        file.write_all_at(b"middle", 100_000 + index * 200_000)
            .unwrap();
    }
    file.set_len(9_000_000).unwrap();
    fs::write(root.join("next"), b"next").unwrap();
    let want = fs::read(root.join("holes")).unwrap();
    for arguments in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let tar = place.directory.path().join("layer.tar");
        let mut all = vec!["-S", "-cf", tar.to_str().unwrap()];
        all.extend(arguments);
        all.extend(["holes", "next"]);
        run("tar", &all, &root);
        assert!(fs::metadata(&tar).unwrap().len() < 2_000_000);
        let cache = Cache::open(Some(&place.directory.path().join(arguments.join("")))).unwrap();
        let tree = read_tar(&tar, "00", &cache).unwrap().tree;
        assert!(content(&tree, "holes") == want, "{arguments:?}");
        assert_eq!(content(&tree, "next"), b"next");
    }
}

#[test]
fn contents_are_ranges_of_the_archive() {
    let place = Place::new();
    let tree = place
        .read(&Tar::default().file("a", b"alpha").end())
        .unwrap()
        .tree;
    let Kind::File(Content::Range { path, offset, len }) =
        &tree.inode(tree.lookup("a").unwrap()).kind
    else {
        panic!("no range")
    };
    assert_eq!(
        (path.as_path(), *offset, *len),
        (&*place.directory.path().join("layer.tar"), 512, 5)
    );
}

#[test]
fn whiteouts_and_opaque_directories_become_overlays() {
    let place = Place::new();
    let tar = Tar::default()
        .file("etc/.wh.gone", b"")
        .directory("var/")
        .file("var/.wh..wh..opq", b"")
        .directory("var/") // a later description must not undo it
        .file(".wh..wh.plnk", b"")
        .file(".wh.parent", b"") // removed below, then made anew
        .file("parent/child", b"new")
        .file("kept", b"kept")
        .file(".wh.kept", b"")
        .directory("replaced")
        .file(".wh.replaced", b"");
    let layer = place.read(&tar.end()).unwrap();
    let tree = layer.tree;
    let kind = |path: &str| &tree.inode(tree.lookup(path).unwrap()).kind;
    let opaque = |path: &str| {
        let xattrs = &tree.inode(tree.lookup(path).unwrap()).metadata.xattrs;
        xattrs.get(OPAQUE).map(Vec::as_slice) == Some(b"y")
    };
    assert_eq!(*kind("etc/gone"), Kind::CharDevice { major: 0, minor: 0 });
    assert!(opaque("var") && opaque("parent") && opaque("replaced") && !opaque("etc"));
    assert_eq!(content(&tree, "parent/child"), b"new");
    assert_eq!(content(&tree, "kept"), b"kept");
    assert_eq!(tree.entries(Tree::ROOT).unwrap().len(), 5);
    let implied: Vec<_> = ["etc", "parent"].map(|p| tree.lookup(p).unwrap()).into();
    assert!(implied.iter().all(|id| layer.implied.contains(id)));
    assert!(!layer.implied.contains(&tree.lookup("var").unwrap()));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let tar = Tar::default()
        .file("a", b"1")
        .file("./a", b"2")
        .file("dir", b"was a file")
        .directory("dir")
        .file("dir/x", b"x")
        .directory("dir")
        .symlink("old", "dir")
        .file("old", b"file now")
        .file("/etc/absolute", b"slash")
        .entry(b'3', "null", "", b"")
        .entry(b'6', "pipe", "", b"");
    let tree = place.read(&tar.end()).unwrap().tree;
    assert_eq!(content(&tree, "a"), b"2");
    assert_eq!(content(&tree, "dir/x"), b"x");
    assert_eq!(content(&tree, "old"), b"file now");
    assert_eq!(content(&tree, "etc/absolute"), b"slash");
    let kind = |path: &str| tree.inode(tree.lookup(path).unwrap()).kind.clone();
    assert_eq!(kind("null"), Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(kind("pipe"), Kind::Fifo);
}

#[test]
fn links_inside_the_layer_are_followed() {
    let place = Place::new();
    let tar = Tar::default()
        .symlink("lib", "usr/lib")
        .symlink("absolute", "/usr/lib")
        .symlink("usr/up", "../etc")
        .file("lib/a", b"a")
        .file("absolute/b", b"b")
        .file("usr/up/c", b"c")
        .hard_link("d", "lib/a");
    let tree = place.read(&tar.end()).unwrap().tree;
    assert_eq!(content(&tree, "usr/lib/a"), b"a");
    assert_eq!(content(&tree, "usr/lib/b"), b"b");
    assert_eq!(content(&tree, "etc/c"), b"c");
    assert_eq!(tree.lookup("d"), tree.lookup("usr/lib/a"));
}

#[test]
fn attributes_are_kept_but_for_those_that_steer_the_overlay() {
    let place = Place::new();
    let tar = Tar::default()
        .pax(&[
            ("SCHILY.xattr.user.a", b"1\n=\0"),
            (
                "SCHILY.xattr.security.capability",
                &[1, 0, 0, 2, 0, 4, 0, 0],
            ),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("mtime", b"5.25"),
        ])
        .directory("d");
    let tree = place.read(&tar.end()).unwrap().tree;
    let metadata = &tree.inode(tree.lookup("d").unwrap()).metadata;
    let names: Vec<_> = metadata
        .xattrs
        .keys()
        .map(|k| std::str::from_utf8(k).unwrap())
        .collect();
    assert_eq!(names, ["security.capability", "user.a"]);
    assert_eq!(metadata.xattrs[&b"user.a"[..]], b"1\n=\0");
    assert_eq!((metadata.mtime, metadata.mtime_nsec), (5, 250_000_000));
}

#[test]
fn what_leads_out_of_the_layer_is_refused_by_name() {
    let place = Place::new();
    let cases = [
        Tar::default().file("a/../../evil", b""),
        Tar::default().file("../evil", b""),
        Tar::default().hard_link("evil", "../../etc/passwd"),
        Tar::default().symlink("s", "../..").file("s/evil", b""),
        Tar::default()
            .symlink("a/s", "../../x")
            .file("a/s/evil", b""),
        Tar::default()
            .symlink("s", "../up")
            .hard_link("evil", "s/x"),
        Tar::default().file("x/../.wh.evil", b""),
    ];
    for tar in cases {
        let error = place.read(&tar.end()).unwrap_err();
        assert!(matches!(error, LayerError::Escape { .. }), "{error}");
        assert!(error.to_string().contains("evil"), "{error}");
    }
}

#[test]
fn entries_that_do_not_fit_are_refused_by_name() {
    let place = Place::new();
    let cases = [
        Tar::default().hard_link("bad", "/etc/passwd"),
        Tar::default().hard_link("bad", ""),
        Tar::default().directory("d").hard_link("bad", "d"),
        Tar::default().file(".wh.x", b"").hard_link("bad", "x"),
        Tar::default().file("f", b"").file("f/bad", b""),
        Tar::default().symlink("bad", "bad").file("bad/x", b""),
        Tar::default().symlink("bad", ""),
        Tar::default().entry(b'?', "bad", "", b""),
        Tar::default().pax(&[("path", b"a/bad\0x")]).file("x", b""),
        Tar::default().pax(&[("path", b"a/.wh.")]).file("bad", b""),
        Tar::default()
            .pax(&[("uid", b"4294967296")])
            .file("bad", b""),
        Tar::default().pax(&[("size", b"-1")]).file("bad", b""),
        Tar::default()
            .pax(&[("size", b"99999999999999")])
            .file("bad", b""),
        Tar::default()
            .pax(&[("path", "bad".repeat(86).as_bytes())])
            .file("x", b""),
        Tar::default()
            .pax(&[("GNU.sparse.map", b"0,9"), ("GNU.sparse.size", b"9")])
            .file("bad", b"123"),
        Tar::default()
            .pax(&[
                ("GNU.sparse.map", b""),
                ("GNU.sparse.size", b"99999999999999"),
            ])
            .file("bad", b""),
    ];
    for (index, tar) in cases.into_iter().enumerate() {
        let error = place.read(&tar.end()).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("bad") || text.contains(".wh."),
            "{index}: {text}"
        );
    }
}

#[test]
fn every_cut_of_an_archive_is_survived_and_a_cut_file_refused() {
    let place = Place::new();
    let whole = Tar::default()
        .pax(&[("path", b"a/long")])
        .file("x", &[7; 1000])
        .end();
    for cut in (0..whole.len()).step_by(61) {
        let _ = place.read(&whole[..cut]);
    }
    let error = place.read(&whole[..whole.len() - 1024 - 512]).unwrap_err();
    assert!(error.to_string().contains("truncated at a/long"), "{error}");
}

#[test]
fn flipped_bits_never_panic() {
    let place = Place::new();
    let whole = Tar::default()
        .pax(&[
            ("path", b"a/long"),
            ("GNU.sparse.map", b"0,1,5,1"),
            ("GNU.sparse.size", b"9"),
        ])
        .file("x", b"12")
        .hard_link("y", "a/long")
        .end();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        // Headers are guarded by their sum, so repair it to get at what lies behind.
        for block in bytes
            .chunks_exact_mut(512)
            .filter(|b| b.iter().any(|x| *x != 0))
        {
            if &block[257..262] == b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        let _ = place.read(&bytes);
    }
}

#[test]
fn a_global_header_costs_its_entries_nothing() {
    let place = Place::new();
    // Given to each entry, this would be 20 GB of memory.
    let mut tar = Tar::default().pax(&[
        ("SCHILY.xattr.user.a", &[b'x'; 1_000_000]),
        ("path", b"all"),
        ("mtime", b"9"),
    ]);
    tar.0[156] = b'g';
    let mut tar = Tar(with_sums(tar.0));
    for number in 0..20_000 {
        tar = tar.file(&number.to_string(), b"");
    }
    let tree = place.read(&tar.end()).unwrap().tree;
    assert_eq!(tree.entries(Tree::ROOT).unwrap().len(), 20_000);
    let metadata = &tree.inode(tree.lookup("7").unwrap()).metadata;
    assert!(metadata.xattrs.is_empty() && metadata.mtime == 9);
}

/// Repairs the sums of headers.
fn with_sums(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes
        .chunks_exact_mut(512)
        .filter(|b| &b[257..262] == b"ustar")
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    bytes
}

#[test]
fn names_are_as_long_as_the_kernel_takes_and_no_longer() {
    let place = Place::new();
    let name = [0xff; 255];
    let deep = [&b"a/".repeat(2040)[..], b"x"].concat();
    let tar = Tar::default()
        .pax(&[("path", &name)])
        .file("x", b"1")
        .pax(&[("path", &deep)])
        .file("x", b"2");
    let tree = place.read(&tar.end()).unwrap().tree;
    assert!(tree.child(Tree::ROOT, &name).is_some());
    assert_eq!(content(&tree, std::str::from_utf8(&deep).unwrap()), b"2");
    let target = "t".repeat(4095);
    let tar = Tar::default()
        .pax(&[("linkpath", target.as_bytes())])
        .symlink("s", "");
    place.read(&tar.end()).unwrap();
    let below = |times: usize| {
        (0..times).fold(Tar::default(), |tar, at| {
            // Each link leads another 2,000 folders down.
            let path = format!(
                "{}{}",
                if at == 0 {
                    String::new()
                } else {
                    format!("l{}/", at - 1)
                },
                "a/".repeat(2000)
            );
            let target = format!("/{path}");
            tar.pax(&[("path", format!("{path}x").as_bytes())])
                .file("x", b"")
                .pax(&[("linkpath", target.as_bytes())])
                .symlink(&format!("l{at}"), "")
        })
    };
    place.read(&below(1).end()).unwrap();
    for (tar, says) in [
        (below(2), "it lies too deep"),
        (
            Tar::default().pax(&[("path", &[b'a'; 256])]).file("x", b""),
            "is not a file name",
        ),
        (
            Tar::default()
                .pax(&[("path", &b"a/".repeat(2048))])
                .file("x", b""),
            "longer than 4095",
        ),
        (
            Tar::default()
                .pax(&[("linkpath", &[b'a'; 4096])])
                .symlink("x", ""),
            "longer than 4095",
        ),
        (
            Tar::default()
                .entry(b'L', "././@LongLink", "", &[b'a'; 5000])
                .file("x", b""),
            "longer than 4095",
        ),
        (
            Tar::default()
                .pax(&[("linkpath", &[b'a'; 4096])])
                .hard_link("x", ""),
            "longer than 4095",
        ),
    ] {
        let error = place.read(&tar.end()).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.len() < 5000,
            "{says}: {error}"
        );
    }
}

#[test]
fn whiteouts_take_no_parents_away() {
    let place = Place::new();
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."] {
        let error = place
            .read(&Tar::default().file(name, b"").end())
            .map(|_| ());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("it removes no name"), "{name}: {error}");
    }
    // One of a folder that was put there before hides what is below, and no more.
    let tar = Tar::default()
        .directory("d")
        .file("d/x", b"1")
        .file(".wh.d", b"")
        .file("d/y", b"2");
    let tree = place.read(&tar.end()).unwrap().tree;
    assert_eq!(content(&tree, "d/x"), b"1");
    assert_eq!(content(&tree, "d/y"), b"2");
    let opaque = tree
        .inode(tree.lookup("d").unwrap())
        .metadata
        .xattrs
        .get(OPAQUE)
        .cloned();
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
}

#[test]
fn devices_are_only_what_a_number_can_name() {
    let place = Place::new();
    let mut tar = Tar::default();
    for number in 0..5000_u32 {
        tar = tar.entry(
            if number % 2 == 0 { b'3' } else { b'4' },
            &format!("dev/{number}"),
            "",
            b"",
        );
    }
    let tree = place.read(&tar.end()).unwrap().tree;
    let of = |path| tree.inode(tree.lookup(path).unwrap()).kind.clone();
    assert_eq!(of("dev/0"), Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(of("dev/1"), Kind::BlockDevice { major: 1, minor: 3 });
    for (at, digits) in [(329, b"7777777"), (337, b"7777777"), (329, b"x000000")] {
        let mut tar = Tar::default().entry(b'3', "null", "", b"");
        tar.0[at..at + 7].copy_from_slice(digits);
        let error = place
            .read(&with_sums(tar.end()))
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("null") && error.contains("its device number"),
            "{error}"
        );
    }
}

#[test]
fn sparse_files_expand_no_further_than_the_limit() {
    let place = Place::new();
    let bomb = |size: &[u8]| {
        let records = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", size),
            ("GNU.sparse.name", b"bomb"),
        ];
        Tar::default()
            .pax(&records)
            .file("x", &[&b"0\n"[..], &[0; 510]].concat())
    };
    place.read(&bomb(b"1000000").end()).unwrap();
    for size in [&b"18446744073709551615"[..], b"17179869185"] {
        let error = place
            .read(&bomb(size).end())
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("bomb") && error.contains("too large"),
            "{error}"
        );
    }
    let many = (0..5).fold(Tar::default(), |mut tar, _| {
        tar.0.extend(bomb(b"4000000000").0);
        tar
    });
    let error = place.read(&many.end()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("too large"), "{error}");
}

/// With `CORACLE_ENTRIES=1000000` and `--nocapture` it tells the time and the memory of a million.
#[test]
fn many_entries_take_memory_for_each_and_not_for_pairs_of_them() {
    let place = Place::new();
    let count: u32 = std::env::var("CORACLE_ENTRIES").map_or(100_000, |text| text.parse().unwrap());
    let mut tar = Tar::default();
    for number in 0..count {
        tar = tar.file(&format!("d{}/file-{number}", number % 100), b"");
    }
    let begun = std::time::Instant::now();
    let tree = place.read(&tar.end()).unwrap().tree;
    assert_eq!(tree.walk().len(), count as usize + 101);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    println!("{count} entries: {:?}, {peak}", begun.elapsed());
}
