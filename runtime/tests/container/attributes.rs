//! Attributes of the process: scheduling, I/O priority, personality, affinity, labels, capabilities, sockets.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{RUNTIME, bundle, finish};

#[test]
fn class_of_service_without_resctrl_is_refused_by_name() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs");
    if mounts.contains(" - resctrl ") {
        eprintln!("skipped: this host has a resctrl filesystem");
        return;
    }
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.with("/linux/intelRdt", json!({ "closID": "gold" }));
    let failure = bundle.run().failure();
    assert!(failure.contains("linux.intelRdt"), "{failure}");
    bundle.assert_gone();
}

#[test]
fn scheduling_io_priority_and_personality_are_set() {
    let Some(bundle) = bundle() else { return };
    // ioprio_get(IOPRIO_WHO_PROCESS, 0) and personality(0xffffffff), which only asks.
    let bundle = bundle
        .command("cat /proc/self/stat ; syscall 252 1 ; syscall 135 4294967295")
        .with(
            "/process/scheduler",
            json!({ "policy": "SCHED_BATCH", "nice": 5 }),
        )
        .with(
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 7 }),
        )
        .with("/linux/personality", json!({ "domain": "LINUX32" }));
    let text = bundle.run().good();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let stat = lines[0].rsplit_once(") ").expect("a name").1;
    let stat: Vec<&str> = stat.split(' ').collect();
    // proc(5) counts from one, and two fields are gone.
    let (nice, policy) = (stat[19 - 3], stat[41 - 3]);
    assert_eq!((nice, policy), ("5", "3"));
    assert_eq!(lines[1..], ["syscall 16391", "syscall 8"]);
}

#[test]
fn what_no_kernel_has_is_refused_by_name() {
    for (pointer, value, named) in [
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_NONE" }),
            "process.scheduler",
        ),
        // The kernel has no such policy, though the specification has.
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_ISO" }),
            "process.scheduler",
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }),
            "process.ioPriority",
        ),
        (
            "/process/execCPUAffinity",
            json!({ "initial": "x" }),
            "execCPUAffinity",
        ),
        (
            "/linux/personality",
            json!({ "domain": "MINIX" }),
            "linux.personality",
        ),
    ] {
        let Some(bundle) = bundle() else { return };
        let bundle = bundle.with(pointer, value);
        let failure = bundle.run().failure();
        assert!(failure.contains(named), "{failure}");
        bundle.assert_gone();
    }
}

#[test]
fn labels_of_a_module_that_the_host_lacks_are_an_error() {
    let has_apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'));
    let has_selinux = Path::new("/sys/fs/selinux").exists();
    for (property, has) in [
        ("apparmorProfile", has_apparmor),
        ("selinuxLabel", has_selinux),
    ] {
        if has {
            eprintln!("skipped: this host has the module of {property}");
            continue;
        }
        let Some(bundle) = bundle() else { return };
        let bundle = bundle.with(&format!("/process/{property}"), json!("some:label"));
        let failure = bundle.run().failure();
        assert!(failure.contains(property), "{failure}");
        bundle.assert_gone();
        // Empty is how engines say that there is none.
        let bundle = bundle.with(&format!("/process/{property}"), json!(""));
        assert_eq!(bundle.run().status, 0);
    }
}

#[test]
fn inheritable_capabilities_are_exactly_those_asked_for() {
    let Some(bundle) = bundle() else { return };
    let sets = |inheritable: Value| {
        json!({ "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"],
        "effective": ["CAP_KILL"], "inheritable": inheritable })
    };
    let bundle = bundle.command("cat /proc/self/status");
    let bundle = bundle.with("/process/capabilities", sets(json!([])));
    assert!(bundle.run().good().contains("CapInh:\t0000000000000000"));
    let bundle = bundle.with("/process/capabilities", sets(json!(["CAP_KILL"])));
    assert!(bundle.run().good().contains("CapInh:\t0000000000000020"));
}

