//! config.md: root, mounts, names, annotations and what is no valid document.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::harness::bundle;
use crate::refused;

const EROFS: &str = "errno 30";
const ENOENT: &str = "errno 2";

/// config.md, Specification version: ociVersion is required.
#[test]
fn version_of_the_specification_is_required() {
    let Some(mut bundle) = bundle() else { return };
    bundle
        .config
        .as_object_mut()
        .expect("an object")
        .remove("ociVersion");
    assert!(refused(&bundle).contains("ociVersion"));
}

/// config.md, Root: the path is absolute or relative to the bundle.
#[test]
fn root_is_found_from_the_bundle_or_by_its_absolute_path() {
    let Some(bundle) = bundle() else { return };
    let absolute = bundle.root();
    let bundle = bundle.command("list /bin");
    assert_eq!(bundle.run().lines(), ["helper"]);
    let bundle = bundle.with("/root/path", json!(absolute));
    assert_eq!(bundle.run().lines(), ["helper"]);
}

/// config.md, Root: a directory must exist at the path.
#[test]
fn root_must_exist() {
    let Some(bundle) = bundle() else { return };
    assert!(refused(&bundle.with("/root/path", json!("nowhere"))).contains("nowhere"));
}

/// config.md, Root: readonly makes the root read-only inside, and is false by default.
#[test]
fn root_is_read_only_where_asked() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("write /file text");
    assert_eq!(bundle.run().lines(), ["ok"]);
    let bundle = bundle.with("/root/readonly", json!(true));
    assert_eq!(bundle.run().lines(), [EROFS]);
}

/// config.md, Mounts: in the listed order.
#[test]
fn mounts_are_made_in_the_listed_order() {
    let Some(bundle) = bundle() else { return };
    let tmpfs = |place: &str, mode: &str| json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": [mode] });
    let bundle = bundle
        .mount(tmpfs("/outer/inner", "mode=0700"))
        .mount(tmpfs("/outer", "mode=0711"))
        .mount(tmpfs("/outer/later", "mode=0722"))
        .command("list /outer ; stat /outer ; stat /outer/later");
    let output = bundle.run();
    let lines = output.lines();
    assert_eq!(lines[0], "later", "the second covers the first: {output:?}");
    assert!(
        lines[1].starts_with("40711") && lines[2].starts_with("40722"),
        "{output:?}"
    );
}

/// config.md, Mounts: a bind mount's source is absolute or relative to the bundle.
#[test]
fn bind_mounts_show_the_source() {
    let Some(bundle) = bundle() else { return };
    fs::write(bundle.directory.join("file"), "content").expect("written");
    let source = bundle.directory.join("file");
    let bundle = bundle
        .mount(json!({ "destination": "/absolute", "source": source, "options": ["bind"] }))
        .mount(json!({ "destination": "/relative", "source": "file", "options": ["bind"] }))
        .command("cat /absolute ; cat /relative");
    assert_eq!(bundle.run().lines(), ["content", "content"]);
}

/// config.md, Mounts: options of the filesystem and of the mount.
#[test]
fn mount_options_are_applied() {
    let Some(bundle) = bundle() else { return };
    let options = json!(["size=64k", "mode=0751", "nosuid", "noexec", "nodev", "ro"]);
    let bundle = bundle
        .mount(json!({ "destination": "/place", "type": "tmpfs", "source": "tmpfs", "options": options }))
        .command("cat /proc/self/mounts ; write /place/x x");
    let output = bundle.run();
    let mounts = output.lines();
    let line = mounts
        .iter()
        .find(|line| line.contains(" /place "))
        .expect("mounted");
    for option in ["ro", "nosuid", "noexec", "nodev", "size=64k", "mode=751"] {
        let words = line.split([' ', ',']);
        assert!(
            words.into_iter().any(|word| word == option),
            "{option} in {line}"
        );
    }
    assert_eq!(mounts.last(), Some(&EROFS));
}

/// config.md, Mounts: a missing source is an error.
#[test]
fn mount_without_its_source_is_refused() {
    let Some(bundle) = bundle() else { return };
    let mount = json!({ "destination": "/data", "source": "/no/such/source", "options": ["bind"] });
    assert!(refused(&bundle.mount(mount)).contains("/no/such/source"));
}

