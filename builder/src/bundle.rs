//! The OCI bundle of a workload: its `config.json` by runtime-spec 1.2, thought out at build time.
//!
//! Nothing of an image's labels or annotations gets in here; only what the machine's file and the image's own
//! process settings say.

use config::boot::{NOTIFY_SOCKET, Network, Readiness, SECRETS_DIR, notify_path, socket_path};
use config::spec::{IDS, SECRETS_PATH, Workload};
use serde_json::{Value, json};

use crate::seccomp;

/// Where layers and bundles lie in the machine's root.
pub const LAYERS_DIR: &str = "/usr/lib/coracle/layers";
/// See [`LAYERS_DIR`].
pub const BUNDLES_DIR: &str = "/usr/lib/coracle/bundles";
/// Where named volumes lie on the machine.
pub const VOLUMES_DIR: &str = "/state/volumes";

/// Where the namespaces of pods lie on the machine, as files to join them by.
const PODS_DIR: &str = "/run/coracle/pods";

/// The capabilities of a workload that runs as root of a user namespace of its own and says nothing of capabilities:
/// enough to own its files and become another user. They reach as far as that namespace's ids, so none of them counts
/// for the machine.
pub const ROOT_CAPABILITIES: [&str; 7] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
];

/// The process of a workload, resolved against its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments, at least the program.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Capabilities by full name, sorted.
    pub capabilities: Vec<String>,
}

/// The capabilities that a workload runs with.
pub fn capabilities(workload: &Workload, uid: u32) -> Vec<String> {
    let mut list = match &workload.capabilities {
        Some(list) => list.clone(),
        None if uid == 0 && workload.first_id.is_some() => {
            ROOT_CAPABILITIES.map(str::to_owned).to_vec()
        }
        None => Vec::new(),
    };
    list.sort();
    list.dedup();
    list
}

/// The bundle's `config.json`; `lower` are the layers' directories in the machine, top first. With `share_pid` the
/// workload's pod has one pid namespace for all.
pub fn config_json(
    workload: &Workload,
    process: &Process,
    lower: &[String],
    share_pid: bool,
) -> Value {
    let mut config = json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": workload.read_only },
        "process": process_json(process, workload),
        "mounts": mounts(workload),
        "annotations": annotations(workload, lower),
        "linux": {
            "cgroupsPath": format!("/coracle/{}", workload.name),
            "namespaces": namespaces(workload, share_pid),
            "resources": resources(workload),
            "rootfsPropagation": "private",
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
            "seccomp": seccomp::profile(&process.capabilities),
        },
    });
    if let Some(first) = workload.first_id {
        let mapping = json!([{ "containerID": 0, "hostID": first, "size": IDS }]);
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
    }
    if workload.network == Network::Own && workload.pod.is_none() {
        config["hooks"] = json!({ "createRuntime": [attach_hook(&workload.name)] });
    }
    // The hostname of a pod is its own.
    if workload.pod.is_none() {
        config["hostname"] = json!(workload.name);
    }
    config
}

/// init gives the workload its network, as the program that runs as PID 1; pods get theirs when they are made.
fn attach_hook(name: &str) -> Value {
    json!({ "path": "/proc/1/exe", "args": ["coracle-init", "attach", name], "env": [] })
}

/// Own ones, but for those that the pod has made.
fn namespaces(workload: &Workload, share_pid: bool) -> Vec<Value> {
    let user = workload.first_id.is_some();
    let network = workload.network.is_separate();
    let kinds = [
        ("mount", "mnt", true, false),
        ("cgroup", "cgroup", true, false),
        ("pid", "pid", !workload.host_pids, share_pid),
        ("ipc", "ipc", true, true),
        ("uts", "uts", true, true),
        ("user", "user", user, true),
        ("network", "net", network, true),
    ];
    let of_kind = |(kind, file, wanted, shared): (&str, &str, bool, bool)| {
        let namespace = match &workload.pod {
            Some(pod) if shared => {
                json!({ "type": kind, "path": format!("{PODS_DIR}/{pod}/{file}") })
            }
            _ => json!({ "type": kind }),
        };
        wanted.then_some(namespace)
    };
    kinds.into_iter().filter_map(of_kind).collect()
}

/// The soft limit that old programs with select(2) can live with, and what others may raise it to.
const OPEN_FILES: (u32, u32) = (1024, 524_288);

/// Kernel interfaces that tell about the machine or reach its hardware.
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/proc/kmsg",
];

