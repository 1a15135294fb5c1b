//! Namespaces: new ones, joined ones, and the host's.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Bundle, bundle};

/// A process of the host in namespaces of its own, killed at the end.
struct Holder(Child);

impl Holder {
    /// `unshare` with these options, once its namespaces are there.
    fn new(options: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(options)
            .args(["sh", "-c", "echo ready; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("util-linux");
        let mut line = [0; 6];
        let stdout = child.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(stdout, &mut line).expect("it says when it is ready");
        Self(child)
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }

    fn id(&self, name: &str) -> String {
        link(&self.path(name))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn link(path: &str) -> String {
    let target = fs::read_link(path).expect("a namespace");
    target.to_str().expect("ASCII").to_owned()
}

const MAP: &str = "0 200000 1000";

/// With a new user namespace. Its root has to own the files that it is to write.
pub(crate) fn with_user_namespace(bundle: Bundle) -> Bundle {
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
    let bundle = bundle.with("/linux/uidMappings", map.clone());
    let bundle = bundle.with("/linux/gidMappings", map);
    let chown = Command::new("chown")
        .arg("-R")
        .arg("200000:200000")
        .arg(bundle.root())
        .status();
    assert!(chown.expect("chown").success());
    let bundle = add(bundle, json!({ "type": "user" }));
    // A new sysfs needs a network namespace that belongs to the user namespace.
    add(bundle, json!({ "type": "network" }))
}

/// Adds a namespace, or changes the one of its type.
pub(crate) fn add(mut bundle: Bundle, namespace: Value) -> Bundle {
    let list = bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list");
    list.retain(|one| one["type"] != namespace["type"]);
    list.push(namespace);
    bundle
}

#[test]
fn exec_in_a_user_namespace_has_a_terminal_of_its_user() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle).command("sleep 600");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    for (user, owner) in [("0:0", "0:"), ("7:8", "7:")] {
        let options = ["exec", "--tty", "--user", user, &bundle.id];
        let command = ["/bin/helper", "stat", "/dev/pts/0", ";", "winsize"];
        let text = bundle.runtime(&[&options[..], &command].concat()).good();
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert!(words[1].starts_with(owner), "{user}: {text:?}");
        assert!(lines[1].starts_with("winsize 0 "), "{user}: {text:?}");
    }
    // Who is not mapped cannot be the user.
    let output = bundle.runtime(&[
        "exec",
        "--tty",
        "--user",
        "1000:0",
        &bundle.id,
        "/bin/helper",
        "pid",
    ]);
    assert_eq!(output.status, 255, "{output:?}");
}

#[test]
fn new_user_namespace_has_the_mappings_and_its_root_owns_the_files() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle)
        .command("cat /proc/self/uid_map ; cat /proc/self/gid_map ; write /made x ; stat /dev/null ; cat /proc/self/oom_score_adj ; cat /proc/self/setgroups")
        .with("/process/oomScoreAdj", json!(500));
    let output = bundle.run();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    let map: Vec<&str> = MAP.split(' ').collect();
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(
        (&words[..3], &words[3..6]),
        (&map[..], &map[..]),
        "{output:?}"
    );
    assert_eq!(words[6], "ok", "{output:?}");
    // The device is the host's, whose root has no id in here.
    assert_eq!(words[7..10], ["20666", "65534:65534", "103"], "{output:?}");
    assert_eq!(words[10..], ["500", "allow"], "{output:?}");
    let made = fs::metadata(bundle.root().join("made")).expect("written");
    let owner = (
        std::os::unix::fs::MetadataExt::uid(&made),
        std::os::unix::fs::MetadataExt::gid(&made),
    );
    assert_eq!(owner, (200_000, 200_000));
    bundle.assert_gone();
}

#[test]
fn user_namespace_binds_what_only_the_hosts_root_reaches() {
    let Some(bundle) = bundle() else { return };
    let secret = bundle.directory.join("closed/data");
    fs::create_dir_all(&secret).expect("made");
    fs::write(secret.join("file"), "content").expect("written");
    let closed = bundle.directory.join("closed");
    let status = Command::new("chmod").arg("700").arg(&closed).status();
    assert!(status.expect("chmod").success());
    let status = Command::new("chown").arg("4242").arg(&closed).status();
    assert!(status.expect("chown").success());
    let mount = json!({ "destination": "/data", "type": "bind", "source": secret, "options": ["rbind", "ro", "nosuid"] });
    let bundle = with_user_namespace(bundle)
        .mount(mount)
        .command("cat /data/file ; write /data/file x");
    let output = bundle.run();
    assert_eq!(output.lines(), ["content", "errno 30"], "{output:?}");
}

