//! config-linux.md and runtime-linux.md.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bundle, bundle, cgroup_root};
use crate::{refused, state};

const EPERM: &str = "errno 1";
const EROFS: &str = "errno 30";

/// runtime-linux.md, File descriptors: only the standard ones are open.
#[test]
fn only_standard_descriptors_are_open() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("list /proc/self/fd");
    assert_eq!(
        bundle.run().lines(),
        ["0 1 2 3"],
        "3 is that of the listing itself"
    );
}

/// runtime-linux.md, Dev symbolic links: fd, stdin, stdout and stderr.
#[test]
fn standard_links_are_in_dev() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command(
        "list /dev/fd/ ; stat /dev/fd ; stat /dev/stdin ; stat /dev/stdout ; stat /dev/stderr",
    );
    let output = bundle.run();
    let lines = output.lines();
    assert!(lines[0].starts_with("0 1 2"), "{output:?}");
    assert!(
        lines[1..].iter().all(|line| line.starts_with("120777")),
        "{output:?}"
    );
}

/// config-linux.md, Default Filesystems: /proc, /sys, /dev/pts and /dev/shm can be had.
#[test]
fn default_filesystems_can_be_mounted() {
    let Some(bundle) = bundle() else { return };
    let shm = json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] });
    let mqueue = json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] });
    let mounts = bundle
        .mount(shm)
        .mount(mqueue)
        .command("cat /proc/self/mounts")
        .run()
        .good();
    for wanted in [
        " /proc proc ",
        " /sys sysfs ",
        " /dev/pts devpts ",
        " /dev/shm tmpfs ",
        " /dev/mqueue mqueue ",
    ] {
        assert!(mounts.contains(wanted), "{wanted} in {mounts}");
    }
}

/// The number of a namespace of the process that a container was created with.
fn namespace(bundle: &Bundle, name: &str) -> String {
    link(&format!("/proc/{}/ns/{name}", state(bundle)["pid"]))
}

fn link(path: &str) -> String {
    fs::read_link(path).expect(path).display().to_string()
}

/// config-linux.md, Namespaces: a type without path makes a new namespace.
#[test]
fn namespaces_are_new_where_asked() {
    for (kind, file) in [
        ("pid", "pid"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("mount", "mnt"),
        ("cgroup", "cgroup"),
    ] {
        let Some(bundle) = bundle() else { return };
        let mut kinds = vec![json!({ "type": "mount" })];
        if kind != "mount" {
            kinds.push(json!({ "type": kind }));
        }
        let bundle = without_names(bundle.with("/linux/namespaces", json!(kinds)));
        bundle.runtime(&["create", &bundle.id]).good();
        assert_ne!(
            namespace(&bundle, file),
            link(&format!("/proc/self/ns/{file}")),
            "{kind}"
        );
    }
}

/// Without a namespace of its own the container must not set the host's name.
fn without_names(mut bundle: Bundle) -> Bundle {
    bundle
        .config
        .as_object_mut()
        .expect("an object")
        .remove("hostname");
    let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
    // sysfs and mqueue belong to namespaces that are not the container's here.
    mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup2");
    bundle
}

/// config-linux.md, Namespaces: what is not listed is inherited from the runtime.
#[test]
fn namespaces_not_listed_are_inherited() {
    let Some(bundle) = bundle() else { return };
    let bundle = without_names(bundle.with("/linux/namespaces", json!([{ "type": "mount" }])));
    bundle.runtime(&["create", &bundle.id]).good();
    for file in ["pid", "net", "ipc", "uts", "user"] {
        assert_eq!(
            namespace(&bundle, file),
            link(&format!("/proc/self/ns/{file}")),
            "{file}"
        );
    }
}

/// config-linux.md, Namespaces: a path is the namespace to join.
#[test]
fn namespaces_are_joined_by_path() {
    let (Some(first), Some(second)) = (bundle(), bundle()) else {
        return;
    };
    first.runtime(&["create", &first.id]).good();
    let pid = state(&first)["pid"].clone();
    let join = |kind: &str| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{kind}") });
    let second = without_names(second.with(
        "/linux/namespaces",
        json!([{ "type": "mount" }, join("uts"), join("ipc")]),
    ));
    second.runtime(&["create", &second.id]).good();
    for file in ["uts", "ipc"] {
        assert_eq!(namespace(&second, file), namespace(&first, file));
    }
}

/// config-linux.md, Namespaces: a path that is no namespace of the type is an error.
#[test]
fn path_of_another_type_of_namespace_is_refused() {
    for path in ["/proc/self/ns/ipc", "/etc/passwd", "/no/such/namespace"] {
        let Some(bundle) = bundle() else { return };
        let namespaces = json!([{ "type": "mount" }, { "type": "uts", "path": path }]);
        refused(&without_names(bundle.with("/linux/namespaces", namespaces)));
    }
}

/// config-linux.md, Namespaces: a type twice is an error.
#[test]
fn duplicated_namespace_is_refused() {
    let Some(bundle) = bundle() else { return };
    refused(&bundle.with(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "pid" }, { "type": "pid" }]),
    ));
}

