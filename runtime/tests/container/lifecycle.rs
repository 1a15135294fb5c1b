//! Operations, statuses, exit codes and errors.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{RUNTIME, bundle, finish};

#[test]
fn exit_status_of_the_command_is_returned() {
    let Some(bundle) = bundle() else { return };
    assert_eq!(bundle.run().status, 0);
    let bundle = bundle.command("exit 3");
    assert_eq!(bundle.run().status, 3);
    bundle.assert_gone();
}

#[test]
fn missing_command_is_an_error_that_leaves_nothing() {
    let Some(bundle) = bundle() else { return };
    for (command, expected) in [
        (
            "no-such-command",
            "exec: \"no-such-command\": executable file not found in $PATH",
        ),
        (
            "/no/such/command",
            "exec: \"/no/such/command\": no such file or directory",
        ),
        ("/bin", "exec: \"/bin\": permission denied"),
    ] {
        let Some(bundle) = crate::harness::bundle() else {
            return;
        };
        let bundle = bundle.with("/process/args", json!([command]));
        for words in [&["run", "--detach"][..], &["run"], &["create"]] {
            let failure = bundle.runtime(&[words, &[&bundle.id]].concat()).failure();
            assert!(failure.contains(expected), "{failure}");
            bundle.assert_gone();
        }
    }
    // Not executable as a program: found, but the execve itself fails, after set-up.
    let bundle = bundle.with("/process/args", json!(["/bin/text"]));
    fs::write(bundle.root().join("bin/text"), "no program").expect("written");
    Command::new("chmod")
        .arg("755")
        .arg(bundle.root().join("bin/text"))
        .status()
        .expect("chmod");
    let failure = bundle.runtime(&["run", "--detach", &bundle.id]).failure();
    assert!(
        failure.contains("execute /bin/text: Exec format error"),
        "{failure}"
    );
    bundle.assert_gone();
    // With create and start it is start that fails.
    bundle.runtime(&["create", &bundle.id]).good();
    assert!(
        bundle
            .runtime(&["start", &bundle.id])
            .failure()
            .contains("Exec format error")
    );
    bundle.await_status("stopped");
}

#[test]
fn failed_set_up_names_operation_path_and_cause() {
    let Some(bundle) = bundle() else { return };
    let mount = json!({ "destination": "/data", "type": "bind", "source": "/no/such/source" });
    let failure = bundle.with("/mounts", json!([mount])).run().failure();
    assert!(
        failure.contains("open source of mount /no/such/source: No such file or directory"),
        "{failure}"
    );
    let Some(bundle) = crate::harness::bundle() else {
        return;
    };
    let mount = json!({ "destination": "/data", "type": "tmpfs", "options": ["sise=1"] });
    let bundle = bundle.with("/mounts", json!([mount]));
    let failure = bundle.run().failure();
    assert!(
        failure.contains("make filesystem \"tmpfs\": option \"sise\""),
        "{failure}"
    );
    bundle.assert_gone();
}

