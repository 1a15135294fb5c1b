//! App Container images that the tests make with tar, and the same broken in one place.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use builder::progress::Progress;
use builder::source::cache::Cache;
use builder::source::image::Image;
use builder::source::{load, referenced_path};
use serde_json::{Value, json};

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn load(&self, reference: &str) -> Result<Image, String> {
        let cache = Cache::open(Some(&self.path().join("cache"))).unwrap();
        load(reference, self.path(), &cache, &Progress::silent())
            .map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }

    fn refusal(&self, reference: &str) -> String {
        self.load(reference).map(|_| ()).unwrap_err()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        let output = command.args(arguments).current_dir(self.path()).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
    }

    /// Packs `manifest` and files (a text each, `-> TARGET` for a link) as an image, by an option of tar.
    fn pack(&self, name: &str, manifest: &Value, files: &[(&str, &str)], option: &str) {
        let folder = self.path().join("work");
        fs::create_dir_all(folder.join("rootfs")).unwrap();
        fs::write(folder.join("manifest"), manifest.to_string()).unwrap();
        for (path, text) in files {
            let path = folder.join("rootfs").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        self.run(
            "tar",
            &[
                "-C",
                "work",
                "--owner=0",
                "--group=0",
                option,
                name,
                "manifest",
                "rootfs",
            ],
        );
        fs::remove_dir_all(folder).unwrap();
    }

    /// An image of a name and files, in which `more` is part of the manifest.
    fn image(&self, file: &str, name: &str, files: &[(&str, &str)], more: Value) {
        let mut manifest =
            json!({ "acKind": "ImageManifest", "acVersion": "0.8.11", "name": name });
        let all = manifest.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        self.pack(file, &manifest, files, "-cf");
    }
}

fn read(image: &Image, path: &str) -> Option<String> {
    let bytes = image.read(path, 1 << 20).ok()?;
    Some(String::from_utf8(bytes).unwrap())
}

#[test]
fn an_image_is_read_however_it_is_compressed() {
    let place = Place::new();
    let manifest = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/worker",
        "labels": [{ "name": "os", "value": "linux" }, { "name": "arch", "value": "amd64" }],
        "app": {
            "exec": ["/bin/worker", "-v"], "user": "red", "group": "/data/owned",
            "supplementaryGIDs": [26, 29], "workingDirectory": "/data",
            "environment": [{ "name": "A", "value": "b" }],
            "isolators": [{ "name": "resource/memory", "value": { "limit": "64Mi" } }],
        },
        "annotations": [{ "name": "authors", "value": "Red" }],
    });
    let files = [
        ("bin/worker", "worker"),
        ("data/owned", ""),
        ("etc/.wh.kept", "no whiteout"),
        ("etc/passwd", "red:x:55:56::/:/x\n"),
    ];
    let mut digests = Vec::new();
    for (name, option) in [
        ("p.aci", "-cf"),
        ("g.aci", "-czf"),
        ("b.aci", "-cjf"),
        ("x.aci", "-cJf"),
    ] {
        place.pack(name, &manifest, &files, option);
        let image = place.load(&format!("aci:{name}")).unwrap();
        assert_eq!(read(&image, "/bin/worker").as_deref(), Some("worker"));
        assert_eq!(
            read(&image, "/etc/.wh.kept").as_deref(),
            Some("no whiteout")
        );
        assert!(image.find("/manifest").is_none() && image.find("/rootfs").is_none());
        let config = &image.config;
        assert_eq!(config.entrypoint, ["/bin/worker", "-v"]);
        assert_eq!(config.user.as_deref(), Some("red:0"));
        assert_eq!(config.working_dir.as_deref(), Some("/data"));
        assert_eq!(config.additional_gids, [26, 29]);
        assert_eq!(config.limits.memory, Some(64 << 20));
        assert_eq!(config.labels["authors"], "Red");
        digests.push(image.digest);
    }
    digests.dedup();
    assert_eq!(digests.len(), 4);
}