#[test]
fn limits_above_the_hosts_are_set_in_a_user_namespace() {
    let Some(bundle) = bundle() else { return };
    let status = fs::read_to_string("/proc/self/status").expect("there");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.expect("there").trim(), 16).expect("hex");
    const SYS_RESOURCE: u64 = 1 << 24;
    if effective & SYS_RESOURCE == 0 {
        eprintln!("skipped: limits above the host's need CAP_SYS_RESOURCE");
        return;
    }
    let limit = json!([{ "type": "RLIMIT_MEMLOCK", "soft": 1_u64 << 40, "hard": 1_u64 << 41 }]);
    let bundle = with_user_namespace(bundle)
        .with("/process/rlimits", limit)
        .command("cat /proc/self/limits");
    let output = bundle.run();
    let line = output
        .stdout
        .lines()
        .find(|line| line.starts_with("Max locked memory"));
    let words: Vec<&str> = line.expect("there").split_whitespace().collect();
    assert_eq!(
        words[3..5],
        ["1099511627776", "2199023255552"],
        "{output:?}"
    );
}

#[test]
fn unmapped_user_is_refused_by_name() {
    let Some(bundle) = bundle() else { return };
    let bundle =
        with_user_namespace(bundle).with("/process/user", json!({ "uid": 1000, "gid": 0 }));
    let failure = bundle.run().failure();
    assert!(
        failure.contains("1000 is not in linux.uidMappings"),
        "{failure}"
    );
    bundle.assert_gone();
}

#[test]
fn other_users_of_a_user_namespace_work_too() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle)
        .with(
            "/process/user",
            json!({ "uid": 5, "gid": 6, "additionalGids": [7] }),
        )
        .command("cat /proc/self/status");
    let output = bundle.run();
    let line = |name: &str| {
        let line = output
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(name));
        line.expect(name)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        (line("Uid:"), line("Gid:"), line("Groups:")),
        ("5 5 5 5".into(), "6 6 6 6".into(), "7".into())
    );
}

