//! The container's control group: made, limited, entered, frozen, killed and removed in every hierarchy it needs.
//!
//! cgroup v2 comes first (`Documentation/admin-guide/cgroup-v2.rst`). On a hybrid host a limit whose controller
//! v2 lacks is set in the v1 hierarchy that has it, at the same path; one that neither has is an error that names
//! it. Refuses to put a container into a cgroup that already has processes.
//!
//! `host` finds the hierarchies · `limits` translates by `v2` and `v1` · `devices` compiles the device program ·
//! `directory` acts on one cgroup · `merge` says what an update changes · `stats` reads the use · `systemd` has
//! systemd make the cgroup.

mod devices;
mod directory;
mod host;
mod limits;
mod merge;
mod stats;
#[cfg_attr(not(feature = "systemd"), path = "cgroup/no_systemd.rs")]
mod systemd;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::cli::CgroupManager;
use crate::error::{Context, Error, Result};
use crate::spec::Resources;
use crate::state::Process;
use crate::sys;
use host::Host;

pub use devices::Instruction;
pub use host::parse_mountinfo;
pub use limits::Limits;
pub(crate) use stats::OomEvents;

/// How long the processes may take to stop.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// How long killed processes may take to leave, where they must be killed one by one.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Of containers whose document names no cgroup.
const DEFAULT_PARENT: &str = "coracle";

/// `linux.cgroupsPath` relative to the mount of each hierarchy. By default `coracle/<id>`.
pub fn resolve_path(path: Option<&str>, id: &str) -> Result<PathBuf> {
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(Path::new(DEFAULT_PARENT).join(id));
    };
    let relative = path.trim_start_matches('/');
    let plain = Path::new(relative)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if relative.is_empty() || !plain || path.contains('\0') {
        return Err(Error::Config(format!(
            "linux.cgroupsPath: {path:?} names no cgroup below the root"
        )));
    }
    Ok(relative.into())
}

/// The directory in cgroup v2 of the calling process.
pub(crate) fn own_path() -> Result<PathBuf> {
    let path = Path::new("/proc/self/cgroup");
    let text = fs::read_to_string(path).at("read", path)?;
    let mount = Host::look().unified;
    let own = mount.zip(directory::parse_membership(&text, ""));
    let own = own.map(|(mount, path)| mount.join(path.strip_prefix("/").unwrap_or(path)));
    own.ok_or_else(|| Error::Unsupported("a cgroup mount on a host without cgroup v2".into()))
}

/// The cgroup of one container, as it is remembered with its state. Empty if it has none of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cgroup {
    /// Below the mount of each hierarchy.
    relative: PathBuf,
    /// The directory in cgroup v2.
    unified: Option<PathBuf>,
    /// Controllers of v1 with the directory in their hierarchy.
    legacy: BTreeMap<String, PathBuf>,
    /// The scope of systemd that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    /// The limits that are set, for an update that changes some of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Box<Resources>>,
}

/// A transient scope.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Unit {
    slice: String,
    name: String,
}

