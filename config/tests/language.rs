//! The language as its users meet it: whole files in, a machine or the rendered mistakes out.

use config::boot::{Check, Kind, Network, Readiness, Restart};
use config::spec::{KernelSource, Source};

const WEB: &str = r#"
name = "web"
version = "1.0.0"

[kernel]
package = "linux-image-cloud-amd64"

[state]
size = "256MiB"

[network]
hostname = "web-1"
[network.interface.uplink]
dhcp = true

[workload.web]
debian = ["nginx-light"]
command = ["nginx", "-g", "daemon off;"]
ports = ["8080:80"]
after = ["db"]
health = { http = "http://:80/", every = "10s" }

[workload.db]
image = "oci:images/redis"
volumes = [{ name = "db", path = "/data" }]
memory = "128MiB"
"#;

/// The rendered mistakes of a file.
fn mistakes(text: &str) -> String {
    match config::parse(text) {
        Ok(spec) => panic!("accepted: {spec:?}"),
        Err(mistakes) => mistakes.render("os.toml", text),
    }
}

#[test]
fn the_design_example_is_a_machine() {
    let spec = config::parse(WEB).unwrap();
    assert_eq!(spec.hostname, "web-1");
    assert_eq!(spec.state_size, Some(256 << 20));
    assert!(
        matches!(&spec.kernel, KernelSource::Package { name, suite: None } if name == "linux-image-cloud-amd64")
    );
    let [db, web] = &spec.workloads[..] else {
        panic!("two workloads, db first: {:?}", spec.workloads);
    };
    assert_eq!((db.name.as_str(), db.memory), ("db", Some(128 << 20)));
    assert!(
        matches!(&db.source, Source::Image(reference) if reference.get_ref() == "oci:images/redis")
    );
    assert_eq!(db.readiness, Readiness::Started);
    assert_eq!(web.restart.when, Restart::Always);
    assert_eq!(web.readiness, Readiness::Health);
    assert_eq!(
        web.health.as_ref().unwrap().check,
        Check::Http {
            port: 80,
            path: "/".into(),
            host: "localhost".into()
        }
    );
}

#[test]
fn the_least_file_is_a_name() {
    let spec = config::parse("name = \"empty\"").unwrap();
    assert_eq!(spec.hostname, "empty");
    assert!(spec.workloads.is_empty() && spec.state_size.is_none());
    assert!(spec.interfaces[0].dhcp);
    assert_eq!((spec.log.size, spec.log.memory), (16 << 20, 64 << 10));
}

#[test]
fn after_network_is_a_condition_and_the_firewall_goes_without_saying() {
    use config::boot::BootCondition::{Firewall, Network};
    let text = "name = \"m\"\n[pod.p]\nnetwork = \"none\"\n[workload.a]\nimage = \"dir:x\"\nafter = [\"network\", \"b\"]\n\
                [workload.b]\nimage = \"dir:x\"\nnetwork = \"none\"\n\
                [workload.c]\nimage = \"dir:x\"\npod = \"p\"\nafter = [\"network\"]";
    let spec = config::parse(text).unwrap();
    let workloads = spec.workloads.iter();
    let found: Vec<_> = workloads
        .map(|w| (w.name.as_str(), &w.conditions[..], &w.after[..]))
        .collect();
    assert_eq!(
        found,
        [
            ("b", &[][..], &[][..]),
            ("a", &[Firewall, Network], &["b".to_owned()]),
            ("c", &[Network], &[]),
        ]
    );
}

