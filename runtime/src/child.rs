//! The container's own process, from clone3 to execve: carries out the plan in the only safe order.
//!
//! Reports the first failure to the runtime and ends. Decides nothing and allocates no process.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{DumpableBehavior, fchdir, set_dumpable_behavior, setsid, umask};
use rustix::system::{setdomainname, sethostname};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::cgroup;
use crate::error::{Context, Result, chain};
use crate::hooks;
use crate::mount::idmap::Sources;
use crate::mount::tree::{Missing, Tree};
use crate::mount::{self, devices, rootfs, shared};
use crate::plan::Plan;
use crate::process::{execution, identity, label, terminal};
use crate::spec::IdMapping;
use crate::state::Status;
use crate::{report, sys};

/// What the process gets from the runtime besides the plan.
#[derive(Debug)]
pub(crate) struct Inheritance {
    /// To report on.
    pub(crate) control: UnixStream,
    /// Where `start` will connect; without it the word to go comes over `control`.
    pub(crate) start: Option<UnixListener>,
    /// Namespaces to join, opened by the runtime.
    pub(crate) namespaces: Vec<(i32, OwnedFd)>,
    /// Descriptors after the standard three that the command inherits.
    pub(crate) preserve_fds: u32,
    /// Whether to keep the caller's session keyring.
    pub(crate) keep_keyring: bool,
    /// Whether the runtime has something to do to this process first; it gives the word over `control`.
    pub(crate) wait: bool,
    /// Mounts that the runtime has opened for the process.
    pub(crate) sources: Sources,
    /// Where to send the terminal, if the process has one.
    pub(crate) console: Option<UnixStream>,
}

/// Sets up, waits for the word, executes. Never returns to the copy of the runtime's code.
///
/// `state` gives the state document for a hook that this process runs.
pub(crate) fn run(
    plan: &Plan,
    inheritance: Inheritance,
    state: &dyn Fn(Status) -> Result<Vec<u8>>,
) -> ! {
    let mut control = match inheritance.control.try_clone() {
        Ok(control) => control,
        Err(_) => sys::exit_now(1),
    };
    let mut starter = None;
    let Err(error) = live(plan, inheritance, state, &mut starter);
    report::send_failure(starter.as_mut().unwrap_or(&mut control), &chain(&error));
    sys::exit_now(1)
}

fn live(
    plan: &Plan,
    inheritance: Inheritance,
    state: &dyn Fn(Status) -> Result<Vec<u8>>,
    starter: &mut Option<UnixStream>,
) -> Result<std::convert::Infallible> {
    let Inheritance {
        mut control,
        start,
        namespaces,
        preserve_fds,
        keep_keyring,
        wait,
        sources,
        console,
    } = inheritance;
    if wait {
        report::await_go(&mut control).during("wait for the runtime")?;
    }
    let is_mount = |(kind, _): &&(i32, OwnedFd)| *kind == libc::CLONE_NEWNS;
    let (mounts, others): (Vec<_>, Vec<_>) = namespaces.iter().partition(is_mount);
    isolate(plan, &others, preserve_fds, keep_keyring)?;
    let mut labels = label::open(&plan.process.labels)?;
    let visible_cgroup = match plan.namespaces.has(libc::CLONE_NEWCGROUP) {
        true => None,
        false => Some(cgroup::own_path()?),
    };
    // What has been opened so far was the host's, whatever the namespace has mounted at these paths.
    join(&mounts)?;
    let (tree, terminal) = build_root(plan, sources, console, visible_cgroup, &mut control)?;
    run_create_hooks(plan, &tree, &mut control, state)?;
    let cwd = finish_root(plan, &tree)?;
    fchdir(&cwd).at("enter working directory", &plan.process.cwd)?;
    if let Some(terminal) = terminal {
        terminal::take(&terminal)?;
    }
    // In a user namespace the runtime sets them: they may need the host's privilege.
    if plan.namespaces.has(libc::CLONE_NEWUSER) {
        plan.process.attributes.apply()?;
    } else {
        execution::apply_limits(&plan.process)?;
    }
    let program = execution::drop_privileges(&plan.process, &mut control)?;
    report::send_ready(&mut control).during("report to the runtime")?;
    match start {
        Some(listener) => {
            *starter = Some(report::accept_go(&listener).during("wait for the start")?)
        }
        None => report::await_go(&mut control).during("wait for the start")?,
    }
    let has_hooks = !plan.hooks.start_container.is_empty();
    if has_hooks {
        // Their programs are the image's, so they get no more of the kernel than the command.
        execution::confine(&plan.process, &mut labels, &mut control)?;
    }
    let giver = starter.as_ref().unwrap_or(&control);
    if has_hooks {
        let state = state(Status::Created)?;
        let (hooks, until) = (&plan.hooks.start_container, [giver.as_fd()]);
        hooks::run("startContainer", hooks, &state, &until)?;
    }
    // Else the command would run in a container that nobody has written down as running.
    report::check_still_wanted(giver).during("execute the command")?;
    if !has_hooks {
        execution::confine(&plan.process, &mut labels, &mut control)?;
    }
    Err(execution::execute(&plan.process, &program))
}

