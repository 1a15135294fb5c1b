//! The features document (features.md): what this runtime understands, not what the host can do.

use serde_json::{Value, json};

use crate::mount::options;
use crate::process::{capabilities, memory_policy};
use crate::seccomp;
use crate::spec::OCI_VERSION;

/// The document. Whatever is not here is refused by the runtime.
pub fn document() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::known(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities::names(),
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": cfg!(feature = "systemd"),
                "systemdUser": false,
                "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHITECTURES,
                "knownFlags": seccomp::FLAGS,
                "supportedFlags": seccomp::FLAGS,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": memory_policy::MODES, "flags": memory_policy::flags() },
            "netDevices": { "enabled": true },
            "mountExtensions": { "idmap": { "enabled": true } },
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": ["org.coracle.rootfs.lower", "org.coracle.rootfs.upper-size"],
    })
}
