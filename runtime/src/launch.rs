//! `create` and `run`: from a bundle to a process that is set up or executed.
//!
//! Whatever fails on the way, nothing is left: no process, no cgroup, no state.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cgroup::Cgroup;
use crate::child::{self, Inheritance};
use crate::cli::CgroupManager;
use crate::error::{Context, Error, Result};
use crate::log::{self, Log};
use crate::mount::idmap::Sources;
use crate::plan::Plan;
use crate::process::supervise::supervise;
use crate::process::terminal;
use crate::report::{self, Report};
use crate::seccomp::notify;
use crate::state::{self, Container, Lock, Process, Record, Status};
use crate::{protect, spec, sys};

/// The options of `create` and `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after the standard three the command inherits.
    pub preserve_fds: u32,
    /// Whether the command keeps the caller's session keyring.
    pub no_new_keyring: bool,
    /// Whether the root is entered without pivot_root, for a caller whose own root is the kernel's first.
    pub no_pivot: bool,
    /// Where to send the terminal of the process.
    pub console_socket: Option<PathBuf>,
    /// Who makes the cgroup.
    pub cgroup_manager: CgroupManager,
}

/// Sets the container up; its command waits for `start`.
pub fn create(root: &Path, id: &str, options: &Options, log: &Log) -> Result<()> {
    let mut launch = Launch::begin(root, id, options, log)?;
    launch.prepare_terminal(options, true)?;
    let listener = listen(&launch.container)?;
    let control = launch.spawn(Some(listener), options)?;
    launch.await_ready(control)?;
    launch.finish(Status::Created)?;
    Ok(())
}

/// Sets the container up and executes its command. The process becomes a child of whoever adopts this one's.
pub fn run_detached(root: &Path, id: &str, options: &Options, log: &Log) -> Result<()> {
    execute(root, id, options, true, log).map(drop)
}

/// The same, then passes signals on until the process ends, and deletes the container.
///
/// With `keep` the container stays, stopped. Returns the exit status for the shell: the command's, or 128 and the
/// number of the signal that killed it.
pub fn run_foreground(
    root: &Path,
    id: &str,
    options: &Options,
    keep: bool,
    log: &Log,
) -> Result<u8> {
    // Blocked before the process exists, so none is lost.
    let signals = sys::signals_as_file().during("receive signals")?;
    let (pidfd, master) = execute(root, id, options, false, log)?;
    let status = supervise(pidfd.as_fd(), signals, master);
    if !keep {
        crate::commands::lifecycle::delete(root, id, true)?;
    }
    status
}

/// Returns the process, and its terminal if that is to be relayed.
fn execute(
    root: &Path,
    id: &str,
    options: &Options,
    detached: bool,
    log: &Log,
) -> Result<(OwnedFd, Option<OwnedFd>)> {
    let mut launch = Launch::begin(root, id, options, log)?;
    launch.prepare_terminal(options, detached)?;
    let control = launch.spawn(None, options)?;
    let mut control = launch.await_ready(control)?;
    report::send_go(&mut control).during("start the container process")?;
    match report::receive(&mut control).during("hear from the container process")? {
        Report::Failed(text) => return Err(Error::Child(text)),
        Report::Ready | Report::Listener(_) | Report::Ended => {}
    }
    let master = match launch.relayed.take() {
        Some(socket) => terminal::receive(&socket).during("receive the terminal")?,
        None => None,
    };
    Ok((launch.finish(Status::Running)?, master))
}

/// A container on its way into being; dropped before [`Launch::finish`], it is undone.
struct Launch {
    plan: Plan,
    container: Container,
    record: Record,
    cgroup: Option<Cgroup>,
    pid_file: Option<PathBuf>,
    pidfd: Option<OwnedFd>,
    done: bool,
    lock: Option<Lock>,
    /// Where the process sends its terminal.
    console: Option<UnixStream>,
    /// Where it arrives, if that is here.
    relayed: Option<UnixStream>,
}

impl Launch {
    fn begin(root: &Path, id: &str, options: &Options, log: &Log) -> Result<Self> {
        let container = Container::new(root, id)?;
        let bundle = fs::canonicalize(&options.bundle).at("find bundle", &options.bundle)?;
        let mut plan = Plan::new(spec::load(&bundle)?, &bundle, id)?;
        plan.root.pivot = !options.no_pivot;
        plan.warnings.iter().for_each(|text| log.warn(text));
        plan.remarks.iter().for_each(|text| log.debug(text));
        let record = Record {
            phase: Status::Creating,
            process: None,
            bundle,
            cgroup: None,
            created: log::timestamp(SystemTime::now()),
            annotations: plan.annotations.clone(),
        };
        let lock = container.create()?;
        let pid_file = options.pid_file.clone();
        let launch = Self {
            plan,
            container,
            record,
            cgroup: None,
            pid_file,
            pidfd: None,
            done: false,
            lock: Some(lock),
            console: None,
            relayed: None,
        };
        launch.container.write(&launch.record)?;
        Ok(launch)
    }

    fn prepare_terminal(&mut self, options: &Options, detached: bool) -> Result<()> {
        let (asked, socket) = (
            self.plan.process.terminal.is_some(),
            options.console_socket.as_deref(),
        );
        terminal::check(asked, socket.is_some(), detached)?;
        (self.console, self.relayed) = terminal::console(asked, socket)?;
        Ok(())
    }

