//! Other processes in a running container: `exec`.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Bundle, Output, RUNTIME, bundle, cgroup_root};

/// A container that runs until the test ends.
fn running(bundle: Bundle) -> Bundle {
    let bundle = bundle.command("sleep 600");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    bundle
}

fn exec(bundle: &Bundle, options: &str, command: &str) -> Output {
    let words = ["exec"].into_iter().chain(options.split_whitespace());
    let words = words.chain([bundle.id.as_str(), "/bin/helper"]);
    let words: Vec<&str> = words.chain(command.split_whitespace()).collect();
    bundle.runtime(&words)
}

#[test]
fn exec_joins_namespaces_and_cgroup_and_returns_the_status() {
    let Some(bundle) = bundle() else { return };
    let network = json!([
        { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" },
        { "type": "network" },
    ]);
    let bundle = running(bundle.with("/linux/namespaces", network));
    let names = ["pid", "mnt", "ipc", "uts", "cgroup", "net"];
    let links = |of: &str| {
        let commands: Vec<String> = names
            .iter()
            .map(|name| format!("link /proc/{of}/ns/{name}"))
            .collect();
        exec(&bundle, "", &commands.join(" ; ")).good()
    };
    assert_eq!(links("self"), links("1"));
    let cgroups = exec(
        &bundle,
        "",
        "cat /proc/self/cgroup ; cat /proc/1/cgroup ; exit 7",
    );
    assert_eq!(cgroups.status, 7, "{cgroups:?}");
    let unified: Vec<&str> = cgroups
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("0::"))
        .collect();
    assert_eq!(unified, ["0::/", "0::/"]);
}

#[test]
fn exec_is_as_confined_as_the_container() {
    let Some(bundle) = bundle() else { return };
    // keyctl is 250, and KEYCTL_GET_KEYRING_ID 0.
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 }],
    });
    let capabilities =
        json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] });
    let bundle = running(
        bundle
            .with("/linux/seccomp", seccomp)
            .with("/process/capabilities", capabilities)
            .with(
                "/process/rlimits",
                json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }]),
            )
            .with("/process/oomScoreAdj", json!(321)),
    );
    let command = "syscall 250 0 ; cat /proc/self/status ; cat /proc/self/limits ; cat /proc/self/oom_score_adj ; \
                   list /proc/self/fd";
    let text = exec(&bundle, "", command).good();
    for expected in [
        "syscall -42",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000020",
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000020",
        "CapAmb:\t0000000000000000",
        "Groups:\t \n",
        "321\n",
        // The fourth is the listing's own.
        "\n0 1 2 3\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let limit = text
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a limit");
    let limit: Vec<&str> = limit.split_whitespace().collect();
    assert_eq!(limit[3..5], ["77", "99"]);
}

#[test]
fn options_of_exec_change_the_process() {
    let Some(bundle) = bundle() else { return };
    let bundle = running(bundle.with("/process/user", json!({ "additionalGids": [8] })));
    let options = "--user 1000:100 -g 9 --additional-gids 10 --cwd /bin -e A=b=c --env HOME=/h --cap CAP_KILL";
    let text = exec(
        &bundle,
        options,
        "cwd ; env A ; env HOME ; cat /proc/self/status",
    )
    .good();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["/bin", "b=c", "/h"]);
    for expected in [
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t100\t100\t100\t100",
        "Groups:\t9 10 \n",
        "CapInh:\t0000000000000000",
        "CapBnd:\t0000000000000020",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}

#[test]
fn a_process_file_describes_all() {
    let Some(bundle) = bundle() else { return };
    let bundle = running(bundle);
    let file = bundle.directory.join("process.json");
    let process = json!({
        "args": ["helper", "env", "A", ";", "cwd", ";", "cat", "/proc/self/status"],
        "env": ["PATH=/bin", "A=1"], "cwd": "/proc", "user": { "uid": 3, "gid": 4, "additionalGids": [5] },
        "capabilities": null,
    });
    fs::write(&file, process.to_string()).expect("written");
    let path = file.to_str().expect("UTF-8");
    let text = bundle
        .runtime(&["exec", "--process", path, &bundle.id])
        .good();
    assert!(text.starts_with("1\n/proc\n"), "{text}");
    for expected in ["Uid:\t3\t", "Gid:\t4\t", "Groups:\t5 \n", "NoNewPrivs:\t0"] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}

#[test]
fn a_detached_process_has_its_id_written_down() {
    let Some(bundle) = bundle() else { return };
    let bundle = running(bundle);
    let file = bundle.directory.join("exec.pid");
    let options = format!("--detach --pid-file {}", file.display());
    exec(&bundle, &options, "sleep 600").good();
    let pid = fs::read_to_string(&file).expect("a pid file");
    let command = fs::read(format!("/proc/{pid}/cmdline")).expect("it is there");
    assert!(
        command.ends_with(b"sleep\x00600\x00"),
        "{:?}",
        String::from_utf8_lossy(&command)
    );
    let members = fs::read_to_string(bundle.cgroup().join("cgroup.procs")).expect("readable");
    assert!(
        members.lines().any(|member| member == pid),
        "{pid} is not in {members}"
    );
}

