//! `exec`: another process in a container that runs, as confined as the container's own.
//!
//! It is made inside the container's cgroup and pid namespace, joins the other namespaces by the pidfd of the
//! container's process (so never those of another one that got its id), and then takes the same steps to the execve
//! as that process did. The runtime's memory cannot be read from inside on the way: the process is not dumpable.

use std::convert::Infallible;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Component, Path};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, WaitId, WaitIdOptions, chroot, fchdir, set_dumpable_behavior, setsid, umask,
    waitid,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cgroup::Cgroup;
use crate::cli::ExecOptions;
use crate::error::{Context, Error, Result, chain};
use crate::log::Log;
use crate::plan::{self, Process};
use crate::process::supervise::{next_signal, supervise};
use crate::process::{execution, identity, label, terminal};
use crate::report::{self, Report};
use crate::seccomp::notify;
use crate::spec::{self, Capabilities, IdMapping, Spec};
use crate::state::{self, Container, Record, State, Status};
use crate::sys;

/// Executes a command in the container. Returns 0 when detached, else its exit status for the shell.
pub fn exec(root: &Path, id: &str, options: &ExecOptions, log: &Log) -> Result<u8> {
    let container = Container::new(root, id)?;
    let record = container.read()?;
    let record = record.ok_or_else(|| not_running(id, Status::Creating))?;
    let target = enter(&container, &record, id, options)?;
    let spec = container.config()?;
    let asked = describe(&spec, options)?;
    let (process, warnings, _) = plan::resolve_process(&asked, &spec)?;
    warnings.iter().for_each(|text| log.warn(text));
    log.debug(&format!(
        "executing {:?} in container {id:?}",
        process.program
    ));
    let socket = options.console_socket.as_deref();
    let has_terminal = process.terminal.is_some();
    terminal::check(has_terminal, socket.is_some(), options.detach)?;
    // Blocked before the process exists, so none is lost.
    let mut signals = match options.detach {
        true => None,
        false => Some(File::from(
            sys::signals_as_file().during("receive signals")?,
        )),
    };
    let (console, relayed) = terminal::console(has_terminal, socket)?;
    let joining = Joining {
        process: &process,
        target: target.as_fd(),
        namespaces: namespaces(&spec),
        root: match &record.shared_mounts {
            Some(_) => Some(open_root(&record, target.as_fd())?),
            None => None,
        },
        owner: owner(&spec),
        preserve_fds: options.preserve_fds,
    };
    let pidfd = joining.spawn(console, options, &container, &record, signals.as_mut())?;
    let Some(signals) = signals else {
        return Ok(0);
    };
    let master = match relayed {
        Some(socket) => terminal::receive(&socket)
            .during("receive the terminal")
            .inspect_err(|_| end(pidfd.as_fd()))?,
        None => None,
    };
    supervise(pidfd.as_fd(), signals.into(), master)
}

/// A descriptor for the container's process, if it may be joined now.
fn enter(
    container: &Container,
    record: &Record,
    id: &str,
    options: &ExecOptions,
) -> Result<OwnedFd> {
    let status = container.status(record);
    match status {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating | Status::Stopped => return Err(not_running(id, status)),
    }
    if status == Status::Paused && !options.ignore_paused {
        return Err(Error::Container(format!(
            "cannot exec in a paused container: {id:?} (--ignore-paused enters it nevertheless)"
        )));
    }
    let pidfd = record.process.map(state::Process::open).transpose()?;
    pidfd
        .flatten()
        .ok_or_else(|| not_running(id, Status::Stopped))
}

fn not_running(id: &str, status: Status) -> Error {
    Error::Container(format!(
        "cannot exec in container {id:?}: container not running, but {}",
        status.name()
    ))
}

/// The process that is asked for: of a file, or the container's own with changes.
fn describe(spec: &Spec, options: &ExecOptions) -> Result<spec::Process> {
    if let Some(path) = &options.process {
        return spec::parse(&spec::read(path)?, path);
    }
    let process = spec.process.clone();
    let mut process = process.unwrap_or_else(spec::Process::absent);
    process.args.clone_from(&options.args);
    process.terminal = options.tty;
    process.no_new_privileges |= options.no_new_privs;
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = options.user {
        // The groups belonged to the other user.
        process.user.additional_gids.clear();
        (process.user.uid, process.user.gid) = (user.uid, user.gid);
    }
    process
        .user
        .additional_gids
        .extend(&options.additional_gids);
    if options.process_label.is_some() {
        process.selinux_label.clone_from(&options.process_label);
    }
    if options.apparmor.is_some() {
        process.apparmor_profile.clone_from(&options.apparmor);
    }
    for entry in &options.env {
        set_variable(&mut process.env, entry)?;
    }
    if !options.capabilities.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        add_capabilities(sets, &options.capabilities);
    }
    Ok(process)
}

