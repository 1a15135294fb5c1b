//! `start`, `state`, `kill` and `delete`: the operations on a container that exists (runtime.md, "Operations").

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result, chain};
use crate::hooks::{self, Hooks};
use crate::log::Log;
use crate::report::{self, Report};
use crate::state::{Container, Process, Record, Status};
use crate::sys;

/// How long a killed process may take to end.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Executes the command of a created container. Returns after the execve, or with its error.
///
/// A signal that asks this process to end before the execve stops the container instead of executing the command.
/// A poststart hook that fails ends the container's process and is an error (runtime.md, "Lifecycle").
pub fn start(root: &Path, id: &str, log: &Log) -> Result<()> {
    let container = Container::new(root, id)?;
    let lock = container.lock()?;
    let mut record = read(&container, id)?;
    match container.status_under_lock(&record, &lock) {
        Status::Created => {}
        Status::Stopped => {
            let text = format!("cannot start a container that has stopped: {id:?}");
            return Err(Error::Container(text));
        }
        other => {
            let text = format!("cannot start container {id:?} that is {}", other.name());
            return Err(Error::Container(text));
        }
    }
    if record.lacks_process {
        let text = format!("cannot start container {id:?}: its config.json has no process");
        return Err(Error::Container(text));
    }
    let mut stream = connect(&container)?;
    // From the word on this must not end before the container is known to run.
    let ending = sys::ending_signals_as_file().during("receive signals")?;
    report::send_go(&mut stream).during("start the container process")?;
    if let Report::Failed(text) = await_execve(&mut stream, ending.as_fd())? {
        return Err(Error::Child(text));
    }
    record.phase = Status::Running;
    container.write(&record)?;
    fs::remove_file(container.start_socket()).at("remove", container.start_socket())?;
    if record.late_hooks {
        run_poststart(&container, &record, ending.as_fd(), log)?;
    }
    Ok(())
}

/// Takes the word back when a signal asks this process to end; whether in time, the process tells.
fn await_execve(stream: &mut UnixStream, ending: BorrowedFd<'_>) -> Result<Report> {
    let mut watched = [
        PollFd::new(&*stream, PollFlags::IN),
        PollFd::from_borrowed_fd(ending, PollFlags::IN),
    ];
    retry_on_intr(|| poll(&mut watched, None)).during("hear from the container process")?;
    if watched[0].revents().is_empty() {
        report::withdraw(stream);
    }
    report::receive(stream).during("hear from the container process")
}

fn run_poststart(
    container: &Container,
    record: &Record,
    ending: BorrowedFd<'_>,
    log: &Log,
) -> Result<()> {
    let hooks = Hooks::resolve(&container.config()?.hooks)?;
    let pid = record.process.map_or(0, |process| process.pid);
    let state = container.hook_state(record, Status::Running, pid)?;
    let run = || {
        let removal = container.watch_for_removal()?;
        let until = [ending, removal.as_fd()];
        hooks::run("poststart", &hooks.poststart, &state, &until)
    };
    run().inspect_err(|_| {
        if let Err(error) = kill_process(record, libc::SIGKILL) {
            log.warn(&chain(&error));
        }
    })
}

/// Whether there was a process to send it to.
fn kill_process(record: &Record, signal: i32) -> Result<bool> {
    let Some(pidfd) = record.process.map(Process::open).transpose()?.flatten() else {
        return Ok(false);
    };
    match sys::pidfd_send_signal(pidfd.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        other => other
            .during(format!("send signal {signal} to the container process"))
            .map(|()| true),
    }
}

/// The state document as JSON.
pub fn state(root: &Path, id: &str) -> Result<String> {
    let container = Container::new(root, id)?;
    let record = read(&container, id)?;
    let document = container.document(&record);
    serde_json::to_string_pretty(&document).map_err(|source| Error::Json {
        path: container.directory().join("state.json"),
        source,
    })
}

/// Sends a signal to the container's process, or to all its processes.
pub fn kill(root: &Path, id: &str, signal: i32, all: bool) -> Result<()> {
    let container = Container::new(root, id)?;
    let record = read(&container, id)?;
    if all {
        return kill_all(&record, signal);
    }
    let alive = container.status(&record) != Status::Stopped;
    if alive && kill_process(&record, signal)? {
        return Ok(());
    }
    // The words that engines look for.
    Err(Error::Container("container not running".into()))
}

/// Removes a stopped container; with `force` kills it first, and is content if there is none.
///
/// Then come the poststop hooks; one that fails is a warning (runtime.md, "Lifecycle").
pub fn delete(root: &Path, id: &str, force: bool, log: &Log) -> Result<()> {
    let container = Container::new(root, id)?;
    if force {
        end_set_up(&container)?;
    }
    remove(&container, force, log)
}

