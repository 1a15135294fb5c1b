//! The measured bundle: what container engines ask for by default, without a network of their own.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_runtime::seccomp;
use serde_json::{Value, json};

/// A bundle in a temporary directory and a cgroup; both are removed in the end.
pub(crate) struct Bundle {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) cgroup: PathBuf,
}

/// What the engines give a container; CAP_SYS_CHROOT is no longer among them.
const CAPABILITIES: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
];

impl Bundle {
    pub(crate) fn make(command: &Path, profile: Option<&Path>) -> Result<Self, String> {
        let name = format!("coracle-bench-{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let bundle = Self {
            cgroup: cgroup_root()?.join(&name),
            name,
            directory,
        };
        bundle.fill(command, profile)?;
        Ok(bundle)
    }

    fn fill(&self, command: &Path, profile: Option<&Path>) -> Result<(), String> {
        for name in ["bin", "dev", "proc", "sys"] {
            let path = self.rootfs().join(name);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        fs::create_dir_all(&self.cgroup).map_err(at(&self.cgroup))?;
        fs::copy(command, self.rootfs().join("bin/true")).map_err(at(command))?;
        let mut config = config(&self.name);
        let filter = match profile {
            Some(path) => {
                let text = fs::read(path).map_err(at(path))?;
                let profile: Value = serde_json::from_slice(&text).map_err(at(path))?;
                let profile = resolve_profile(&profile);
                let bytes = compile(&profile)?;
                config["linux"]["seccomp"] = profile;
                bytes
            }
            None => {
                eprintln!("no --seccomp: measured without a filter");
                ALLOW_ALL.to_vec()
            }
        };
        fs::write(self.filter(), filter).map_err(at(&self.filter()))?;
        let path = self.directory.join("config.json");
        fs::write(&path, config.to_string()).map_err(at(&path))
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// In memory, as /run is on every machine: not all build hosts have a /run of that kind.
    pub(crate) fn state(&self) -> PathBuf {
        Path::new("/dev/shm").join(&self.name)
    }

    /// The compiled filter, for the floor.
    pub(crate) fn filter(&self) -> PathBuf {
        self.directory.join("filter.bpf")
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(self.state());
        let _ = fs::remove_dir(&self.cgroup);
        // Other runtimes make cgroups in every hierarchy of a hybrid host.
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::remove_dir(hierarchy.path().join(&self.name));
        }
    }
}

/// One instruction: return SECCOMP_RET_ALLOW.
const ALLOW_ALL: [u8; 8] = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];

fn compile(profile: &Value) -> Result<Vec<u8>, String> {
    let profile = serde_json::from_value(profile.clone()).map_err(|error| error.to_string())?;
    let filter = seccomp::compile(&profile).map_err(|error| error.to_string())?;
    let bytes = filter.instructions.iter().flat_map(|instruction| {
        let code = instruction.code.to_ne_bytes();
        let k = instruction.k.to_ne_bytes();
        code.into_iter()
            .chain([instruction.jt, instruction.jf])
            .chain(k)
    });
    Ok(bytes.collect())
}

/// From an engine's profile to `linux.seccomp`: entries stay that hold for x86-64 and for the capabilities given.
fn resolve_profile(profile: &Value) -> Value {
    let lists = |entry: &Value, condition: &str, kind: &str, has: &dyn Fn(&str) -> bool| {
        let list = entry[condition][kind].as_array();
        list.map(|list| list.iter().filter_map(Value::as_str).any(has))
    };
    let given = |name: &str| CAPABILITIES.contains(&name);
    let here = |name: &str| name == "amd64";
    let mut calls = profile["syscalls"].as_array().cloned().unwrap_or_default();
    calls.retain(|entry| {
        lists(entry, "includes", "caps", &given) != Some(false)
            && lists(entry, "includes", "arches", &here) != Some(false)
            && lists(entry, "excludes", "caps", &given) != Some(true)
            && lists(entry, "excludes", "arches", &here) != Some(true)
    });
    for entry in &mut calls {
        let wanted = ["names", "action", "args", "errnoRet"];
        if let Some(entry) = entry.as_object_mut() {
            entry.retain(|key, value| wanted.contains(&key.as_str()) && !value.is_null());
        }
    }
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": calls,
    })
}

fn config(name: &str) -> Value {
    let mount = |destination: &str, kind: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({ "destination": destination, "type": kind, "source": kind, "options": options })
    };
    let kinds = ["pid", "mount", "network", "ipc", "uts", "cgroup"];
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "hostname": "bench",
        "process": {
            "args": ["/bin/true"],
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 }],
        },
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
        ],
        "linux": {
            "cgroupsPath": format!("/{name}/container"),
            "namespaces": kinds.map(|kind| json!({ "type": kind })),
            "maskedPaths": [
                "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/fs/selinux",
                "/sys/dev/block",
            ],
            "readonlyPaths": [
                "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

fn cgroup_root() -> Result<&'static Path, String> {
    let candidates = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let found = candidates
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists());
    found.ok_or_else(|| "no cgroup v2 on this host".into())
}

fn at<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> String {
    move |error| format!("{}: {error}", path.display())
}
