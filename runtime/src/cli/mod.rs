//! The command line, as runc's: `coracle-runtime [global options] COMMAND [options] ID [arguments]`.
//!
//! Pure: words in, [`Invocation`] out. Options may stand before or after the command and the id, as `--name value`
//! or `--name=value`; `--` ends them, and so does the id of `exec` and `ps`. Refuses options that the command does
//! not have. `words` takes options out · `values` parses what they say · `command` has the result.

mod command;
mod usage;
mod values;
mod words;

use std::ffi::OsString;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::launch::Options;
use crate::log::Format;
use crate::signal;

pub use command::{CgroupManager, Command, ExecOptions, Invocation, UpdateOptions, UserOption};
pub use usage::USAGE;

use values::{duration, id, signed, size, unsigned, wrong};
use words::Words;

/// Where state is kept unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/coracle/runtime";
const COMMANDS: [&str; 16] = [
    "create", "delete", "events", "exec", "features", "help", "kill", "list", "pause", "ps",
    "resume", "run", "spec", "start", "state", "update",
];
/// Between two reports of `events`.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// `--preserve-fds` beyond this is a mistake.
const MAX_PRESERVED_FDS: u32 = 65_536;

/// Parses the words after the name of the program.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
    let mut words = Words::split(words)?;
    let name = words.positional.pop_front();
    let command = if words.given("help") {
        match name.as_deref() {
            Some(name) if !COMMANDS.contains(&name) => return Err(unknown(name)),
            _ => Command::Help,
        }
    } else if words.given("version") {
        Command::Version
    } else {
        let name = name.ok_or_else(|| Error::Usage("no command; see --help".into()))?;
        let command = command(&name, &mut words)?;
        words.check(&name)?;
        command
    };
    if let (Some(extra), false) = (words.positional.front(), command.is_about_the_program()) {
        return Err(Error::Usage(format!("unexpected argument {extra:?}")));
    }
    let log_format = match words.value("log-format") {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(wrong("log-format", other, "text or json")),
    };
    Ok(Invocation {
        root: words.path("root").unwrap_or_else(|| DEFAULT_ROOT.into()),
        log: words.path("log"),
        log_format,
        debug: words.given("debug"),
        command,
    })
}

fn command(name: &str, words: &mut Words) -> Result<Command> {
    Ok(match name {
        "help" => Command::Help,
        "features" => Command::Features,
        "create" | "run" => launch(name, words)?,
        "start" => Command::Start {
            id: words.id(name)?,
        },
        "state" => Command::State {
            id: words.id(name)?,
        },
        "kill" => kill(words)?,
        "delete" => Command::Delete {
            id: words.id(name)?,
            force: words.given("force"),
        },
        "exec" => Command::Exec {
            id: words.id(name)?,
            options: Box::new(exec_options(words)?),
        },
        "list" => Command::List {
            json: words.is_json()?,
            quiet: words.given("quiet"),
        },
        "ps" => Command::Ps {
            id: words.id(name)?,
            json: words.is_json()?,
            arguments: words.positional.drain(..).collect(),
        },
        "pause" => Command::Pause {
            id: words.id(name)?,
        },
        "resume" => Command::Resume {
            id: words.id(name)?,
        },
        "update" => Command::Update {
            id: words.id(name)?,
            options: Box::new(update_options(words)?),
        },
        "events" => Command::Events {
            id: words.id(name)?,
            stats: words.given("stats"),
            interval: words
                .parsed("interval", duration)?
                .unwrap_or(DEFAULT_INTERVAL),
        },
        "spec" => Command::Spec {
            bundle: words.path("bundle").unwrap_or_else(|| ".".into()),
            rootless: words.given("rootless"),
        },
        other => return Err(unknown(other)),
    })
}

fn unknown(command: &str) -> Error {
    Error::Usage(format!("unknown command {command:?}; see --help"))
}

impl Command {
    /// Whether a process of this program enters a container, and so is within reach of what runs there.
    pub(crate) fn enters_container(&self) -> bool {
        matches!(
            self,
            Self::Create { .. } | Self::Run { .. } | Self::Exec { .. }
        )
    }

    fn is_about_the_program(&self) -> bool {
        matches!(self, Self::Help | Self::Version)
    }
}

fn launch(name: &str, words: &mut Words) -> Result<Command> {
    let (id, options) = (words.id(name)?, launch_options(words)?);
    Ok(match name {
        "create" => Command::Create { id, options },
        _ => Command::Run {
            id,
            options,
            detach: words.given("detach"),
            keep: words.given("keep"),
        },
    })
}