/// config-linux.md, Devices: nodes with type, number, mode and owner.
#[test]
fn devices_are_made_as_the_document_says() {
    let Some(bundle) = bundle() else { return };
    let devices = json!([
        { "path": "/dev/naught", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4 },
        { "path": "/dev/tube", "type": "p", "fileMode": 0o600 },
    ]);
    let output = bundle
        .with("/linux/devices", devices)
        .command("stat /dev/naught ; stat /dev/tube")
        .run();
    assert_eq!(output.lines()[0], "20640 3:4 105");
    assert!(output.lines()[1].starts_with("10600 0:0"), "{output:?}");
}

/// config-linux.md, Default Devices: null, zero, full, random, urandom, tty and ptmx.
#[test]
fn default_devices_are_there() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("stat /dev/null ; stat /dev/zero ; stat /dev/full ; stat /dev/random ; stat /dev/urandom ; stat /dev/tty ; write /dev/null x ; list /dev");
    let output = bundle.run();
    let lines = output.lines();
    for (line, number) in lines.iter().zip(["103", "105", "107", "108", "109", "500"]) {
        assert_eq!(*line, format!("20666 0:0 {number}"));
    }
    assert_eq!(lines[6], "ok");
    assert!(lines[7].split(' ').any(|name| name == "ptmx"), "{output:?}");
}

/// config-linux.md, Cgroups Path: the container's processes are in the cgroup of that path.
#[test]
fn process_is_in_the_cgroup_of_the_document() {
    let Some(bundle) = bundle() else { return };
    bundle.runtime(&["create", &bundle.id]).good();
    let processes = fs::read_to_string(bundle.cgroup().join("cgroup.procs")).expect("the cgroup");
    assert_eq!(processes.trim(), state(&bundle)["pid"].to_string());
}

/// config-linux.md, Cgroup ownership: the cgroup of the runtime's caller is left alone.
#[test]
fn cgroup_of_the_caller_does_not_change() {
    let Some(bundle) = bundle() else { return };
    let before = fs::read_to_string("/proc/self/cgroup").expect("procfs");
    bundle.run().good();
    assert_eq!(
        fs::read_to_string("/proc/self/cgroup").expect("procfs"),
        before
    );
}

/// What a file of the container's cgroup says, or why it cannot be had here.
fn limit(resources: Value, controller: &str, file: &str) -> Option<String> {
    let bundle = bundle()?.with("/linux/resources", resources);
    let controllers =
        fs::read_to_string(cgroup_root()?.join("cgroup.controllers")).expect("cgroup v2");
    if !controllers
        .split_whitespace()
        .any(|name| name == controller)
    {
        eprintln!("skipped: cgroup v2 on this host lacks the controller {controller}");
        return None;
    }
    bundle.runtime(&["create", &bundle.id]).good();
    let value = fs::read_to_string(bundle.cgroup().join(file)).expect(file);
    Some(value.trim().to_owned())
}