#[test]
fn container_goes_through_the_states_of_the_specification() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("pid ; sleep 1000");
    let id = bundle.id.as_str();
    let pid_file = bundle.directory.join("pid");
    assert!(
        bundle
            .runtime(&["state", id])
            .failure()
            .contains("does not exist")
    );
    bundle
        .runtime(&[
            "create",
            "--pid-file",
            pid_file.to_str().expect("ASCII"),
            id,
        ])
        .good();
    let state: Value = serde_json::from_str(&bundle.runtime(&["state", id]).good()).expect("JSON");
    assert_eq!(
        (&state["status"], &state["id"]),
        (&json!("created"), &json!(id))
    );
    assert_eq!(
        state["pid"].to_string(),
        fs::read_to_string(&pid_file).expect("written")
    );
    assert_eq!(
        state["bundle"],
        json!(bundle.directory.canonicalize().expect("it exists"))
    );
    assert!(
        bundle
            .runtime(&["create", id])
            .failure()
            .contains("already exists")
    );
    assert!(
        bundle
            .runtime(&["delete", id])
            .failure()
            .contains("that is not stopped: created")
    );
    let processes =
        fs::read_to_string(bundle.cgroup().join("cgroup.procs")).expect("the cgroup exists");
    assert_eq!(processes.trim(), state["pid"].to_string());

    bundle.runtime(&["start", id]).good();
    assert_eq!(bundle.status(), "running");
    assert!(
        bundle
            .runtime(&["start", id])
            .failure()
            .contains("that is running")
    );
    assert!(
        bundle
            .runtime(&["delete", id])
            .failure()
            .contains("that is not stopped: running")
    );
    // The first process of a pid namespace ignores signals that it has no handler for.
    bundle.runtime(&["kill", id, "TERM"]).good();
    assert_eq!(bundle.status(), "running");
    bundle.runtime(&["kill", id, "9"]).good();
    bundle.await_status("stopped");
    assert!(
        bundle
            .runtime(&["kill", id, "KILL"])
            .failure()
            .contains("container not running")
    );
    assert!(
        bundle
            .runtime(&["start", id])
            .failure()
            .contains("has stopped")
    );
    bundle.runtime(&["delete", id]).good();
    bundle.assert_gone();
    assert!(
        bundle
            .runtime(&["delete", id])
            .failure()
            .contains("does not exist")
    );
    bundle.runtime(&["delete", "--force", id]).good();
}

#[test]
fn forced_delete_and_kill_all_end_everything() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    let id = bundle.id.as_str();
    bundle.runtime(&["run", "--detach", id]).good();
    bundle.runtime(&["delete", "--force", id]).good();
    bundle.assert_gone();
    bundle.runtime(&["create", id]).good();
    bundle.runtime(&["delete", "--force", id]).good();
    bundle.assert_gone();
    bundle.runtime(&["run", "--detach", id]).good();
    bundle.runtime(&["kill", id, "0"]).good();
    assert_eq!(bundle.status(), "running");
    bundle.runtime(&["kill", "--all", id, "KILL"]).good();
    bundle.await_status("stopped");
    let told = bundle.runtime(&["kill", id, "0"]).failure();
    assert!(told.contains("container not running"), "{told}");
    bundle.runtime(&["kill", "--all", id, "0"]).good();
}

#[test]
fn command_that_exits_at_once_never_hangs_a_start() {
    let Some(bundle) = bundle() else { return };
    for round in 0..200 {
        bundle.runtime(&["run", "--detach", &bundle.id]).good();
        if round % 10 == 0 {
            bundle.await_status("stopped");
        }
        bundle.runtime(&["delete", "--force", &bundle.id]).good();
    }
    for _ in 0..50 {
        bundle.runtime(&["create", &bundle.id]).good();
        bundle.runtime(&["start", &bundle.id]).good();
        bundle.await_status("stopped");
        bundle.runtime(&["delete", &bundle.id]).good();
    }
    bundle.assert_gone();
}

#[test]
fn signals_to_the_runtime_reach_the_command() {
    let Some(bundle) = bundle() else { return };
    let mut bundle = bundle.command("sleep 1000");
    // Without a pid namespace the command dies of a signal as any process does.
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .retain(|one| one["type"] != "pid");
    fs::write(
        bundle.directory.join("config.json"),
        bundle.config.to_string(),
    )
    .expect("written");
    let mut command = Command::new(RUNTIME);
    command
        .arg("--root")
        .arg(bundle.directory.join("state"))
        .args(["run", "--bundle"])
        .arg(&bundle.directory);
    let mut running = command
        .arg(&bundle.id)
        .spawn()
        .expect("the runtime is built");
    // Once there is a state the runtime has read the bundle, and can be asked about the container.
    while !bundle.state_directory().join("state.json").exists() {
        std::thread::yield_now();
    }
    bundle.await_status("running");
    Command::new("kill")
        .arg("-TERM")
        .arg(running.id().to_string())
        .status()
        .expect("kill");
    assert_eq!(
        running.wait().expect("it is our child").code(),
        Some(128 + 15)
    );
    bundle.assert_gone();
}