/// Each row: what is put in place of what in [`WEB`], and lines that the message must have.
const ROWS: &[(&str, &str, &[&str])] = &[
    (
        "image = \"oci:",
        "imgae = \"oci:",
        &[
            "unknown key `imgae`",
            "os.toml:24:1",
            "did you mean `image`?",
        ],
    ),
    (
        "[state]",
        "[sate]",
        &["unknown key `sate`", "os.toml:8:2", "did you mean `state`?"],
    ),
    (
        "dhcp = true",
        "dchp = true",
        &["unknown key `dchp`", "did you mean `dhcp`?"],
    ),
    (
        "path = \"/data\"",
        "paht = \"/data\"",
        &["unknown key `paht`", "did you mean `path`?"],
    ),
    (
        "dhcp = true",
        "dhcp = \"yes\"",
        &["os.toml:14:8", "expected a boolean"],
    ),
    (
        "\"256MiB\"",
        "\"256MB\"",
        &[
            "`256MB` has the unknown unit `MB`",
            "os.toml:9:8",
            "did you mean \"256MiB\"?",
        ],
    ),
    (
        "\"256MiB\"",
        "\"1MiB\"",
        &["too small for a state partition"],
    ),
    (
        "\"10s\"",
        "\"10\"",
        &["`10` is no duration", "os.toml:21:42"],
    ),
    ("\"128MiB\"", "\"12\"", &["`12` has no unit"]),
    (
        "[workload.db]",
        "[workload.d_b]",
        &["`d_b` is no workload name", "`d-b`", "os.toml:23:11"],
    ),
    (
        "name = \"web\"",
        "name = \"Web\"",
        &["`Web` is no name", "`web`"],
    ),
    (
        "hostname = \"web-1\"",
        "hostname = \"web_1\"",
        &["is no part of a hostname"],
    ),
    (
        "after = [\"db\"]",
        "after = [\"bd\"]",
        &["`bd`: there is no workload", "did you mean `db`?"],
    ),
    (
        "after = [\"db\"]",
        "after = [\"web\"]",
        &["in a circle: web → web"],
    ),
    (
        "image = \"oci:images/redis\"",
        "",
        &["workload `db` has no image", "os.toml:23:11"],
    ),
    (
        "image = \"oci:",
        "image = \"oic:",
        &["is no image reference", "did you mean `oci`?"],
    ),
    (
        "image = \"oci:",
        "debian = [\"a1\"]\nimage = \"oci:",
        &["both `image` and `debian`"],
    ),
    (
        "command = [\"nginx\", \"-g\", \"daemon off;\"]",
        "",
        &["workload `web` has no command"],
    ),
    (
        "command = [\"nginx\", \"-g\", \"daemon off;\"]",
        "command = []",
        &["`command` names no program"],
    ),
    (
        "[\"8080:80\"]",
        "[\"8080:80\", \"8080:81\"]",
        &["port 8080 is published by workload `web` already"],
    ),
    (
        "memory =",
        "network = \"host\"\nports = [\"81:8080\"]\nmemory =",
        &["workload `db` listens on port 8080 already"],
    ),
    (
        "[state]",
        "[log]\nmemory = \"1KiB\"\n[state]",
        &["`1KiB` is too small for a log", "64KiB is the least"],
    ),
    (
        "[state]",
        "[log]\nmemory = \"1GiB\"\n[state]",
        &["`1GiB` is too large for a log", "the most is 64MiB"],
    ),
    (
        "[state]",
        "[log]\nsize = \"lots\"\n[state]",
        &["`lots` is no size"],
    ),
    (
        "[workload.db]",
        "[workload.kernel]\nimage = \"dir:x\"\n[workload.db]",
        &["`kernel`: this name is taken in the log"],
    ),
    (
        "[workload.db]",
        "[workload.network]\nimage = \"dir:x\"\n[workload.db]",
        &[
            "`network`: no workload can have this name",
            "os.toml:23:11",
            "after = [\"network\"] waits for the machine's network",
        ],
    ),
    (
        "[workload.db]",
        "[pod.network]\n[workload.db]\npod = \"network\"",
        &["`network`: no pod can have this name", "choose another one"],
    ),
    (
        "after = [\"db\"]",
        "requires = [\"network\"]",
        &[
            "`network` cannot be required",
            "write after = [\"network\"]",
        ],
    ),
    (
        "size = \"256MiB\"",
        "size = \"256MiB\"\non_damage = \"rest\"",
        &["`rest` is nothing to do on damage", "did you mean `reset`?"],
    ),
    (
        "path = \"/data\" }",
        "path = \"/data\", size = \"4KiB\" }",
        &["`4KiB` is too small", "64KiB is the least"],
    ),
    (
        "path = \"/data\" }",
        "path = \"/data\", mode = \"rwx\" }",
        &["`rwx` is no file mode"],
    ),
    (
        "path = \"/data\" }]",
        "path = \"/data\", size = \"1MiB\" }, { name = \"db\", path = \"/b\", size = \"2MiB\" }]",
        &["volume `db` has size `1MiB` already", "say the size once"],
    ),
    (
        "[state]\nsize = \"256MiB\"",
        "",
        &["volume `db` without a state partition", "add [state]"],
    ),
    (
        "package = \"linux-image-cloud-amd64\"",
        "package = \"Linux\"",
        &["`Linux` is no Debian package name"],
    ),
    (
        "package = \"linux-image-cloud-amd64\"",
        "image = \"vmlinuz\"",
        &["a kernel of files has both keys"],
    ),
    (
        "package =",
        "command_line = [\"roothash=0\"]\npackage =",
        &["`roothash` is set by the builder"],
    ),
    (
        "package =",
        "command_line = [\"coracle.failure=halt,1s\"]\npackage =",
        &["`coracle.failure` is set by the builder", "[failure]"],
    ),
    (
        "[state]",
        "[failure]\naction = \"restart\"\n[state]",
        &[
            "`restart` is nothing that a machine can do",
            "one of `reboot`, `poweroff`, `halt`",
            "os.toml:9:10",
        ],
    ),
    (
        "[state]",
        "[failure]\ndelay = \"10\"\n[state]",
        &["`10` is no duration"],
    ),
    (
        "[state]",
        "[shutdown]\ntimout = \"10s\"\n[state]",
        &["unknown key `timout`", "did you mean `timeout`?"],
    ),
    ("[state]", "[watchdog]\n[state]", &["missing key `timeout`"]),
    (
        "[state]",
        "[watchdog]\ntimeout = \"1500ms\"\n[state]",
        &["`1500ms` is no time for a watchdog", "from 2s to 600s"],
    ),
    (
        "[kernel]",
        "[root]\ncompression = \"lz4h\"\n[kernel]",
        &["`lz4h` is no compression of the root", "did you mean `lz4`"],
    ),
    (
        "[kernel]",
        "[root]\ncompression = \"lz4hc\"\nlevel = 13\n[kernel]",
        &["`13` is no level of lz4hc", "from 2 to 12"],
    ),
    (
        "[kernel]",
        "[root]\nlevel = 9\n[kernel]",
        &["`level` without a compression that has levels"],
    ),
    (
        "[kernel]",
        "[hardware]\nprofile = \"mtal\"\n[kernel]",
        &["`mtal` is no hardware profile", "did you mean `metal`?"],
    ),
    (
        "[kernel]",
        "[hardware]\ndrivers = [\"e 1000\"]\n[kernel]",
        &["`e 1000` is no kernel module"],
    ),
    (
        "http = \"http://:80/\"",
        "http = \"https://:80/\"",
        &["is no URL for a health check"],
    ),
    (
        "path = \"/data\"",
        "path = \"/proc\"",
        &["no volume can be at `/proc`", "/data"],
    ),
    (
        "path = \"/data\"",
        "path = \"/sys/fs/cgroup\"",
        &["no volume can be at `/sys/fs/cgroup`"],
    ),
    (
        "path = \"/data\"",
        "path = \"/../data\"",
        &["is no plain absolute path"],
    ),
    (
        "memory =",
        "capabilities = [\"CAP_CHWON\"]\nmemory =",
        &["did you mean `CAP_CHOWN`?"],
    ),
    (
        "memory =",
        "cpus = 0.0\nmemory =",
        &["processors are out of range"],
    ),
    (
        "memory =",
        "pids = 0\nmemory =",
        &["processes are out of range"],
    ),
    (
        "memory =",
        "secrets = [{ name = \"a/b\" }]\nmemory =",
        &["`a/b` is no name of a secret", "1 to 28 letters"],
    ),
    (
        "memory =",
        "secrets = [{ name = \"a\" }, { name = \"a\" }]\nmemory =",
        &["`a` is there already"],
    ),
    (
        "memory =",
        "secrets = [{ name = \"a\", path = \"/run/secrets/b\" }]\nmemory =",
        &[
            "no secret can be at `/run/secrets/b`",
            "at /run/secrets/a if",
        ],
    ),
    (
        "memory =",
        "secrets = [{ name = \"a\", mode = \"0600\" }]\nmemory =",
        &["`0600` is no mode for a secret"],
    ),
    (
        "path = \"/data\" }]",
        "path = \"/data\" }]\nsecrets = [{ name = \"a\", path = \"/data\" }]",
        &["`/data` is taken already"],
    ),
    (
        "memory =",
        "restart = \"allways\"\nmemory =",
        &["did you mean `always`?"],
    ),
    (
        "memory =",
        "files = [{ path = \"/a\" }]\nmemory =",
        &["needs one of `content`, `source` and `link`"],
    ),
    (
        "version = \"1.0.0\"",
        "version = \"1.0+1\"",
        &["`1.0+1` is no version"],
    ),
    ("version = \"1.0.0\"", "version = 1", &["os.toml:3:11"]),
    ("name = \"web\"\n", "", &["missing key `name`"]),
    ("name = \"web\"\n", "name = \"web\n", &["os.toml:2"]),
    (
        "package =",
        "suite = \"-x\"\npackage =",
        &["`-x` is no Debian suite"],
    ),
    (
        "memory =",
        "kind = \"jbo\"\nmemory =",
        &["`jbo` is no kind of workload", "did you mean `job`?"],
    ),
    (
        "memory =",
        "kind = \"job\"\nready = \"started\"\nmemory =",
        &["a job has no `ready`", "done when it exits"],
    ),
    (
        "memory =",
        "kind = \"job\"\nrestart = \"always\"\nmemory =",
        &["restarted `always` is never done", "on-failure"],
    ),
    (
        "memory =",
        "requires = [\"wbe\"]\nmemory =",
        &["`wbe`: there is no workload", "did you mean `web`?"],
    ),
    (
        "memory =",
        "requires = [\"web\"]\nmemory =",
        &["the order goes in a circle: "],
    ),
    (
        "memory =",
        "ready = \"notfy\"\nmemory =",
        &["no way to be ready", "did you mean `notify`?"],
    ),
    (
        "memory =",
        "ready = \"port\"\nmemory =",
        &["no TCP port is published", "add ports"],
    ),
    (
        "memory =",
        "ready = \"health\"\nmemory =",
        &["there is no health check", "add health"],
    ),
    (
        "memory =",
        "watchdog = \"30s\"\nmemory =",
        &["`watchdog` without ready = \"notify\""],
    ),
    (
        "every = \"10s\"",
        "exec = [\"true\"]",
        &["needs one of `http`, `tcp` and `exec`"],
    ),
    (
        "http = \"http://:80/\"",
        "exec = []",
        &["`exec` names no program"],
    ),
    (
        "every = \"10s\"",
        "retries = 0",
        &["`0` retries are out of range"],
    ),
    (
        "every = \"10s\"",
        "grace = \"soon\"",
        &["`soon` is no duration"],
    ),
    (
        "memory =",
        "restart_delay = \"20s\"\nrestart_delay_max = \"10s\"\nmemory =",
        &["`10s` is shorter than `restart_delay`"],
    ),
    (
        "memory =",
        "start_limit = { starts = 0, within = \"5m\" }\nmemory =",
        &["`0` starts are out of range", "from 1 to 1000"],
    ),
    (
        "memory =",
        "pod = \"app\"\nmemory =",
        &["there is no pod of that name", "add [pod.app]"],
    ),
    (
        "[workload.db]",
        "[pod.app]\n[workload.db]",
        &["no workload is in pod `app`", "pod = \"app\""],
    ),
    (
        "memory =",
        "sockets = [\"http\"]\nmemory =",
        &["there is no socket of that name", "add [socket.http]"],
    ),
    (
        "[workload.db]",
        "[socket.s]\nlisten = \"unix\"\n[workload.db]",
        &["no workload has socket `s`", "sockets = [\"s\"]"],
    ),
    (
        "[workload.db]",
        "[socket.s]\nlisten = \"8080/tpc\"\n[workload.db]\nsockets = [\"s\"]",
        &["unknown protocol `tpc`", "did you mean `tcp`?"],
    ),
    (
        "[workload.db]",
        "[socket.s]\nlisten = \"localhost:80\"\n[workload.db]\nsockets = [\"s\"]",
        &["`localhost:80` is nothing to listen on", "127.0.0.1:8080"],
    ),
    (
        "[workload.db]",
        "[socket.s]\nlisten = \"8080\"\n[workload.db]\nsockets = [\"s\"]",
        &["`8080`: port 8080 is published by workload `web` already"],
    ),
    (
        "[workload.db]",
        "[socket.s]\nlisten = \"81\"\n[socket.t]\nlisten = \"127.0.0.1:81\"\n[workload.db]\nsockets = [\"s\", \"t\"]",
        &["`127.0.0.1:81`: socket `s` listens on port 81 already"],
    ),
    (
        "[workload.db]",
        "[socket.s]\nlisten = \"81\"\nmode = \"0600\"\nbacklog = 0\n[workload.db]\nsockets = [\"s\", \"s\"]",
        &[
            "`mode` of a socket that is no file",
            "a backlog of `0`",
            "has this socket already",
        ],
    ),
    (
        "memory =",
        "user = \"a\\u0000b\"\nmemory =",
        &["contains a NUL"],
    ),
];

