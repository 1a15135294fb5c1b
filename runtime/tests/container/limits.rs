//! `linux.resources`: set in cgroup v2 where it has the controller, else in v1, else refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Bundle, bundle, cgroup_root};

/// The file of the container's cgroup with its value: of v2 if it has the controller, else of v1 at its usual mount.
pub(crate) fn limit(
    bundle: &Bundle,
    v2: (&str, &str),
    v1: (&str, &str),
) -> Option<(PathBuf, String)> {
    let controller = |file: &str| file.split('.').next().expect("a controller").to_owned();
    let root = cgroup_root().expect("checked by the harness");
    let list = fs::read_to_string(root.join("cgroup.controllers")).expect("it is cgroup v2");
    if list.split_whitespace().any(|name| name == controller(v2.0)) {
        return Some((bundle.cgroup().join(v2.0), v2.1.to_owned()));
    }
    let relative = bundle
        .cgroup()
        .strip_prefix(root)
        .expect("below the root")
        .to_owned();
    let mount = Path::new("/sys/fs/cgroup").join(controller(v1.0));
    let found = mount.join("cgroup.procs").exists();
    found.then(|| (mount.join(relative).join(v1.0), v1.1.to_owned()))
}

#[test]
fn limits_are_set_where_the_controller_is_and_vanish_with_the_container() {
    for (resources, v2, v1) in [
        (
            json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }),
            ("memory.max", "33554432"),
            ("memory.limit_in_bytes", "33554432"),
        ),
        (
            json!({ "memory": { "limit": 33_554_432, "swap": 67_108_864 } }),
            ("memory.swap.max", "33554432"),
            ("memory.memsw.limit_in_bytes", "67108864"),
        ),
        (
            json!({ "pids": { "limit": 7 } }),
            ("pids.max", "7"),
            ("pids.max", "7"),
        ),
        (
            json!({ "cpu": { "quota": 50_000, "period": 200_000 } }),
            ("cpu.max", "50000 200000"),
            ("cpu.cfs_period_us", "200000"),
        ),
        (
            json!({ "cpu": { "shares": 512 } }),
            ("cpu.weight", "59"),
            ("cpu.shares", "512"),
        ),
        (
            json!({ "cpu": { "cpus": "0" } }),
            ("cpuset.cpus", "0"),
            ("cpuset.cpus", "0"),
        ),
    ] {
        let Some(bundle) = bundle() else { return };
        let Some((path, expected)) = limit(&bundle, v2, v1) else {
            eprintln!("skipped {resources}: this host has no such controller at a usual mount");
            continue;
        };
        let bundle = bundle
            .with("/linux/resources", resources)
            .command("sleep 1000");
        bundle.runtime(&["run", "--detach", &bundle.id]).good();
        assert_eq!(
            fs::read_to_string(&path).expect("it is set").trim(),
            expected,
            "{path:?}"
        );
        let members = path.with_file_name("cgroup.procs");
        let members = fs::read_to_string(members).expect("it is a cgroup");
        assert_eq!(members.lines().count(), 1, "the process is in it");
        bundle.runtime(&["delete", "--force", &bundle.id]).good();
        assert!(!path.exists(), "{path:?} is left");
        bundle.assert_gone();
        let _ = fs::remove_dir(
            path.parent()
                .and_then(Path::parent)
                .expect("below the mount"),
        );
    }
}

#[test]
fn what_no_controller_of_the_host_can_limit_is_refused_by_name() {
    let Some(bundle) = bundle() else { return };
    for (resources, name) in [
        (json!({ "unified": { "no-such.max": "1" } }), "no-such"),
        (
            json!({ "unified": { "../../cgroup.procs": "1" } }),
            "no file of a cgroup",
        ),
        (json!({ "rdma": { "mlx": { "hcaHandles": 1 } } }), "rdma"),
        (
            json!({ "memory": { "limit": 4_194_304, "swap": 4096 } }),
            "memory.swap",
        ),
    ] {
        if name == "rdma" && Path::new("/sys/class/infiniband").exists() {
            continue;
        }
        let bundle = crate::harness::bundle().expect("there was one");
        let bundle = bundle.with("/linux/resources", resources);
        let failure = bundle.run().failure();
        assert!(failure.contains(name), "{failure}");
        bundle.assert_gone();
    }
    drop(bundle);
}

#[test]
fn container_without_cgroup_manager_stays_where_its_creator_is() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with(
            "/linux/namespaces",
            json!([{ "type": "pid" }, { "type": "mount" }]),
        )
        .with("/hostname", Value::Null)
        .command("cat /proc/self/cgroup");
    let inside = bundle
        .runtime(&["run", "--cgroup-manager", "disabled", &bundle.id])
        .good();
    let own = fs::read_to_string("/proc/self/cgroup").expect("it is there");
    assert_eq!(inside.trim(), own.trim());
    bundle.assert_gone();
    let limited = bundle.with("/linux/resources", json!({ "pids": { "limit": 5 } }));
    let refused = limited.runtime(&["run", "--cgroup-manager", "disabled", &limited.id]);
    assert!(refused.failure().contains("--cgroup-manager disabled"));
    limited.assert_gone();
}

#[test]
fn systemd_that_cannot_be_reached_is_named_and_nothing_is_left() {
    let Some(bundle) = bundle() else { return };
    if Path::new("/run/dbus/system_bus_socket").exists() {
        eprintln!("skipped: this host has a system bus");
        return;
    }
    let refused = bundle.runtime(&["run", "--systemd-cgroup", &bundle.id]);
    assert!(refused.failure().contains("slice:prefix:name"));
    bundle.assert_gone();
    let bundle = bundle.with("/linux/cgroupsPath", json!("system.slice:test:x"));
    let refused = bundle.runtime(&["run", "--systemd-cgroup", &bundle.id]);
    let text = refused.failure();
    assert!(
        text.contains("over D-Bus at /run/dbus/system_bus_socket"),
        "{text}"
    );
    bundle.assert_gone();
}