/// Kernel interfaces that may be read only.
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The environment: the image's and the file's own, and where a workload that notifies finds its socket. What either says
/// of that would be wrong.
fn environment(process: &Process, workload: &Workload) -> Vec<String> {
    let mut env = process.env.clone();
    if workload.readiness == Readiness::Notify {
        let is_ours = |entry: &String| {
            entry.starts_with("NOTIFY_SOCKET=") || entry.starts_with("WATCHDOG_USEC=")
        };
        env.retain(|entry| !is_ours(entry));
        env.push(format!("NOTIFY_SOCKET={NOTIFY_SOCKET}"));
        let limit = workload.watchdog;
        env.extend(limit.map(|limit| format!("WATCHDOG_USEC={}", limit.as_micros())));
    }
    env
}

fn process_json(process: &Process, workload: &Workload) -> Value {
    let granted = &process.capabilities;
    // A user other than root keeps capabilities over execve(2) only as ambient ones.
    let ambient: &[String] = if process.uid == 0 { &[] } else { granted };
    let inheritable = ambient;
    let (soft, hard) = match workload.open_files {
        Some(limit) => (limit, limit),
        None => OPEN_FILES,
    };
    json!({
        "terminal": false,
        "user": { "uid": process.uid, "gid": process.gid, "additionalGids": process.additional_gids, "umask": 0o022 },
        "args": process.args,
        "env": environment(process, workload),
        "cwd": process.cwd,
        "capabilities": {
            "bounding": granted, "effective": granted, "permitted": granted,
            "inheritable": inheritable, "ambient": ambient,
        },
        "noNewPrivileges": true,
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": soft, "hard": hard }],
    })
}

fn annotations(workload: &Workload, lower: &[String]) -> Value {
    let escaped: Vec<String> = lower
        .iter()
        .map(|path| path.replace('\\', "\\\\").replace(':', "\\:"))
        .collect();
    let mut annotations = json!({ "org.coracle.rootfs.lower": escaped.join(":") });
    if !workload.read_only {
        annotations["org.coracle.rootfs.upper-size"] = json!(workload.scratch.to_string());
    }
    annotations
}

fn mounts(workload: &Workload) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ];
    // Who has a network of his own asks the machine for names, and the others' name servers may be none of his.
    let folder = match workload.network {
        Network::Own => "/run/coracle/etc/own",
        Network::Host | Network::None => "/run/coracle/etc",
    };
    for file in ["resolv.conf", "hosts"] {
        let source = format!("{folder}/{file}");
        mounts.push(mount(
            &format!("/etc/{file}"),
            "bind",
            &source,
            &["bind", "ro", "nosuid", "noexec", "nodev"],
        ));
    }
    if !workload.secrets.is_empty() {
        let source = format!("{SECRETS_DIR}/{}", workload.name);
        let options = ["bind", "ro", "nosuid", "noexec", "nodev"];
        mounts.push(mount(SECRETS_PATH, "bind", &source, &options));
    }
    if workload.readiness == Readiness::Notify {
        mounts.push(mount(
            NOTIFY_SOCKET,
            "bind",
            &notify_path(&workload.name),
            &["bind", "nosuid", "noexec", "nodev"],
        ));
    }
    for volume in &workload.volumes {
        let source = format!("{VOLUMES_DIR}/{}", volume.name);
        let access = if volume.read_only { "ro" } else { "rw" };
        let mut options = vec!["bind", access, "nosuid", "nodev"];
        if workload.first_id.is_some() {
            // On the disk the workload's own ids stay, whichever the machine gives it.
            options.push("idmap");
        }
        mounts.push(mount(&volume.path, "bind", &source, &options));
    }
    for (name, path) in &workload.connect {
        let options = ["bind", "ro", "nosuid", "noexec", "nodev"];
        mounts.push(mount(path, "bind", &socket_path(name), &options));
    }
    mounts
}