#[test]
fn each_mistake_names_its_place_its_text_and_its_mend() {
    for (from, to, expected) in ROWS {
        assert!(
            WEB.contains(from),
            "the row's text is in the example: {from}"
        );
        let shown = mistakes(&WEB.replacen(from, to, 1));
        for part in *expected {
            assert!(shown.contains(part), "{to:?}: {part:?} is not in\n{shown}");
        }
        assert!(shown.contains("os.toml"), "{shown}");
    }
}

#[test]
fn a_cycle_of_three_is_told_whole() {
    let text = r#"
name = "x"
[workload.a]
image = "dir:a"
after = ["b"]
[workload.b]
image = "dir:a"
after = ["c"]
[workload.c]
image = "dir:a"
after = ["a"]
"#;
    assert!(mistakes(text).contains("in a circle: a → b → c → a"));
}

#[test]
fn all_mistakes_of_meaning_are_told_at_once_in_the_files_order() {
    let text = WEB
        .replace("256MiB", "256MB")
        .replace("\"10s\"", "\"10\"")
        .replace("128MiB", "128");
    let shown = mistakes(&text);
    let places: Vec<_> = ["os.toml:9:", "os.toml:21:", "os.toml:26:"]
        .iter()
        .map(|p| shown.find(p))
        .collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{shown}"
    );
}

