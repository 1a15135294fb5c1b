//! `pause` and `resume`.

use std::fs;

use crate::harness::bundle;

#[test]
fn paused_container_stands_still_until_it_is_resumed() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let wrong = bundle.runtime(&["resume", &bundle.id]).failure();
    assert!(wrong.contains("it is running"), "{wrong}");
    bundle.runtime(&["pause", &bundle.id]).good();
    assert_eq!(bundle.status(), "paused");
    let events = fs::read_to_string(bundle.cgroup().join("cgroup.events")).expect("cgroup v2");
    assert!(events.contains("frozen 1"), "{events}");
    bundle.runtime(&["pause", &bundle.id]).failure();
    bundle.runtime(&["resume", &bundle.id]).good();
    assert_eq!(bundle.status(), "running");
}

#[test]
fn paused_container_can_be_killed_and_deleted() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    bundle.runtime(&["pause", &bundle.id]).good();
    bundle.runtime(&["kill", &bundle.id, "KILL"]).good();
    bundle.await_status("stopped");
    let stopped = bundle.runtime(&["pause", &bundle.id]).failure();
    assert!(stopped.contains("it is stopped"), "{stopped}");
    bundle.runtime(&["delete", &bundle.id]).good();
    bundle.assert_gone();
}
