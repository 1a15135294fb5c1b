//! What a command line can ask for, parsed and checked as far as words go.

use std::path::PathBuf;
use std::time::Duration;

use crate::launch::Options;
use crate::log::Format;

/// What to do, and how to report.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `--root`.
    pub root: PathBuf,
    /// `--log`.
    pub log: Option<PathBuf>,
    /// `--log-format`.
    pub log_format: Format,
    /// `--debug`.
    pub debug: bool,
    /// The command.
    pub command: Command,
}

/// The commands.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; see USAGE")]
pub enum Command {
    Create {
        id: String,
        options: Options,
    },
    Run {
        id: String,
        options: Options,
        detach: bool,
        keep: bool,
    },
    Start {
        id: String,
    },
    State {
        id: String,
    },
    Kill {
        id: String,
        signal: i32,
        all: bool,
    },
    Delete {
        id: String,
        force: bool,
    },
    Exec {
        id: String,
        options: Box<ExecOptions>,
    },
    List {
        json: bool,
        quiet: bool,
    },
    /// `arguments` are those of ps(1), for the table.
    Ps {
        id: String,
        json: bool,
        arguments: Vec<String>,
    },
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Update {
        id: String,
        options: Box<UpdateOptions>,
    },
    /// Once with `stats`, else every `interval` until the container ends.
    Events {
        id: String,
        stats: bool,
        interval: Duration,
    },
    /// Writes a `config.json` to start from.
    Spec {
        bundle: PathBuf,
        rootless: bool,
    },
    Features,
    Version,
    Help,
}

/// Who makes cgroups and sets their limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupManager {
    /// This runtime.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus for a transient scope.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}

/// A user and group as `UID[:GID]` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserOption {
    /// User id.
    pub uid: u32,
    /// Group id; 0 if left out.
    pub gid: u32,
}

/// The options of `exec`. What is left out is as in the container's own process.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the options'; see USAGE")]
pub struct ExecOptions {
    /// A file with a process in JSON; then nothing else describes the process.
    pub process: Option<PathBuf>,
    /// The command and its arguments.
    pub args: Vec<String>,
    pub cwd: Option<String>,
    /// As `NAME=value`, besides the container's own.
    pub env: Vec<String>,
    pub tty: bool,
    pub console_socket: Option<PathBuf>,
    pub user: Option<UserOption>,
    pub additional_gids: Vec<u32>,
    pub detach: bool,
    pub pid_file: Option<PathBuf>,
    /// For SELinux.
    pub process_label: Option<String>,
    /// For AppArmor.
    pub apparmor: Option<String>,
    pub no_new_privs: bool,
    /// Added to all sets but the inheritable and ambient ones.
    pub capabilities: Vec<String>,
    /// How many descriptors after the standard three the command inherits.
    pub preserve_fds: u32,
    /// Enter a paused container; the process waits with it.
    pub ignore_paused: bool,
    /// A cgroup below the container's.
    pub cgroup: Option<String>,
}

/// The options of `update`: limits to change. Bytes and microseconds; -1 is unlimited where the number is signed.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the options'; see USAGE")]
pub struct UpdateOptions {
    /// A file with `linux.resources` in JSON, or `-` for standard input; then nothing else counts.
    pub resources: Option<PathBuf>,
    pub blkio_weight: Option<u16>,
    pub cpu_burst: Option<u64>,
    pub cpu_idle: Option<i64>,
    pub cpu_period: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpu_rt_period: Option<u64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpu_share: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub l3_cache_schema: Option<String>,
    pub mem_bw_schema: Option<String>,
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub memory_swap: Option<i64>,
    pub pids_limit: Option<i64>,
}