#[test]
fn a_job_a_notifying_service_and_a_socket_have_their_defaults() {
    let spec = config::parse(
        r#"
name = "x"
[socket.http]
listen = "8080"
[workload.migrate]
image = "dir:a"
kind = "job"
[workload.app]
image = "dir:a"
ready = "notify"
requires = ["migrate"]
ports = ["81:81"]
restart_delay = "1m"
[workload.lazy]
image = "dir:a"
sockets = ["http"]
"#,
    )
    .unwrap();
    let [migrate, app, lazy] = &spec.workloads[..] else {
        panic!("three workloads: {:?}", spec.workloads);
    };
    assert_eq!(migrate.kind, Kind::Job);
    assert_eq!(migrate.restart.when, Restart::OnFailure);
    assert_eq!(migrate.restart.start_limit.unwrap().starts, 5);
    assert_eq!(app.readiness, Readiness::Notify);
    assert_eq!(app.health.as_ref().unwrap().check, Check::Tcp { port: 81 });
    assert_eq!(app.restart.delay, app.restart.delay_max);
    assert_eq!(app.restart.start_limit, None);
    assert_eq!((lazy.readiness, &lazy.health), (Readiness::Started, &None));
    assert_eq!(spec.sockets[0].backlog, 128);
}

#[test]
fn confinement_and_limits_are_told_where_they_make_no_sense() {
    for (keys, expected) in [
        (
            "network = \"hots\"",
            &["`hots` is no network", "did you mean `host`?"][..],
        ),
        (
            "user_namespace = \"hosts\"",
            &["`hosts` is no user namespace", "did you mean `host`?"],
        ),
        (
            "pid_namespace = \"hots\"",
            &["`hots` is no pid namespace", "did you mean `host`?"],
        ),
        (
            "pid_namespace = \"host\"",
            &[
                "`pid_namespace = \"host\"` with a user namespace of its own",
                "add user_namespace = \"host\"",
            ],
        ),
        (
            "pod = \"p\"\npid_namespace = \"host\"",
            &["`pid_namespace` of a workload in pod `p`", "remove it"],
        ),
        (
            "network = \"none\"\nports = [\"80:80\"]",
            &["nobody reaches port `80:80`", "[socket.NAME]"],
        ),
        (
            "open_files = 3",
            &["`3` open files are out of range", "from 16 to 524288"],
        ),
        (
            "io = { weight = 0 }",
            &["`0` shares of the disk are out of range", "from 1 to 10000"],
        ),
        (
            "io = { read = \"1KiB\" }",
            &["`1KiB` a second is too little", "4KiB"],
        ),
        (
            "io = { read_ops = 0 }",
            &["`0` requests a second are out of range"],
        ),
        (
            "io = { reed = \"1MiB\" }",
            &["unknown key `reed`", "did you mean `read`?"],
        ),
        (
            "pod = \"p\"\nnetwork = \"none\"",
            &["`network` of a workload in pod `p`", "write it in [pod.p]"],
        ),
        (
            "pod = \"p\"\nuser_namespace = \"host\"",
            &["`user_namespace` of a workload in pod `p`"],
        ),
        (
            "connect = { db = \"/run/db\" }",
            &["`db`: there is no socket of that name"],
        ),
        (
            "connect = { ap = \"/run/app\" }",
            &[
                "`ap`: there is no socket of that name",
                "did you mean `app`?",
            ],
        ),
        (
            "connect = { web = \"/run/web\" }",
            &["socket `web` is no file"],
        ),
        (
            "connect = { app = \"/run/app\" }\nfiles = [{ path = \"/run/app\", content = \"\" }]",
            &["`/run/app` is taken already", "its own path"],
        ),
        (
            "connect = { app = \"/proc/x\" }",
            &["no socket can be at `/proc/x`"],
        ),
    ] {
        let text = format!(
            "name = \"x\"\n[pod.p]\n[socket.web]\nlisten = \"80\"\n[socket.app]\nlisten = \"unix\"\n\
             [workload.server]\nimage = \"dir:a\"\npod = \"p\"\nsockets = [\"web\", \"app\"]\n\
             [workload.w]\nimage = \"dir:a\"\n{keys}\n"
        );
        let shown = mistakes(&text);
        for part in expected {
            assert!(shown.contains(part), "{keys}: {shown}");
        }
    }
}