#[test]
fn wrong_command_lines_exit_with_2_and_errors_go_to_the_log() {
    let directory =
        std::env::temp_dir().join(format!("coracle-runtime-log-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("temporary directory");
    let output = finish(Command::new(RUNTIME).arg("nonsense"), &directory);
    assert_eq!(
        (output.status, output.stderr.lines().count()),
        (2, 1),
        "{output:?}"
    );
    let log = directory.join("log");
    let mut command = Command::new(RUNTIME);
    command
        .arg("--root")
        .arg(directory.join("state"))
        .arg("--log")
        .arg(&log)
        .args(["--log-format", "json"]);
    finish(command.args(["state", "nobody"]), &directory).failure();
    let entry: Value =
        serde_json::from_str(&fs::read_to_string(&log).expect("written")).expect("JSON");
    assert_eq!(
        (&entry["level"], &entry["msg"]),
        (
            &json!("error"),
            &json!("container \"nobody\" does not exist")
        )
    );
    for words in [&["--version"][..], &["features"], &["--help"]] {
        assert!(
            !finish(Command::new(RUNTIME).args(words), &directory)
                .good()
                .is_empty()
        );
    }
    fs::remove_dir_all(directory).expect("it is ours");
}

#[test]
fn container_without_a_process_is_created_and_takes_commands_but_never_starts() {
    let Some(mut bundle) = bundle() else { return };
    let document = bundle.config.as_object_mut().expect("an object");
    document.remove("process");
    let id = bundle.id.as_str();
    let failure = bundle.runtime(&["run", id]).failure();
    assert!(failure.contains("process is required"), "{failure}");
    bundle.assert_gone();
    bundle.runtime(&["create", id]).good();
    let failure = bundle.runtime(&["start", id]).failure();
    assert!(failure.contains("has no process"), "{failure}");
    assert_eq!(bundle.status(), "created");
    let cwd = bundle.runtime(&["exec", id, "/bin/helper", "cwd"]);
    assert_eq!(cwd.good(), "/\n");
    bundle.runtime(&["kill", id, "KILL"]).good();
    bundle.await_status("stopped");
    bundle.runtime(&["delete", id]).good();
    bundle.assert_gone();
}

#[test]
fn document_may_have_another_name() {
    let Some(bundle) = bundle() else { return };
    let other = bundle.directory.join("other.json");
    let mut config = bundle.config.clone();
    config["process"]["args"] = serde_json::json!(["/bin/helper", "exit", "9"]);
    fs::write(&other, config.to_string()).expect("other.json");
    for name in ["other.json", &other.display().to_string()] {
        let output = bundle.runtime(&["run", "--config", name, &bundle.id]);
        assert_eq!(output.status, 9, "{output:?}");
    }
}

#[test]
fn frozen_cgroup_is_refused() {
    let Some(bundle) = bundle() else { return };
    let freeze = bundle.cgroup().join("cgroup.freeze");
    fs::create_dir_all(bundle.cgroup()).expect("a cgroup");
    fs::write(&freeze, "1").expect("frozen");
    let told = bundle.run().failure();
    assert!(told.contains("cgroup unexpectedly frozen"), "{told}");
    fs::write(&freeze, "0").expect("thawed");
    bundle.run().good();
}

#[test]
fn all_processes_of_a_container_without_a_cgroup_end_with_its_first() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 1000");
    let id = bundle.id.as_str();
    let run = ["run", "--detach", "--cgroup-manager", "disabled", id];
    bundle.runtime(&run).good();
    bundle.runtime(&["kill", "--all", id, "KILL"]).good();
    bundle.await_status("stopped");
}
