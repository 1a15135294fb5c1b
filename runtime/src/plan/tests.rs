use super::*;
use crate::mount::Source;
use serde_json::{Value, json};

fn document() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": { "cwd": "/", "args": ["true"] },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
    })
}

/// The document with `value` at a JSON pointer whose parents exist.
fn with(pointer: &str, value: Value) -> Result<Plan> {
    let mut document = document();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    document.pointer_mut(parent).expect("the parent exists")[name] = value;
    Plan::new(
        serde_json::from_value(document).expect("well formed"),
        Path::new("/bundle"),
        "id",
    )
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (pointer, value, named) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        (
            "/hooks",
            json!({ "prestart": [{ "path": "bin/true" }] }),
            "prestart",
        ),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_NONE" }),
            "process.scheduler",
        ),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["a\0b"]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/user", json!({ "uid": u32::MAX }), "process.user"),
        ("/process/oomScoreAdj", json!(1001), "oomScoreAdj"),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]),
            "RLIMIT_X",
        ),
        (
            "/linux/namespaces",
            json!([{ "type": "pid" }]),
            "mount namespace",
        ),
        (
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "mount" }]),
            "twice",
        ),
        (
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "user" }]),
            "uidMappings",
        ),
        ("/linux/maskedPaths", json!(["proc/kcore"]), "maskedPaths"),
        ("/linux/readonlyPaths", json!(["/"]), "readonlyPaths"),
        (
            "/linux/personality",
            json!({ "domain": "MINIX" }),
            "personality",
        ),
        ("/linux/cgroupsPath", json!("/a/../../b"), "cgroupsPath"),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "rootfsPropagation",
        ),
        (
            "/mounts",
            json!([{ "destination": "/", "type": "tmpfs" }]),
            "mount on",
        ),
        (
            "/mounts",
            json!([{ "destination": "/x", "type": "bind" }]),
            "source",
        ),
        ("/hostname", json!("name"), "uts"),
        (
            "/annotations",
            json!({ "org.coracle.rootfs.upper-size": "1" }),
            "without",
        ),
    ] {
        let error = with(pointer, value).expect_err(pointer).to_string();
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

#[test]
fn relative_paths_start_at_the_bundle() {
    let plan = with(
        "/mounts",
        json!([{ "destination": "data", "type": "bind", "source": "data" }]),
    )
    .expect("valid");
    assert_eq!(plan.root.path, Path::new("/bundle/rootfs"));
    assert_eq!(plan.mounts[0].source, Source::Bind("/bundle/data".into()));
    assert_eq!(plan.mounts[0].destination, Path::new("/data"));
    assert_eq!(plan.cgroup, Path::new("coracle/id"));
}

#[test]
fn a_dev_of_the_host_gets_no_devices() {
    let mount =
        json!([{ "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"] }]);
    assert_eq!(with("/mounts", mount).expect("valid").devices, None);
    assert_eq!(
        with("/mounts", json!([]))
            .expect("valid")
            .devices
            .map(|devices| devices.len()),
        Some(6)
    );
}

#[test]
fn versions_are_semantic_ones() {
    for version in ["1.0.0", "1.2.1", "1.2.0-rc.1", "1.10.0+build.007", "2.0.0"] {
        assert!(is_semantic(version), "{version}");
    }
    for version in [
        "", "1", "1.2", "1.2.3.4", "1.02.0", "v1.2.0", "1.2.x", "1.2.0-", "1.2.0-01", "1.2.0+",
        "1. 2.0",
    ] {
        assert!(!is_semantic(version), "{version}");
    }
}
