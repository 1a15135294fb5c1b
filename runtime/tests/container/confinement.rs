//! Privileges, filters, limits and namespaces of the command.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use serde_json::json;

use crate::harness::{RUNTIME, bundle, finish};

const EPERM: i64 = -1;
const EROFS: &str = "errno 30";
/// The numbers of x86-64.
const GETPPID: u64 = 110;
const KEYCTL: u64 = 250;
const X32: u64 = 0x4000_0000;

#[test]
fn capabilities_groups_and_privileges_are_those_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with(
            "/process/user",
            json!({ "uid": 33, "gid": 34, "additionalGids": [5, 7], "umask": 0o077 }),
        )
        .with(
            "/process/capabilities",
            json!({
                "bounding": ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"],
                "permitted": ["CAP_NET_BIND_SERVICE"],
                "effective": ["CAP_NET_BIND_SERVICE"],
                "inheritable": ["CAP_NET_BIND_SERVICE"],
                "ambient": ["CAP_NET_BIND_SERVICE"],
            }),
        )
        .with(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW" }),
        )
        .command("cat /proc/self/status");
    let status = bundle.run().good();
    for line in [
        "Uid:\t33\t33\t33\t33",
        "Gid:\t34\t34\t34\t34",
        "Groups:\t5 7 ",
        "Umask:\t0077",
        "CapBnd:\t0000000000000401",
        "CapPrm:\t0000000000000400",
        "CapEff:\t0000000000000400",
        "CapInh:\t0000000000000400",
        "CapAmb:\t0000000000000400",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "SigBlk:\t0000000000000000",
    ] {
        assert!(
            status.lines().any(|found| found == line),
            "{line:?} not in:\n{status}"
        );
    }
}

#[test]
fn document_without_capabilities_gives_none() {
    let Some(bundle) = bundle() else { return };
    let status = bundle.command("cat /proc/self/status").run().good();
    for name in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert!(
            status.contains(&format!("{name}:\t0000000000000000\n")),
            "{name} in:\n{status}"
        );
    }
    assert!(
        status.contains("Groups:\t \n"),
        "the caller's groups are given up:\n{status}"
    );
}

#[test]
fn unavailable_capabilities_are_left_out_with_a_warning() {
    let Some(bundle) = bundle() else { return };
    let output = bundle
        .with(
            "/process/capabilities",
            json!({ "bounding": ["CAP_TIME_TRAVEL"] }),
        )
        .run();
    assert_eq!(output.status, 0, "{output:?}");
    assert!(
        output.stderr.contains("warning: left out capabilities")
            && output.stderr.contains("CAP_TIME_TRAVEL")
    );
}

#[test]
fn five_sets_are_given_exactly_and_what_cannot_be_is_told() {
    let Some(bundle) = bundle() else { return };
    let output = bundle
        .with(
            "/process/capabilities",
            json!({
                "bounding": ["CAP_CHOWN"],
                "permitted": ["CAP_NET_BIND_SERVICE", "CAP_KILL"],
                "effective": ["CAP_NET_BIND_SERVICE"],
                "inheritable": ["CAP_NET_BIND_SERVICE", "CAP_SETUID"],
                "ambient": ["CAP_NET_BIND_SERVICE", "CAP_SETUID"],
            }),
        )
        .with("/process/user", json!({ "uid": 33, "gid": 33 }))
        .command("cat /proc/self/status")
        .run();
    assert!(
        output.stderr.contains("CAP_SETUID (ambient, but not both"),
        "{output:?}"
    );
    // What is permitted is more than what is ambient only until the execve.
    for line in [
        "CapBnd:\t0000000000000001",
        "CapPrm:\t0000000000000400",
        "CapEff:\t0000000000000400",
        "CapInh:\t0000000000000480",
        "CapAmb:\t0000000000000400",
    ] {
        assert!(output.lines().contains(&line), "{line:?} not in {output:?}");
    }
}

#[test]
fn filter_answers_and_kills_as_the_profile_says() {
    let Some(bundle) = bundle() else { return };
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["keyctl", "no_such_call"], "action": "SCMP_ACT_ERRNO" }],
    });
    let bundle = bundle.with("/linux/seccomp", profile);
    for privileged in [false, true] {
        let Some(other) = crate::harness::bundle() else {
            return;
        };
        let bundle = other
            .with("/linux/seccomp", bundle.config["linux"]["seccomp"].clone())
            .with("/process/noNewPrivileges", json!(!privileged))
            .command(&format!("syscall {KEYCTL} 0 ; cat /proc/self/status"));
        let output = bundle.run().good();
        assert!(
            output.starts_with(&format!("syscall {EPERM}\n")),
            "{output}"
        );
        assert!(output.contains(&format!("NoNewPrivs:\t{}\n", i32::from(!privileged))));
    }
    let x32 = bundle
        .command(&format!("pid ; syscall {} 0 ; pid", X32 + GETPPID))
        .run();
    const SIGSYS: i32 = 31;
    assert_eq!(
        (x32.status, x32.lines()),
        (128 + SIGSYS, vec!["1"]),
        "x32 calls are not let through"
    );
}

