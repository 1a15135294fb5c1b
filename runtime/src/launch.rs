//! `create` and `run`: from a bundle to a process that is set up or executed.
//!
//! Whatever fails on the way, or a signal that asks this process to end, leaves nothing: no process, no cgroup, no
//! state. `spawn` makes the process, `idmap` maps its ids.

mod idmap;
mod spawn;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, prlimit, waitid};

use crate::cgroup::Cgroup;
use crate::cli::CgroupManager;
use crate::error::{Context, Error, Result, chain};
use crate::hooks;
use crate::log::{self, Log};
use crate::mount::shared::SharedMounts;
use crate::network::Moved;
use crate::plan::Plan;
use crate::process::supervise::{next_signal, supervise};
use crate::process::terminal;
use crate::report::{self, Report};
use crate::seccomp::notify;
use crate::state::{Container, Lock, Record, Status};
use crate::{spec, sys};

/// The options of `create` and `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// The document instead of `config.json`; relative to the bundle.
    pub config: Option<PathBuf>,
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
    let mut control = launch.spawn(Some(listener), options)?;
    launch.await_ready(&mut control)?;
    launch.enter(Status::Created)?;
    launch.finish();
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
    let (pidfd, signals, master) = execute(root, id, options, false, log)?;
    let status = supervise(pidfd.as_fd(), signals.into(), master);
    if !keep {
        crate::commands::lifecycle::delete_ended(root, id, log)?;
    }
    status
}

/// Returns the process, the signals to pass on to it, and its terminal if that is to be relayed.
fn execute(
    root: &Path,
    id: &str,
    options: &Options,
    detached: bool,
    log: &Log,
) -> Result<(OwnedFd, File, Option<OwnedFd>)> {
    let mut launch = Launch::begin(root, id, options, log)?;
    launch.plan.process.require_command()?;
    launch.prepare_terminal(options, detached)?;
    let mut control = launch.spawn(None, options)?;
    launch.await_ready(&mut control)?;
    report::send_go(&mut control).during("start the container process")?;
    match launch.hear(&mut control)? {
        Report::Failed(text) => return Err(Error::Child(text)),
        Report::Mounted | Report::Root(_) | Report::Ready | Report::Listener(_) | Report::Ended => {
            launch.enter(Status::Running)?
        }
    }
    let poststart = &launch.plan.hooks.poststart;
    if !poststart.is_empty() {
        let state = launch.hook_state(Status::Running)?;
        // The command may have ended already, which is no reason to stop the hooks; a signal to the runtime is.
        let ending = sys::ending_signals_as_file().during("receive signals")?;
        let removal = launch.container.watch_for_removal()?;
        let until = [ending.as_fd(), removal.as_fd()];
        hooks::run("poststart", poststart, &state, &until)?;
    }
    let master = match launch.relayed.take() {
        Some(socket) => terminal::receive(&socket).during("receive the terminal")?,
        None => None,
    };
    let (pidfd, signals) = launch.finish();
    Ok((pidfd, signals, master))
}

/// A container on its way into being; dropped before [`Launch::finish`], it is undone.
struct Launch<'a> {
    plan: Plan,
    container: Container,
    record: Record,
    cgroup: Option<Cgroup>,
    pid_file: Option<PathBuf>,
    pidfd: Option<OwnedFd>,
    /// Blocked since before there was anything to undo; all that arrive are read here.
    signals: Option<File>,
    log: &'a Log,
    done: bool,
    lock: Option<Lock>,
    /// Where the process sends its terminal.
    console: Option<UnixStream>,
    /// Where it arrives, if that is here.
    relayed: Option<UnixStream>,
    /// What the container has got of the host's network devices.
    devices: Option<Moved>,
}