#[test]
fn user_namespaces_get_ids_in_order_and_the_machines_none() {
    let text = r#"
name = "x"
[pod.p]
network = "none"
[workload.a]
image = "dir:a"
[workload.b]
image = "dir:a"
user_namespace = "host"
[workload.c]
image = "dir:a"
[workload.d]
image = "dir:a"
pod = "p"
"#;
    let spec = config::parse(text).unwrap();
    let ids: Vec<_> = spec.workloads.iter().map(|w| w.first_id).collect();
    assert_eq!(ids, [Some(131_072), None, Some(196_608), Some(65_536)]);
    assert_eq!(spec.workloads[3].network, Network::None);
    assert_eq!(spec.workloads[0].pids, 4096);
}

#[test]
fn a_socket_whose_mode_shuts_out_who_connects_to_it_is_a_mistake() {
    let text = |mode: &str, ids: &str| {
        format!(
            "name = \"x\"\n[socket.app]\nlisten = \"unix\"\nmode = \"{mode}\"\n[workload.server]\nimage = \"dir:a\"\n\
             sockets = [\"app\"]\n[workload.w]\nimage = \"dir:a\"\nconnect = {{ app = \"/run/app\" }}\n{ids}\n"
        )
    };
    let shown = mistakes(&text("0660", ""));
    assert!(
        shown.contains("mode 0660 lets nobody of workload `w` connect"),
        "{shown}"
    );
    assert!(config::parse(&text("0662", "")).is_ok());
    assert!(config::parse(&text("0660", "user_namespace = \"host\"")).is_ok());
    let in_pod = "pod = \"p\"\n[pod.p]\nuser_namespace = \"host\"";
    assert!(config::parse(&text("0660", in_pod)).is_ok());
}

