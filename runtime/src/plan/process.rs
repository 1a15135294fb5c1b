//! `process`, and what is applied to the process from other parts of the document.

use std::ffi::CString;
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit};

use crate::error::{Error, Result};
use crate::process::attributes::Attributes;
use crate::process::capabilities::{self, Sets};
use crate::process::identity::User;
use crate::process::label::Label;
use crate::process::listen;
use crate::process::terminal::Terminal;
use crate::seccomp::{self, Filter};
use crate::spec::{self, Spec};

/// The process as the container will execute it.
#[derive(Debug)]
pub struct Process {
    /// The command and its arguments; none for a container that can be created but not started.
    pub args: Vec<CString>,
    /// `args[0]` as text, to look up and to name in errors; empty if there is none.
    pub program: String,
    /// As `NAME=value`.
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: PathBuf,
    /// User and groups.
    pub user: User,
    /// File mode creation mask.
    pub umask: u32,
    /// Capability sets.
    pub capabilities: Sets,
    /// Resource limits.
    pub rlimits: Vec<(Resource, Rlimit)>,
    /// For the OOM killer; `None` inherits.
    pub oom_score_adj: Option<i32>,
    /// Whether an execve may not grant privileges.
    pub no_new_privileges: bool,
    /// The compiled filter.
    pub filter: Option<Filter>,
    /// What it has for standard streams, if not the caller's.
    pub terminal: Option<Terminal>,
    /// Scheduling and the like.
    pub attributes: Attributes,
    /// Labels of security modules.
    pub labels: Vec<Label>,
    /// How many sockets of the caller's it inherits (`LISTEN_FDS`).
    pub listen_fds: u32,
}

impl Process {
    /// Refuses a container that has nothing to execute (runtime.md, "Start").
    pub(crate) fn require_command(&self) -> Result<()> {
        if self.args.is_empty() {
            return Err(Error::Config("process is required to start".into()));
        }
        Ok(())
    }
}

/// Resolves the container's process; besides it, warnings and remarks.
pub(super) fn resolve(spec: &Spec) -> Result<(Process, Vec<String>, Vec<String>)> {
    match &spec.process {
        Some(process) => resolve_any(process, spec),
        // config.md, "Process": required only when *start* is called.
        None => resolve_unchecked(&spec::Process::absent(), spec),
    }
}

/// Resolves a process of the container: its own, or one that joins it.
pub(crate) fn resolve_any(
    process: &spec::Process,
    spec: &Spec,
) -> Result<(Process, Vec<String>, Vec<String>)> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::Config("process.args: no command".into()));
    }
    resolve_unchecked(process, spec)
}

/// The same whether or not there is a command.
fn resolve_unchecked(
    process: &spec::Process,
    spec: &Spec,
) -> Result<(Process, Vec<String>, Vec<String>)> {
    if !process.cwd.starts_with('/') || process.cwd.contains('\0') {
        return Err(Error::Config(format!(
            "process.cwd: {:?} is not an absolute path",
            process.cwd
        )));
    }
    let none = spec::Capabilities::default();
    let asked = process.capabilities.as_ref().unwrap_or(&none);
    let mut namespaces = spec.linux.namespaces.iter();
    let user_namespace = namespaces.any(|namespace| namespace.kind == "user");
    let (capabilities, left_out) = Sets::resolve(asked, capabilities::available(user_namespace));
    let filter = spec
        .linux
        .seccomp
        .as_ref()
        .map(seccomp::compile)
        .transpose()?;
    let warnings = match left_out.as_slice() {
        [] => Vec::new(),
        names => vec![format!(
            "left out capabilities that are unknown or not ours to give: {}",
            names.join(", ")
        )],
    };
    let remarks = match filter.as_ref().map(|filter| filter.unknown.as_slice()) {
        None | Some([]) => Vec::new(),
        Some(names) => vec![format!(
            "left out system calls that x86 does not have: {}",
            names.join(", ")
        )],
    };
    let process = Process {
        args: c_strings("process.args", &process.args)?,
        program: process.args.first().cloned().unwrap_or_default(),
        env: c_strings("process.env", &process.env)?,
        cwd: PathBuf::from(&process.cwd),
        user: user(&process.user)?,
        umask: process.user.umask.unwrap_or(0o022) & 0o7777,
        capabilities,
        rlimits: rlimits(&process.rlimits)?,
        oom_score_adj: process.oom_score_adj.map(check_oom_score).transpose()?,
        no_new_privileges: process.no_new_privileges,
        filter,
        terminal: Terminal::resolve(process.terminal, process.console_size)?,
        attributes: Attributes::resolve(process, spec)?,
        labels: Label::resolve(process)?,
        listen_fds: listen::count(),
    };
    Ok((process, warnings, remarks))
}

/// The kernel takes the largest id for "leave as it is", so it must not get through.
fn user(user: &spec::User) -> Result<User> {
    let ids = [user.uid, user.gid]
        .into_iter()
        .chain(user.additional_gids.iter().copied());
    if ids.into_iter().any(|id| id == u32::MAX) {
        return Err(Error::Config(format!(
            "process.user: {} is no id",
            u32::MAX
        )));
    }
    Ok(User {
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
    })
}

fn check_oom_score(score: i32) -> Result<i32> {
    match score {
        -1000..=1000 => Ok(score),
        _ => Err(Error::Config(format!(
            "process.oomScoreAdj: {score} is not between -1000 and 1000"
        ))),
    }
}

fn c_strings(property: &str, strings: &[String]) -> Result<Vec<CString>> {
    let convert = |string: &String| {
        CString::new(string.as_str())
            .map_err(|_| Error::Config(format!("{property}: NUL in {string:?}")))
    };
    strings.iter().map(convert).collect()
}

fn rlimits(limits: &[spec::Rlimit]) -> Result<Vec<(Resource, Rlimit)>> {
    let mut result: Vec<(Resource, Rlimit)> = Vec::new();
    for limit in limits {
        let resource = resource(&limit.kind)?;
        if result.iter().any(|(earlier, _)| *earlier == resource) {
            return Err(Error::Config(format!(
                "process.rlimits: {} twice",
                limit.kind
            )));
        }
        let value = |value: u64| Some(value).filter(|&value| value != libc::RLIM_INFINITY);
        result.push((
            resource,
            Rlimit {
                current: value(limit.soft),
                maximum: value(limit.hard),
            },
        ));
    }
    Ok(result)
}

fn resource(name: &str) -> Result<Resource> {
    Ok(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        other => {
            return Err(Error::Config(format!(
                "process.rlimits: unknown type {other:?}"
            )));
        }
    })
}
