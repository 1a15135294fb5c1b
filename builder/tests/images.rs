//! Images written by umoci and skopeo, and the same images broken in one place.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::progress::Progress;
use builder::source::cache::Cache;
use builder::source::image::Image;
use builder::source::user::resolve_user;
use builder::source::{SourceError, load};
use builder::tree::{Kind, Tree};

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

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn load(&self, reference: &str) -> Result<Image, SourceError> {
        load(reference, self.path(), &self.cache, &Progress::silent())
    }

    /// The whole chain of an error.
    fn refusal(&self, reference: &str) -> String {
        // A cache of its own: what was good before must not hide what is broken now.
        let cache = Cache::open(Some(&self.path().join("cache-of-refusals"))).unwrap();
        let Err(error) = load(reference, self.path(), &cache, &Progress::silent()) else {
            return "it was taken".to_owned();
        };
        let left = fs::read_dir(cache.root().join("tmp")).unwrap();
        assert_eq!(left.count(), 0, "litter");
        let mut text = String::new();
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = next {
            text += &format!("{error}: ");
            next = error.source();
        }
        text
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
    }

    /// An OCI layout of two layers with a whiteout and an opaque directory, tag `one`.
    fn make_layout(&self) {
        let low = self.path().join("low");
        let top = self.path().join("top");
        for path in [
            "low/etc",
            "low/var/hidden",
            "low/tmp",
            "top/etc",
            "top/var",
            "top/tmp",
        ] {
            fs::create_dir_all(self.path().join(path)).unwrap();
        }
        fs::write(
            low.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nred:x:55:56::/d:/x\n",
        )
        .unwrap();
        fs::write(low.join("etc/group"), "red:x:56:\naudio:x:29:red\n").unwrap();
        fs::write(low.join("etc/gone"), "gone").unwrap();
        fs::write(low.join("var/hidden/x"), "hidden").unwrap();
        fs::set_permissions(low.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(top.join("etc/.wh.gone"), "").unwrap();
        fs::write(top.join("etc/new"), "new").unwrap();
        fs::write(top.join("var/.wh..wh..opq"), "").unwrap();
        fs::write(top.join("tmp/here"), "").unwrap();
        self.run(
            "tar",
            &["-C", "low", "--owner=0", "--group=0", "-cf", "low.tar", "."],
        );
        let files = ["etc/.wh.gone", "etc/new", "var", "tmp/here"]; // no entry for tmp itself
        let mut arguments = vec!["-C", "top", "--owner=0", "--group=0", "-cf", "top.tar"];
        arguments.extend(files);
        self.run("tar", &arguments);
        self.run("umoci", &["init", "--layout", "layout"]);
        self.run("umoci", &["new", "--image", "layout:one"]);
        for layer in ["low.tar", "top.tar"] {
            self.run(
                "umoci",
                &["raw", "add-layer", "--image", "layout:one", layer],
            );
        }
        self.run(
            "umoci",
            &[
                "config",
                "--image",
                "layout:one",
                "--config.user",
                "red",
                "--config.entrypoint",
                "/bin/x",
                "--config.cmd",
                "-v",
                "--config.env",
                "A=b c",
                "--config.workingdir",
                "/d",
                "--config.volume",
                "/data",
                "--config.exposedports",
                "80/tcp",
                "--config.label",
                "l=1",
                "--config.stopsignal",
                "SIGINT",
            ],
        );
        self.run(
            "umoci",
            &[
                "config",
                "--image",
                "layout:one",
                "--architecture",
                "amd64",
                "--os",
                "linux",
            ],
        );
        self.run("umoci", &["gc", "--layout", "layout"]);
    }

    fn copy(&self, arguments: &[&str]) {
        let policy = ["--insecure-policy", "copy", "-q"];
        self.run("skopeo", &[&policy[..], arguments].concat());
    }

    /// The largest blob of the layout: a layer.
    fn blobs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join("layout/blobs/sha256")).unwrap();
        entries.map(|e| e.unwrap().path()).collect()
    }

    fn blob_with(&self, text: &str) -> PathBuf {
        let has = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(text);
        let newest = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        self.blobs()
            .into_iter()
            .filter(has)
            .max_by_key(newest)
            .unwrap()
    }

    fn layer_blob(&self) -> PathBuf {
        let is_gzip = |path: &PathBuf| fs::read(path).unwrap().starts_with(&[0x1f, 0x8b]);
        self.blobs().into_iter().find(is_gzip).unwrap()
    }
}