impl<'a> Launch<'a> {
    fn begin(root: &Path, id: &str, options: &Options, log: &'a Log) -> Result<Self> {
        let container = Container::new(root, id)?;
        let bundle = fs::canonicalize(&options.bundle).at("find bundle", &options.bundle)?;
        let document = options.config.as_deref();
        let path = bundle.join(document.unwrap_or("config.json".as_ref()));
        let text = spec::read(&path)?;
        let mut plan = Plan::new(spec::parse(&text, &path)?, &bundle, id)?;
        plan.root.pivot &= !options.no_pivot;
        plan.warnings.iter().for_each(|text| log.warn(text));
        plan.remarks.iter().for_each(|text| log.debug(text));
        log.debug(&format!("creating container {id:?} of {}", path.display()));
        let record = Record {
            phase: Status::Creating,
            process: None,
            bundle,
            cgroup: None,
            resctrl: None,
            shared_mounts: None,
            created: log::timestamp(SystemTime::now()),
            annotations: plan.annotations.clone(),
            lacks_process: plan.process.args.is_empty(),
            late_hooks: !(plan.hooks.poststart.is_empty() && plan.hooks.poststop.is_empty()),
        };
        let signals = File::from(sys::signals_as_file().during("receive signals")?);
        let lock = container.create()?;
        let launch = Self {
            plan,
            container,
            record,
            cgroup: None,
            pid_file: options.pid_file.clone(),
            pidfd: None,
            signals: Some(signals),
            log,
            done: false,
            lock: Some(lock),
            console: None,
            relayed: None,
            devices: None,
        };
        launch.container.write_config(&text)?;
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

    /// Waits for the process to be set up, and does for it what only the runtime can.
    fn await_ready(&mut self, control: &mut UnixStream) -> Result<()> {
        loop {
            match self.hear(control)? {
                Report::Ready => return self.set_limits(),
                Report::Root(mount) => self.remember_shared_mounts(mount)?,
                Report::Mounted => {
                    self.run_create_hooks()?;
                    report::send_go(control).during("go on after the hooks")?;
                }
                Report::Listener(number) => self.hand_over_listener(number, control)?,
                Report::Failed(text) => return Err(Error::Child(text)),
                Report::Ended => return Err(Error::Child(self.describe_death())),
            }
        }
    }

    /// Until they have ended, or somebody asks the runtime to end or kills the process, as `delete --force` does.
    fn run_create_hooks(&self) -> Result<()> {
        let state = self.hook_state(Status::Creating)?;
        let ending = sys::ending_signals_as_file().during("receive signals")?;
        let until = [Some(ending.as_fd()), self.pidfd.as_ref().map(AsFd::as_fd)];
        let until: Vec<_> = until.into_iter().flatten().collect();
        let hooks = &self.plan.hooks.create_runtime;
        hooks::run("createRuntime", hooks, &state, &until)
    }

    /// Waits for the next report, or for a signal that asks us to give up.
    fn hear(&mut self, control: &mut UnixStream) -> Result<Report> {
        loop {
            let signals = self.signals.as_mut().expect("taken at the end only");
            let mut watched = [
                PollFd::new(&*control, PollFlags::IN),
                PollFd::new(&*signals, PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.during("hear from the container process")?,
            };
            let reported = !watched[0].revents().is_empty();
            while let Some(signal) = next_signal(signals) {
                if sys::ENDING_SIGNALS.contains(&signal) {
                    let text = format!("given up for signal {signal} during set-up");
                    return Err(Error::Container(text));
                }
            }
            if reported {
                return report::receive(control).during("hear from the container process");
            }
        }
    }

    /// In a joined mount namespace they do not go with the process.
    fn remember_shared_mounts(&mut self, mount: u64) -> Result<()> {
        if let Some(namespace) = self.plan.namespaces.joined_mounts() {
            let mounts = SharedMounts::new(namespace, &self.plan.root.path, mount)?;
            self.record.shared_mounts = Some(mounts);
        }
        self.container.write(&self.record)
    }

    /// In a user namespace the process itself has no privilege over the host's limits.
    fn set_limits(&self) -> Result<()> {
        if !self.plan.namespaces.has(libc::CLONE_NEWUSER) {
            return Ok(());
        }
        let pid = self
            .record
            .process
            .and_then(|process| Pid::from_raw(process.pid));
        for &(resource, limit) in &self.plan.process.rlimits {
            prlimit(pid, resource, limit).during(format!("set resource limit {resource:?}"))?;
        }
        Ok(())
    }

    /// As the runtime's hooks see it.
    fn hook_state(&self, status: Status) -> Result<Vec<u8>> {
        let process = self.record.process.filter(|_| status != Status::Stopped);
        let pid = process.map_or(0, |process| process.pid);
        self.container.hook_state(&self.record, status, pid)
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

    /// Writes down how far it is.
    fn enter(&mut self, phase: Status) -> Result<()> {
        self.record.phase = phase;
        self.container.write(&self.record)
    }

    /// From here on the container stays. Gives the process and the signals to pass on to it.
    fn finish(mut self) -> (OwnedFd, File) {
        self.done = true;
        if let Some(devices) = self.devices.take() {
            devices.keep();
        }
        let pidfd = self.pidfd.take().expect("finish comes after spawn");
        (pidfd, self.signals.take().expect("taken here only"))
    }
}

impl Drop for Launch<'_> {
    /// Undoes what was done, as far as possible: the error that led here is the one to tell.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // Before the process is killed, and with it perhaps the namespace and the devices in it.
        self.devices = None;
        if let Some(pidfd) = &self.pidfd {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            if let Some(path) = &self.pid_file {
                let _ = fs::remove_file(path);
            }
        }
        if let Some(mounts) = &self.record.shared_mounts {
            let _ = mounts.detach();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
        if let Some(resctrl) = &self.record.resctrl {
            resctrl.undo();
        }
        let _ = self.container.remove();
        // runtime.md, "Lifecycle": whatever fails after the process exists leads to the poststop hooks.
        let poststop = &self.plan.hooks.poststop;
        if let (Some(_), Ok(state)) = (&self.pidfd, self.hook_state(Status::Stopped)) {
            for error in hooks::run_all("poststop", poststop, &state) {
                self.log.warn(&chain(&error));
            }
        }
    }
}

/// The name of a socket may have 108 bytes only, so it is reached through the open directory.
fn listen(container: &Container) -> Result<UnixListener> {
    let directory = File::open(container.directory()).at("open", container.directory())?;
    let path = format!("/proc/self/fd/{}/start.sock", directory.as_raw_fd());
    UnixListener::bind(path).at("make socket", container.start_socket())
}
