//! Making the container's process: one clone3 with its new namespaces, into its cgroup.
//!
//! Namespaces to join are opened here, by path, with the host's privilege. Where a user namespace is involved they
//! are also entered with that privilege, by a helper process that then makes the container's as its sibling, so that
//! it is the runtime's child all the same. What the process in its user namespace may not do to itself is done here
//! while it waits: id mappings, score for the OOM killer.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, WaitId, WaitIdOptions, geteuid, getpid, pidfd_open,
    set_dumpable_behavior, waitid,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::idmap::{self, Kind};
use super::{Launch, Options};
use crate::cgroup::Cgroup;
use crate::child::{self, Inheritance};
use crate::error::{Context, Error, Result, chain};
use crate::mount::idmap::Sources;
use crate::network::Moved;
use crate::report;
use crate::resctrl::Membership;
use crate::state::{self, Process};
use crate::sys::{self, Cloned};

/// `CLONE_NEW*` and descriptor of namespaces to join.
type Opened = Vec<(i32, OwnedFd)>;

impl Launch<'_> {
    /// Makes the cgroup and the process, and writes down what is known of it while it sets itself up.
    pub(super) fn spawn(
        &mut self,
        start: Option<UnixListener>,
        options: &Options,
    ) -> Result<UnixStream> {
        let cgroup = self.prepare_cgroup(options)?;
        let cgroup = self.cgroup.insert(cgroup);
        let directory = cgroup.open()?;
        let attach = cgroup.needs_attach();
        let own_user = self.plan.namespaces.has(libc::CLONE_NEWUSER);
        let class = self.plan.resctrl.as_ref();
        self.record.resctrl = class.map(Membership::prepare).transpose()?;
        let devices = !self.plan.net_devices.is_empty();
        let wait = own_user || attach || class.is_some() || devices;
        let (mut ours, control) = UnixStream::pair().during("make a socket pair")?;
        let mut inheritance = Inheritance {
            control,
            start,
            wait,
            namespaces: self.open_namespaces()?,
            sources: Sources::open(
                &self.plan.root,
                &self.plan.mounts,
                &self.plan.process.cwd,
                (own_user && geteuid().is_root()) || self.plan.root.joined,
            )?,
            console: None,
            preserve_fds: options.preserve_fds,
            keep_keyring: options.no_new_keyring,
        };
        // A cgroup namespace is made by the process itself, once it is in its cgroup; a time namespace too, since
        // it is the next process or execve that enters it.
        let later = libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME;
        let new = (self.plan.namespaces.new & !later) as u64;
        if !inheritance.namespaces.is_empty() {
            // Whoever lives in a joined namespace may see the new process at once, with this program's descriptors
            // and root; so nobody may trace it from its very beginning.
            set_dumpable_behavior(DumpableBehavior::NotDumpable).during("forbid tracing")?;
        }
        let cloned = if own_user && !inheritance.namespaces.is_empty() {
            let join = std::mem::take(&mut inheritance.namespaces);
            clone_by_helper(&join, new, directory.as_ref())?
        } else {
            clone_directly(&mut inheritance.namespaces, new, directory.as_ref())?
        };
        match cloned {
            Cloned::Child => {
                drop((ours, directory));
                // Its copy would keep the container locked until the command is executed.
                drop((self.lock.take(), self.relayed.take()));
                inheritance.console = self.console.take();
                let state = |status| {
                    let pid = getpid().as_raw_nonzero().get();
                    self.container.hook_state(&self.record, status, pid)
                };
                child::run(&self.plan, inheritance, &state)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(inheritance);
                self.console = None;
                self.pidfd = Some(pidfd);
                let pid = pid.as_raw_nonzero().get();
                if let Some(cgroup) = self.cgroup.as_mut().filter(|_| attach) {
                    cgroup.place(pid, &self.plan.limits)?;
                }
                if let Some(resctrl) = &self.record.resctrl {
                    resctrl.attach(pid)?;
                }
                if own_user {
                    self.grant(pid)?;
                }
                self.register(pid)?;
                if devices {
                    self.move_devices(pid)?;
                }
                if wait {
                    report::send_go(&mut ours).during("let the container process go on")?;
                }
                Ok(ours)
            }
        }
    }

    /// An ordinary user may have no cgroup to make others in, which matters only where there are limits to set.
    fn prepare_cgroup(&self, options: &Options) -> Result<Cgroup> {
        let limits = &self.plan.limits;
        match Cgroup::prepare(&self.plan.cgroup, limits, options.cgroup_manager) {
            Err(error) if limits.is_empty() && !geteuid().is_root() && is_denied(&error) => {
                let reason = chain(&error);
                self.log
                    .debug(&format!("no cgroup of the container's own: {reason}"));
                Ok(Cgroup::default())
            }
            other => other,
        }
    }

    fn register(&mut self, pid: i32) -> Result<()> {
        self.record.process = Some(Process::observe(pid)?);
        self.record.cgroup = self.cgroup.clone();
        self.container.write(&self.record)?;
        match &self.pid_file {
            Some(path) => state::replace_file(path, pid.to_string().as_bytes(), 0o644),
            None => Ok(()),
        }
    }

    /// A namespace to join is entered by the process only later, so it is opened by its own path.
    fn move_devices(&mut self, pid: i32) -> Result<()> {
        let joined = self.plan.namespaces.join.iter();
        let is_network = |(kind, _): &&(i32, PathBuf)| *kind == libc::CLONE_NEWNET;
        let path = match joined.into_iter().find(is_network) {
            Some((_, path)) => path.clone(),
            None => PathBuf::from(format!("/proc/{pid}/ns/net")),
        };
        let namespace = File::open(&path).at("open namespace", &path)?;
        self.devices = Some(Moved::move_into(namespace.into(), &self.plan.net_devices)?);
        Ok(())
    }

    /// What takes the host's privilege.
    fn grant(&self, pid: i32) -> Result<()> {
        let namespaces = &self.plan.namespaces;
        idmap::write(pid, Kind::Group, &namespaces.gid_mappings)?;
        idmap::write(pid, Kind::User, &namespaces.uid_mappings)?;
        if let Some(score) = self.plan.process.oom_score_adj {
            let path = format!("/proc/{pid}/oom_score_adj");
            fs::write(&path, score.to_string()).at("write", path)?;
        }
        Ok(())
    }

    fn open_namespaces(&self) -> Result<Opened> {
        let open = |(kind, path): &(i32, PathBuf)| {
            let file = File::open(path).at("open namespace", path)?;
            Ok((*kind, OwnedFd::from(file)))
        };
        self.plan.namespaces.join.iter().map(open).collect()
    }
}