impl Cgroup {
    /// Makes the cgroup with its ancestors and sets the limits. If that fails nothing is left but ancestors.
    ///
    /// systemd makes one only for a process that is there, so all of it is for [`Cgroup::place`] then.
    pub(crate) fn prepare(
        relative: &Path,
        limits: &Limits,
        manager: CgroupManager,
    ) -> Result<Self> {
        match manager {
            CgroupManager::Cgroupfs => {}
            CgroupManager::Systemd => return Self::of_systemd(relative, limits),
            CgroupManager::Disabled if limits.is_empty() => return Ok(Self::default()),
            CgroupManager::Disabled => {
                return Err(Error::Unsupported(
                    "linux.resources without a cgroup of the container's own (--cgroup-manager disabled)".into(),
                ));
            }
        }
        let host = Host::look();
        host.require_any()?;
        let mut cgroup = Self {
            relative: relative.to_owned(),
            resources: limits.saved(),
            ..Self::default()
        };
        match cgroup.create(&host, limits) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                let _ = cgroup.remove();
                Err(error)
            }
        }
    }

    fn of_systemd(path: &Path, limits: &Limits) -> Result<Self> {
        let is_default = path.parent() == Some(Path::new(DEFAULT_PARENT));
        let fallback = if is_default { path } else { Path::new("") };
        let is_root = rustix::process::geteuid().is_root();
        let (slice, name) = systemd::parse(path, fallback, is_root)?;
        // Checked now, before there is a process that would have to be killed again.
        limits.settings(&Host::look())?;
        Ok(Self {
            resources: limits.saved(),
            unit: Some(Unit { slice, name }),
            ..Self::default()
        })
    }

    fn create(&mut self, host: &Host, limits: &Limits) -> Result<()> {
        let settings = limits.settings(host)?;
        if let Some(mount) = &host.unified {
            let required = settings.controllers();
            let path = if self.unit.is_some() {
                directory::enable_along(mount, &self.relative, &required)?;
                mount.join(&self.relative)
            } else {
                directory::create_unified(mount, &self.relative, &required)?
            };
            directory::apply(self.unified.insert(path), &settings.unified)?;
        }
        self.set_legacy(host, &settings)?;
        self.guard_devices(limits)
    }

    /// Makes what is missing in the hierarchies of v1, and sets the limits there.
    fn set_legacy(&mut self, host: &Host, settings: &limits::Settings) -> Result<()> {
        for (controller, settings) in &settings.legacy {
            let path = match self.legacy.get(*controller) {
                Some(path) => path.clone(),
                None => {
                    let mount = host
                        .legacy(controller)?
                        .expect("settings are for what is mounted");
                    let path = directory::create_legacy(mount, &self.relative, controller)?;
                    // systemd has put the process into some of them already.
                    if self.unit.is_none() {
                        directory::refuse_occupied(&path)?;
                    }
                    self.legacy.insert((*controller).to_owned(), path.clone());
                    path
                }
            };
            directory::apply(&path, settings)?;
        }
        Ok(())
    }

    fn guard_devices(&self, limits: &Limits) -> Result<()> {
        if let (Some(program), Some(directory), Some(path)) =
            (limits.devices(), self.open()?, &self.unified)
        {
            sys::guard_devices(directory.as_fd(), program).at("guard devices of cgroup", path)?;
        }
        Ok(())
    }

    /// Changes the limits that `change` names, and remembers them.
    pub(crate) fn update(&mut self, change: Resources) -> Result<()> {
        if self.members().is_none() {
            return Err(Error::Unsupported(
                "limits for a container without a cgroup of its own".into(),
            ));
        }
        let saved = self
            .resources
            .take()
            .map(|saved| *saved)
            .unwrap_or_default();
        let (change, merged) = merge::merge(saved, change);
        let limits = Limits::resolve(&change)?;
        let host = Host::look();
        let settings = limits.settings(&host)?;
        self.check_usage(&change)?;
        if let Some(unit) = &self.unit {
            systemd::update(&unit.name, &change)?;
        }
        if let (Some(mount), Some(path)) = (&host.unified, &self.unified) {
            directory::enable_along(mount, &self.relative, &settings.controllers())?;
            directory::apply(path, &settings.unified)?;
        }
        let before: Vec<String> = self.legacy.keys().cloned().collect();
        self.set_legacy(&host, &settings)?;
        for (controller, path) in &self.legacy {
            if !before.contains(controller) {
                self.gather(path)?;
            }
        }
        if let (Some(program), Some(directory), Some(path)) =
            (limits.devices(), self.open()?, &self.unified)
        {
            sys::replace_device_guard(directory.as_fd(), program)
                .at("guard devices of cgroup", path)?;
        }
        self.resources = Some(Box::new(merged));
        Ok(())
    }

    /// Puts all processes of the container into one more cgroup, those that they fork meanwhile too.
    fn gather(&self, path: &Path) -> Result<()> {
        let members = path.join("cgroup.procs");
        let mut inside = Vec::new();
        loop {
            let all = self.processes()?;
            let outside: Vec<_> = all.iter().filter(|pid| !inside.contains(*pid)).collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match directory::write(&members, &pid.to_string()) {
                    // It has just ended.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other.at("put the process into", &members)?,
                }
            }
            inside = all;
        }
    }

    /// config-linux.md, "Memory", `checkBeforeUpdate`: no limit below what is in use.
    fn check_usage(&self, change: &Resources) -> Result<()> {
        let memory = change.memory.as_ref();
        let asked = memory.filter(|memory| memory.check_before_update == Some(true));
        let Some(limit @ 1..) = asked.and_then(|memory| memory.limit) else {
            return Ok(());
        };
        match stats::memory_usage(self) {
            Some(usage) if usage > limit as u64 => Err(Error::Container(format!(
                "linux.resources.memory.limit: {limit} bytes are less than the {usage} in use"
            ))),
            _ => Ok(()),
        }
    }

    /// What the container uses, in runc's form.
    pub(crate) fn stats(&self) -> Result<serde_json::Value> {
        stats::collect(self)
    }

    /// Where the kernel tells of processes killed for want of memory, if memory is counted at all.
    pub(crate) fn oom_events(&self) -> Result<Option<OomEvents>> {
        OomEvents::open(self)
    }

    /// The directory in cgroup v2, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Whether the container has one of its own.
    pub(crate) fn exists(&self) -> bool {
        self.members().is_some()
    }

    /// For `CLONE_INTO_CGROUP`.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| openat(CWD, path, flags, Mode::empty()).at("open cgroup", path);
        self.unified.as_ref().map(open).transpose()
    }

    /// The same for the cgroup below it that a process of the container has moved to.
    pub(crate) fn open_around(&self, pid: i32) -> Result<Option<OwnedFd>> {
        let (Some(path), Some(mount)) = (&self.unified, Host::look().unified) else {
            return Ok(None);
        };
        let file = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&file).at("read", &file)?;
        let below = directory::parse_membership(&text, "")
            .map(|own| mount.join(own.strip_prefix("/").unwrap_or(own)))
            .filter(|own| own.starts_with(path));
        let moved = Self {
            unified: below,
            ..Self::default()
        };
        moved.open()
    }

    /// Whether a new process must be put in before it does anything: the container's first by [`Cgroup::place`], a
    /// later one by [`Cgroup::attach`].
    pub(crate) fn needs_attach(&self) -> bool {
        !self.legacy.is_empty() || self.unit.is_some()
    }

    /// Puts the container's first process into the cgroups that it cannot be born into; systemd makes its own now.
    pub(crate) fn place(&mut self, pid: i32, limits: &Limits) -> Result<()> {
        if let Some(Unit { slice, name }) = &self.unit {
            systemd::start(name, slice, pid, limits.resources())?;
            let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
            let text = fs::read_to_string(&path).at("read", &path)?;
            let own = directory::parse_membership(&text, "")
                .filter(|path| path.ends_with(name))
                .or_else(|| directory::parse_membership(&text, "name=systemd"));
            let Some(own) = own.filter(|path| path.ends_with(name)) else {
                return Err(Error::Container(format!(
                    "systemd has started {name}, but the process is not in it"
                )));
            };
            self.relative = own.strip_prefix("/").unwrap_or(own).to_owned();
            self.create(&Host::look(), limits)?;
        }
        self.attach(pid)
    }

    /// Puts a process into the cgroups that it cannot be born into. Its children follow.
    pub(crate) fn attach(&self, pid: i32) -> Result<()> {
        for path in self.legacy.values() {
            let path = path.join("cgroup.procs");
            directory::write(&path, &pid.to_string()).at("put the process into", &path)?;
        }
        Ok(())
    }

    /// The directory that lists the processes: of v2, else the freezer's.
    fn members(&self) -> Option<&Path> {
        let freezer = || self.legacy.get("freezer").map(PathBuf::as_path);
        self.path().or_else(freezer)
    }

    /// The processes in the cgroup and below.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        self.members()
            .map_or(Ok(Vec::new()), directory::processes_below)
    }

    /// Kills everything in the cgroup and below. Gone already is good.
    pub(crate) fn kill(&self) -> Result<()> {
        let Some(path) = &self.unified else {
            return self.kill_one_by_one();
        };
        let file = path.join("cgroup.kill");
        match directory::write(&file, "1") {
            // Gone, or a kernel before 5.14.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.kill_one_by_one(),
            other => other.at("write", &file),
        }
    }

    /// Until none is left: while it is frozen nothing can fork away, and the signal takes effect at the thaw.
    fn kill_one_by_one(&self) -> Result<()> {
        let Some(members) = self.members().filter(|path| path.exists()) else {
            return Ok(());
        };
        let deadline = Instant::now() + KILL_DEADLINE;
        let is_v1 = self.unified.is_none();
        loop {
            if is_v1 {
                let _ = directory::write(&members.join("freezer.state"), "FROZEN");
            }
            let processes = directory::processes_below(members)?;
            for &pid in &processes {
                if let Some(pidfd) = Process::observe(pid)
                    .ok()
                    .map(Process::open)
                    .transpose()?
                    .flatten()
                {
                    let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                }
            }
            if is_v1 {
                let _ = directory::write(&members.join("freezer.state"), "THAWED");
            }
            if processes.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Stops every process until the thaw. Returns once all have stopped; thaws if that takes too long.
    pub(crate) fn freeze(&self) -> Result<()> {
        let frozen = self.set_frozen(true);
        if frozen.is_err() {
            let _ = self.set_frozen(false);
        }
        frozen
    }

    /// Lets the processes go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    /// Whether all processes are stopped by [`Cgroup::freeze`].
    pub(crate) fn is_frozen(&self) -> bool {
        match (&self.unified, self.members()) {
            (Some(path), _) => fs::read_to_string(path.join("cgroup.events"))
                .is_ok_and(|text| directory::keyed(&text, "frozen") == Some(1)),
            (None, Some(freezer)) => fs::read_to_string(freezer.join("freezer.state"))
                .is_ok_and(|text| text.trim() == "FROZEN"),
            (None, None) => false,
        }
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let Some(members) = self.members() else {
            return Err(Error::Unsupported(
                "to pause a container without a cgroup of its own".into(),
            ));
        };
        let (file, value, watched) = match (&self.unified, frozen) {
            (Some(_), true) => ("cgroup.freeze", "1", "cgroup.events"),
            (Some(_), false) => ("cgroup.freeze", "0", "cgroup.events"),
            (None, true) => ("freezer.state", "FROZEN", "freezer.state"),
            (None, false) => ("freezer.state", "THAWED", "freezer.state"),
        };
        let watched = File::open(members.join(watched)).at("open", members.join(watched))?;
        let path = members.join(file);
        directory::write(&path, value).at("write", &path)?;
        let deadline = Instant::now() + FREEZE_DEADLINE;
        while self.is_frozen() != frozen {
            if Instant::now() >= deadline {
                let what = if frozen { "stop" } else { "go on" };
                return Err(Error::Container(format!(
                    "the processes in {} do not {what} within {FREEZE_DEADLINE:?}",
                    members.display()
                )));
            }
            // The file tells of changes as exceptional; a change between the look and the wait is found again soon.
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 10_000_000,
            };
            let mut watched = [PollFd::new(&watched, PollFlags::PRI)];
            match poll(&mut watched, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).during("wait for the cgroup to stop"),
            }
        }
        Ok(())
    }

    /// Whether the cgroup is removed, which a single call does if nothing is in it and it is of v2 alone.
    pub(crate) fn remove_if_empty(&self) -> bool {
        let alone = self.unit.is_none() && self.legacy.is_empty();
        alone && matches!(&self.unified, Some(path) if fs::remove_dir(path).is_ok())
    }

    /// Removes the cgroup and those below, in every hierarchy.
    pub(crate) fn remove(&self) -> Result<()> {
        let mut directories = self.unified.iter().chain(self.legacy.values()).peekable();
        let may_be_there = directories.peek().is_none() || directories.any(|path| path.exists());
        if let Some(unit) = self.unit.as_ref().filter(|_| may_be_there) {
            // Whether it worked is seen from the directories.
            let _ = systemd::stop(&unit.name);
        }
        self.unified
            .iter()
            .chain(self.legacy.values())
            .try_for_each(|path| directory::remove(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_mount() {
        for (path, expected) in [
            (None, Some("coracle/id")),
            (Some(""), Some("coracle/id")),
            (Some("/coracle/web"), Some("coracle/web")),
            (Some("pods/web"), Some("pods/web")),
            (Some("/"), None),
            (Some("/a/../.."), None),
            (Some("/a\0"), None),
        ] {
            assert_eq!(
                resolve_path(path, "id").ok(),
                expected.map(PathBuf::from),
                "{path:?}"
            );
        }
    }
}
