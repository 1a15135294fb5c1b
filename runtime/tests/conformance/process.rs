//! config.md: the process.

use serde_json::{Value, json};

use crate::harness::{Bundle, bundle};
use crate::refused;

/// Runs `cat /proc/self/status` and returns the value of a line.
#[track_caller]
fn status_line(bundle: Bundle, name: &str) -> String {
    let status = bundle.command("cat /proc/self/status").run().good();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {status}"))
        .trim()
        .to_owned()
}

/// config.md, Process: cwd is where the program starts.
#[test]
fn working_directory_is_that_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.with("/process/cwd", json!("/bin")).command("cwd");
    assert_eq!(bundle.run().lines(), ["/bin"]);
}

/// config.md, Process: cwd must be an absolute path.
#[test]
fn relative_working_directory_is_refused() {
    let Some(bundle) = bundle() else { return };
    assert!(refused(&bundle.with("/process/cwd", json!("bin"))).contains("cwd"));
}

/// config.md, Process: env is the environment.
#[test]
fn environment_is_that_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/process/env", json!(["PATH=/bin", "EMPTY=", "EQUALS=a=b"]))
        .command("env PATH ; env EMPTY ; env EQUALS ; env CARGO_MANIFEST_DIR");
    let output = bundle.run().good();
    assert_eq!(output, "/bin\n\na=b\nunset\n");
}

/// config.md, POSIX process: args has at least one entry.
#[test]
fn process_without_arguments_is_refused() {
    let Some(bundle) = bundle() else { return };
    assert!(refused(&bundle.with("/process/args", json!([]))).contains("args"));
}

/// config.md, POSIX process: args are those of execvp: the first is looked for in the container's PATH.
#[test]
fn program_is_found_in_the_path_of_the_container() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/process/env", json!(["PATH=/nowhere:/bin"]))
        .with("/process/args", json!(["helper", "pid"]));
    assert_eq!(bundle.run().lines(), ["1"]);
}

/// config.md, User: uid, gid and additional groups, and no others.
#[test]
fn user_and_groups_are_those_of_the_document() {
    for (name, expected) in [
        ("Uid:", "7\t7\t7\t7"),
        ("Gid:", "8\t8\t8\t8"),
        ("Groups:", "9 10"),
    ] {
        let Some(bundle) = bundle() else { return };
        let user = json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10] });
        assert_eq!(
            status_line(bundle.with("/process/user", user), name),
            expected
        );
    }
}

/// config.md, User: umask.
#[test]
fn umask_is_that_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let user = json!({ "uid": 0, "gid": 0, "umask": 0o027 });
    assert_eq!(
        status_line(bundle.with("/process/user", user), "Umask:"),
        "0027"
    );
}

/// config.md, Linux Process: each of the five capability sets.
#[test]
fn capability_sets_are_those_of_the_document() {
    const SETS: [(&str, &str); 5] = [
        ("CapBnd:", "0000000000000423"),
        ("CapPrm:", "0000000000000420"),
        ("CapEff:", "0000000000000400"),
        ("CapInh:", "0000000000000420"),
        ("CapAmb:", "0000000000000400"),
    ];
    let both = json!(["CAP_NET_BIND_SERVICE", "CAP_KILL"]);
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "permitted": both, "inheritable": both,
        "effective": ["CAP_NET_BIND_SERVICE"], "ambient": ["CAP_NET_BIND_SERVICE"],
    });
    let Some(bundle) = bundle() else { return };
    // A user that execve gives nothing of its own accord.
    let bundle = bundle
        .with("/process/capabilities", sets)
        .with("/process/user", json!({ "uid": 7, "gid": 7 }));
    let status = bundle.command("cat /proc/self/status").run().good();
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    assert_eq!(
        (line(SETS[0].0), line(SETS[3].0)),
        (Some(SETS[0].1), Some(SETS[3].1)),
        "{status}"
    );
    // execve leaves of the permitted ones what is ambient.
    for name in ["CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(name), Some("0000000000000400"), "{status}");
    }
}

/// config.md, Linux Process: noNewPrivileges.
#[test]
fn no_new_privileges_is_set_where_asked() {
    for (asked, expected) in [(true, "1"), (false, "0")] {
        let Some(bundle) = bundle() else { return };
        let bundle = bundle.with("/process/noNewPrivileges", json!(asked));
        assert_eq!(status_line(bundle, "NoNewPrivs:"), expected);
    }
}

/// config.md, Linux Process: oomScoreAdj.
#[test]
fn oom_score_is_adjusted() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/process/oomScoreAdj", json!(321))
        .command("cat /proc/self/oom_score_adj");
    assert_eq!(bundle.run().lines()[0], "321");
}

fn rlimit(kind: &str, soft: u64, hard: u64) -> Value {
    json!({ "type": kind, "soft": soft, "hard": hard })
}

/// config.md, POSIX process: rlimits.
#[test]
fn resource_limits_are_those_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let limits = json!([
        rlimit("RLIMIT_NOFILE", 50, 60),
        rlimit("RLIMIT_CORE", 0, 4096),
        rlimit("RLIMIT_STACK", 1 << 20, 1 << 22)
    ]);
    let output = bundle
        .with("/process/rlimits", limits)
        .command("cat /proc/self/limits")
        .run()
        .good();
    for (name, soft, hard) in [
        ("Max open files", "50", "60"),
        ("Max core file size", "0", "4096"),
        ("Max stack size", "1048576", "4194304"),
    ] {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect(name);
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..2], [soft, hard], "{name}");
    }
}

/// config.md, POSIX process: a type of rlimit that the kernel does not know is an error.
#[test]
fn unknown_resource_limit_is_refused() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.with("/process/rlimits", json!([rlimit("RLIMIT_NONSENSE", 1, 1)]));
    assert!(refused(&bundle).contains("RLIMIT_NONSENSE"));
}

/// config.md, POSIX process: duplicated types of rlimits are an error.
#[test]
fn duplicated_resource_limit_is_refused() {
    let Some(bundle) = bundle() else { return };
    let limits = json!([
        rlimit("RLIMIT_NOFILE", 50, 60),
        rlimit("RLIMIT_NOFILE", 51, 61)
    ]);
    refused(&bundle.with("/process/rlimits", limits));
}

/// config.md, POSIX process: the soft limit is at most the hard one.
#[test]
fn soft_limit_above_the_hard_one_is_refused() {
    let Some(bundle) = bundle() else { return };
    refused(&bundle.with("/process/rlimits", json!([rlimit("RLIMIT_NOFILE", 61, 60)])));
}
