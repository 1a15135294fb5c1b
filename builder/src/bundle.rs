//! The OCI bundle of a workload: its `config.json` by runtime-spec 1.2, thought out at build time.
//!
//! Nothing of an image's labels or annotations gets in here; only what the machine's file and the image's own
//! process settings say.

use config::boot::{NOTIFY_SOCKET, Readiness, SECRETS_DIR, notify_path};
use config::spec::{SECRETS_PATH, Workload};
use serde_json::{Value, json};

use crate::seccomp;

/// Where layers and bundles lie in the machine's root.
pub const LAYERS_DIR: &str = "/usr/lib/coracle/layers";
/// See [`LAYERS_DIR`].
pub const BUNDLES_DIR: &str = "/usr/lib/coracle/bundles";
/// Where named volumes lie on the machine.
pub const VOLUMES_DIR: &str = "/state/volumes";

/// The capabilities of a workload that runs as root and says nothing of capabilities: enough to take a low port,
/// own its files and become another user, nothing that reaches the machine.
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
        None if uid == 0 => ROOT_CAPABILITIES.map(str::to_owned).to_vec(),
        None => Vec::new(),
    };
    list.sort();
    list.dedup();
    list
}

/// The bundle's `config.json`; `lower` are the layers' directories in the machine, top first.
pub fn config_json(workload: &Workload, process: &Process, lower: &[String]) -> Value {
    let namespaces = ["pid", "mount", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": workload.read_only },
        "hostname": workload.name,
        "process": process_json(process, workload),
        "mounts": mounts(workload),
        "annotations": annotations(workload, lower),
        "linux": {
            "cgroupsPath": format!("/coracle/{}", workload.name),
            "namespaces": namespaces,
            "resources": resources(workload),
            "rootfsPropagation": "private",
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
            "seccomp": seccomp::profile(&process.capabilities),
        },
    })
}

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
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524_288 }],
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
    for file in ["resolv.conf", "hosts"] {
        let source = format!("/run/coracle/etc/{file}");
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
        mounts.push(mount(
            &volume.path,
            "bind",
            &source,
            &["bind", access, "nosuid", "nodev"],
        ));
    }
    mounts
}

/// Limits by cgroup v2; a processor's period is 100 ms.
fn resources(workload: &Workload) -> Value {
    // The runtime opens the default devices beside this rule; an image's own device nodes stay shut.
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(limit) = workload.memory {
        resources["memory"] = json!({ "limit": limit, "swap": limit });
    }
    if let Some(millis) = workload.cpu_millis {
        resources["cpu"] = json!({ "quota": millis * 100, "period": 100_000 });
    }
    if let Some(limit) = workload.pids {
        resources["pids"] = json!({ "limit": limit });
    }
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
        assert!(capabilities(&plain, 1000).is_empty());
        assert!(capabilities(&workload("capabilities = []"), 0).is_empty());
    }

    #[test]
    fn a_plain_user_keeps_asked_capabilities_as_ambient_ones() {
        let asked = workload("capabilities = [\"NET_BIND_SERVICE\"]");
        let json = config_json(&asked, &process(33, capabilities(&asked, 33)), &[]);
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
            let json = config_json(&workload(extra), &process(0, vec![]), &[]);
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
            config_json(&workload(extra), &process, &[])
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
        );
        let resources = &json["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 1 << 20);
        assert_eq!(
            resources["cpu"],
            json!({ "quota": 150_000, "period": 100_000 })
        );
        assert_eq!(resources["pids"]["limit"], 10);
    }

    #[test]
    fn a_workload_shares_no_namespace_but_the_network() {
        let json = config_json(&workload(""), &process(0, vec![]), &[]);
        let kinds: Vec<_> = json["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["type"].clone())
            .collect();
        assert_eq!(kinds, ["pid", "mount", "ipc", "uts", "cgroup"]);
        assert_eq!(json["process"]["noNewPrivileges"], true);
    }
}
