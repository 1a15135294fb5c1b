//! Hosts that share their mounts, as those with systemd do, and containers that share theirs back.
//!
//! A test plays the host in a mount namespace of its own, in a peer group of nobody's.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::harness::{Bundle, RUNTIME, bundle, finish};

/// Runs the container on a host where all is shared, with a volume and a procfs on a filesystem of their own, and has
/// it tell its mounts. Gives the host's mounts before and after, and the container's.
fn run_on_shared_host(bundle: &Bundle, options: &str) -> [String; 3] {
    let directory = bundle.directory.display();
    fs::write(
        bundle.directory.join("config.json"),
        bundle.config.to_string(),
    )
    .expect("config.json");
    let id = &bundle.id;
    let script = format!(
        "set -e; cd {directory}; mount --make-rprivate /; mount --bind rootfs rootfs; mount --make-rshared /
        mkdir other; mount -t tmpfs t other; mkdir other/proc; mount -t proc p other/proc
        cat /proc/self/mountinfo > before
        {RUNTIME} --root state run {options} --bundle . {id} > inside
        cat /proc/self/mountinfo > after"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    finish(&mut command, &bundle.directory).good();
    let read = |name: &str| fs::read_to_string(bundle.directory.join(name)).expect("told");
    ["before", "after", "inside"].map(read)
}

#[test]
fn mounts_of_a_host_that_shares_them_stay_as_they_are() {
    for options in ["", "--no-pivot"] {
        for hooks in [
            json!({}),
            json!({ "createRuntime": [{ "path": "/bin/true" }] }),
        ] {
            let Some(bundle) = bundle() else { return };
            let volume = json!({ "destination": "/volume", "type": "bind", "source": "other", "options": ["rbind", "rshared"] });
            let bundle = bundle
                .mount(volume)
                .with("/linux/rootfsPropagation", json!("rshared"))
                .with("/hooks", hooks.clone())
                .command("cat /proc/self/mountinfo");
            let [before, after, inside] = run_on_shared_host(&bundle, options);
            assert_eq!(before, after, "{options} {hooks}");
            // What the container mounts in the volume is to be seen on the host: they are peers.
            let peers = |table: &str, at: &str| {
                let line = table.lines().find(|line| line.contains(at));
                let field = line?.split(' ').find(|field| field.starts_with("shared:"));
                field.map(str::to_owned)
            };
            let volume = peers(&inside, " /volume ");
            assert!(volume.is_some(), "{inside}");
            assert_eq!(volume, peers(&before, "/other "), "{options} {hooks}");
            assert!(!inside.contains("master:"), "{inside}");
        }
    }
}