fn launch_options(words: &Words) -> Result<Options> {
    Ok(Options {
        bundle: words.path("bundle").unwrap_or_else(|| ".".into()),
        config: words.path("config"),
        pid_file: words.path("pid-file"),
        preserve_fds: preserved(words)?,
        no_new_keyring: words.given("no-new-keyring"),
        no_pivot: words.given("no-pivot"),
        console_socket: words.path("console-socket"),
        cgroup_manager: cgroup_manager(words)?,
    })
}

/// `--systemd-cgroup` is runc's way to say it, `--cgroup-manager` that of others.
fn cgroup_manager(words: &Words) -> Result<CgroupManager> {
    match words.value("cgroup-manager") {
        None if words.given("systemd-cgroup") => Ok(CgroupManager::Systemd),
        None => Ok(CgroupManager::Cgroupfs),
        Some("systemd") => Ok(CgroupManager::Systemd),
        Some("cgroupfs" | "disabled") if words.given("systemd-cgroup") => Err(Error::Usage(
            "--systemd-cgroup contradicts --cgroup-manager".into(),
        )),
        Some("cgroupfs") => Ok(CgroupManager::Cgroupfs),
        Some("disabled") => Ok(CgroupManager::Disabled),
        Some(other) => Err(wrong(
            "cgroup-manager",
            other,
            "cgroupfs, systemd or disabled",
        )),
    }
}

fn preserved(words: &Words) -> Result<u32> {
    match words.parsed("preserve-fds", unsigned)? {
        None => Ok(0),
        Some(count @ 0..=MAX_PRESERVED_FDS) => Ok(count),
        Some(count) => Err(wrong(
            "preserve-fds",
            &count.to_string(),
            "a number from 0 to 65536",
        )),
    }
}

fn kill(words: &mut Words) -> Result<Command> {
    let id = words.id("kill")?;
    let signal = words.positional.pop_front();
    Ok(Command::Kill {
        id,
        signal: signal.map_or(Ok(libc::SIGTERM), |text| signal::parse(&text))?,
        all: words.given("all"),
    })
}

fn exec_options(words: &mut Words) -> Result<ExecOptions> {
    let texts = |name: &str| words.values(name).map(str::to_owned).collect();
    let groups = words.values("additional-gids");
    let mut options = ExecOptions {
        process: words.path("process"),
        args: Vec::new(),
        cwd: words.text("cwd"),
        env: texts("env"),
        tty: words.given("tty"),
        console_socket: words.path("console-socket"),
        user: words.value("user").map(values::user).transpose()?,
        additional_gids: groups
            .map(|text| id("additional-gids", text))
            .collect::<Result<_>>()?,
        detach: words.given("detach"),
        pid_file: words.path("pid-file"),
        process_label: words.text("process-label"),
        apparmor: words.text("apparmor"),
        no_new_privs: words.given("no-new-privs"),
        capabilities: texts("cap"),
        preserve_fds: preserved(words)?,
        ignore_paused: words.given("ignore-paused"),
        cgroup: words.text("cgroup"),
    };
    options.args = words.positional.drain(..).collect();
    match (&options.process, options.args.is_empty()) {
        (None, true) => Err(Error::Usage("exec: no command".into())),
        (Some(_), false) => Err(Error::Usage(
            "exec: a command besides --process, which has one".into(),
        )),
        _ => Ok(options),
    }
}

fn update_options(words: &Words) -> Result<UpdateOptions> {
    Ok(UpdateOptions {
        resources: words.path("resources"),
        blkio_weight: words.parsed("blkio-weight", unsigned)?,
        cpu_burst: words.parsed("cpu-burst", unsigned)?,
        cpu_idle: words.parsed("cpu-idle", signed)?,
        cpu_period: words.parsed("cpu-period", unsigned)?,
        cpu_quota: words.parsed("cpu-quota", signed)?,
        cpu_rt_period: words.parsed("cpu-rt-period", unsigned)?,
        cpu_rt_runtime: words.parsed("cpu-rt-runtime", signed)?,
        cpu_share: words.parsed("cpu-share", unsigned)?,
        cpuset_cpus: words.text("cpuset-cpus"),
        cpuset_mems: words.text("cpuset-mems"),
        l3_cache_schema: words.text("l3-cache-schema"),
        mem_bw_schema: words.text("mem-bw-schema"),
        memory: words.parsed("memory", size)?,
        memory_reservation: words.parsed("memory-reservation", size)?,
        memory_swap: words.parsed("memory-swap", size)?,
        pids_limit: words.parsed("pids-limit", signed)?,
    })
}

#[cfg(test)]
mod tests;