fn set_variable(env: &mut Vec<String>, entry: &str) -> Result<()> {
    let (name, _) = entry
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| Error::Usage(format!("--env {entry:?} is not NAME=VALUE")))?;
    env.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != name));
    env.push(entry.to_owned());
    Ok(())
}

/// Not to the inheritable and ambient sets: what the command executes itself is not to get them.
fn add_capabilities(sets: &mut Capabilities, names: &[String]) {
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(names.iter().cloned());
    }
}

/// `CLONE_NEW*` of the namespaces that the container does not share with the host as it was made.
fn namespaces(spec: &Spec) -> i32 {
    let flags = [
        ("pid", libc::CLONE_NEWPID),
        ("network", libc::CLONE_NEWNET),
        ("mount", libc::CLONE_NEWNS),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("user", libc::CLONE_NEWUSER),
        ("time", libc::CLONE_NEWTIME),
    ];
    let flag = |kind: &str| flags.iter().find(|(name, _)| *name == kind);
    let kinds = spec.linux.namespaces.iter();
    kinds
        .filter_map(|namespace| flag(&namespace.kind))
        .fold(0, |all, (_, flag)| all | flag)
}

/// The first user and group of the user namespace, as whom the container itself was made too.
fn owner(spec: &Spec) -> (u32, u32) {
    let first = |mappings: &[IdMapping]| {
        let ids = mappings.iter().map(|mapping| mapping.container_id);
        ids.min().unwrap_or(0)
    };
    (
        first(&spec.linux.uid_mappings),
        first(&spec.linux.gid_mappings),
    )
}

/// The container's cgroup of v2, if it has one, or one below it that `--cgroup` names.
fn open_cgroup(cgroup: &Cgroup, options: &ExecOptions) -> Result<Option<OwnedFd>> {
    let Some(below) = options.cgroup.as_deref() else {
        return cgroup.open();
    };
    let below = Path::new(below.trim_start_matches('/'));
    let plain = |component| matches!(component, Component::Normal(_));
    let (Some(path), true) = (cgroup.path(), below.components().all(plain)) else {
        let below = below.display();
        return Err(Error::Usage(format!(
            "--cgroup {below} is not below a container's cgroup of v2"
        )));
    };
    let path = path.join(below);
    open_directory(&path).at("open cgroup", &path).map(Some)
}

/// A process on its way into a container.
struct Joining<'a> {
    process: &'a Process,
    /// The container's own process.
    target: BorrowedFd<'a>,
    namespaces: i32,
    /// The root of a process that shares its mount namespace with others, who have another.
    root: Option<OwnedFd>,
    /// User and group to be on the way in a user namespace.
    owner: (u32, u32),
    preserve_fds: u32,
}