/// config.md, Mounts: destinations are inside the container.
#[test]
fn mount_destination_through_a_symlink_stays_inside() {
    let Some(bundle) = bundle() else { return };
    let outside = bundle.directory.join("outside");
    fs::create_dir(&outside).expect("made");
    symlink("../../../../../../../../out", bundle.root().join("link")).expect("made");
    let bundle = bundle
        .mount(json!({ "destination": "/link/deep", "type": "tmpfs", "source": "tmpfs" }))
        .command("write /out/deep/x x ; list /out/deep");
    assert_eq!(bundle.run().lines(), ["ok", "x"]);
    assert_eq!(fs::read_dir(outside).expect("there").count(), 0);
    assert!(!fs::exists("/out").expect("the host's root"));
}

/// config.md, Hostname: as the container's processes see it.
#[test]
fn hostname_is_that_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/hostname", json!("boat"))
        .command("cat /proc/sys/kernel/hostname");
    assert_eq!(bundle.run().lines()[0], "boat");
}

/// config.md, Domainname: as the container's processes see it.
#[test]
fn domainname_is_that_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/domainname", json!("harbour"))
        .command("cat /proc/sys/kernel/domainname");
    assert_eq!(bundle.run().lines()[0], "harbour");
}

/// config.md, Annotations: unknown keys are no error, and none at all neither.
#[test]
fn unknown_annotations_are_no_error() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.with("/annotations", json!({}));
    bundle.run().good();
    let bundle = bundle.with(
        "/annotations",
        json!({ "com.example.unknown": "", "run.oci.hooks": "x" }),
    );
    bundle.run().good();
}

/// config.md, Annotations: values are strings.
#[test]
fn annotation_that_is_no_string_is_refused() {
    let Some(bundle) = bundle() else { return };
    refused(&bundle.with("/annotations", json!({ "key": 1 })));
}

/// config.md, Extensibility: unknown properties are ignored.
#[test]
fn unknown_properties_are_ignored() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/futureProperty", json!({ "deep": [1, 2] }))
        .with("/process/futureProperty", json!(true))
        .with("/linux/futureProperty", json!("text"));
    bundle.run().good();
}

/// config.md, Valid values: invalid values are an error.
#[test]
fn invalid_values_are_refused() {
    for (pointer, value) in [
        ("/process/args", json!("not a list")),
        ("/process/user", json!({ "uid": -1, "gid": 0 })),
        (
            "/process/user",
            json!({ "uid": 4_294_967_296_u64, "gid": 0 }),
        ),
        ("/process/cwd", json!(7)),
        ("/linux/namespaces", json!([{ "type": "nonsense" }])),
        ("/linux/rootfsPropagation", json!("nonsense")),
        ("/mounts", json!([{ "type": "tmpfs" }])),
    ] {
        let Some(bundle) = bundle() else { return };
        let bundle = bundle.with(pointer, value.clone());
        assert_eq!(bundle.run().status, 1, "{pointer} {value}");
        bundle.assert_gone();
    }
}

/// bundle.md, Filesystem Bundle: config.json is in the bundle and is UTF-8 JSON.
#[test]
fn bundle_without_a_readable_document_is_refused() {
    let Some(bundle) = bundle() else { return };
    let mut command = std::process::Command::new(crate::harness::RUNTIME);
    command
        .arg("--root")
        .arg(bundle.directory.join("state"))
        .arg("create")
        .arg("--bundle");
    command.arg(bundle.root()).arg(&bundle.id);
    crate::harness::finish(&mut command, &bundle.directory).failure();
    fs::write(bundle.root().join("config.json"), [b'{', 0xff, b'}']).expect("written");
    crate::harness::finish(&mut command, &bundle.directory).failure();
    bundle.assert_gone();
}

/// config.md, Mounts: what is not there is made.
#[test]
fn mount_points_are_made() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .mount(json!({ "destination": "/a/b/c", "type": "tmpfs", "source": "tmpfs" }))
        .command("write /a/b/c/x x ; cat /a/b/none");
    assert_eq!(bundle.run().lines(), ["ok", ENOENT]);
}