#[test]
fn the_esp_has_room_for_as_many_kernels_as_the_file_says() {
    let with = |count: &str| format!("name = \"a\"\n[boot]\nkernels = {count}\n");
    assert_eq!(config::parse("name = \"a\"").unwrap().esp_kernels, 3);
    assert_eq!(config::parse(&with("1")).unwrap().esp_kernels, 1);
    for bad in ["0", "33", "-1"] {
        let told = mistakes(&with(bad));
        assert!(
            told.contains("os.toml:3:11") && told.contains("out of range"),
            "{told}"
        );
    }
}

#[test]
fn an_image_is_signed_by_a_key_or_by_a_command() {
    let with =
        |lines: &str| format!("name = \"a\"\n[secure_boot]\ncertificate = \"db.pem\"\n{lines}");
    for (lines, signatures) in [
        ("key = \"db.key\"", true),
        ("sign_command = [\"kms\", \"sign\"]", true),
    ] {
        let spec = config::parse(&with(lines)).unwrap();
        assert!(spec.secure_boot.is_some());
        assert_eq!(
            spec.module_signatures, signatures,
            "a kernel under Secure Boot is locked down"
        );
    }
    for (lines, wanted) in [
        ("", "os.toml:3:15"),
        ("", "without a key to sign with"),
        (
            "key = \"k\"\nsign_command = [\"c\"]",
            "`key = \"k\"` beside `sign_command`",
        ),
        ("sign_command = []", "names no program"),
        ("sign_command = [\"\"]", "names no program"),
        ("keys = \"k\"", "unknown key `keys`"),
    ] {
        let told = mistakes(&with(lines));
        assert!(told.contains(wanted), "no {wanted:?} in\n{told}");
        assert!(told.contains("hint: "), "{told}");
    }
}