/// In the parent only the namespace of process ids is entered, which counts for new processes alone, and left again;
/// the others are left to the new process.
fn clone_directly(join: &mut Opened, new: u64, cgroup: Option<&OwnedFd>) -> Result<Cloned> {
    let is_pid = |(kind, _): &(i32, OwnedFd)| *kind == libc::CLONE_NEWPID;
    let Some(at) = join.iter().position(is_pid) else {
        return sys::clone3(new, cgroup).during("make the container process");
    };
    let (kind, namespace) = join.remove(at);
    let own = File::open("/proc/self/ns/pid").at("open", "/proc/self/ns/pid")?;
    enter(kind, namespace.as_fd())?;
    let cloned = sys::clone3(new, cgroup).during("make the container process")?;
    if let Cloned::Parent { .. } = cloned {
        enter(kind, own.as_fd())?;
    }
    Ok(cloned)
}

/// Enters namespaces in a process between, whose sibling the new one becomes.
fn clone_by_helper(join: &Opened, new: u64, cgroup: Option<&OwnedFd>) -> Result<Cloned> {
    let (mut ours, mut theirs) = UnixStream::pair().during("make a socket pair")?;
    match sys::clone3(0, None).during("make a process to join namespaces")? {
        Cloned::Child => {
            let answer = match enter_and_clone(join, new, cgroup) {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pid, .. }) => pid.as_raw_nonzero().get().to_string(),
                Err(error) => chain(&error),
            };
            sys::exit_now(theirs.write_all(answer.as_bytes()).is_err().into())
        }
        Cloned::Parent { pidfd: helper, .. } => {
            drop(theirs);
            let mut answer = String::new();
            let heard = ours.read_to_string(&mut answer);
            waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED)
                .during("wait for the process that joins namespaces")?;
            heard.during("hear from the process that joins namespaces")?;
            let pid = answer.parse().ok().and_then(Pid::from_raw);
            let pid = pid.ok_or(Error::Child(answer))?;
            // It is our child that nobody has waited for, so the id is its own.
            let pidfd =
                pidfd_open(pid, PidfdFlags::empty()).during("open the container process")?;
            Ok(Cloned::Parent { pid, pidfd })
        }
    }
}

/// The user namespace comes last: the others may belong to the host's.
fn enter_and_clone(join: &Opened, new: u64, cgroup: Option<&OwnedFd>) -> Result<Cloned> {
    let is_user = |(kind, _): &&(i32, OwnedFd)| *kind == libc::CLONE_NEWUSER;
    let (user, others): (Vec<_>, Vec<_>) = join.iter().partition(is_user);
    for (kind, namespace) in others.into_iter().chain(user) {
        enter(*kind, namespace.as_fd())?;
    }
    let new = new | libc::CLONE_PARENT as u64;
    sys::clone3(new, cgroup).during("make the container process")
}

fn enter(kind: i32, namespace: BorrowedFd<'_>) -> Result<()> {
    let kind = ThreadNameSpaceType::from_bits_retain(kind as u32);
    move_into_thread_name_spaces(namespace, kind).during(format!("join namespace {kind:?}"))
}

fn is_denied(error: &Error) -> bool {
    let Error::Path { source, .. } = error else {
        return false;
    };
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
}
