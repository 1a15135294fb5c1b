//! `coracle-runtime`: an OCI runtime for Linux, small and static.
//!
//! `cli` parses the command line · `spec` parses `config.json` · `plan` checks and resolves it · `launch` makes
//! the cgroup and, in its `spawn`, the process · `child` is that process up to the execve, with `mount`, `process` and
//! `seccomp` · `report` is what the two say to each other · `hooks` runs hooks · `protect` keeps the runtime's own
//! file from being written · `network` moves devices · `resctrl` gives shares of caches and memory bandwidth · `state`
//! remembers · `commands` has the operations on what exists. All `unsafe` is in `sys`.
//!
//! Invariants: nothing asked for is left out in silence; no path of the container is resolved outside `tree`; an
//! error leaves no process, cgroup or state behind; the runtime has one thread and stays above no container.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("seccomp filters are compiled for x86-64 Linux only");

pub mod cgroup;
mod child;
pub mod cli;
pub mod commands;
mod descriptor;
pub mod error;
pub mod hooks;
pub mod launch;
pub mod log;
pub mod mount;
pub mod network;
pub mod plan;
pub mod process;
mod protect;
mod report;
pub mod resctrl;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod state;
mod sys;

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::catch_unwind;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::stdio::{stderr, stdin, stdout};

use cli::{Command, Invocation};
use commands::{events, exec, features, lifecycle, list, pause, ps, update};
use error::{Error, Result, chain};
use log::Log;

/// The whole program, when nothing has been prepared for it. Returns the exit status.
pub fn main() -> u8 {
    /// As of any program of Rust's.
    const PANICKED: u8 = 101;
    sys::ignore_broken_pipes();
    if open_streams().is_err() {
        return 1;
    }
    let status = catch_unwind(|| run(std::env::args_os().skip(1)));
    // Whoever does not read it to its end cannot be told anything either.
    let _ = io::stdout().flush();
    status.unwrap_or(PANICKED)
}

/// A caller may have closed a standard stream. The next file opened would take its place, and get what is meant for it.
fn open_streams() -> rustix::io::Result<()> {
    let streams = [stdin(), stdout(), stderr()];
    let mut watched = streams.map(|stream| PollFd::from_borrowed_fd(stream, PollFlags::empty()));
    poll(&mut watched, Some(&Timespec::default()))?;
    for stream in watched {
        if stream.revents().contains(PollFlags::NVAL) {
            // The lowest number that is free is the stream's.
            let null = openat(CWD, "/dev/null", OFlags::RDWR, Mode::empty())?;
            std::mem::forget(null);
        }
    }
    Ok(())
}

/// Runs one command. Returns the exit status: 0 good, 1 failed, 2 the command line is wrong; for `run` without
/// `--detach`, that of the container's process.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let invocation = match cli::parse(words) {
        Ok(invocation) => invocation,
        Err(error) => return fail(&Log::default(), &error),
    };
    // First of all, since it may begin everything anew.
    let sealed = if invocation.command.enters_container() {
        protect::ensure_sealed()
    } else {
        Ok(())
    };
    let log = match Log::open(
        invocation.log.as_deref(),
        invocation.log_format,
        invocation.debug,
    ) {
        Ok(log) => log,
        Err(error) => return fail(&Log::default(), &error),
    };
    sealed
        .and_then(|()| perform(&invocation, &log))
        .unwrap_or_else(|error| fail(&log, &error))
}

fn fail(log: &Log, error: &Error) -> u8 {
    log.error(&chain(error));
    if matches!(error, Error::Usage(_)) {
        2
    } else {
        1
    }
}

fn perform(invocation: &Invocation, log: &Log) -> Result<u8> {
    let root = invocation.root.as_path();
    match &invocation.command {
        Command::Create { id, options } => launch::create(root, id, options, log)?,
        Command::Run {
            id,
            options,
            detach: true,
            ..
        } => launch::run_detached(root, id, options, log)?,
        Command::Run {
            id,
            options,
            detach: false,
            keep,
        } => return launch::run_foreground(root, id, options, *keep, log),
        Command::Start { id } => lifecycle::start(root, id, log)?,
        Command::State { id } => println!("{}", lifecycle::state(root, id)?),
        Command::Kill { id, signal, all } => lifecycle::kill(root, id, *signal, *all)?,
        Command::Delete { id, force } => lifecycle::delete(root, id, *force, log)?,
        Command::Exec { id, options } => {
            // Callers tell a failure to execute from the command's own status by this number.
            const NOT_EXECUTED: u8 = 255;
            let result = exec::exec(root, id, options, log);
            return Ok(result.unwrap_or_else(|error| {
                log.error(&format!("exec failed: {}", chain(&error)));
                NOT_EXECUTED
            }));
        }
        Command::List { json, quiet } => print!("{}", list::list(root, *json, *quiet)?),
        Command::Ps {
            id,
            json,
            arguments,
        } => println!("{}", ps::ps(root, id, *json, arguments)?),
        Command::Pause { id } => pause::pause(root, id)?,
        Command::Resume { id } => pause::resume(root, id)?,
        Command::Update { id, options } => update::update(root, id, options)?,
        Command::Events {
            id,
            stats,
            interval,
        } => events::events(root, id, *stats, *interval)?,
        Command::Spec { bundle, rootless } => commands::spec::write(bundle, *rootless)?,
        Command::Features => println!("{:#}", features::document()),
        Command::Version => println!(
            "coracle-runtime version {}\nspec: {}",
            env!("CARGO_PKG_VERSION"),
            spec::OCI_VERSION
        ),
        Command::Help => print!("{}", cli::USAGE),
    }
    Ok(0)
}
