//! Hooks: their order, what they see, and what their failure does.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Bundle, RUNTIME, bundle, finish};

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook of the host's shell that appends its name and state to a log in the bundle.
fn logging(bundle: &Bundle, kind: &str) -> Value {
    let log = bundle.directory.join("log").display().to_string();
    let script = format!("read -r state; echo \"{kind} $state\" >> {log}");
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
}

fn failing(path: &str) -> Value {
    match path {
        "/bin/helper" => json!({ "path": path, "args": ["helper", "exit", "7"] }),
        _ => json!({ "path": path, "args": ["sh", "-c", "echo no luck >&2; exit 7"] }),
    }
}

/// Name and state of each hook that has run.
fn logged(bundle: &Bundle) -> Vec<(String, Value)> {
    let text = fs::read_to_string(bundle.directory.join("log")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let (kind, state) = line.split_once(' ').expect("two words");
            (kind.to_owned(), serde_json::from_str(state).expect("JSON"))
        })
        .collect()
}

/// All hooks log, but for one that runs inside the container, where there is no shell.
fn with_logging_hooks(bundle: Bundle) -> Bundle {
    let mut hooks = json!({});
    for kind in KINDS.into_iter().filter(|kind| *kind != "startContainer") {
        hooks[kind] = json!([logging(&bundle, kind)]);
    }
    hooks["startContainer"] =
        json!([{ "path": "/bin/helper", "args": ["helper", "write", "/dev/started", "yes"] }]);
    bundle.with("/hooks", hooks)
}

#[test]
fn hooks_run_in_their_order_with_the_state_of_that_moment() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_logging_hooks(bundle).command("cat /dev/started ; sleep 1000");
    let bundle = bundle.with("/annotations", json!({ "a": "b" }));
    let id = bundle.id.as_str();
    bundle.runtime(&["create", id]).good();
    let state: Value = serde_json::from_str(&bundle.runtime(&["state", id]).good()).expect("JSON");
    let (pid, canonical) = (&state["pid"], &state["bundle"]);
    let kinds = |bundle: &Bundle| -> Vec<String> {
        logged(bundle).into_iter().map(|(kind, _)| kind).collect()
    };
    assert_eq!(
        kinds(&bundle),
        ["prestart", "createRuntime", "createContainer"]
    );
    bundle.runtime(&["start", id]).good();
    assert_eq!(kinds(&bundle).last().expect("some"), "poststart");
    // Changes of the document after the creation have no effect.
    fs::write(bundle.directory.join("config.json"), "{}").expect("written");
    bundle.runtime(&["delete", "--force", &bundle.id]).good();
    let expected = [
        ("prestart", "creating", pid),
        ("createRuntime", "creating", pid),
        ("createContainer", "creating", &json!(1)),
        ("poststart", "running", pid),
        ("poststop", "stopped", &json!(0)),
    ];
    let hooks = logged(&bundle);
    assert_eq!(hooks.len(), expected.len(), "{hooks:?}");
    for ((kind, state), (expected, status, pid)) in hooks.iter().zip(expected) {
        assert_eq!(
            (kind.as_str(), &state["status"]),
            (expected, &json!(status))
        );
        assert_eq!(
            (&state["pid"], &state["bundle"]),
            (pid, canonical),
            "{kind}"
        );
        assert_eq!(state["id"], json!(bundle.id), "{kind}");
        assert_eq!(state["annotations"], json!({ "a": "b" }), "{kind}");
    }
}

#[test]
fn start_hook_runs_in_the_container_before_the_command() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_logging_hooks(bundle).command("cat /dev/started");
    let output = bundle.run();
    assert_eq!(output.lines(), ["yes"], "{output:?}");
    assert_eq!(logged(&bundle).len(), 5);
    bundle.assert_gone();
}

#[test]
fn failed_hook_undoes_the_container() {
    for (kind, path) in [
        ("prestart", "/bin/sh"),
        ("createRuntime", "/bin/sh"),
        ("createContainer", "/bin/sh"),
        ("startContainer", "/bin/helper"),
        ("poststart", "/bin/sh"),
    ] {
        let Some(bundle) = bundle() else { return };
        let mut bundle = with_logging_hooks(bundle).command("sleep 1000");
        bundle.config["hooks"][kind] = json!([failing(path), logging(&bundle, "not reached")]);
        let failure = bundle.runtime(&["run", "--detach", &bundle.id]).failure();
        assert!(failure.contains(" exited with 7"), "{kind}: {failure}");
        assert!(
            failure.contains("no luck") || kind == "startContainer",
            "{failure}"
        );
        bundle.assert_gone();
        let hooks = logged(&bundle);
        assert_eq!(
            hooks.last().expect("some").0,
            "poststop",
            "{kind}: {hooks:?}"
        );
        assert!(
            hooks.iter().all(|(name, _)| name != "not reached"),
            "{hooks:?}"
        );
    }
}