#[test]
fn affinity_counts_for_processes_that_join() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 600");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let file = bundle.directory.join("process.json");
    for affinity in [
        json!({ "initial": "0" }),
        json!({ "initial": "0-1", "final": "0" }),
    ] {
        let process = json!({ "args": ["/bin/helper", "cat", "/proc/self/status"], "cwd": "/",
            "execCPUAffinity": affinity });
        fs::write(&file, process.to_string()).expect("written");
        let path = file.to_str().expect("UTF-8");
        let text = bundle
            .runtime(&["exec", "--process", path, &bundle.id])
            .good();
        assert!(text.contains("Cpus_allowed_list:\t0\n"), "{text}");
    }
}

#[test]
fn sockets_of_the_caller_reach_the_command_if_they_are_meant_for_it() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("env LISTEN_FDS ; env LISTEN_PID ; list /proc/self/fd");
    fs::write(
        bundle.directory.join("config.json"),
        bundle.config.to_string(),
    )
    .expect("written");
    for (variables, expected) in [
        // The last one is the listing's own.
        ("LISTEN_FDS=2", ["2", "1", "0 1 2 3 4 5"]),
        ("LISTEN_FDS=2 LISTEN_PID=$$", ["2", "1", "0 1 2 3 4 5"]),
        ("LISTEN_FDS=2 LISTEN_PID=1", ["unset", "unset", "0 1 2 3"]),
    ] {
        let script = format!(
            "exec 3</dev/null 4</dev/null; export {variables}; exec {RUNTIME} --root {} run --bundle {} {}",
            bundle.directory.join("state").display(),
            bundle.directory.display(),
            bundle.id
        );
        let output = finish(Command::new("sh").args(["-c", &script]), &bundle.directory);
        assert_eq!(output.lines(), expected, "{variables}: {output:?}");
    }
}

#[test]
fn containers_are_listed_as_a_table_as_json_and_by_id() {
    let Some(bundle) = bundle() else { return };
    assert_eq!(bundle.runtime(&["list", "--quiet"]).good(), "");
    let bundle = bundle.command("sleep 600");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    assert_eq!(
        bundle.runtime(&["list", "-q"]).good(),
        format!("{}\n", bundle.id)
    );
    let table = bundle.runtime(&["list"]).good();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    assert_eq!(
        (rows[1][0], rows[1][2], rows[1][5]),
        (bundle.id.as_str(), "running", "root")
    );
    let json = bundle.runtime(&["list", "--format", "json"]).good();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["id"], bundle.id);
    assert_eq!(json[0]["status"], "running");
    assert_eq!(json[0]["owner"], "root");
    assert_eq!(json[0]["rootfs"], json!(bundle.root()));
    assert_eq!(json[0]["pid"].to_string(), rows[1][1]);
}

#[test]
fn memory_policy_holds_for_the_command_and_for_those_that_join() {
    if !Path::new("/proc/self/numa_maps").exists() {
        eprintln!("skipped: this kernel has no NUMA");
        return;
    }
    let Some(bundle) = bundle() else { return };
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    let bundle = bundle
        .with("/linux/memoryPolicy", policy)
        .command("cat /proc/self/numa_maps ; sleep 1000");
    let id = bundle.id.as_str();
    bundle.runtime(&["run", "--detach", id]).good();
    let command = ["exec", id, "/bin/helper", "cat", "/proc/self/numa_maps"];
    let maps = bundle.runtime(&command).good();
    assert!(maps.contains(" bind=static:0 "), "{maps}");
    bundle.runtime(&["delete", "--force", id]).good();
    let bundle = bundle.command("cat /proc/self/numa_maps");
    let maps = bundle.run().good();
    assert!(maps.contains(" bind=static:0 "), "{maps}");
    // A node that is not there.
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "1023" });
    let failure = bundle.with("/linux/memoryPolicy", policy).run().failure();
    assert!(failure.contains("linux.memoryPolicy"), "{failure}");
}