/// config-linux.md, Memory: limit, reservation and swap.
#[test]
fn memory_is_limited() {
    let resources = json!({ "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296 } });
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.swap.max", "33554432"),
    ] {
        let Some(value) = limit(resources.clone(), "memory", file) else {
            return;
        };
        assert_eq!(value, expected, "{file}");
    }
}

/// config-linux.md, CPU: quota, period and cpus.
#[test]
fn cpu_is_limited() {
    let resources = json!({ "cpu": { "quota": 25_000, "period": 50_000, "cpus": "0" } });
    for (controller, file, expected) in [
        ("cpu", "cpu.max", "25000 50000"),
        ("cpuset", "cpuset.cpus", "0"),
    ] {
        let Some(value) = limit(resources.clone(), controller, file) else {
            return;
        };
        assert_eq!(value, expected, "{file}");
    }
}

/// config-linux.md, PIDs: limit.
#[test]
fn pids_are_limited() {
    let Some(value) = limit(json!({ "pids": { "limit": 23 } }), "pids", "pids.max") else {
        return;
    };
    assert_eq!(value, "23");
}

/// config-linux.md, Unified: files of the cgroup by their names.
#[test]
fn unified_files_are_written() {
    let Some(value) = limit(
        json!({ "unified": { "pids.max": "29" } }),
        "pids",
        "pids.max",
    ) else {
        return;
    };
    assert_eq!(value, "29");
}

/// config-linux.md, Unified: a file that is not there is an error.
#[test]
fn unknown_unified_file_is_refused() {
    let Some(bundle) = bundle() else { return };
    refused(&bundle.with(
        "/linux/resources",
        json!({ "unified": { "no.such.file": "1" } }),
    ));
}

/// config-linux.md, Allowed Device list: rules in their order.
#[test]
fn device_rules_apply_in_their_order() {
    let Some(bundle) = bundle() else { return };
    let all = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"];
    let rule = |allow: bool, minor: Value| json!({ "allow": allow, "type": "c", "major": 10, "minor": minor, "access": "rwm" });
    let devices = json!([{ "allow": false, "access": "rwm" }, rule(true, json!(229)), rule(false, json!(229))]);
    let bundle = bundle
        .with(
            "/process/capabilities",
            json!({ "bounding": all, "permitted": all, "effective": all }),
        )
        .with("/linux/resources", json!({ "devices": devices }))
        .command("mknod /dev/fuse 2789 ; cat /dev/fuse");
    assert_eq!(
        bundle.run().lines(),
        ["mknod 0", EPERM],
        "the later rule takes back what the earlier one gave"
    );
}

/// config-linux.md, Sysctl: parameters of the container's namespaces.
#[test]
fn sysctl_is_set_in_the_container_only() {
    let Some(bundle) = bundle() else { return };
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").expect("procfs");
    let bundle = bundle
        .with("/linux/sysctl", json!({ "kernel.msgmax": "5432" }))
        .command("cat /proc/sys/kernel/msgmax");
    assert_eq!(bundle.run().lines()[0], "5432");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/msgmax").expect("procfs"),
        before
    );
}

/// config-linux.md, Sysctl: a parameter of no namespace of the container's is refused.
#[test]
fn sysctl_of_the_host_is_refused() {
    let Some(bundle) = bundle() else { return };
    assert!(
        refused(&bundle.with("/linux/sysctl", json!({ "kernel.panic": "7" })))
            .contains("kernel.panic")
    );
}

/// getppid of x86-64.
const GETPPID: u32 = 110;

/// config-linux.md, Seccomp: actions with their error numbers.
#[test]
fn filter_answers_with_the_error_number_asked_for() {
    let Some(bundle) = bundle() else { return };
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 }] });
    let bundle = bundle
        .with("/linux/seccomp", profile)
        .command(&format!("syscall {GETPPID} 0"));
    assert_eq!(bundle.run().lines(), ["syscall -42"]);
}