#[test]
fn failed_poststart_hook_stops_a_started_container() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    let bundle = bundle.with("/hooks", json!({ "poststart": [failing("/bin/sh")] }));
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["start", &bundle.id]).failure();
    bundle.await_status("stopped");
    bundle.runtime(&["delete", &bundle.id]).good();
}

#[test]
fn failed_poststop_hook_is_a_warning_and_the_next_still_runs() {
    let Some(bundle) = bundle() else { return };
    let hooks = json!({ "poststop": [failing("/bin/sh"), logging(&bundle, "poststop")] });
    let bundle = bundle.with("/hooks", hooks);
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    bundle.await_status("stopped");
    let output = bundle.runtime(&["delete", &bundle.id]);
    assert!(output.stderr.contains("no luck"), "{output:?}");
    output.good();
    assert_eq!(logged(&bundle).len(), 1);
    bundle.assert_gone();
}

#[test]
fn hook_sees_the_namespaces_and_mounts_before_the_root_changes() {
    let Some(bundle) = bundle() else { return };
    let seen = bundle.directory.join("seen");
    let root = bundle.root();
    // The runtime's hook enters the mount namespace by the process id; the container's is in there already.
    let runtime = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); test $(readlink /proc/$pid/ns/mnt) != \
         $(readlink /proc/self/ns/mnt) && nsenter --mount=/proc/$pid/ns/mnt test -e {}/proc/version && echo ok > {}",
        root.display(),
        seen.display()
    );
    let container = format!(
        "test -e {}/proc/self && test -e {}",
        root.display(),
        seen.display()
    );
    let shell = |script: String| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]);
    let hooks = json!({ "createRuntime": shell(runtime), "createContainer": shell(container) });
    let bundle = bundle.with("/hooks", hooks);
    let output = bundle.run();
    assert_eq!(output.status, 0, "{output:?}");
    assert!(Path::new(&seen).exists());
}

#[test]
fn hooks_begin_with_no_signal_blocked() {
    let Some(bundle) = bundle() else { return };
    let seen = bundle.directory.join("seen");
    // The shell's own reading of the file, so that it is the hook's mask and not that of a child.
    let script = format!(
        "while read -r name value; do test $name != SigBlk: || echo $value >> {}; done < /proc/self/status",
        seen.display()
    );
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let hooks = json!({ "createRuntime": hook, "createContainer": hook, "poststart": hook, "poststop": hook });
    let bundle = bundle.with("/hooks", hooks);
    bundle.run().good();
    let seen = fs::read_to_string(seen).expect("written");
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["0000000000000000"; 4]);
}

/// Starts a command of the runtime, and waits until its hook has made the file.
fn begin(bundle: &Bundle, words: &[&str], file: &dyn Fn() -> bool) -> Child {
    let config = bundle.directory.join("config.json");
    if words[0] != "start" {
        fs::write(config, bundle.config.to_string()).expect("config.json");
    }
    let mut command = Command::new(RUNTIME);
    command.arg("--root").arg(bundle.directory.join("state"));
    command.args(words).current_dir(&bundle.directory);
    let mut child = command.stderr(Stdio::null()).spawn().expect("it is built");
    while !file() {
        let ended = child.try_wait().expect("it is our child");
        assert_eq!(ended, None, "it ended before its hook did");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

fn send(signal: &str, child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.expect("kill").success());
}

#[test]
fn set_up_is_given_up_for_a_signal_or_a_forced_delete_while_a_hook_runs() {
    for (kind, forced) in [
        ("createRuntime", false),
        ("createRuntime", true),
        ("createContainer", false),
        ("createContainer", true),
        ("poststart", false),
    ] {
        let Some(bundle) = bundle() else { return };
        let mut bundle = with_logging_hooks(bundle).command("sleep 1000");
        let seen = bundle.directory.join("seen");
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
            seen.display()
        );
        bundle.config["hooks"][kind] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]);
        let mut child = begin(&bundle, &["run", "--detach", &bundle.id], &|| seen.exists());
        if forced {
            bundle.runtime(&["delete", "--force", &bundle.id]).good();
        } else {
            send("-TERM", &child);
        }
        let status = child.wait().expect("it is our child");
        assert_eq!(status.code(), Some(1), "{kind}");
        bundle.assert_gone();
        if kind != "createContainer" {
            let hook = fs::read_to_string(&seen).expect("written");
            let command = fs::read_to_string(format!("/proc/{}/cmdline", hook.trim()));
            assert!(!command.unwrap_or_default().contains("sleep"), "{kind}");
        }
    }
}

