//! runtime.md: operations, states and errors.

use std::fs;

use serde_json::json;

use crate::harness::bundle;
use crate::{refused, state};

/// runtime.md, State: ociVersion, id, status and bundle.
#[test]
fn state_has_the_required_properties() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["create", &bundle.id]).good();
    let state = state(&bundle);
    assert!(
        state["ociVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("1.")),
        "{state}"
    );
    assert_eq!(state["id"], json!(bundle.id));
    assert_eq!(
        state["bundle"],
        json!(bundle.directory.canonicalize().expect("there"))
    );
    assert_eq!(state["status"], "created");
}

/// runtime.md, State: the process id while created or running.
#[test]
fn state_has_the_pid_as_the_host_sees_it() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["create", &bundle.id]).good();
    let pid = state(&bundle)["pid"].as_u64().expect("a number");
    assert!(fs::exists(format!("/proc/{pid}/status")).expect("procfs"));
}

/// runtime.md, State: the annotations of the container.
#[test]
fn state_has_the_annotations() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.with("/annotations", json!({ "org.example.key": "value" }));
    bundle.runtime(&["create", &bundle.id]).good();
    assert_eq!(state(&bundle)["annotations"]["org.example.key"], "value");
}

/// runtime.md, State: created, running, stopped.
#[test]
fn status_follows_the_lifecycle() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["create", &bundle.id]).good();
    assert_eq!(bundle.status(), "created");
    bundle.runtime(&["start", &bundle.id]).good();
    assert_eq!(bundle.status(), "running");
    bundle.runtime(&["kill", &bundle.id, "KILL"]).good();
    bundle.await_status("stopped");
}

/// runtime.md, Query State: an error where there is no container or no ID.
#[test]
fn state_needs_a_container() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["state", "no-such-container"]).failure();
    assert_ne!(bundle.runtime(&["state"]).status, 0);
}

/// runtime.md, Create: the ID must be unique.
#[test]
fn id_in_use_is_refused_and_its_container_left_alone() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["create", &bundle.id]).good();
    let before = state(&bundle);
    bundle.runtime(&["create", &bundle.id]).failure();
    assert_eq!(state(&bundle), before);
}

/// runtime.md, Create: needs the bundle and an ID.
#[test]
fn create_without_bundle_or_id_is_an_error() {
    let Some(bundle) = bundle() else { return };
    assert_ne!(bundle.runtime(&["create"]).status, 0);
    fs::remove_dir_all(bundle.root()).expect("it is ours");
    bundle.runtime(&["create", &bundle.id]).failure();
    bundle.assert_gone();
}

/// runtime.md, Create: the program must not be run yet.
#[test]
fn create_does_not_run_the_program() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("write /ran yes");
    bundle.runtime(&["create", &bundle.id]).good();
    assert!(!bundle.root().join("ran").exists());
    bundle.runtime(&["start", &bundle.id]).good();
    bundle.await_status("stopped");
    assert!(bundle.root().join("ran").exists());
}

/// runtime.md, Create: changes to config.json afterwards have no effect.
#[test]
fn document_is_read_at_creation_only() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("write /first yes");
    bundle.runtime(&["create", &bundle.id]).good();
    let bundle = bundle.command("write /second yes");
    bundle.runtime(&["start", &bundle.id]).good();
    bundle.await_status("stopped");
    assert!(bundle.root().join("first").exists() && !bundle.root().join("second").exists());
}

/// runtime.md, Create: an error where config.json cannot be satisfied.
#[test]
fn create_that_fails_leaves_nothing() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.with("/root/path", json!("no-such-root"));
    bundle.runtime(&["create", &bundle.id]).failure();
    bundle.assert_gone();
}

/// runtime.md, Start: the program is run.
#[test]
fn start_runs_the_program() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("write /ran yes ; sleep 1000");
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["start", &bundle.id]).good();
    assert_eq!(bundle.status(), "running");
}

