//! `process` of `config.json` (config.md, "Process"); also what `exec --process` reads.

use serde::Deserialize;

use super::nullable;

/// config.md, "Process".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Process {
    #[serde(default, deserialize_with = "nullable")]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    #[serde(default, deserialize_with = "nullable")]
    pub user: User,
    #[serde(default, deserialize_with = "nullable")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<Capabilities>,
    #[serde(default, deserialize_with = "nullable")]
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    #[serde(default, deserialize_with = "nullable")]
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

impl Process {
    /// What stands for a process that the document does not have: it may be set up, but has no command to execute.
    pub(crate) fn absent() -> Self {
        Self {
            cwd: "/".to_owned(),
            ..Self::default()
        }
    }
}

/// In characters.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct ConsoleSize {
    pub height: u64,
    pub width: u64,
}

/// config.md, "POSIX-platform User".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct User {
    #[serde(default, deserialize_with = "nullable")]
    pub uid: u32,
    #[serde(default, deserialize_with = "nullable")]
    pub gid: u32,
    pub umask: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    pub additional_gids: Vec<u32>,
}

/// config.md, "Linux Process": the five sets, by name.
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Capabilities {
    #[serde(default, deserialize_with = "nullable")]
    pub bounding: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub effective: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub inheritable: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub permitted: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub ambient: Vec<String>,
}

/// config.md, "POSIX process": one resource limit.
#[derive(Debug, Clone, Default, Deserialize)]
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

/// config.md, "Linux Process": `sched_setattr(2)`. Times are in nanoseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Scheduler {
    pub policy: String,
    pub nice: Option<i32>,
    pub priority: Option<i32>,
    #[serde(default, deserialize_with = "nullable")]
    pub flags: Vec<String>,
    pub runtime: Option<u64>,
    pub deadline: Option<u64>,
    pub period: Option<u64>,
}

/// config.md, "Linux Process": `ioprio_set(2)`.
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct IoPriority {
    pub class: String,
    #[serde(default, deserialize_with = "nullable")]
    pub priority: i64,
}

/// config.md, "Linux Process": lists of processors for a process that joins the container.
#[derive(Debug, Clone, Default, Deserialize)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct CpuAffinity {
    pub initial: Option<String>,
    #[serde(rename = "final")]
    pub last: Option<String>,
}
