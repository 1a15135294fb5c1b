//! The types of `config.json` (OCI runtime-spec 1.2), as far as Linux is concerned.
//!
//! Field names and meaning are the specification's. Unknown properties are ignored, as it demands
//! (config.md, "Extensibility"). Properties that are known but not supported are kept as raw values, so that
//! `plan` can refuse them by name: nothing asked for is left out in silence.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Context, Error, Result};

/// The version of the specification that this runtime implements.
pub const OCI_VERSION: &str = "1.2.1";

/// A `config.json` larger than this is refused unread.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// Reads and parses `config.json` of a bundle.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let file = File::open(&path).at("open", &path)?;
    let mut text = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut text)
        .at("read", &path)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Error::Config(format!(
            "larger than {MAX_CONFIG_BYTES} bytes"
        )));
    }
    serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })
}

/// The whole of `config.json` (config.md).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Spec {
    pub oci_version: String,
    pub root: Option<Root>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub hooks: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub linux: Linux,
}

/// config.md, "Root".
#[derive(Debug, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Root {
    pub path: PathBuf,
    #[serde(default)]
    pub readonly: bool,
}

/// config.md, "Process".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Process {
    #[serde(default)]
    pub terminal: bool,
    #[serde(default)]
    pub user: User,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<String>,
    pub cwd: String,
    #[serde(default)]
    pub capabilities: Capabilities,
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    #[serde(default)]
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub scheduler: Option<Value>,
    pub io_priority: Option<Value>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<Value>,
}

/// config.md, "POSIX-platform User".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct User {
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    pub umask: Option<u32>,
    #[serde(default)]
    pub additional_gids: Vec<u32>,
}

/// config.md, "Linux Process": the five sets, by name.
#[derive(Debug, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Capabilities {
    #[serde(default)]
    pub bounding: Vec<String>,
    #[serde(default)]
    pub effective: Vec<String>,
    #[serde(default)]
    pub inheritable: Vec<String>,
    #[serde(default)]
    pub permitted: Vec<String>,
    #[serde(default)]
    pub ambient: Vec<String>,
}

/// config.md, "POSIX process": one resource limit.
#[derive(Debug, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// config.md, "Mounts".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub source: Option<String>,
    #[serde(default)]
    pub options: Vec<String>,
    #[serde(default)]
    pub uid_mappings: Vec<Value>,
    #[serde(default)]
    pub gid_mappings: Vec<Value>,
}

/// config-linux.md.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Linux {
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    #[serde(default)]
    pub uid_mappings: Vec<Value>,
    #[serde(default)]
    pub gid_mappings: Vec<Value>,
    #[serde(default)]
    pub time_offsets: BTreeMap<String, Value>,
    #[serde(default)]
    pub devices: Vec<Device>,
    pub cgroups_path: Option<String>,
    #[serde(default)]
    pub resources: Resources,
    pub rootfs_propagation: Option<String>,
    pub seccomp: Option<Seccomp>,
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
    #[serde(default)]
    pub masked_paths: Vec<String>,
    #[serde(default)]
    pub readonly_paths: Vec<String>,
    pub mount_label: Option<String>,
    pub intel_rdt: Option<Value>,
    pub personality: Option<Value>,
}

/// config-linux.md, "Namespaces".
#[derive(Debug, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: Option<PathBuf>,
}

/// config-linux.md, "Devices".
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Device {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub major: u32,
    #[serde(default)]
    pub minor: u32,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// config-linux.md, "Control groups".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Resources {
    #[serde(default)]
    pub devices: Vec<DeviceRule>,
    #[serde(default)]
    pub memory: Memory,
    #[serde(default)]
    pub cpu: Cpu,
    pub pids: Option<Pids>,
    #[serde(rename = "blockIO")]
    pub block_io: Option<Value>,
    #[serde(default)]
    pub hugepage_limits: Vec<HugepageLimit>,
    pub network: Option<Value>,
    pub rdma: Option<Value>,
    #[serde(default)]
    pub unified: BTreeMap<String, String>,
}

/// config-linux.md, "Allowed Device list".
#[derive(Debug, Clone, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct DeviceRule {
    pub allow: bool,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub access: Option<String>,
}

/// config-linux.md, "Memory". Bytes; -1 is unlimited.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", default)]
    pub disable_oom_killer: bool,
}

/// config-linux.md, "CPU".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Cpu {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub burst: Option<u64>,
    pub period: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
    pub idle: Option<i64>,
}

/// config-linux.md, "PIDs". Below 1 is unlimited.
#[derive(Debug, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Pids {
    pub limit: i64,
}

/// config-linux.md, "Huge page limits".
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct HugepageLimit {
    pub page_size: String,
    pub limit: u64,
}

/// config-linux.md, "Seccomp".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Seccomp {
    pub default_action: String,
    pub default_errno_ret: Option<u32>,
    #[serde(default)]
    pub architectures: Vec<String>,
    #[serde(default)]
    pub flags: Vec<String>,
    pub listener_path: Option<String>,
    #[serde(default)]
    pub syscalls: Vec<SeccompSyscall>,
}

/// One rule of the filter: any of the names, and all of the arguments.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct SeccompSyscall {
    pub names: Vec<String>,
    pub action: String,
    pub errno_ret: Option<u32>,
    #[serde(default)]
    pub args: Vec<SeccompArg>,
}

/// A comparison of one argument of a system call.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct SeccompArg {
    pub index: u32,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimal_document_parses_and_unknown_properties_are_ignored() {
        let text = r#"{"ociVersion":"1.0.2","x":1,"linux":{"resources":{"memory":{"limit":-1}}}}"#;
        let spec: Spec = serde_json::from_str(text).expect("valid");
        assert_eq!(spec.linux.resources.memory.limit, Some(-1));
    }

    #[test]
    fn numbers_out_of_range_and_deep_nesting_are_refused() {
        let deep = format!(
            r#"{{"ociVersion":"1.0.2","linux":{{"personality":{}{}}}}}"#,
            "[".repeat(4000),
            "]".repeat(4000)
        );
        let cases = [
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":4294967296}}}"#,
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":-1}}}"#,
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":"0x0"}}}"#,
            r#"{"ociVersion":"1.0.2"} trailing"#,
            &deep,
        ];
        for text in cases {
            assert!(
                serde_json::from_str::<Spec>(text).is_err(),
                "{}",
                &text[..60.min(text.len())]
            );
        }
    }
}