#[test]
fn namespaces_of_another_process_are_joined() {
    let Some(bundle) = bundle() else { return };
    let holder = Holder::new(&["--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]);
    // The namespace of process ids is that of its child.
    let pid = format!("/proc/{}/ns/pid_for_children", holder.0.id());
    let mut bundle = bundle.command("sleep 1000");
    bundle
        .config
        .as_object_mut()
        .expect("an object")
        .remove("hostname");
    for (kind, path) in [
        ("network", holder.path("net")),
        ("ipc", holder.path("ipc")),
        ("uts", holder.path("uts")),
        ("pid", pid.clone()),
    ] {
        bundle = add(bundle, json!({ "type": kind, "path": path }));
    }
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let process = process_of(&bundle);
    for name in ["net", "ipc", "uts"] {
        assert_eq!(link(&format!("/proc/{process}/ns/{name}")), holder.id(name));
    }
    assert_eq!(link(&format!("/proc/{process}/ns/pid")), link(&pid));
}

pub(crate) fn process_of(bundle: &Bundle) -> i64 {
    let state = bundle.runtime(&["state", &bundle.id]).good();
    let state: Value = serde_json::from_str(&state).expect("JSON");
    state["pid"].as_i64().expect("a number")
}

#[test]
fn user_namespace_of_another_process_is_joined_with_its_network() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle);
    let holder = Holder::new(&["--user", "--net"]);
    for file in ["gid_map", "uid_map"] {
        fs::write(format!("/proc/{}/{file}", holder.0.id()), MAP).expect("mapped");
    }
    let bundle = add(
        bundle,
        json!({ "type": "user", "path": holder.path("user") }),
    );
    let bundle = add(
        bundle,
        json!({ "type": "network", "path": holder.path("net") }),
    );
    let bundle = bundle.command("cat /proc/self/uid_map ; write /made x ; sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let process = process_of(&bundle);
    for name in ["user", "net"] {
        assert_eq!(link(&format!("/proc/{process}/ns/{name}")), holder.id(name));
    }
    bundle.runtime(&["delete", "--force", &bundle.id]).good();
    // In the foreground the process is the runtime's child, though another made it.
    let bundle = bundle.command("exit 5");
    assert_eq!(bundle.run().status, 5);
    bundle.assert_gone();
}

#[test]
fn new_user_namespace_and_a_network_of_the_host_go_together() {
    let Some(bundle) = bundle() else { return };
    let holder = Holder::new(&["--net", "--ipc"]);
    let bundle = with_user_namespace(bundle);
    let mut bundle = add(
        bundle,
        json!({ "type": "network", "path": holder.path("net") }),
    );
    bundle = add(bundle, json!({ "type": "ipc", "path": holder.path("ipc") }));
    // The network namespace is not the user namespace's, so it may not show it in a sysfs.
    let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
    mounts.retain(|mount| {
        !mount["destination"]
            .as_str()
            .expect("text")
            .starts_with("/sys")
    });
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let process = process_of(&bundle);
    for name in ["net", "ipc"] {
        assert_eq!(link(&format!("/proc/{process}/ns/{name}")), holder.id(name));
    }
    assert_ne!(
        link(&format!("/proc/{process}/ns/user")),
        link("/proc/self/ns/user")
    );
}

#[test]
fn time_namespace_has_its_offsets() {
    let Some(bundle) = bundle() else { return };
    let offsets = json!({ "boottime": { "secs": 1_000_000 }, "monotonic": { "secs": 2_000_000, "nanosecs": 5 } });
    let bundle = add(bundle, json!({ "type": "time" }))
        .with("/linux/timeOffsets", offsets)
        .command("cat /proc/self/timens_offsets ; cat /proc/uptime");
    let output = bundle.run();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(
        words[..6],
        ["monotonic", "2000000", "5", "boottime", "1000000", "0"],
        "{output:?}"
    );
    let uptime: f64 = words[6].parse().expect("seconds");
    assert!(uptime > 1_000_000.0, "{output:?}");
}

#[test]
fn time_namespace_in_a_user_namespace_works() {
    let Some(bundle) = bundle() else { return };
    let offsets = json!({ "boottime": { "secs": 1_000_000 } });
    let bundle = add(with_user_namespace(bundle), json!({ "type": "time" }))
        .with("/linux/timeOffsets", offsets)
        .command("cat /proc/uptime");
    let output = bundle.run();
    let seconds = output
        .stdout
        .split('.')
        .next()
        .expect("text")
        .parse::<u64>();
    assert!(seconds.expect("a number") > 1_000_000);
}

#[test]
fn what_is_not_listed_is_shared_with_the_host() {
    let Some(mut bundle) = bundle() else { return };
    bundle.config["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    bundle
        .config
        .as_object_mut()
        .expect("an object")
        .remove("hostname");
    let bundle = bundle.command("sleep 1000");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let process = process_of(&bundle);
    for name in ["net", "ipc", "uts", "pid", "user", "cgroup", "time"] {
        let own = link(&format!("/proc/self/ns/{name}"));
        assert_eq!(link(&format!("/proc/{process}/ns/{name}")), own);
    }
}

#[test]
fn namespace_that_cannot_be_joined_is_named() {
    for path in ["/no/such/namespace", "/dev/null"] {
        let Some(bundle) = bundle() else { return };
        let bundle = add(bundle, json!({ "type": "ipc", "path": path }));
        let failure = bundle.run().failure();
        assert!(failure.contains("namespace"), "{failure}");
        bundle.assert_gone();
    }
}

/// The mounts of the holder's namespace that lie in the bundle.
fn mounts_of(holder: &Holder, bundle: &Bundle) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", holder.0.id())).expect("there");
    let root = bundle.root().display().to_string();
    text.lines().filter(|line| line.contains(&root)).count()
}

#[test]
fn mount_namespace_of_another_process_is_joined_and_left_as_it_was() {
    let Some(bundle) = bundle() else { return };
    let holder = Holder::new(&["--mount"]);
    let bundle = add(
        bundle,
        json!({ "type": "mount", "path": holder.path("mnt") }),
    );
    fs::write(bundle.directory.join("volume"), "content").expect("written");
    let bundle = bundle
        .mount(json!({ "destination": "/volume", "source": "volume", "options": ["bind"] }))
        .command("sleep 1000");
    let id = bundle.id.as_str();
    bundle.runtime(&["run", "--detach", id]).good();
    let process = process_of(&bundle);
    assert_eq!(link(&format!("/proc/{process}/ns/mnt")), holder.id("mnt"));
    assert!(mounts_of(&holder, &bundle) > 0);
    // Whoever joins sees the container's root, not that of the namespace.
    let list = [
        "exec",
        id,
        "/bin/helper",
        "list",
        "/",
        ";",
        "cat",
        "/volume",
    ];
    let seen = bundle.runtime(&list).good();
    assert_eq!(seen, "bin dev proc sys volume\ncontent\n");
    assert!(!fs::exists(format!("/proc/{}/root/volume", holder.0.id())).expect("there"));
    bundle.runtime(&["delete", "--force", id]).good();
    assert_eq!(mounts_of(&holder, &bundle), 0);
    // A container that fails leaves nothing either.
    let bundle = bundle.with("/process/args", json!(["/no/such/program"]));
    bundle.run().failure();
    assert_eq!(mounts_of(&holder, &bundle), 0);
    let missing = json!({ "destination": "/x", "source": "/no/such/source", "options": ["bind"] });
    let bundle = bundle.mount(missing);
    bundle.run().failure();
    assert_eq!(mounts_of(&holder, &bundle), 0);
}

#[test]
fn user_and_mount_namespace_of_another_process_are_joined_together() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle);
    let holder = Holder::new(&["--user", "--net", "--mount"]);
    for file in ["gid_map", "uid_map"] {
        fs::write(format!("/proc/{}/{file}", holder.0.id()), MAP).expect("mapped");
    }
    let mut bundle = bundle.command("write /made x");
    for (kind, name) in [("user", "user"), ("network", "net"), ("mount", "mnt")] {
        bundle = add(bundle, json!({ "type": kind, "path": holder.path(name) }));
    }
    assert_eq!(bundle.run().good(), "ok\n");
    assert_eq!(mounts_of(&holder, &bundle), 0);
    bundle.assert_gone();
}