/// Limits by cgroup v2; a processor's period is 100 ms.
fn resources(workload: &Workload) -> Value {
    // The runtime opens the default devices beside this rule; an image's own device nodes stay shut.
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let mut unified = json!({});
    if let Some(limit) = workload.memory {
        resources["memory"] = json!({ "limit": limit, "swap": limit });
        // All of the workload goes at once, and nothing beside it: half of one is of no use.
        unified["memory.oom.group"] = json!("1");
    }
    if let Some(millis) = workload.cpu_millis {
        resources["cpu"] = json!({ "quota": millis * 100, "period": 100_000 });
    }
    resources["pids"] = json!({ "limit": workload.pids });
    // What a disk is called is known at boot only, so its maxima are init's to set.
    if let Some(weight) = workload.io.and_then(|io| io.weight) {
        unified["io.weight"] = json!(weight.to_string());
    }
    resources["unified"] = unified;
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(extra: &str) -> Workload {
        let text = format!(
            "name = \"m\"\n[state]\nsize = \"64MiB\"\n[workload.w]\nimage = \"dir:x\"\n{extra}"
        );
        config::parse(&text).unwrap().workloads.remove(0)
    }

    fn process(uid: u32, capabilities: Vec<String>) -> Process {
        Process {
            args: vec!["/bin/true".into()],
            env: vec![],
            cwd: "/".into(),
            uid,
            gid: uid,
            additional_gids: vec![],
            capabilities,
        }
    }

    #[test]
    fn root_gets_the_default_capabilities_and_others_none() {
        let plain = workload("");
        assert_eq!(capabilities(&plain, 0), ROOT_CAPABILITIES);
        let hosts = workload("user_namespace = \"host\"");
        assert!(capabilities(&hosts, 0).is_empty());
        assert!(capabilities(&plain, 1000).is_empty());
        assert!(capabilities(&workload("capabilities = []"), 0).is_empty());
    }

    #[test]
    fn a_plain_user_keeps_asked_capabilities_as_ambient_ones() {
        let asked = workload("capabilities = [\"NET_BIND_SERVICE\"]");
        let json = config_json(&asked, &process(33, capabilities(&asked, 33)), &[], false);
        assert_eq!(
            json["process"]["capabilities"]["ambient"],
            json!(["CAP_NET_BIND_SERVICE"])
        );
    }

    #[test]
    fn layers_are_joined_top_first_with_colons_escaped() {
        let json = config_json(
            &workload(""),
            &process(0, vec![]),
            &["/a:b".into(), "/c".into()],
            false,
        );
        assert_eq!(json["annotations"]["org.coracle.rootfs.lower"], "/a\\:b:/c");
        assert_eq!(
            json["annotations"]["org.coracle.rootfs.upper-size"],
            (64u64 << 20).to_string()
        );
    }

    #[test]
    fn a_read_only_workload_has_no_upper_layer() {
        let json = config_json(
            &workload("read_only = true"),
            &process(0, vec![]),
            &["/c".into()],
            false,
        );
        assert!(
            json["annotations"]
                .get("org.coracle.rootfs.upper-size")
                .is_none()
        );
        assert_eq!(json["root"]["readonly"], true);
    }

    #[test]
    fn a_workload_sees_its_own_secrets_and_without_any_no_folder_of_them() {
        let mounts = |extra| {
            let json = config_json(&workload(extra), &process(0, vec![]), &[], false);
            let mounts = json["mounts"].as_array().unwrap().clone();
            let secrets = mounts
                .into_iter()
                .find(|m| m["destination"] == SECRETS_PATH);
            secrets.map(|m| (m["source"].clone(), m["options"][1].clone()))
        };
        assert_eq!(mounts(""), None);
        let found = mounts("secrets = [{ name = \"key\" }]");
        assert_eq!(found, Some((json!("/run/coracle/secrets/w"), json!("ro"))));
    }

    #[test]
    fn only_a_workload_that_notifies_has_a_socket_for_that() {
        let of = |extra: &str| {
            let mut process = process(0, vec![]);
            process.env = vec!["NOTIFY_SOCKET=/elsewhere".to_owned()];
            config_json(&workload(extra), &process, &[], false)
        };
        let has_mount = |json: &Value| json["mounts"].to_string().contains("/run/coracle-notify");
        let notifying = of("ready = \"notify\"\nwatchdog = \"2s\"");
        assert!(has_mount(&notifying));
        assert_eq!(
            notifying["process"]["env"],
            json!(["NOTIFY_SOCKET=/run/coracle-notify", "WATCHDOG_USEC=2000000"])
        );
        let silent = of("");
        assert!(!has_mount(&silent));
        assert_eq!(
            silent["process"]["env"],
            json!(["NOTIFY_SOCKET=/elsewhere"])
        );
    }

    #[test]
    fn limits_become_cgroup_values() {
        let json = config_json(
            &workload("memory = \"1MiB\"\ncpus = 1.5\npids = 10"),
            &process(0, vec![]),
            &[],
            false,
        );
        let resources = &json["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 1 << 20);
        assert_eq!(
            resources["cpu"],
            json!({ "quota": 150_000, "period": 100_000 })
        );
        assert_eq!(resources["pids"]["limit"], 10);
        assert_eq!(resources["unified"], json!({ "memory.oom.group": "1" }));
    }

    fn kinds(config: &Value) -> Vec<&str> {
        let list = config["linux"]["namespaces"].as_array().unwrap();
        list.iter().map(|n| n["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_workload_shares_no_namespace_unless_the_file_says_so() {
        let own = ["mount", "cgroup", "pid", "ipc", "uts", "user", "network"];
        for network in ["", "network = \"none\""] {
            let json = config_json(&workload(network), &process(0, vec![]), &[], false);
            assert_eq!(kinds(&json), own);
            let mapping = json!([{ "containerID": 0, "hostID": 65_536, "size": 65_536 }]);
            assert_eq!(json["linux"]["uidMappings"], mapping);
            assert_eq!(json["process"]["noNewPrivileges"], true);
        }
        let host = workload("network = \"host\"");
        let json = config_json(&host, &process(0, vec![]), &[], false);
        assert_eq!(kinds(&json), own[..6]);
        let sees_all =
            workload("network = \"host\"\nuser_namespace = \"host\"\npid_namespace = \"host\"");
        let json = config_json(&sees_all, &process(0, vec![]), &[], false);
        assert_eq!(kinds(&json), ["mount", "cgroup", "ipc", "uts"]);
    }

    #[test]
    fn the_machines_user_namespace_has_no_mappings_and_volumes_as_they_are() {
        let text = "volumes = [{ name = \"v\", path = \"/v\" }]\n";
        let options = |workload: &Workload| {
            let json = config_json(workload, &process(0, vec![]), &[], false);
            let mounts = json["mounts"].as_array().unwrap();
            let volume = mounts.iter().find(|m| m["destination"] == "/v").unwrap();
            (
                json["linux"]["uidMappings"].clone(),
                volume["options"].clone(),
            )
        };
        let (mappings, own) = options(&workload(text));
        assert!(mappings.is_array());
        assert_eq!(own, json!(["bind", "rw", "nosuid", "nodev", "idmap"]));
        let hosts = workload(&format!("{text}user_namespace = \"host\""));
        let (mappings, hosts) = options(&hosts);
        assert!(mappings.is_null());
        assert_eq!(hosts, json!(["bind", "rw", "nosuid", "nodev"]));
    }

    #[test]
    fn init_attaches_a_workload_with_a_network_of_its_own_and_nobody_else() {
        let of = |extra| config_json(&workload(extra), &process(0, vec![]), &[], false);
        let own = of("network = \"own\"");
        assert_eq!(kinds(&own)[6], "network");
        let hook = &own["hooks"]["createRuntime"][0];
        assert_eq!(hook["path"], "/proc/1/exe");
        assert_eq!(hook["args"], json!(["coracle-init", "attach", "w"]));
        assert!(own["mounts"].to_string().contains("etc/own/resolv.conf"));
        for extra in [
            "network = \"none\"",
            "network = \"host\"",
            "pod = \"p\"\n[pod.p]\nnetwork = \"own\"",
        ] {
            assert!(of(extra).get("hooks").is_none(), "{extra}");
        }
    }

    #[test]
    fn workloads_of_a_pod_join_its_namespaces_and_have_no_hostname() {
        let text = "name = \"m\"\n[pod.p]\nnetwork = \"none\"\n[workload.a]\nimage = \"dir:x\"\npod = \"p\"\n\
            [workload.b]\nimage = \"dir:x\"\npod = \"p\"\n[workload.c]\nimage = \"dir:x\"\n";
        let spec = config::parse(text).unwrap();
        let bases: Vec<_> = spec.workloads.iter().map(|w| w.first_id).collect();
        assert_eq!(bases, [Some(65_536), Some(65_536), Some(131_072)]);
        let json = config_json(&spec.workloads[0], &process(0, vec![]), &[], false);
        assert!(json.get("hostname").is_none());
        let list = json["linux"]["namespaces"].as_array().unwrap();
        let joined: Vec<_> = list.iter().filter_map(|n| n["path"].as_str()).collect();
        let files = ["ipc", "uts", "user", "net"].map(|f| format!("/run/coracle/pods/p/{f}"));
        assert_eq!(joined, files);
        let shared = config_json(&spec.workloads[0], &process(0, vec![]), &[], true);
        let list = shared["linux"]["namespaces"].as_array().unwrap();
        let pid = list.iter().find(|n| n["type"] == "pid").unwrap();
        assert_eq!(pid["path"], "/run/coracle/pods/p/pid");
    }

    #[test]
    fn limits_of_files_and_disks_are_the_workloads_own() {
        let limited = workload("open_files = 64\nio = { weight = 50, read = \"1MiB\" }");
        let json = config_json(&limited, &process(0, vec![]), &[], false);
        let rlimit = &json["process"]["rlimits"][0];
        assert_eq!((&rlimit["soft"], &rlimit["hard"]), (&json!(64), &json!(64)));
        let resources = &json["linux"]["resources"];
        assert_eq!(resources["unified"], json!({ "io.weight": "50" }));
        assert_eq!(resources["pids"]["limit"], 4096);
    }
}
