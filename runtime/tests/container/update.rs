//! `update`, `ps` and `events`: limits changed, processes and use told.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::bundle;
use crate::limits::limit;

#[test]
fn update_changes_what_it_names_and_keeps_the_rest() {
    let Some(bundle) = bundle() else { return };
    let memory = (
        ("memory.max", "67108864"),
        ("memory.limit_in_bytes", "67108864"),
    );
    let pids = (("pids.max", "9"), ("pids.max", "9"));
    let Some((memory, expected)) = limit(&bundle, memory.0, memory.1) else {
        eprintln!("skipped: this host has no memory controller at a usual mount");
        return;
    };
    let bundle = bundle
        .with("/linux/resources", json!({ "pids": { "limit": 7 } }))
        .command("sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let id = bundle.id.as_str();
    bundle.runtime(&["update", "--memory", "64M", id]).good();
    assert_eq!(fs::read_to_string(&memory).expect("made").trim(), expected);
    let members = fs::read_to_string(memory.with_file_name("cgroup.procs")).expect("a cgroup");
    assert_eq!(members.lines().count(), 1, "the process is in it");
    let (pids, expected) = limit(&bundle, pids.0, pids.1).expect("both or none");
    assert_eq!(fs::read_to_string(&pids).expect("made").trim(), "7");
    let document = bundle.directory.join("resources.json");
    fs::write(&document, r#"{ "pids": { "limit": 9 }, "memory": null }"#).expect("written");
    let document = document.to_str().expect("UTF-8");
    bundle
        .runtime(&["update", "--resources", document, id])
        .good();
    assert_eq!(fs::read_to_string(&pids).expect("made").trim(), expected);
    let wrong = ["update", "--memory", "8M", "--memory-swap", "4M", id];
    assert!(bundle.runtime(&wrong).failure().contains("memory.swap"));
    let state = fs::read_to_string(bundle.state_directory().join("state.json")).expect("state");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let saved = &state["cgroup"]["resources"];
    assert_eq!(
        (&saved["pids"]["limit"], &saved["memory"]["limit"]),
        (&json!(9), &json!(67_108_864))
    );
    bundle.runtime(&["delete", "--force", id]).good();
    for path in [memory, pids] {
        assert!(!path.exists(), "{path:?} is left");
        let _ = fs::remove_dir(
            path.parent()
                .and_then(Path::parent)
                .expect("below the mount"),
        );
    }
}

#[test]
fn update_replaces_the_guard_of_devices() {
    let Some(bundle) = bundle() else { return };
    let denied = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let bundle = bundle
        .with("/process/capabilities", json!({ "bounding": ["CAP_MKNOD"], "permitted": ["CAP_MKNOD"], "effective": ["CAP_MKNOD"] }))
        .with("/linux/resources", denied)
        .command("mknod /dev/mem 257 ; cat /dev/mem");
    bundle.runtime(&["create", &bundle.id]).good();
    let document = bundle.directory.join("resources.json");
    let allowed = r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":1,"access":"w"}]}"#;
    fs::write(&document, allowed).expect("written");
    let document = document.to_str().expect("UTF-8");
    bundle
        .runtime(&["update", "--resources", document, &bundle.id])
        .good();
    let programs = "a program each time would let the kernel refuse the 65th";
    for _ in 0..70 {
        let updated = bundle.runtime(&["update", "--resources", document, &bundle.id]);
        assert_eq!(updated.status, 0, "{programs}: {updated:?}");
    }
}

#[test]
fn processes_are_listed_as_the_host_numbers_them() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let list = bundle
        .runtime(&["ps", "--format", "json", &bundle.id])
        .good();
    let list: Vec<u32> = serde_json::from_str(&list).expect("a list of numbers");
    let state: Value =
        serde_json::from_str(&bundle.runtime(&["state", &bundle.id]).good()).expect("JSON");
    assert_eq!(json!(list), json!([state["pid"]]));
    let table = bundle.runtime(&["ps", &bundle.id]).good();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows[1].contains(&list[0].to_string()) && rows[1].ends_with("/bin/helper sleep 1000"));
}

#[test]
fn use_is_told_in_one_document() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let event = bundle.runtime(&["events", "--stats", &bundle.id]).good();
    let event: Value = serde_json::from_str(&event).expect("JSON");
    assert_eq!(
        (&event["type"], &event["id"]),
        (&json!("stats"), &json!(bundle.id))
    );
    assert_eq!(event["data"]["pids"]["current"], json!(1), "{event}");
    for name in ["cpu", "memory", "blkio", "hugetlb"] {
        assert!(event["data"][name].is_object(), "{name} in {event}");
    }
    bundle.runtime(&["kill", &bundle.id, "KILL"]).good();
    bundle.await_status("stopped");
    let stopped = bundle.runtime(&["events", "--stats", &bundle.id]).failure();
    assert!(stopped.contains("not running"), "{stopped}");
}
