//! Whole command lines.

use super::*;

fn parse_line(line: &str) -> Result<Invocation> {
    parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn options_may_stand_anywhere() {
    let expected = Command::Run {
        id: "web".into(),
        options: Options {
            bundle: "/b".into(),
            pid_file: Some("/p".into()),
            ..Options::default()
        },
        detach: true,
        keep: false,
    };
    for line in [
        "--root /r run --detach --bundle /b --pid-file /p web",
        "--root=/r run web -d -b /b --pid-file=/p",
        "run -detach web --bundle /b --root /r --pid-file /p",
    ] {
        let invocation = parse_line(line).expect(line);
        assert_eq!(
            (&invocation.command, invocation.root.as_path()),
            (&expected, "/r".as_ref()),
            "{line}"
        );
    }
}

#[test]
fn kill_takes_signals_by_name_and_number() {
    for (line, signal, all) in [
        ("kill x", 15, false),
        ("kill x 9", 9, false),
        ("kill --all x SIGKILL", 9, true),
        ("kill x usr1 -a", 10, true),
        ("kill x 64", 64, false),
        ("kill -a x 0", 0, true),
    ] {
        let expected = Command::Kill {
            id: "x".into(),
            signal,
            all,
        };
        assert_eq!(parse_line(line).expect(line).command, expected, "{line}");
    }
    for line in [
        "kill",
        "kill x 65",
        "kill x -9",
        "kill x NOPE",
        "kill x 9 9",
    ] {
        assert!(matches!(parse_line(line), Err(Error::Usage(_))), "{line}");
    }
}

#[test]
fn wrong_lines_are_usage_errors() {
    for line in [
        "",
        "nonsense",
        "nonsense --help",
        "start",
        "start a b",
        "start --force a",
        "delete --force=yes a",
        "run --bundle",
        "state --unknown a",
        "run --preserve-fds 4294967295 a",
        "run --preserve-fds -1 a",
        "--log-format xml state a",
        "--cgroup-manager openrc run a",
        "--systemd-cgroup --cgroup-manager cgroupfs run a",
        "exec a",
        "exec --process p.json a sh",
        "exec --user 0x0 a sh",
        "exec --additional-gids -1 a sh",
        "list --format xml",
        "list a",
        "update --memory 1.5G a",
        "update --pids-limit many a",
        "events --interval 5 a",
        "pause",
        "state -f a",
    ] {
        assert!(matches!(parse_line(line), Err(Error::Usage(_))), "{line:?}");
    }
}

#[test]
fn version_and_help_need_nothing_else() {
    assert_eq!(
        parse_line("--version").expect("valid").command,
        Command::Version
    );
    assert_eq!(
        parse_line("run --help").expect("valid").command,
        Command::Help
    );
}

#[test]
fn words_after_the_id_of_exec_are_the_commands_own() {
    for line in [
        "exec --tty --env A=1 -e B=2 --user 7:8 -g 9 -g 10 -c CAP_KILL -d web ls --tty -d --root / -- x",
        "--root=/run/x exec -t --env=A=1 --env B=2 -u=7:8 -g 9 --additional-gids 10 --cap CAP_KILL --detach web -- \
         ls --tty -d --root / -- x",
    ] {
        let words = "ls --tty -d --root / -- x".split(' ');
        let expected = Command::Exec {
            id: "web".into(),
            options: Box::new(ExecOptions {
                args: words.map(str::to_owned).collect(),
                env: vec!["A=1".into(), "B=2".into()],
                tty: true,
                user: Some(UserOption { uid: 7, gid: 8 }),
                additional_gids: vec![9, 10],
                detach: true,
                capabilities: vec!["CAP_KILL".into()],
                ..ExecOptions::default()
            }),
        };
        assert_eq!(parse_line(line).expect(line).command, expected, "{line}");
    }
}

#[test]
fn cgroup_manager_is_named_in_either_way() {
    for (line, expected) in [
        ("run a", CgroupManager::Cgroupfs),
        ("--systemd-cgroup run a", CgroupManager::Systemd),
        ("--systemd-cgroup=false run a", CgroupManager::Cgroupfs),
        ("--cgroup-manager systemd run a", CgroupManager::Systemd),
        ("--cgroup-manager=disabled run a", CgroupManager::Disabled),
    ] {
        match parse_line(line).expect(line).command {
            Command::Run { options, .. } => assert_eq!(options.cgroup_manager, expected, "{line}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn short_options_mean_what_the_command_says() {
    for (line, expected) in [
        (
            "list -f json -q",
            Command::List {
                json: true,
                quiet: true,
            },
        ),
        (
            "delete -f a",
            Command::Delete {
                id: "a".into(),
                force: true,
            },
        ),
        (
            "ps -f table a -e -f",
            Command::Ps {
                id: "a".into(),
                json: false,
                arguments: vec!["-e".into(), "-f".into()],
            },
        ),
        (
            "spec --rootless -b /x",
            Command::Spec {
                bundle: "/x".into(),
                rootless: true,
            },
        ),
        (
            "--rootless auto events a --stats --interval 1s",
            Command::Events {
                id: "a".into(),
                stats: true,
                interval: Duration::from_secs(1),
            },
        ),
    ] {
        assert_eq!(parse_line(line).expect(line).command, expected, "{line}");
    }
}

#[test]
fn limits_of_update_are_typed() {
    let line = "update --memory 64M --memory-swap=-1 --cpu-quota -1 --cpuset-cpus 0-1 -r - a";
    let expected = Command::Update {
        id: "a".into(),
        options: Box::new(UpdateOptions {
            resources: Some("-".into()),
            memory: Some(64 << 20),
            memory_swap: Some(-1),
            cpu_quota: Some(-1),
            cpuset_cpus: Some("0-1".into()),
            ..UpdateOptions::default()
        }),
    };
    assert_eq!(parse_line(line).expect(line).command, expected);
}