fn check(image: &Image, what: &str) {
    let read = |path: &str| image.read(path, 1000).ok();
    assert_eq!(image.layers.len(), 2, "{what}");
    assert_eq!(read("/etc/new").as_deref(), Some(&b"new"[..]), "{what}");
    assert!(
        read("/etc/gone").is_none() && read("/var/hidden/x").is_none(),
        "{what}"
    );
    let (layer, id) = image.find("/tmp").unwrap();
    assert_eq!(
        layer.tree.inode(id).metadata.mode,
        0o1777,
        "{what}: tmp as below"
    );
    let config = &image.config;
    assert_eq!(config.entrypoint, ["/bin/x"], "{what}");
    assert_eq!(config.command, ["-v"]);
    assert!(config.env.contains(&"A=b c".to_owned()));
    assert_eq!(config.working_dir.as_deref(), Some("/d"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert!(config.volumes.contains("/data") && config.exposed_ports.contains("80/tcp"));
    assert_eq!(config.labels["l"], "1");
    let user = resolve_user(image, config.user.as_deref().unwrap()).unwrap();
    assert_eq!(
        (user.uid, user.gid, user.additional_gids),
        (55, 56, vec![29])
    );
    assert!(image.digest.starts_with("sha256:") && image.digest.len() == 71);
}

#[test]
fn one_image_is_the_same_in_every_form() {
    let place = Place::new();
    place.make_layout();
    place.copy(&["oci:layout:one", "oci-archive:a.tar:one"]);
    place.copy(&["oci:layout:one", "docker-archive:d.tar:some/name:one"]);
    place.copy(&[
        "--dest-compress-format",
        "zstd",
        "--dest-compress",
        "oci:layout:one",
        "oci:zstd:one",
    ]);
    let first = place.load("oci:layout:one").unwrap();
    check(&first, "oci");
    for reference in [
        "oci:layout",
        "oci-archive:a.tar",
        "oci-archive:a.tar:one",
        "docker-archive:d.tar",
        "docker-archive:d.tar:one",
        "docker-archive:d.tar:docker.io/some/name:one",
        "oci:zstd:one",
    ] {
        // A cache of its own, so that each is really read.
        let cache =
            Cache::open(Some(&place.path().join(reference.replace([':', '/'], "-")))).unwrap();
        let image = load(reference, place.path(), &cache, &Progress::silent()).unwrap();
        check(&image, reference);
        let ids = |image: &Image| {
            image
                .layers
                .iter()
                .map(|l| l.id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&image), ids(&first), "{reference}");
    }
}

#[test]
fn missing_tags_and_files_are_named() {
    let place = Place::new();
    place.make_layout();
    place.run("umoci", &["tag", "--image", "layout:one", "two"]);
    for (reference, want) in [
        (
            "oci:layout:three",
            "tag \"three\"; it has the tags one, two",
        ),
        ("oci:layout", "several images"),
        ("oci:nowhere:x", "nowhere does not exist"),
        ("oci-archive:nowhere.tar", "nowhere.tar does not exist"),
        ("dir:nowhere", "nowhere does not exist"),
        ("oci:low", "no oci-layout"),
        ("oci-archive:low.tar", "no oci-layout"),
        ("docker-archive:low.tar", "no manifest.json"),
        ("docker-archive:layout/index.json", "index.json"),
        ("nginx", "no transport"),
        ("podman:x", "\"podman\" is none of"),
        ("oci:", "names no file"),
    ] {
        let text = place.refusal(reference);
        assert!(text.contains(want), "{reference}: {text}");
    }
}

#[test]
fn truncated_layer_is_refused() {
    let place = Place::new();
    place.make_layout();
    let layer = place.layer_blob();
    let bytes = fs::read(&layer).unwrap();
    fs::write(&layer, &bytes[..bytes.len() - 7]).unwrap();
    let text = place.refusal("oci:layout:one");
    let name = layer.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(name) && text.contains("bytes, not"), "{text}");
}

#[test]
fn layer_with_another_digest_is_refused() {
    let place = Place::new();
    place.make_layout();
    let layer = place.layer_blob();
    let good = fs::read(&layer).unwrap();
    for at in [4, good.len() / 2, good.len() - 2] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&layer, bytes).unwrap();
        let text = place.refusal("oci:layout:one");
        assert!(
            text.contains(layer.file_name().unwrap().to_str().unwrap()),
            "{at}: {text}"
        );
    }
}