#[test]
fn a_process_whose_id_cannot_be_written_down_is_gone() {
    let Some(bundle) = bundle() else { return };
    let bundle = running(bundle);
    let options = "--detach --pid-file /proc/no/such/file";
    let output = exec(&bundle, options, "sleep 601");
    assert_eq!(output.status, 255, "{output:?}");
    assert_eq!(members(&bundle), 1, "only the container's own is left");
}

#[test]
fn a_signal_ends_an_exec_that_cannot_go_on() {
    let Some(bundle) = bundle() else { return };
    let bundle = running(bundle);
    let freeze = bundle.cgroup().join("cgroup.freeze");
    fs::write(&freeze, "1").expect("frozen");
    bundle.await_status("paused");
    // Made in the frozen cgroup, the process takes no step.
    let mut exec = Command::new(RUNTIME)
        .arg("--root")
        .arg(bundle.directory.join("state"))
        .args(["exec", "--ignore-paused", &bundle.id, "/bin/helper", "pid"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the runtime is built");
    while members(&bundle) < 2 {
        assert!(exec.try_wait().expect("a child").is_none(), "it ended");
        sleep(Duration::from_millis(5));
    }
    let pid = i32::try_from(exec.id()).expect("an id");
    let pid = rustix::process::Pid::from_raw(pid).expect("not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    let output = exec.wait_with_output().expect("its end");
    fs::write(&freeze, "0").expect("thawed");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("given up for signal 15"), "{text}");
    assert_eq!(output.status.code(), Some(255), "{text}");
    assert_eq!(members(&bundle), 1, "only the container's own is left");
}

fn members(bundle: &Bundle) -> usize {
    let members = fs::read_to_string(bundle.cgroup().join("cgroup.procs"));
    members.expect("readable").lines().count()
}

#[test]
fn what_cannot_be_executed_is_said_in_the_words_that_engines_look_for() {
    let Some(bundle) = bundle() else { return };
    let bundle = running(bundle);
    for (command, expected) in [
        ("nothing", "executable file not found in $PATH"),
        ("/no/thing", "no such file or directory"),
        ("/bin", "permission denied"),
    ] {
        let output = bundle.runtime(&["exec", &bundle.id, command]);
        assert_eq!(output.status, 255, "{output:?}");
        assert!(
            output.stderr.contains("exec failed: ") && output.stderr.contains(expected),
            "{output:?}"
        );
    }
    let output = exec(&bundle, "--cwd /proc/self/root", "exit 0");
    assert_eq!(output.status, 255, "a magic link leads nowhere: {output:?}");
}

#[test]
fn there_is_no_exec_without_a_running_container() {
    let Some(bundle) = bundle() else { return };
    let output = exec(&bundle, "", "exit 0");
    assert!(output.stderr.contains("does not exist"), "{output:?}");
    let bundle = bundle.command("exit 0");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    bundle.await_status("stopped");
    let output = exec(&bundle, "", "exit 0");
    assert_eq!(output.status, 255, "{output:?}");
    assert!(
        output.stderr.contains("container not running"),
        "{output:?}"
    );
}

#[test]
fn a_paused_container_is_entered_only_on_demand() {
    let Some(bundle) = bundle() else { return };
    let bundle = running(bundle);
    let freeze = bundle.cgroup().join("cgroup.freeze");
    fs::write(&freeze, "1").expect("frozen");
    bundle.await_status("paused");
    let output = exec(&bundle, "", "exit 3");
    fs::write(&freeze, "0").expect("thawed");
    assert_eq!(output.status, 255, "{output:?}");
    assert!(output.stderr.contains("paused"), "{output:?}");
    assert_eq!(exec(&bundle, "--ignore-paused", "exit 3").status, 3);
}

#[test]
fn user_strings_that_other_runtimes_misread_are_refused() {
    let Some(bundle) = bundle() else { return };
    for user in [
        "0x0",
        "-1",
        "1000:",
        "4294967295",
        "4294967296",
        "1000x",
        ":0",
    ] {
        let output = exec(&bundle, &format!("--user={user}"), "exit 0");
        assert_eq!(output.status, 2, "{user}: {output:?}");
    }
}

#[test]
fn container_that_shares_its_controllers_out_is_joined_where_its_process_is() {
    let Some(mut bundle) = bundle() else { return };
    let controllers = cgroup_root()
        .expect("checked before")
        .join("cgroup.controllers");
    let controllers = fs::read_to_string(controllers).expect("there");
    if !controllers.split_whitespace().any(|name| name == "pids") {
        eprintln!("skipped: cgroup v2 of this host has no controllers");
        return;
    }
    // As a system manager does that runs as the container's command.
    for mount in bundle.config["mounts"].as_array_mut().expect("a list") {
        if mount["type"] == "cgroup2" {
            mount["options"] = serde_json::json!(["nosuid", "noexec", "nodev"]);
        }
    }
    let at = "/sys/fs/cgroup";
    let bundle = bundle.command(&format!(
        "mkdir {at}/init ; write {at}/init/cgroup.procs 1 ; write {at}/cgroup.subtree_control +pids ; sleep 1000"
    ));
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let enabled = bundle.cgroup().join("cgroup.subtree_control");
    let begin = Instant::now();
    while !fs::read_to_string(&enabled)
        .expect("there")
        .contains("pids")
    {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the command does not get on"
        );
        sleep(Duration::from_millis(5));
    }
    let own = exec(&bundle, "", "cat /proc/self/cgroup").good();
    assert!(own.lines().any(|line| line == "0::/init"), "{own}");
}