/// runtime.md, Start: an error unless the container is created, without effect on it.
#[test]
fn start_twice_is_an_error_without_effect() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["start", &bundle.id]).good();
    let before = state(&bundle);
    bundle.runtime(&["start", &bundle.id]).failure();
    assert_eq!(state(&bundle), before);
}

/// runtime.md, Start: an error where there is no container or no ID.
#[test]
fn start_needs_a_container() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["start", "no-such-container"]).failure();
    assert_ne!(bundle.runtime(&["start"]).status, 0);
}

/// runtime.md, Start: process must be set by then, and not before.
#[test]
fn container_without_process_is_not_started() {
    let Some(mut bundle) = bundle() else { return };
    bundle
        .config
        .as_object_mut()
        .expect("an object")
        .remove("process");
    bundle.runtime(&["create", &bundle.id]).good();
    let before = state(&bundle);
    bundle.runtime(&["start", &bundle.id]).failure();
    assert_eq!(state(&bundle), before);
}

/// runtime.md, Kill: the signal is sent to the process.
#[test]
fn kill_sends_the_signal_that_is_named() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    for signal in ["KILL", "SIGKILL", "9"] {
        bundle.runtime(&["run", "--detach", &bundle.id]).good();
        bundle.runtime(&["kill", &bundle.id, signal]).good();
        bundle.await_status("stopped");
        bundle.runtime(&["delete", &bundle.id]).good();
    }
}

/// runtime.md, Kill: a created container takes signals, too.
#[test]
fn kill_reaches_a_created_container() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["kill", &bundle.id, "KILL"]).good();
    bundle.await_status("stopped");
}

/// runtime.md, Kill: an error unless the container is created or running, without effect on it.
#[test]
fn kill_of_a_stopped_container_is_an_error_without_effect() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    bundle.await_status("stopped");
    let before = state(&bundle);
    bundle.runtime(&["kill", &bundle.id, "KILL"]).failure();
    assert_eq!(state(&bundle), before);
}

/// runtime.md, Kill: an error where there is no container or no ID.
#[test]
fn kill_needs_a_container() {
    let Some(bundle) = bundle() else { return };
    bundle
        .runtime(&["kill", "no-such-container", "KILL"])
        .failure();
    assert_ne!(bundle.runtime(&["kill"]).status, 0);
}

/// runtime.md, Delete: an error unless the container is stopped, without effect on it.
#[test]
fn delete_of_a_created_or_running_container_is_an_error_without_effect() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["delete", &bundle.id]).failure();
    assert_eq!(bundle.status(), "created");
    bundle.runtime(&["start", &bundle.id]).good();
    bundle.runtime(&["delete", &bundle.id]).failure();
    assert_eq!(bundle.status(), "running");
}

/// runtime.md, Delete: what create made is removed, what it did not make stays.
#[test]
fn delete_removes_what_create_made_and_nothing_else() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    bundle.await_status("stopped");
    bundle.runtime(&["delete", &bundle.id]).good();
    bundle.assert_gone();
    assert!(bundle.root().join("bin/helper").exists());
}

/// runtime.md, Delete: the ID may be used again.
#[test]
fn id_of_a_deleted_container_is_free() {
    let Some(bundle) = bundle() else { return };
    for _ in 0..2 {
        bundle.runtime(&["create", &bundle.id]).good();
        bundle.runtime(&["start", &bundle.id]).good();
        bundle.await_status("stopped");
        bundle.runtime(&["delete", &bundle.id]).good();
    }
}

/// runtime.md, Delete: an error where there is no container or no ID.
#[test]
fn delete_needs_a_container() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["delete", "no-such-container"]).failure();
    assert_ne!(bundle.runtime(&["delete"]).status, 0);
}

/// runtime.md, Errors: the state is as though the operation had not been tried.
#[test]
fn failed_operation_leaves_other_containers_alone() {
    let (Some(first), Some(second)) = (bundle(), bundle()) else {
        return;
    };
    first.runtime(&["create", &first.id]).good();
    let before = state(&first);
    refused(&second.with("/process/cwd", json!("relative")));
    assert_eq!(state(&first), before);
}