/// The same for whoever ran the container and has seen its process end. Somebody else may have deleted it since.
pub(crate) fn delete_ended(root: &Path, id: &str, log: &Log) -> Result<()> {
    remove(&Container::new(root, id)?, true, log)
}

fn remove(container: &Container, force: bool, log: &Log) -> Result<()> {
    let lock = container.lock();
    // Whoever set it up may have undone it just now.
    if force && !container.exists() {
        return Ok(());
    }
    let lock = lock?;
    let Some(record) = container.read()? else {
        return container.remove();
    };
    let status = container.status_under_lock(&record, &lock);
    if status != Status::Stopped && !force {
        return Err(Error::Container(format!(
            "cannot delete container {:?} that is not stopped: {}",
            container.id(),
            status.name()
        )));
    }
    remove_processes(&record)?;
    remove_remains(&record)?;
    let poststop = if record.late_hooks {
        // A document that cannot be read any more must not keep the container for ever.
        let spec = container
            .config()
            .and_then(|spec| Hooks::resolve(&spec.hooks));
        spec.inspect_err(|error| log.warn(&chain(error)))
            .map_or_else(|_| Vec::new(), |hooks| hooks.poststop)
    } else {
        Vec::new()
    };
    container.remove()?;
    let state = container.hook_state(&record, Status::Stopped, 0)?;
    for error in hooks::run_all("poststop", &poststop, &state) {
        log.warn(&chain(&error));
    }
    Ok(())
}

/// Another command may be at work on the container for as long as a hook wants; without its process, or once it hears
/// of the removal, that gives up.
fn end_set_up(container: &Container) -> Result<()> {
    let Ok(directory) = File::open(container.directory()) else {
        return Ok(());
    };
    let lock = flock(&directory, FlockOperation::NonBlockingLockShared);
    // The state is replaced atomically, so that it can be read without the lock; it may be gone already.
    match container.read() {
        Ok(Some(record)) if lock == Err(Errno::WOULDBLOCK) => {
            container.announce_removal()?;
            kill_process(&record, libc::SIGKILL).map(drop)
        }
        _ => Ok(()),
    }
}

/// Even of a stopped container processes may be left, where it has no pid namespace of its own.
fn remove_processes(record: &Record) -> Result<()> {
    let pidfd = record.process.map(Process::open).transpose()?.flatten();
    let cgroup = record.cgroup.as_ref();
    if pidfd.is_none() && cgroup.is_some_and(Cgroup::remove_if_empty) {
        return Ok(());
    }
    if let Some(cgroup) = &cgroup {
        cgroup.kill()?;
    }
    if let Some(pidfd) = pidfd {
        // A signal besides: it reaches the process also where it was moved out of its cgroup.
        let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let timeout = Timespec {
            tv_sec: KILL_DEADLINE.as_secs() as i64,
            tv_nsec: 0,
        };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
        if ended.during("wait for the container process")? == 0 {
            return Err(Error::Container(format!(
                "the container process does not end within {KILL_DEADLINE:?}"
            )));
        }
    }
    cgroup.map_or(Ok(()), |cgroup| cgroup.remove())
}

/// What does not vanish with the processes.
fn remove_remains(record: &Record) -> Result<()> {
    let mounts = record.shared_mounts.as_ref();
    mounts.map_or(Ok(()), |mounts| mounts.detach())?;
    let resctrl = record.resctrl.as_ref();
    resctrl.map_or(Ok(()), |resctrl| resctrl.remove())
}

fn kill_all(record: &Record, signal: i32) -> Result<()> {
    let Some(cgroup) = record.cgroup.as_ref().filter(|cgroup| cgroup.exists()) else {
        // The first process is the one that is known; its pid namespace ends with it.
        return kill_process(record, signal).map(drop);
    };
    if signal == libc::SIGKILL {
        return cgroup.kill();
    }
    for pid in cgroup.processes()? {
        let Ok(process) = Process::observe(pid) else {
            continue;
        };
        if let Some(pidfd) = process.open()? {
            // It may just have ended.
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), signal);
        }
    }
    Ok(())
}

fn read(container: &Container, id: &str) -> Result<Record> {
    container
        .read()?
        .ok_or_else(|| Error::Container(format!("container {id:?} has no state yet")))
}

fn connect(container: &Container) -> Result<UnixStream> {
    let directory = File::open(container.directory()).at("open", container.directory())?;
    let path = format!("/proc/self/fd/{}/start.sock", directory.as_raw_fd());
    UnixStream::connect(path).at("connect to", container.start_socket())
}