impl Joining<'_> {
    /// Makes the process, and returns once the command has been executed.
    fn spawn(
        &self,
        console: Option<UnixStream>,
        options: &ExecOptions,
        container: &Container,
        record: &Record,
        signals: Option<&mut File>,
    ) -> Result<OwnedFd> {
        let cgroup = record.cgroup.as_ref();
        let directory = cgroup.map(|cgroup| open_cgroup(cgroup, options));
        let mut directory = directory.transpose()?.flatten();
        let legacy = cgroup.filter(|cgroup| cgroup.needs_attach());
        let resctrl = record.resctrl.as_ref();
        let attach = legacy.is_some() || resctrl.is_some();
        let pid_namespace = self.namespaces & libc::CLONE_NEWPID;
        if pid_namespace != 0 {
            // It counts for new processes only.
            join(self.target, pid_namespace)?;
        }
        // Inherited: the process can be seen from inside as soon as it exists.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).during("forbid tracing")?;
        // Inherited too; the last ones are set once it is in the cgroup.
        self.process.attributes.bind_processors(0)?;
        let (mut ours, control) = UnixStream::pair().during("make a socket pair")?;
        let mut made = sys::clone3(0, directory.as_ref());
        let is_busy = |error: &std::io::Error| error.raw_os_error() == Some(libc::EBUSY);
        if made.as_ref().is_err_and(is_busy) && options.cgroup.is_none() {
            // What shares its controllers out to cgroups below has no processes itself: the container's own has moved.
            let pid = record.process.map_or(0, |process| process.pid);
            directory = cgroup.map_or(Ok(None), |cgroup| cgroup.open_around(pid))?;
            if directory.is_some() {
                made = sys::clone3(0, directory.as_ref());
            }
        }
        let made = made.during("make a process in the container")?;
        let (pid, pidfd) = match made {
            sys::Cloned::Child => {
                drop((ours, directory));
                self.live_and_report(control, console, attach)
            }
            sys::Cloned::Parent { pid, pidfd } => (pid.as_raw_nonzero().get(), pidfd),
        };
        drop((control, console));
        let process = (pid, pidfd.as_fd());
        let document = container.document(record);
        let listener = |number, control: &UnixStream| {
            self.hand_over_listener(process, (number, control), &document)
        };
        let settle = || -> Result<()> {
            if let Some(cgroup) = legacy {
                cgroup.attach(pid)?;
            }
            if let Some(resctrl) = resctrl {
                resctrl.attach(pid)?;
            }
            if attach {
                report::send_go(&mut ours).during("let the process go on")?;
            }
            await_execution(&mut ours, signals, listener)?;
            match &options.pid_file {
                Some(path) => state::replace_file(path, pid.to_string().as_bytes(), 0o644),
                None => Ok(()),
            }
        };
        if let Err(error) = settle() {
            end(pidfd.as_fd());
            return Err(error);
        }
        Ok(pidfd)
    }

    fn hand_over_listener(
        &self,
        process: (i32, BorrowedFd<'_>),
        from: (i32, &UnixStream),
        document: &State<'_>,
    ) -> Result<()> {
        let filter = self.process.filter.as_ref();
        match filter.and_then(|filter| filter.listener.as_ref()) {
            Some(listener) => notify::hand_over(listener, process, from, document),
            None => Err(Error::Child("a seccomp listener nobody asked for".into())),
        }
    }

    fn live_and_report(
        &self,
        mut control: UnixStream,
        console: Option<UnixStream>,
        await_cgroup: bool,
    ) -> ! {
        let Err(error) = self.live(&mut control, console, await_cgroup);
        report::send_failure(&mut control, &chain(&error));
        sys::exit_now(1)
    }

    fn live(
        &self,
        control: &mut UnixStream,
        console: Option<UnixStream>,
        await_cgroup: bool,
    ) -> Result<Infallible> {
        let process = self.process;
        if await_cgroup {
            report::await_go(control).during("wait for the cgroup")?;
        }
        sys::reset_signals();
        umask(Mode::empty());
        sys::close_on_exec_from(3 + process.listen_fds + self.preserve_fds)
            .during("mark descriptors close-on-exec")?;
        setsid().during("make a session")?;
        sys::join_new_session_keyring().during("leave the session keyring")?;
        if let Some(score) = process.oom_score_adj {
            let path = Path::new("/proc/self/oom_score_adj");
            fs::write(path, score.to_string()).at("write", path)?;
        }
        process.attributes.bind_processors(1)?;
        let mut labels = label::open(&process.labels)?;
        execution::apply_limits(process)?;
        join(self.target, self.namespaces & !libc::CLONE_NEWPID)?;
        if self.namespaces & libc::CLONE_NEWUSER != 0 {
            // The user of the host has no id in here, so it could own nothing, nor give a terminal away.
            identity::become_owner(self.owner.0, self.owner.1)?;
            // The kernel reset it with the user.
            set_dumpable_behavior(DumpableBehavior::NotDumpable).during("forbid tracing")?;
        }
        if let Some(root) = &self.root {
            fchdir(root).during("enter the root of the container")?;
            chroot(".").during("change to the root of the container")?;
        }
        // From here on `/` is the container's.
        let root = open_directory(Path::new("/")).at("open", "/")?;
        let cwd = open_directory(&process.cwd).at("enter working directory", &process.cwd)?;
        fchdir(&cwd).at("enter working directory", &process.cwd)?;
        if let (Some(wanted), Some(console)) = (process.terminal, console) {
            let slave = terminal::open(root.as_fd(), wanted, process.user.uid, &console)?;
            terminal::take(&slave)?;
        }
        let program = execution::drop_privileges(process, control)?;
        if execution::listens(process) {
            report::send_ready(control).during("report to the runtime")?;
            report::await_go(control).during("wait for the seccomp agent")?;
        }
        execution::confine(process, &mut labels, control)?;
        Err(execution::execute(process, &program))
    }
}