#[test]
fn start_that_goes_away_during_its_hooks_executes_nothing() {
    for signal in ["-KILL", "-TERM"] {
        let Some(bundle) = bundle() else { return };
        let hook = |words: &[&str]| {
            let args = [&["helper"], words].concat();
            json!({ "path": "/bin/helper", "args": args })
        };
        let hooks = [
            hook(&["write", "/dev/started", "yes"]),
            hook(&["sleep", "1000"]),
        ];
        let bundle = bundle.with("/hooks", json!({ "startContainer": hooks }));
        let bundle = bundle.command("write /executed yes");
        bundle.runtime(&["create", &bundle.id]).good();
        let state = bundle.runtime(&["state", &bundle.id]).good();
        let state: Value = serde_json::from_str(&state).expect("JSON");
        let started = format!("/proc/{}/root/dev/started", state["pid"]);
        let mut child = begin(&bundle, &["start", &bundle.id], &|| {
            Path::new(&started).exists()
        });
        send(signal, &child);
        let status = child.wait().expect("it is our child");
        assert_eq!(status.code(), Some(1).filter(|_| signal == "-TERM"));
        bundle.await_status("stopped");
        assert!(!bundle.root().join("executed").exists(), "{signal}");
        bundle.runtime(&["delete", &bundle.id]).good();
        bundle.assert_gone();
    }
}

#[test]
fn descriptors_for_the_command_are_not_for_hooks() {
    let Some(bundle) = bundle() else { return };
    let script = "for fd in 3 4; do [ ! -e /proc/$$/fd/$fd ] || exit 7; done";
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let hooks = json!({ "createRuntime": hook, "createContainer": hook, "poststart": hook });
    let bundle = bundle.with("/hooks", hooks).command("list /proc/self/fd");
    fs::write(
        bundle.directory.join("config.json"),
        bundle.config.to_string(),
    )
    .expect("written");
    // The one is preserved, the other was just forgotten.
    let mut caller = Command::new("sh");
    caller.args(["-c", "exec 3</ 4</; exec \"$@\"", "sh", RUNTIME, "--root"]);
    caller.arg(bundle.directory.join("state"));
    caller
        .args(["run", "--preserve-fds", "1", "--bundle"])
        .arg(&bundle.directory);
    let output = finish(caller.arg(&bundle.id), &bundle.directory);
    assert_eq!(
        output.good(),
        "0 1 2 3 4\n",
        "the fourth is that of the listing"
    );
}

#[test]
fn forced_removal_does_not_wait_for_a_hook_after_the_start() {
    let Some(bundle) = bundle() else { return };
    let begun = bundle.directory.join("begun");
    let script = format!("touch {}; exec sleep 1000", begun.display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    // The command has ended long before the hook.
    let bundle = bundle.with("/hooks", json!({ "poststart": hook }));
    for words in [&["start"][..], &["run", "--detach"]] {
        let _ = fs::remove_file(&begun);
        fs::write(
            bundle.directory.join("config.json"),
            bundle.config.to_string(),
        )
        .expect("written");
        if words[0] == "start" {
            bundle.runtime(&["create", &bundle.id]).good();
        }
        let mut command = Command::new(RUNTIME);
        command
            .arg("--root")
            .arg(bundle.directory.join("state"))
            .args(words);
        if words[0] == "run" {
            command.arg("--bundle").arg(&bundle.directory);
        }
        let mut child = command
            .arg(&bundle.id)
            .stderr(Stdio::null())
            .spawn()
            .expect("it is there");
        let begin = std::time::Instant::now();
        while !begun.exists() {
            assert!(
                begin.elapsed() < std::time::Duration::from_secs(60),
                "no hook"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        bundle.runtime(&["delete", "--force", &bundle.id]).good();
        assert!(!child.wait().expect("it is ours").success());
        bundle.assert_gone();
    }
}

#[test]
fn create_container_hook_begins_in_the_root() {
    let Some(bundle) = bundle() else { return };
    let script = "[ -x ./bin/helper ] && [ ! -e ./config.json ]";
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    let bundle = bundle.with("/hooks", json!({ "createContainer": [hook] }));
    assert_eq!(bundle.command("cwd").run().good(), "/\n");
}

#[test]
fn start_hook_is_under_the_filter_of_the_command() {
    let Some(bundle) = bundle() else { return };
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mknod"], "action": "SCMP_ACT_KILL_PROCESS" }],
    });
    let hook = json!({ "path": "/bin/helper", "args": ["helper", "mknod", "/dev/x", "0"] });
    let hooks = json!({ "startContainer": [hook] });
    let mut bundle = bundle.with("/linux/seccomp", filter).with("/hooks", hooks);
    for no_new_privileges in [true, false] {
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let told = bundle.run().failure();
        assert!(told.contains("startContainer hook /bin/helper"), "{told}");
        bundle.assert_gone();
    }
}