#[test]
fn changed_documents_are_refused() {
    let place = Place::new();
    place.make_layout();
    for (mark, from, to, want) in [
        ("\"diff_ids\"", "SIGINT", "SIGHUP", "has SHA-256"),
        ("\"layers\":", "gzip", "gzop", "has SHA-256"),
    ] {
        let path = place.blob_with(mark);
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, good.replace(from, to)).unwrap();
        let text = place.refusal("oci:layout:one");
        assert!(text.contains(want), "{mark}: {text}");
        fs::write(&path, good).unwrap();
    }
    let index = place.path().join("layout/index.json");
    let good = fs::read_to_string(&index).unwrap();
    for (from, to, want) in [
        ("sha256:", "sha512:", "digest \"sha512:"),
        ("sha256:", "sha256:../../", "digest \"sha256:../../"),
        (
            "image.manifest.v1",
            "image.manifest.v9",
            "media type \"application/vnd.oci.image.manifest.v9+json\"",
        ),
        ("\"size\":", "\"size\":1", "bytes, not 1"),
        ("{", "[", "index.json is not as"),
    ] {
        fs::write(&index, good.replacen(from, to, 1)).unwrap();
        let text = place.refusal("oci:layout:one");
        assert!(text.contains(want), "{from} → {to}: {text}");
    }
}

#[test]
fn image_for_another_platform_is_refused_by_name() {
    let place = Place::new();
    place.make_layout();
    place.run(
        "umoci",
        &["config", "--image", "layout:one", "--architecture", "arm64"],
    );
    let text = place.refusal("oci:layout:one");
    assert!(text.contains("linux/arm64"), "{text}");
}

#[test]
fn every_cut_of_an_archive_is_survived() {
    let place = Place::new();
    place.make_layout();
    place.copy(&["oci:layout:one", "oci-archive:a.tar:one"]);
    place.copy(&["oci:layout:one", "docker-archive:d.tar:x:one"]);
    for (form, file) in [("oci-archive", "a.tar"), ("docker-archive", "d.tar")] {
        let bytes = fs::read(place.path().join(file)).unwrap();
        for cut in (0..bytes.len().saturating_sub(10240)).step_by(997) {
            fs::write(place.path().join("cut.tar"), &bytes[..cut]).unwrap();
            let _ = place.refusal(&format!("{form}:cut.tar"));
        }
    }
}

#[test]
fn directory_becomes_an_image_of_root() {
    let place = Place::new();
    let root = place.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/run"), "run").unwrap();
    fs::set_permissions(root.join("bin/run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("bin/run"), root.join("bin/again")).unwrap();
    std::os::unix::fs::symlink("bin/run", root.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(root.join("bin/run"), Some(1000), Some(1000)).unwrap();
        fs::set_permissions(root.join("bin/run"), fs::Permissions::from_mode(0o4755)).unwrap();
    }
    let image = place.load("dir:root").unwrap();
    let tree = &image.layers[0].tree;
    let run = tree.lookup("bin/run").unwrap();
    let metadata = &tree.inode(run).metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o4755, 0, 0));
    assert_eq!(tree.lookup("bin/again"), Some(run));
    assert_eq!(
        tree.inode(tree.lookup("link").unwrap()).kind,
        Kind::Symlink(b"bin/run".to_vec())
    );
    assert!(tree.lookup("socket").is_none());
    assert_eq!(tree.entries(Tree::ROOT).unwrap().len(), 2);
    assert_eq!(image.read("/link", 10).unwrap(), b"run");
    assert_eq!(place.load("dir:root").unwrap().digest, image.digest);
    fs::write(root.join("bin/run"), "RUN").unwrap();
    assert_ne!(place.load("dir:root").unwrap().digest, image.digest);
}