/// Hears the process out until it has executed the command.
fn await_execution(
    control: &mut UnixStream,
    mut signals: Option<&mut File>,
    mut take_listener: impl FnMut(i32, &UnixStream) -> Result<()>,
) -> Result<()> {
    loop {
        if let Some(signals) = &mut signals {
            await_report(control, signals)?;
        }
        match report::receive(control).during("hear from the process")? {
            Report::Ended => return Ok(()),
            Report::Failed(text) => return Err(Error::Child(text)),
            Report::Listener(number) => take_listener(number, control)?,
            Report::Ready | Report::Mounted | Report::Root(_) => {
                report::send_go(control).during("let the process go on")?
            }
        }
    }
}

/// Waits until there is something to receive, unless a signal asks to give up.
fn await_report(control: &UnixStream, signals: &mut File) -> Result<()> {
    loop {
        let mut watched = [
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&*signals, PollFlags::IN),
        ];
        match poll(&mut watched, None) {
            Err(Errno::INTR) => continue,
            other => other.during("hear from the process")?,
        };
        if !watched[0].revents().is_empty() {
            // Signals that came too are for the command.
            return Ok(());
        }
        while let Some(signal) = next_signal(signals) {
            if sys::ENDING_SIGNALS.contains(&signal) {
                let text = format!("given up for signal {signal} during exec");
                return Err(Error::Container(text));
            }
        }
    }
}

/// Kills the process and takes its status: the error that led here is the one to tell.
fn end(pidfd: BorrowedFd<'_>) {
    let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
    let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
}

fn join(target: BorrowedFd<'_>, namespaces: i32) -> Result<()> {
    let namespaces = ThreadNameSpaceType::from_bits_retain(namespaces as u32);
    move_into_thread_name_spaces(target, namespaces).during("join the container's namespaces")
}

/// If the process is still there afterwards, the root was its own and no later one's with its id.
fn open_root(record: &Record, target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let pid = record.process.map_or(0, |process| process.pid);
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, &path, flags, Mode::empty()).at("open", &path)?;
    sys::pidfd_send_signal(target, 0).during("look at the container process")?;
    Ok(root)
}

/// Without magic links, so that no descriptor of the host's can be the working directory.
fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::UserOption;

    fn container() -> Spec {
        let text = br#"{
            "ociVersion": "1.2.0",
            "process": {
                "terminal": true, "cwd": "/srv", "args": ["server"], "env": ["A=1", "B=2"],
                "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
                "capabilities": {"bounding": ["CAP_CHOWN"]}
            },
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/n"}]}
        }"#;
        spec::parse(text, Path::new("config.json")).expect("valid")
    }

    #[test]
    fn options_change_a_copy_of_the_containers_process() {
        let unchanged = ExecOptions {
            args: vec!["ls".into()],
            ..ExecOptions::default()
        };
        let process = describe(&container(), &unchanged).expect("valid");
        assert_eq!((process.args, process.terminal), (vec!["ls".into()], false));
        assert_eq!((process.cwd.as_str(), process.user.uid), ("/srv", 5));
        assert_eq!(process.user.additional_gids, [7]);
        let changed = ExecOptions {
            args: vec!["ls".into()],
            cwd: Some("/".into()),
            env: vec!["A=x=y".into(), "C=".into()],
            user: Some(UserOption { uid: 1, gid: 2 }),
            additional_gids: vec![3],
            capabilities: vec!["CAP_KILL".into()],
            tty: true,
            ..ExecOptions::default()
        };
        let process = describe(&container(), &changed).expect("valid");
        assert_eq!(process.env, ["B=2", "A=x=y", "C="]);
        assert_eq!((process.user.uid, process.user.gid), (1, 2));
        assert_eq!(process.user.additional_gids, [3], "no group is left over");
        let sets = process.capabilities.expect("there are some");
        assert_eq!(sets.bounding, ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(sets.effective, ["CAP_KILL"]);
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
        for entry in ["A", "=x", ""] {
            let options = ExecOptions {
                env: vec![entry.into()],
                ..ExecOptions::default()
            };
            assert!(describe(&container(), &options).is_err(), "{entry:?}");
        }
    }

    #[test]
    fn namespaces_of_the_container_are_joined_made_or_not() {
        let expected = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
        assert_eq!(namespaces(&container()), expected);
    }
}