/// Leaves what belongs to the caller: signal handling, session, keyring, descriptors, namespaces.
fn isolate(
    plan: &Plan,
    namespaces: &[&(i32, OwnedFd)],
    preserve_fds: u32,
    keep_keyring: bool,
) -> Result<()> {
    sys::reset_signals();
    umask(Mode::empty());
    sys::close_on_exec_from(3 + plan.process.listen_fds + preserve_fds)
        .during("mark descriptors close-on-exec")?;
    if plan.namespaces.new & libc::CLONE_NEWTIME != 0 {
        make_time_namespace(&plan.namespaces.time_offsets)?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("forbid tracing")?;
    setsid().during("make a session")?;
    if !keep_keyring {
        sys::join_new_session_keyring().during("leave the session keyring")?;
    }
    let own_user = plan.namespaces.has(libc::CLONE_NEWUSER);
    if let Some(score) = plan.process.oom_score_adj.filter(|_| !own_user) {
        let path = Path::new("/proc/self/oom_score_adj");
        std::fs::write(path, score.to_string()).at("write", path)?;
    }
    join(namespaces)?;
    // clone3 would root a cgroup namespace at the cgroup of the caller, so it is made here, inside.
    if plan.namespaces.new & libc::CLONE_NEWCGROUP != 0 {
        sys::unshare(libc::CLONE_NEWCGROUP).during("make a cgroup namespace")?;
    }
    if plan.namespaces.new & libc::CLONE_NEWNET != 0 {
        sys::bring_loopback_up().during("bring up the loopback device")?;
    }
    Ok(())
}

fn join(namespaces: &[&(i32, OwnedFd)]) -> Result<()> {
    for (kind, namespace) in namespaces {
        let kind = ThreadNameSpaceType::from_bits_retain(*kind as u32);
        move_into_thread_name_spaces(namespace.as_fd(), kind)
            .during(format!("join namespace {kind:?}"))?;
    }
    Ok(())
}

/// Until somebody enters it its clocks can be set (time_namespaces(7)). An execve enters it too, but not on every
/// kernel.
fn make_time_namespace(offsets: &str) -> Result<()> {
    sys::unshare(libc::CLONE_NEWTIME).during("make a time namespace")?;
    if !offsets.is_empty() {
        let path = Path::new("/proc/self/timens_offsets");
        std::fs::write(path, offsets).at("set linux.timeOffsets in", path)?;
    }
    let path = Path::new("/proc/self/ns/time_for_children");
    let made = File::open(path).at("open", path)?;
    let kind = ThreadNameSpaceType::TIME;
    move_into_thread_name_spaces(made.as_fd(), kind).during("enter the time namespace")
}

/// Builds the root. Returns it and the terminal.
fn build_root(
    plan: &Plan,
    mut sources: Sources,
    console: Option<UnixStream>,
    visible_cgroup: Option<PathBuf>,
    control: &mut UnixStream,
) -> Result<(Tree, Option<OwnedFd>)> {
    let tree = prepare_root(plan, &mut sources)?;
    if plan.root.joined {
        // It does not vanish with this process, so the runtime has to know it from now on.
        let mount = shared::mount_id(tree.root())?;
        report::send_root(control, mount).during("report to the runtime")?;
    }
    let terminal = fill_root(plan, &tree, sources, console, visible_cgroup)?;
    Ok((tree, terminal))
}

fn prepare_root(plan: &Plan, sources: &mut Sources) -> Result<Tree> {
    // In a user namespace this is still the host's root, who reaches the directory, but who can own no file there.
    let own_user = plan.namespaces.has(libc::CLONE_NEWUSER);
    let (opened, in_place) = (sources.root.take(), plan.hooks.see_root());
    // An ordinary user's runtime opens nothing: the overlay is made of what the container's own root may use.
    let early = opened.is_none() && plan.root.source != rootfs::Source::Directory;
    if own_user && early {
        become_owner(plan)?;
    }
    let tree = rootfs::prepare(
        &plan.root,
        &plan.mounts,
        &plan.process.cwd,
        opened,
        in_place,
    )?;
    if own_user && !early {
        become_owner(plan)?;
    }
    Ok(tree)
}

/// Mounts what the document lists, with the devices. Returns the terminal.
fn fill_root(
    plan: &Plan,
    tree: &Tree,
    mut sources: Sources,
    console: Option<UnixStream>,
    visible_cgroup: Option<PathBuf>,
) -> Result<Option<OwnedFd>> {
    for (number, mount) in plan.mounts.iter().enumerate() {
        let opened = sources.take(number);
        mount::mount(tree, mount, opened, visible_cgroup.as_deref())?;
    }
    if let Some(devices) = &plan.devices {
        devices::populate(tree, devices)?;
    }
    Ok(match (plan.process.terminal, console) {
        (Some(terminal), Some(console)) => {
            let slave = terminal::open(tree.root(), terminal, plan.process.user.uid, &console)?;
            bind_console(tree, &slave)?;
            Some(slave)
        }
        _ => None,
    })
}

/// Becomes root of the user namespace, or the first user that it has.
fn become_owner(plan: &Plan) -> Result<()> {
    let first = |mappings: &[IdMapping]| {
        let ids = mappings.iter().map(|mapping| mapping.container_id);
        ids.min().unwrap_or(0)
    };
    let uid = first(&plan.namespaces.uid_mappings);
    let gid = first(&plan.namespaces.gid_mappings);
    identity::become_owner(uid, gid)?;
    // The kernel reset it with the user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("forbid tracing")
}

/// Lets the runtime run its hooks, then runs those that belong into the container's namespaces.
///
/// The latter begin in the root, as with runc: hooks are written for that, and the specification leaves it open.
fn run_create_hooks(
    plan: &Plan,
    tree: &Tree,
    control: &mut UnixStream,
    state: &dyn Fn(Status) -> Result<Vec<u8>>,
) -> Result<()> {
    if !plan.hooks.create_runtime.is_empty() {
        report::send_mounted(control).during("report to the runtime")?;
        report::await_go(control).during("wait for the hooks")?;
    }
    if !plan.hooks.create_container.is_empty() {
        let state = state(Status::Creating)?;
        fchdir(tree.root()).at("enter root", &plan.root.path)?;
        // Nothing is to be heard from the runtime here but its end.
        let (hooks, until) = (&plan.hooks.create_container, [control.as_fd()]);
        hooks::run("createContainer", hooks, &state, &until)?;
    }
    Ok(())
}

/// Hardens the root and moves into it. Returns the working directory.
fn finish_root(plan: &Plan, tree: &Tree) -> Result<OwnedFd> {
    write_sysctls(&plan.sysctl)?;
    if let Some(name) = &plan.hostname {
        sethostname(name.as_bytes()).during(format!("set hostname {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        setdomainname(name.as_bytes()).during(format!("set domainname {name:?}"))?;
    }
    mount::seal(tree, &plan.mounts)?;
    rootfs::make_readonly(tree, &plan.readonly_paths)?;
    rootfs::mask(tree, &plan.masked_paths, devices::open_null(tree)?.as_ref())?;
    let cwd = find_cwd(tree, &plan.process.cwd)?;
    rootfs::seal(tree, &plan.root)?;
    Ok(cwd)
}

/// Makes `/dev/console` the terminal of the process (config-linux.md, "Default Devices"). What the image has there
/// must not be a symlink, which could lead the mount elsewhere.
fn bind_console(tree: &Tree, slave: &OwnedFd) -> Result<()> {
    let path = Path::new("/dev/console");
    let target = tree.ensure_without_symlinks(path, Missing::File)?;
    let mount = mount::clone_mount(slave.as_fd(), false).at("bind terminal to", path)?;
    mount::attach(mount.as_fd(), target.as_fd()).at("mount on", path)
}

/// Resolved before the host's root is gone, and without magic links, so that no descriptor of the host's can be
/// the working directory.
fn find_cwd(tree: &Tree, cwd: &Path) -> Result<OwnedFd> {
    tree.ensure(cwd, Missing::Directory)
}

/// Writes through a procfs of our own that is mounted nowhere, so that nothing in the image can redirect it.
fn write_sysctls(list: &[(PathBuf, String)]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let proc = mount::new_filesystem("proc", None, &[])?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for (name, value) in list {
        let path = Path::new("sys").join(name);
        let file = openat2(
            &proc,
            &path,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
        .at("open /proc/sys parameter", name)?;
        File::from(file)
            .write_all(value.as_bytes())
            .at("write /proc/sys parameter", name)?;
    }
    Ok(())
}