#[test]
fn filter_that_forbids_what_the_runtime_does_still_starts() {
    let Some(bundle) = bundle() else { return };
    // Everything that the command needs and nothing that the set-up needs.
    let names = [
        "execve",
        "brk",
        "arch_prctl",
        "mmap",
        "munmap",
        "mprotect",
        "sigaltstack",
        "poll",
        "exit_group",
    ];
    let more = [
        "rt_sigaction",
        "rt_sigprocmask",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
    ];
    let rest = [
        "getrandom",
        "readlinkat",
        "readlink",
        "write",
        "sched_getaffinity",
        "gettid",
        "futex",
        "fcntl",
    ];
    let names: Vec<_> = names.into_iter().chain(more).chain(rest).collect();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    });
    let bundle = bundle
        .with("/linux/seccomp", profile)
        .command(&format!("env PATH ; syscall {GETPPID} 0"));
    assert_eq!(bundle.run().lines(), ["/usr/bin:/bin", "syscall -1"]);
}

#[test]
fn devices_that_no_rule_allows_cannot_be_opened() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/process/capabilities", json!({ "bounding": ["CAP_MKNOD"], "permitted": ["CAP_MKNOD"], "effective": ["CAP_MKNOD"] }))
        .command("mknod /dev/mem 257 ; cat /dev/mem ; mknod /dev/zero2 261 ; write /dev/zero2 x ; write /dev/null x");
    let denied = bundle.with(
        "/linux/resources",
        json!({ "devices": [{ "allow": false, "access": "rwm" }] }),
    );
    assert_eq!(
        denied.run().lines(),
        ["mknod 0", "errno 1", "mknod 0", "ok", "ok"]
    );
}

#[test]
fn descriptors_of_the_caller_are_not_inherited() {
    let Some(bundle) = bundle() else { return };
    // Open in this process without close-on-exec, as a careless caller's would be.
    let file = fs::File::open("/etc/passwd").expect("it is there");
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).expect("a flag");
    assert!(file.as_raw_fd() > 2);
    let output = bundle.command("list /proc/self/fd").run().good();
    assert_eq!(output.trim(), "0 1 2 3", "3 is that of the listing itself");
}

#[test]
fn streams_that_the_caller_closed_are_the_null_device() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("link /proc/self/fd/0 ; link /proc/self/fd/2 ; list /proc/self/fd");
    // Writes the document, too.
    bundle.run().good();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <&- 2>&-", RUNTIME, "--root"]);
    shell.arg(bundle.directory.join("state"));
    shell.args(["run", "--bundle"]).arg(&bundle.directory);
    let output = finish(shell.arg(&bundle.id), &bundle.directory).good();
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].ends_with("/null"), "{output}");
    assert!(lines[1].ends_with("/null"), "{output}");
    assert_eq!(
        lines[2].trim(),
        "0 1 2 3",
        "3 is that of the listing itself"
    );
}

#[test]
fn namespaces_are_the_containers_own() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/domainname", json!("domain"))
        .with("/linux/sysctl", json!({ "kernel.msgmax": "4321" }))
        .with("/process/oomScoreAdj", json!(500))
        .with("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 60 }]))
        .command(
            "pid ; cat /proc/sys/kernel/hostname ; cat /proc/sys/kernel/domainname ; cat /proc/sys/kernel/msgmax ; \
             cat /proc/self/oom_score_adj ; write /sys/x x ; write /sys/fs/cgroup/cgroup.procs 0 ; cat /proc/self/limits",
        );
    let output = bundle.run().good();
    let lines: Vec<_> = output.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        lines[..7],
        ["1", "inside", "domain", "4321", "500", EROFS, EROFS]
    );
    assert!(
        lines
            .iter()
            .any(|line| line.split_whitespace().collect::<Vec<_>>()
                == ["Max", "open", "files", "50", "60", "files"])
    );
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("it is there");
    assert_ne!(host.trim(), "inside");
}

#[test]
fn namespaces_of_another_container_can_be_joined() {
    let (Some(first), Some(second)) = (bundle(), bundle()) else {
        return;
    };
    let first = first
        .with("/hostname", json!("first"))
        .command("sleep 1000");
    let pid_file = first.directory.join("pid");
    first
        .runtime(&[
            "run",
            "--detach",
            "--pid-file",
            pid_file.to_str().expect("ASCII"),
            &first.id,
        ])
        .good();
    let pid = fs::read_to_string(pid_file).expect("written");
    let join =
        |kind: &str, file: &str| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") });
    let namespaces = json!([{ "type": "mount" }, join("uts", "uts"), join("pid", "pid"), join("ipc", "ipc"), { "type": "network" }]);
    let mut second = second
        .with("/linux/namespaces", namespaces)
        .command("cat /proc/sys/kernel/hostname ; pid ; cat /proc/net/dev");
    second
        .config
        .as_object_mut()
        .expect("an object")
        .remove("hostname");
    let output = second.run().good();
    let lines: Vec<_> = output.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[0], "first");
    assert_ne!(lines[1], "1", "the first process is the other container's");
    let devices: Vec<_> = lines.iter().filter(|line| line.contains(':')).collect();
    assert!(
        devices.len() == 1 && devices[0].trim().starts_with("lo:"),
        "{devices:?}"
    );
}
