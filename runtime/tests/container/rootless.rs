//! The runtime as an ordinary user runs it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Bundle, Output, RUNTIME, bundle, finish};

/// A user that no host has.
const USER: u32 = 64_711;
/// The ids that it is lent.
const LENT: u32 = 3_000_000;

/// Everything in the bundle belongs to the user, the runtime too; or there is a reason why not.
fn of_user() -> Option<Bundle> {
    let bundle = bundle()?;
    let mut probe = Command::new("setpriv");
    probe.args(as_user()).args(["unshare", "--user", "true"]);
    match probe.output() {
        Ok(output) if output.status.success() => {}
        other => {
            eprintln!("skipped: ordinary users make no user namespaces here: {other:?}");
            return None;
        }
    }
    let copied = Command::new("cp")
        .arg(RUNTIME)
        .arg(bundle.directory.join("runtime"))
        .status();
    assert!(copied.expect("every host has cp").success());
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&bundle.directory, open).expect("ours");
    // A new sysfs needs a network namespace of the user namespace.
    let mut bundle = bundle;
    let namespaces = bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list");
    namespaces.extend([json!({ "type": "user" }), json!({ "type": "network" })]);
    let own = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    Some(
        bundle
            .with("/linux/uidMappings", own.clone())
            .with("/linux/gidMappings", own),
    )
}

fn as_user() -> [String; 5] {
    let id = USER.to_string();
    ["--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned)
}

fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).expect("ours");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        give(&entry.path());
    }
}

/// Runs a command of the runtime as the user, after `before` has run as root in a mount namespace of its own.
fn run_as_user(bundle: &Bundle, before: &str, words: &[&str]) -> Output {
    let config = bundle.directory.join("config.json");
    fs::write(config, bundle.config.to_string()).expect("written");
    give(&bundle.directory);
    let script = format!("set -e; {before} exec setpriv \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .args(as_user());
    command.arg(bundle.directory.join("runtime"));
    command
        .arg("--root")
        .arg(bundle.directory.join("own-state"))
        .args(words);
    if words[0] == "run" {
        command.arg("--bundle").arg(&bundle.directory);
    }
    finish(command.arg(&bundle.id), &bundle.directory)
}

#[test]
fn user_runs_a_container_with_its_own_id() {
    let Some(bundle) = of_user() else { return };
    let bundle = bundle.command(
        "cat /proc/self/uid_map ; cat /proc/self/setgroups ; write /made x ; list / ; stat /dev/null",
    );
    let output = run_as_user(&bundle, "", &["run"]);
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    let expected = [
        "0", "64711", "1", "deny", "ok", "bin", "dev", "made", "proc", "sys",
    ];
    assert_eq!(words[..10], expected, "{output:?}");
    assert_eq!(output.status, 0, "{output:?}");
    let made = fs::metadata(bundle.root().join("made")).expect("written");
    assert_eq!(made.uid(), USER);
    assert!(!bundle.directory.join("own-state").join(&bundle.id).exists());
}

#[test]
fn user_manages_its_container_without_a_cgroup() {
    let Some(bundle) = of_user() else { return };
    let bundle = bundle.command("sleep 1000");
    run_as_user(&bundle, "", &["run", "--detach"]).good();
    let state: Value =
        serde_json::from_str(&run_as_user(&bundle, "", &["state"]).good()).expect("JSON");
    assert_eq!(state["status"], "running");
    run_as_user(&bundle, "", &["delete", "--force"]).good();
    assert!(!bundle.directory.join("own-state").join(&bundle.id).exists());
    assert!(!fs::exists(format!("/proc/{}/exe", state["pid"])).expect("procfs"));
}

#[test]
fn limits_of_a_user_without_a_cgroup_are_refused_by_name() {
    let Some(bundle) = of_user() else { return };
    let bundle = bundle.with(
        "/linux/resources",
        json!({ "unified": { "cgroup.max.depth": "5" } }),
    );
    let failure = run_as_user(&bundle, "", &["run"]).failure();
    assert!(failure.contains("cgroup"), "{failure}");
}

#[test]
fn ids_lent_to_the_user_are_mapped_and_others_are_not() {
    let Some(bundle) = of_user() else { return };
    if Command::new("newuidmap").output().is_err() {
        eprintln!("skipped: this host has no newuidmap");
        return;
    }
    let lent = bundle.directory.join("lent");
    fs::write(&lent, format!("{USER}:{LENT}:1000\n")).expect("written");
    let lent = lent.display();
    let mut before = format!("mount --bind {lent} /etc/subuid; mount --bind {lent} /etc/subgid;");
    for path in ["/etc/subuid", "/etc/subgid", "/etc/passwd"] {
        if !Path::new(path).exists() {
            eprintln!("skipped: this host has no {path}");
            return;
        }
    }
    // It has to be a user that is known by name.
    let users = fs::read_to_string("/etc/passwd").expect("there");
    let known = bundle.directory.join("passwd");
    fs::write(&known, format!("{users}lent:x:{USER}:{USER}::/:/bin/sh\n")).expect("written");
    before += &format!(" mount --bind {} /etc/passwd;", known.display());
    let map = |first: u32| {
        json!([
            { "containerID": 0, "hostID": USER, "size": 1 },
            { "containerID": 1, "hostID": first, "size": 1000 },
        ])
    };
    let bundle = bundle
        .with("/linux/uidMappings", map(LENT))
        .with("/linux/gidMappings", map(LENT))
        .with(
            "/process/user",
            json!({ "uid": 5, "gid": 6, "additionalGids": [7] }),
        )
        .command("cat /proc/self/uid_map ; cat /proc/self/setgroups");
    let output = run_as_user(&bundle, &before, &["run"]);
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "64711", "1", "1", "3000000", "1000", "allow"],
        "{output:?}"
    );
    let bundle = bundle.with("/linux/uidMappings", map(LENT + 1));
    let failure = run_as_user(&bundle, &before, &["run"]).failure();
    assert!(failure.contains("newuidmap"), "{failure}");
}