#[test]
fn mistakes_about_registries_are_told() {
    let text = r#"
name = "m"
[registry."registry.example.org"]
ca = "ca.pem"
insecure = true
[registry.nowhere]
[registry."10.0.0.5:5000"]
secure = true
"#;
    let told = mistakes(text);
    assert!(
        told.contains("os.toml:8:1") && told.contains("secure"),
        "{told}"
    );
    let told = mistakes(
        &text
            .replace("secure = true\n\"", "")
            .replace("\nsecure = true", ""),
    );
    for want in [
        "os.toml:4:6",
        "`ca` beside `insecure = true`",
        "os.toml:6:11",
        "`nowhere` is no name of a registry",
    ] {
        assert!(told.contains(want), "{want}: {told}");
    }
    for (image, want) in [
        ("redis:7", "docker.io/library/redis:7"),
        ("docker://a.org/b", "leave `docker://` out"),
        ("docker.io/redis", "docker.io/library/redis"),
        ("a.org/B", "a.org/b"),
        ("a.org/b@sha256:1", "64 digits"),
    ] {
        let told = mistakes(&format!(
            "name = \"m\"\n[workload.w]\nimage = \"{image}\"\n"
        ));
        assert!(
            told.contains("os.toml:3:9") && told.contains(want),
            "{told}"
        );
    }
}