/// config-linux.md, Seccomp: conditions on arguments.
#[test]
fn filter_looks_at_arguments() {
    let Some(bundle) = bundle() else { return };
    let argument = json!({ "index": 0, "value": 5, "op": "SCMP_CMP_EQ" });
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": [argument] }] });
    let bundle = bundle
        .with("/linux/seccomp", profile)
        .command(&format!("syscall {GETPPID} 5 ; syscall {GETPPID} 6"));
    assert_eq!(bundle.run().lines(), ["syscall -1", "syscall 0"]);
}

/// config-linux.md, Seccomp: what cannot be done is an error.
#[test]
fn unknown_action_of_a_filter_is_refused() {
    let Some(bundle) = bundle() else { return };
    refused(&bundle.with(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_NONSENSE" }),
    ));
}

/// config-linux.md, Rootfs Mount Propagation: the mode of the root.
#[test]
fn root_propagates_as_asked() {
    for (mode, expected) in [
        ("private", "private"),
        ("slave", "master:"),
        ("shared", "shared:"),
    ] {
        let Some(bundle) = bundle() else { return };
        let bundle = bundle
            .with("/linux/rootfsPropagation", json!(mode))
            .command("cat /proc/self/mountinfo");
        let output = bundle.run().good();
        let root = output
            .lines()
            .find(|line| line.split(' ').nth(4) == Some("/"))
            .expect("a root");
        let shown = match expected {
            "private" => !root.contains("shared:") && !root.contains("master:"),
            // The host's may be private, and then there is no master to follow.
            "master:" => !root.contains("shared:"),
            word => root.contains(word),
        };
        assert!(shown, "{mode}: {root}");
    }
}

/// config-linux.md, Masked Paths: cannot be read.
#[test]
fn masked_paths_cannot_be_read() {
    let Some(bundle) = bundle() else { return };
    fs::create_dir(bundle.root().join("secrets")).expect("made");
    fs::write(bundle.root().join("secrets/one"), "secret").expect("written");
    let bundle = bundle
        .with("/linux/maskedPaths", json!(["/proc/version", "/secrets"]))
        .command("cat /proc/version ; list /secrets");
    assert_eq!(bundle.run().lines(), ["", ""]);
}

/// config-linux.md, Readonly Paths: cannot be written.
#[test]
fn readonly_paths_cannot_be_written() {
    let Some(bundle) = bundle() else { return };
    fs::create_dir(bundle.root().join("fixed")).expect("made");
    let bundle = bundle
        .with("/linux/readonlyPaths", json!(["/fixed"]))
        .command("write /fixed/x x ; write /x x");
    assert_eq!(bundle.run().lines(), [EROFS, "ok"]);
}

/// config-linux.md, Masked Paths: what is masked must be an absolute path.
#[test]
fn relative_masked_path_is_refused() {
    for name in ["maskedPaths", "readonlyPaths"] {
        let Some(bundle) = bundle() else { return };
        refused(&bundle.with(&format!("/linux/{name}"), json!(["relative"])));
    }
}

/// config-linux.md, Devices: a path must be absolute.
#[test]
fn relative_device_path_is_refused() {
    let Some(bundle) = bundle() else { return };
    let devices = json!([{ "path": "dev/naught", "type": "c", "major": 1, "minor": 5 }]);
    refused(&bundle.with("/linux/devices", devices));
}

/// config-linux.md, Cgroups Path: a relative path is below one place of the runtime's.
#[test]
fn relative_cgroups_path_is_in_the_same_place_each_time() {
    let Some(mut bundle) = bundle() else { return };
    let name = format!("conformance-{}", bundle.id);
    bundle.config["linux"]["cgroupsPath"] = json!(name);
    let mut places = Vec::new();
    for _ in 0..2 {
        bundle.runtime(&["create", &bundle.id]).good();
        let pid = state(&bundle)["pid"].clone();
        let list = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("procfs");
        let line = list
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .expect("cgroup v2");
        places.push(line.to_owned());
        bundle.runtime(&["delete", "--force", &bundle.id]).good();
    }
    assert_eq!(places[0], places[1]);
    assert!(Path::new(&places[0]).ends_with(&name), "{places:?}");
}
