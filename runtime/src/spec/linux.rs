//! `linux` of `config.json` (config-linux.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{IdMapping, Resources, Seccomp, nullable};

/// config-linux.md.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Linux {
    #[serde(default, deserialize_with = "nullable")]
    pub namespaces: Vec<Namespace>,
    #[serde(default, deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "nullable")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    #[serde(default, deserialize_with = "nullable")]
    pub devices: Vec<Device>,
    #[serde(default, deserialize_with = "nullable")]
    pub net_devices: BTreeMap<String, NetDevice>,
    pub cgroups_path: Option<String>,
    pub resources: Option<Resources>,
    pub rootfs_propagation: Option<String>,
    pub seccomp: Option<Seccomp>,
    #[serde(default, deserialize_with = "nullable")]
    pub sysctl: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    pub masked_paths: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub readonly_paths: Vec<String>,
    pub mount_label: Option<String>,
    pub intel_rdt: Option<IntelRdt>,
    pub memory_policy: Option<MemoryPolicy>,
    pub personality: Option<Personality>,
}

/// config-linux.md, "Namespaces".
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: Option<PathBuf>,
}

/// config-linux.md, "Offset for Time Namespace".
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct TimeOffset {
    #[serde(default, deserialize_with = "nullable")]
    pub secs: i64,
    #[serde(default, deserialize_with = "nullable")]
    pub nanosecs: u32,
}

/// config-linux.md, "Devices".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Device {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub major: i64,
    #[serde(default, deserialize_with = "nullable")]
    pub minor: i64,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// config-linux.md, "Network Devices" (1.3): a device of the host that moves into the container.
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct NetDevice {
    pub name: Option<String>,
}

/// config-linux.md, "IntelRdt".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct IntelRdt {
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    pub schemata: Option<Vec<String>>,
    #[serde(rename = "l3CacheSchema")]
    pub l3_cache_schema: Option<String>,
    pub mem_bw_schema: Option<String>,
    #[serde(rename = "enableCMT", default, deserialize_with = "nullable")]
    pub enable_cmt: bool,
    #[serde(rename = "enableMBM", default, deserialize_with = "nullable")]
    pub enable_mbm: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub enable_monitoring: bool,
}

/// config-linux.md, "Memory policy" (1.3): `set_mempolicy(2)`.
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct MemoryPolicy {
    pub mode: String,
    pub nodes: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub flags: Vec<String>,
}

/// config-linux.md, "Personality".
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Personality {
    pub domain: String,
    #[serde(default, deserialize_with = "nullable")]
    pub flags: Vec<String>,
}
