//! From the document to the deed: everything that `config.json` asks for, checked and resolved to what the system
//! calls take, before any process or cgroup exists.
//!
//! Nearly pure: only the bounding set of this process is looked at. What this runtime cannot do yet is refused
//! here by name. The container's process then carries the plan out and decides nothing.

mod mounts;
mod namespaces;
mod overlay;
mod process;
mod sysctl;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cgroup::{self, Limits};
use crate::error::{Error, Result};
use crate::hooks::Hooks;
use crate::mount::Mount;
use crate::mount::devices::Device;
use crate::mount::rootfs::Root;
use crate::network;
use crate::resctrl;
use crate::spec::{self, Spec};

pub use namespaces::Namespaces;
pub use process::Process;
pub(crate) use process::resolve_any as resolve_process;

/// What one container will be.
#[derive(Debug)]
pub struct Plan {
    /// The namespaces to make and to join.
    pub namespaces: Namespaces,
    /// The root.
    pub root: Root,
    /// In the order of the document.
    pub mounts: Vec<Mount>,
    /// Device nodes; `None` if the document mounts a `/dev` of its own choice.
    pub devices: Option<Vec<Device>>,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// For the new UTS namespace.
    pub hostname: Option<String>,
    /// For the new UTS namespace.
    pub domainname: Option<String>,
    /// File below /proc/sys, and value.
    pub sysctl: Vec<(PathBuf, String)>,
    /// The process.
    pub process: Process,
    /// Relative to the mount of cgroup v2.
    pub cgroup: PathBuf,
    /// Resource limits.
    pub limits: Limits,
    /// Network devices that move in.
    pub net_devices: Vec<network::Device>,
    /// Class of service for caches and memory bandwidth.
    pub resctrl: Option<resctrl::Class>,
    /// Programs to run on the way.
    pub hooks: Hooks,
    /// Copied to the state.
    pub annotations: BTreeMap<String, String>,
    /// What was asked for and left out, harmlessly.
    pub warnings: Vec<String>,
    /// The same, but expected in every document that serves several machines.
    pub remarks: Vec<String>,
}

impl Plan {
    /// Checks and resolves a document. `bundle` is absolute; `id` names the cgroup if the document does not.
    pub fn new(spec: Spec, bundle: &Path, id: &str) -> Result<Self> {
        check_version(&spec.oci_version)?;
        let namespaces = Namespaces::resolve(&spec.linux)?;
        for (name, value) in [
            ("hostname", &spec.hostname),
            ("domainname", &spec.domainname),
        ] {
            if value.is_some() && !namespaces.has(libc::CLONE_NEWUTS) {
                return Err(Error::Config(format!("{name} needs a uts namespace")));
            }
        }
        let mut root = overlay::root(&spec, bundle)?;
        if namespaces.joined_mounts().is_some() {
            root.stay_in_joined_namespace()?;
        }
        let mounts = mounts::resolve(&spec, bundle, &namespaces)?;
        let (process, mut warnings, remarks) = process::resolve(&spec)?;
        warnings.extend(mounts::warnings(&mounts));
        let gids = process.user.groups.iter().copied();
        namespaces.check_user(process.user.uid, gids.chain([process.user.gid]))?;
        let plan = Self {
            sysctl: sysctl::resolve(&spec.linux.sysctl, &namespaces)?,
            devices: mounts::devices(&spec, &mounts)?,
            masked_paths: absolute("linux.maskedPaths", &spec.linux.masked_paths)?,
            readonly_paths: absolute("linux.readonlyPaths", &spec.linux.readonly_paths)?,
            cgroup: cgroup::resolve_path(spec.linux.cgroups_path.as_deref(), id)?,
            limits: spec
                .linux
                .resources
                .as_ref()
                .map_or(Ok(Limits::default()), Limits::resolve)?,
            net_devices: net_devices(&spec.linux, &namespaces)?,
            resctrl: spec
                .linux
                .intel_rdt
                .as_ref()
                .map(|asked| resctrl::Class::resolve(asked, id))
                .transpose()?,
            hooks: Hooks::resolve(&spec.hooks)?,
            hostname: spec.hostname,
            domainname: spec.domainname,
            annotations: spec.annotations,
            namespaces,
            root,
            mounts,
            process,
            warnings,
            remarks,
        };
        // Of the many small pieces that a seccomp profile is made of, freeing each would only take time.
        std::mem::forget(spec.linux.seccomp);
        Ok(plan)
    }
}

/// config.md, "Specification version": SemVer 2.0.0, and of a major version that this runtime knows.
fn check_version(version: &str) -> Result<()> {
    if !is_semantic(version) {
        return Err(Error::Config(format!(
            "ociVersion: {version:?} is no version (MAJOR.MINOR.PATCH)"
        )));
    }
    if version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "ociVersion {version:?}: this runtime implements {}",
        spec::OCI_VERSION
    )))
}

fn is_semantic(version: &str) -> bool {
    let (version, build) = version.split_once('+').unwrap_or((version, "0"));
    let (numbers, before) = version.split_once('-').unwrap_or((version, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| digits(text) && (text == "0" || !text.starts_with('0'));
    let word = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !text.is_empty() && text.bytes().all(plain)
    };
    numbers.split('.').count() == 3
        && numbers.split('.').all(number)
        && before
            .split('.')
            .all(|text| word(text) && (!digits(text) || number(text)))
        && build.split('.').all(word)
}

fn net_devices(linux: &spec::Linux, namespaces: &Namespaces) -> Result<Vec<network::Device>> {
    if !linux.net_devices.is_empty() && !namespaces.has(libc::CLONE_NEWNET) {
        let text = "linux.netDevices need a network namespace";
        return Err(Error::Config(text.into()));
    }
    network::resolve(&linux.net_devices)
}

fn absolute(property: &str, paths: &[String]) -> Result<Vec<PathBuf>> {
    let check = |path: &String| match path.strip_prefix('/') {
        Some(below) if !below.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(Error::Config(format!(
            "{property}: {path:?} is not an absolute path below /"
        ))),
    };
    paths.iter().map(check).collect()
}

#[cfg(test)]
mod tests;
