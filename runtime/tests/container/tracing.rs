//! Whoever lives in a container cannot get hold of the runtime's processes that come in: for `exec`, or as another
//! container that shares its namespaces (the class of CVE-2016-9962).

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Bundle, bundle};
use crate::namespaces::{add, process_of, with_user_namespace};

const DEADLINE: Duration = Duration::from_secs(120);
/// How many processes come in at most, and at least where that takes too long.
const TRIES: usize = 200;
const FEWEST: usize = 20;
const ENOUGH: Duration = Duration::from_secs(30);

/// The hunter in a user namespace with every capability that it gives.
fn hunter() -> Option<Bundle> {
    let bundle = bundle()?;
    let marker = bundle.directory.join("config.json");
    let marker = marker.to_str().expect("text").to_owned();
    let all = json!([
        "CAP_SYS_PTRACE",
        "CAP_SYS_ADMIN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH"
    ]);
    let sets = json!({ "bounding": all, "effective": all, "permitted": all });
    let bundle = with_user_namespace(bundle)
        .with("/process/capabilities", sets)
        .command(&format!("hunt {marker} /stop /result"));
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    Some(bundle)
}

fn tries() -> impl Iterator<Item = usize> {
    let begin = Instant::now();
    (0..TRIES).take_while(move |&done| done < FEWEST || begin.elapsed() < ENOUGH)
}

/// What the hunter writes at the end.
fn result_of(bundle: &Bundle) -> String {
    fs::write(bundle.root().join("stop"), "").expect("written");
    let begin = Instant::now();
    loop {
        match fs::read_to_string(bundle.root().join("result")) {
            Ok(text) if text.contains("escapes") => return text,
            _ => assert!(begin.elapsed() < DEADLINE, "the hunter does not end"),
        }
        sleep(Duration::from_millis(5));
    }
}

/// None got through, and some were seen before they were the container's.
fn assert_denied(result: &str) {
    assert!(result.contains(" escapes 0 "), "{result}");
    assert!(
        !result.contains("denied 0 "),
        "the hunter saw nothing: {result}"
    );
}

#[test]
fn processes_that_join_by_exec_cannot_be_traced_before_they_are_the_containers() {
    let Some(bundle) = hunter() else { return };
    for _ in tries() {
        let exec = ["exec", &bundle.id, "/bin/helper", "exit", "0"];
        bundle.runtime(&exec).good();
    }
    assert_denied(&result_of(&bundle));
}

#[test]
fn containers_that_join_its_namespaces_cannot_be_traced_while_they_are_set_up() {
    let (Some(hunter), Some(other)) = (hunter(), bundle()) else {
        return;
    };
    let process = process_of(&hunter);
    let mut other = with_user_namespace(other).command("exit 0");
    for (kind, name) in [("user", "user"), ("pid", "pid"), ("network", "net")] {
        let path = format!("/proc/{process}/ns/{name}");
        other = add(other, json!({ "type": kind, "path": path }));
    }
    for _ in tries() {
        assert_eq!(other.run().status, 0);
    }
    assert_denied(&result_of(&hunter));
}