    /// Makes the cgroup and the process, and writes down what is known of it while it sets itself up.
    fn spawn(&mut self, start: Option<UnixListener>, options: &Options) -> Result<UnixStream> {
        let cgroup = self.cgroup.insert(Cgroup::prepare(
            &self.plan.cgroup,
            &self.plan.limits,
            options.cgroup_manager,
        )?);
        let directory = cgroup.open()?;
        let await_cgroup = cgroup.needs_attach();
        let namespaces = self.open_namespaces()?;
        let mapped = self.plan.namespaces.has(libc::CLONE_NEWUSER);
        let sources = Sources::open(&self.plan.root, &self.plan.mounts, mapped)?;
        let (mut ours, control) = UnixStream::pair().during("make a socket pair")?;
        // A cgroup namespace is made by the process itself, once it is in its cgroup.
        let new = self.plan.namespaces.new & !libc::CLONE_NEWCGROUP;
        match sys::clone3(new as u64, directory.as_ref()).during("make the container process")? {
            sys::Cloned::Child => {
                protect::let_go();
                drop((ours, directory));
                // Its copy would keep the container locked until the command is executed.
                drop((self.lock.take(), self.relayed.take()));
                let console = self.console.take();
                let (preserve_fds, keep_keyring) = (options.preserve_fds, options.no_new_keyring);
                child::run(
                    &self.plan,
                    Inheritance {
                        control,
                        start,
                        namespaces,
                        preserve_fds,
                        keep_keyring,
                        await_cgroup,
                        sources,
                        console,
                    },
                )
            }
            sys::Cloned::Parent { pid, pidfd } => {
                self.console = None;
                self.pidfd = Some(pidfd);
                let pid = pid.as_raw_nonzero().get();
                self.record.process = Some(Process::observe(pid)?);
                if let Some(cgroup) = self.cgroup.as_mut().filter(|_| await_cgroup) {
                    cgroup.place(pid, &self.plan.limits)?;
                    report::send_go(&mut ours).during("let the container process go on")?;
                }
                self.record.cgroup = self.cgroup.clone();
                self.container.write(&self.record)?;
                if let Some(path) = &self.pid_file {
                    state::replace_file(path, pid.to_string().as_bytes(), 0o644)?;
                }
                // May wait for a moment, while the other process is at work.
                protect::let_go();
                Ok(ours)
            }
        }
    }

    /// Opens the namespaces to join. That of process ids must be entered here: it counts for new processes only.
    fn open_namespaces(&self) -> Result<Vec<(i32, OwnedFd)>> {
        let mut opened = Vec::new();
        for (kind, path) in &self.plan.namespaces.join {
            let namespace = OwnedFd::from(File::open(path).at("open namespace", path)?);
            if *kind == libc::CLONE_NEWPID {
                move_into_thread_name_spaces(namespace.as_fd(), ThreadNameSpaceType::PROCESS_ID)
                    .at("join namespace", path)?;
            } else {
                opened.push((*kind, namespace));
            }
        }
        Ok(opened)
    }

    fn await_ready(&self, mut control: UnixStream) -> Result<UnixStream> {
        loop {
            match report::receive(&mut control).during("hear from the container process")? {
                Report::Ready => return Ok(control),
                Report::Listener(number) => self.hand_over_listener(number, &control)?,
                Report::Failed(text) => return Err(Error::Child(text)),
                Report::Ended => return Err(Error::Child(self.describe_death())),
            }
        }
    }

    /// Gives the listener of the seccomp filter, a descriptor of the container's process, to its agent.
    fn hand_over_listener(&self, number: i32, control: &UnixStream) -> Result<()> {
        let filter = self.plan.process.filter.as_ref();
        let listener = filter.and_then(|filter| filter.listener.as_ref());
        let (Some(listener), Some(process), Some(pidfd)) =
            (listener, self.record.process, &self.pidfd)
        else {
            return Err(Error::Child("a seccomp listener nobody asked for".into()));
        };
        notify::hand_over(
            listener,
            (process.pid, pidfd.as_fd()),
            (number, control),
            &self.container.document(&self.record),
        )
    }

    /// The process ended without a word, so somebody killed it: often the kernel, for want of memory.
    fn describe_death(&self) -> String {
        let pidfd = self
            .pidfd
            .as_ref()
            .map(|pidfd| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
        match pidfd {
            Some(Ok(Some(status))) => match status.terminating_signal() {
                Some(signal) => {
                    format!("killed by signal {signal} during set-up (a memory limit too low?)")
                }
                None => "ended during set-up".into(),
            },
            _ => "vanished during set-up".into(),
        }
    }

    /// Writes the final state. From here on the container stays.
    fn finish(mut self, phase: Status) -> Result<OwnedFd> {
        self.record.phase = phase;
        self.container.write(&self.record)?;
        self.done = true;
        Ok(self.pidfd.take().expect("finish comes after spawn"))
    }
}

impl Drop for Launch {
    /// Undoes what was done, as far as possible: the error that led here is the one to tell.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(pidfd) = &self.pidfd {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            if let Some(path) = &self.pid_file {
                let _ = fs::remove_file(path);
            }
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
        let _ = self.container.remove();
    }
}

/// The name of a socket may have 108 bytes only, so it is reached through the open directory.
fn listen(container: &Container) -> Result<UnixListener> {
    let directory = File::open(container.directory()).at("open", container.directory())?;
    let path = format!("/proc/self/fd/{}/start.sock", directory.as_raw_fd());
    UnixListener::bind(path).at("make socket", container.start_socket())
}