#[test]
fn dependencies_are_given_and_lie_below() {
    let place = Place::new();
    place.image(
        "base.aci",
        "base",
        &[("x", "base"), ("y", "base"), ("lib/z", "base")],
        json!({}),
    );
    place.run("sh", &["-c", "sha512sum base.aci | cut -c1-128 > id"]);
    let id = fs::read_to_string(place.path().join("id")).unwrap();
    let id = format!("sha512-{}", id.trim());
    let size = fs::metadata(place.path().join("base.aci")).unwrap().len();
    let depends = |dependency: Value| json!({ "dependencies": [dependency] });
    place.image(
        "app.aci",
        "app",
        &[("y", "app")],
        depends(json!({ "imageName": "base", "imageID": id, "size": size })),
    );
    let image = place.load("aci:app.aci,base.aci").unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(read(&image, "/x").as_deref(), Some("base"));
    assert_eq!(read(&image, "/y").as_deref(), Some("app"));

    let refusal = place.refusal("aci:app.aci");
    assert!(
        refusal.contains("depends on base, which is not given"),
        "{refusal}"
    );
    let refusal = place.refusal("aci:base.aci,app.aci");
    assert!(refusal.contains("nothing depends on app"), "{refusal}");
    let refusal = place.refusal("aci:app.aci,none.aci");
    assert!(refusal.contains("none.aci does not exist"), "{refusal}");
    let named = referenced_path("aci:app.aci,none.aci", place.path());
    assert_eq!(named, place.path().join("none.aci"));

    // Another image of the same name, another size, and one that needs itself.
    place.image(
        "base.aci",
        "base",
        &[("x", "evil"), ("y", "base"), ("lib/z", "base")],
        json!({}),
    );
    let refusal = place.refusal("aci:app.aci,base.aci");
    assert!(refusal.contains("has the image ID sha512-"), "{refusal}");
    place.image(
        "base.aci",
        "base",
        &[("x", &"long".repeat(9000))],
        json!({}),
    );
    let refusal = place.refusal("aci:app.aci,base.aci");
    assert!(refusal.contains(&format!("bytes, not {size}")), "{refusal}");
    place.image(
        "base.aci",
        "base",
        &[],
        depends(json!({ "imageName": "app" })),
    );
    place.image(
        "app.aci",
        "app",
        &[],
        depends(json!({ "imageName": "base" })),
    );
    let refusal = place.refusal("aci:app.aci,base.aci");
    assert!(refusal.contains("depends on itself"), "{refusal}");
}

#[test]
fn a_path_whitelist_cuts_the_image_and_what_lies_below() {
    let place = Place::new();
    place.image(
        "base.aci",
        "base",
        &[("lib/a", "a"), ("lib/b", "b")],
        json!({}),
    );
    let more =
        json!({ "dependencies": [{ "imageName": "base" }], "pathWhitelist": ["/lib/b", "/x"] });
    place.image("app.aci", "app", &[("x", "x"), ("y", "y")], more);
    let image = place.load("aci:app.aci,base.aci").unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(read(&image, "/x").as_deref(), Some("x"));
    assert_eq!(read(&image, "/lib/b").as_deref(), Some("b"));
    assert!(image.find("/y").is_none() && image.find("/lib/a").is_none());
}

/// A header of an archive, with no data behind it.
fn header(name: &str, kind: u8, link: &str, len: usize) -> Vec<u8> {
    let mut header = vec![0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000755");
    header[124..135].copy_from_slice(format!("{len:011o}").as_bytes());
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

#[test]
fn archives_that_are_no_image_or_mean_harm_are_refused_by_name() {
    let place = Place::new();
    let text = br#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a"}"#;
    let mut manifest = header("manifest", b'0', "", text.len());
    manifest.extend(text);
    manifest.resize(1024, 0);
    let root = header("rootfs", b'5', "", 0);
    let x = header("rootfs/x", b'0', "", 0);
    for (parts, says) in [
        (
            vec![manifest.clone()],
            "lacks a file `manifest` or a folder `rootfs`",
        ),
        (vec![root.clone()], "lacks a file `manifest`"),
        (
            vec![manifest.clone(), manifest.clone(), root.clone()],
            "once each",
        ),
        (
            vec![manifest.clone(), root.clone(), header("other", b'0', "", 0)],
            "\"other\"",
        ),
        (
            vec![manifest.clone(), header("rootfs", b'2', "/", 0)],
            "\"rootfs\"",
        ),
        (
            vec![header("manifest", b'2', "/etc/passwd", 0), root.clone()],
            "\"manifest\"",
        ),
        (
            vec![manifest.clone(), root.clone(), x.clone(), x.clone()],
            "it stands twice",
        ),
        (
            vec![manifest.clone(), header("rootfs/../../evil", b'0', "", 0)],
            "leads out of the layer",
        ),
        (
            vec![
                manifest.clone(),
                header("rootfs/up", b'2', "../..", 0),
                header("rootfs/up/x", b'0', "", 0),
            ],
            "leads out of the layer",
        ),
        (
            vec![manifest.clone(), header("rootfs/x", b'1', "manifest", 0)],
            "leads out of the layer",
        ),
        (
            vec![
                manifest.clone(),
                header("rootfs/x", b'1', "rootfs/../manifest", 0),
            ],
            "leads out of the layer",
        ),
        (
            vec![header("manifest", b'0', "", 1 << 30), root.clone()],
            "truncated",
        ),
        (
            vec![b"\x8c\x0d\x04\x09\x03\x02encrypted".repeat(40)],
            "not a tar header",
        ),
        (vec![b"BZh9broken".repeat(9)], "p.aci"),
    ] {
        fs::write(place.path().join("p.aci"), parts.concat()).unwrap();
        let refusal = place.refusal("aci:p.aci");
        assert!(
            refusal.contains("p.aci") && refusal.contains(says),
            "{says}: {refusal}"
        );
    }
    let left = fs::read_dir(place.path().join("cache/tmp")).unwrap();
    assert_eq!(left.count(), 0, "litter");
}
