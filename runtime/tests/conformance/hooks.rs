//! config.md, "POSIX-platform Hooks", and the steps of runtime.md, "Lifecycle", that run them.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Bundle, bundle};
use crate::state;

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that writes down that it ran, and its state: of the host, or of the container.
fn logging(bundle: &Bundle, kind: &str, inside: bool) -> Value {
    let (program, log) = match inside {
        true => ("/bin/helper".into(), "/log".into()),
        false => (
            bundle.root().join("bin/helper").display().to_string(),
            bundle.root().join("log").display().to_string(),
        ),
    };
    json!({ "path": program, "args": ["helper", "log-state", log, kind], "env": [] })
}

fn failing(bundle: &Bundle, inside: bool) -> Value {
    let mut hook = logging(bundle, "failing", inside);
    hook["args"] = json!(["helper", "exit", "7"]);
    hook
}

/// Every hook logs.
fn with_hooks(bundle: Bundle) -> Bundle {
    let mut hooks = json!({});
    for kind in KINDS {
        hooks[kind] = json!([logging(&bundle, kind, kind == "startContainer")]);
    }
    bundle.with("/hooks", hooks).command("sleep 1000")
}

fn logged(bundle: &Bundle) -> Vec<(String, Value)> {
    let text = fs::read_to_string(bundle.root().join("log")).unwrap_or_default();
    let split = |line: &str| {
        let (kind, state) = line.split_once(' ').expect("two words");
        (kind.to_owned(), serde_json::from_str(state).expect("JSON"))
    };
    text.lines().map(split).collect()
}

fn kinds(bundle: &Bundle) -> Vec<String> {
    logged(bundle).into_iter().map(|(kind, _)| kind).collect()
}

/// runtime.md, Lifecycle: hooks are invoked at their operation, and in the order of the steps.
#[test]
fn hooks_run_at_their_step_of_the_lifecycle() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_hooks(bundle);
    let id = bundle.id.as_str();
    bundle.runtime(&["create", id]).good();
    assert_eq!(kinds(&bundle), KINDS[..3]);
    bundle.runtime(&["start", id]).good();
    assert_eq!(kinds(&bundle), KINDS[..5]);
    bundle.runtime(&["kill", id, "KILL"]).good();
    bundle.await_status("stopped");
    assert_eq!(kinds(&bundle), KINDS[..5]);
    bundle.runtime(&["delete", id]).good();
    assert_eq!(kinds(&bundle), KINDS);
}

/// config.md, POSIX-platform Hooks: the state of the container is on their standard input.
#[test]
fn hooks_get_the_state_of_the_container() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_hooks(bundle);
    let id = bundle.id.as_str();
    bundle.runtime(&["create", id]).good();
    let pid = state(&bundle)["pid"].clone();
    bundle.runtime(&["start", id]).good();
    bundle.runtime(&["delete", "--force", id]).good();
    let hooks = logged(&bundle);
    let statuses = [
        "creating", "creating", "creating", "created", "running", "stopped",
    ];
    assert_eq!(hooks.len(), statuses.len(), "{hooks:?}");
    for ((kind, state), status) in hooks.iter().zip(statuses) {
        assert_eq!(
            (&state["status"], &state["id"]),
            (&json!(status), &json!(id)),
            "{kind}"
        );
        let directory = bundle.directory.canonicalize().expect("there");
        assert_eq!(state["bundle"], json!(directory), "{kind}");
        if matches!(kind.as_str(), "prestart" | "createRuntime" | "poststart") {
            assert_eq!(state["pid"], pid, "{kind}");
        }
    }
}

/// config.md, POSIX-platform Hooks: those of one kind are called in the listed order.
#[test]
fn hooks_of_one_kind_run_in_the_listed_order() {
    let Some(bundle) = bundle() else { return };
    let list: Vec<Value> = ["one", "two", "three"]
        .map(|name| logging(&bundle, name, false))
        .into();
    let bundle = bundle.with("/hooks", json!({ "createRuntime": list }));
    bundle.runtime(&["create", &bundle.id]).good();
    assert_eq!(kinds(&bundle), ["one", "two", "three"]);
}

/// runtime.md, Lifecycle: a hook of create that fails is an error, and the container is destroyed, with poststop.
#[test]
fn failed_hook_of_create_destroys_the_container() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let Some(bundle) = bundle() else { return };
        let hooks = json!({ kind: [failing(&bundle, false)], "poststop": [logging(&bundle, "poststop", false)] });
        let bundle = bundle.with("/hooks", hooks);
        bundle.runtime(&["create", &bundle.id]).failure();
        bundle.assert_gone();
        assert_eq!(kinds(&bundle), ["poststop"], "{kind}");
    }
}

/// runtime.md, Lifecycle: a startContainer hook that fails is an error, and the program is not run.
#[test]
fn failed_hook_of_start_stops_the_container() {
    let Some(bundle) = bundle() else { return };
    let hooks = json!({ "startContainer": [failing(&bundle, true)] });
    let bundle = bundle.with("/hooks", hooks).command("write /ran yes");
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["start", &bundle.id]).failure();
    bundle.await_status("stopped");
    assert!(!bundle.root().join("ran").exists());
}

/// runtime.md, Lifecycle: a poststart hook that fails is an error, and the container is stopped.
#[test]
fn failed_hook_after_the_start_stops_the_container() {
    let Some(bundle) = bundle() else { return };
    let hooks = json!({ "poststart": [failing(&bundle, false)] });
    let bundle = bundle.with("/hooks", hooks).command("sleep 1000");
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["start", &bundle.id]).failure();
    bundle.await_status("stopped");
}

/// runtime.md, Lifecycle: a poststop hook that fails is a warning, and the others run.
#[test]
fn failed_hook_after_the_end_is_a_warning() {
    let Some(bundle) = bundle() else { return };
    let hooks = json!({ "poststop": [failing(&bundle, false), logging(&bundle, "next", false)] });
    let bundle = bundle.with("/hooks", hooks);
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    bundle.await_status("stopped");
    let output = bundle.runtime(&["delete", &bundle.id]);
    assert!(output.stderr.contains("poststop"), "{output:?}");
    output.good();
    assert_eq!(kinds(&bundle), ["next"]);
    bundle.assert_gone();
}

/// config.md, POSIX-platform Hooks: path must be absolute, and timeout above zero.
#[test]
fn hook_that_is_not_valid_is_refused() {
    for hook in [
        json!({ "path": "bin/helper" }),
        json!({ "path": "/bin/helper", "timeout": 0 }),
        json!({ "path": "/bin/helper", "timeout": -1 }),
    ] {
        let Some(bundle) = bundle() else { return };
        crate::refused(&bundle.with("/hooks", json!({ "poststop": [hook] })));
    }
}
