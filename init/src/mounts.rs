//! The kernel's file systems: proc, sys, dev and, in the root, all else that programs expect below them.
//!
//! A file system that is mounted already is fine. What is essential fails loudly; what only some workloads
//! want (mqueue, a cgroup controller) is told and left out.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// The cgroup2 mount.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// The parent of all workloads' cgroups.
pub const WORKLOADS_CGROUP: &str = "/sys/fs/cgroup/coracle";

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {kind} on {target}")]
pub struct MountError {
    /// The file system's type.
    pub kind: &'static str,
    /// Where.
    pub target: &'static str,
    /// What the kernel says.
    pub source: io::Error,
}

/// One file system of the kernel's.
struct ApiMount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: Option<&'static CStr>,
}

const NOSUID: MountFlags = MountFlags::NOSUID;
const NOTHING: MountFlags = NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const NO_FILES: MountFlags = NOSUID.union(MountFlags::NODEV);

const fn api(
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: Option<&'static CStr>,
) -> ApiMount {
    ApiMount {
        kind,
        target,
        flags,
        options,
    }
}

/// Needed before anything can be looked for.
const EARLY: [ApiMount; 3] = [
    api("proc", "/proc", NOTHING, None),
    api("sysfs", "/sys", NOTHING, None),
    api("devtmpfs", "/dev", NOSUID, Some(c"mode=0755")),
];

/// What the root adds. `/run` and `/tmp` are the only places that can be written without a state partition.
const ROOT: [ApiMount; 6] = [
    api("cgroup2", CGROUP_ROOT, NOTHING, Some(c"nsdelegate")),
    api(
        "devpts",
        "/dev/pts",
        NOSUID.union(MountFlags::NOEXEC),
        Some(c"gid=5,mode=0620,ptmxmode=0666"),
    ),
    api("tmpfs", "/dev/shm", NO_FILES, Some(c"mode=1777")),
    api("mqueue", "/dev/mqueue", NOTHING, None),
    api("tmpfs", "/run", NO_FILES, Some(c"mode=0755,size=20%")),
    api("tmpfs", "/tmp", NO_FILES, Some(c"mode=1777,size=50%")),
];

/// Mounts proc, sys and devtmpfs.
///
/// # Errors
/// The first that fails.
pub fn mount_early() -> Result<(), MountError> {
    EARLY.iter().try_for_each(mount_one)
}

/// Mounts what the root adds and returns what failed: nothing of it keeps the machine from going on.
#[must_use]
pub fn mount_root() -> Vec<MountError> {
    for directory in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        let _ = rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755));
    }
    let failed = ROOT.iter().filter_map(|api| mount_one(api).err()).collect();
    link_standard_files();
    failed
}

fn mount_one(api: &ApiMount) -> Result<(), MountError> {
    match mount(api.kind, api.target, api.kind, api.flags, api.options) {
        // The same file system at the same place: moved here from the initramfs.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(MountError {
            kind: api.kind,
            target: api.target,
            source: errno.into(),
        }),
    }
}

/// The links in `/dev` that programs take for granted.
fn link_standard_files() {
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = rustix::fs::symlink(target, name);
    }
}

/// Makes the workloads' cgroup and gives it every controller that the kernel has.
///
/// # Errors
/// When the cgroup cannot be made; a controller that cannot be enabled is returned by its name.
pub fn prepare_cgroups() -> io::Result<Vec<String>> {
    let available = fs::read_to_string(format!("{CGROUP_ROOT}/cgroup.controllers"))?;
    match rustix::fs::mkdir(WORKLOADS_CGROUP, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut refused = enable_controllers(CGROUP_ROOT, &available);
    refused.extend(enable_controllers(WORKLOADS_CGROUP, &available));
    Ok(refused)
}

/// All in one write; one by one where that fails, so that a single stubborn controller costs only itself.
fn enable_controllers(cgroup: &str, controllers: &str) -> Vec<String> {
    let file = Path::new(cgroup).join("cgroup.subtree_control");
    let all: Vec<String> = controllers
        .split_whitespace()
        .map(|name| format!("+{name}"))
        .collect();
    if fs::write(&file, all.join(" ")).is_ok() {
        return Vec::new();
    }
    all.into_iter()
        .filter(|controller| fs::write(&file, controller).is_err())
        .collect()
}
