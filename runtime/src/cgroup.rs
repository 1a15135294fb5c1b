//! The container's control group (cgroup v2 only, `Documentation/admin-guide/cgroup-v2.rst`).
//!
//! On a hybrid host the v2 hierarchy is used for what it has; a limit whose controller is missing there is an
//! error that names it. Refuses to put a container into a cgroup that already has processes.

mod devices;
mod limits;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat, statfs};

use crate::error::{Context, Error, Result};
use crate::sys;

pub use devices::Instruction;
pub use limits::Limits;

/// Where cgroup v2 is mounted: by itself, or beside v1.
const MOUNT_POINTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// Enabled for every container where the host has them, so that its use can be seen.
const USEFUL_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// How long the kernel may take to let go of a cgroup whose processes were killed.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(10);

/// `linux.cgroupsPath` relative to the mount of cgroup v2. By default `coracle/<id>`.
pub fn resolve_path(path: Option<&str>, id: &str) -> Result<PathBuf> {
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(Path::new("coracle").join(id));
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

/// The directory of a cgroup.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup with its ancestors and sets the limits.
    pub(crate) fn create(relative: &Path, limits: &Limits) -> Result<Self> {
        let mount = mount_point()?;
        let required = limits.controllers();
        let mut path = mount.to_owned();
        for name in relative.components() {
            enable_controllers(&path, &required)?;
            path.push(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at("make cgroup", &path);
                }
                _ => {}
            }
        }
        let cgroup = Self { path };
        if cgroup.is_populated()? {
            return Err(Error::Container(format!(
                "cgroup {} already has processes",
                cgroup.path.display()
            )));
        }
        cgroup.set(limits)?;
        if let Some(program) = &limits.devices {
            sys::guard_devices(cgroup.open()?.as_fd(), program)
                .at("guard devices of cgroup", &cgroup.path)?;
        }
        Ok(cgroup)
    }

    /// The cgroup of a container that exists.
    pub(crate) fn existing(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For `CLONE_INTO_CGROUP`.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.path, flags, Mode::empty()).at("open cgroup", &self.path)
    }

    fn set(&self, limits: &Limits) -> Result<()> {
        for (file, value) in &limits.settings {
            let path = self.path.join(file);
            write(&path, value).at("set limit", &path)?;
        }
        Ok(())
    }

    /// Kills everything in the cgroup and below. Gone already is good.
    pub(crate) fn kill(&self) -> Result<()> {
        let path = self.path.join("cgroup.kill");
        match write(&path, "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("write", &path),
        }
    }

    /// The processes in the cgroup and below.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for directory in self.directories_bottom_up()? {
            let path = directory.join("cgroup.procs");
            let text = fs::read_to_string(&path).at("read", &path)?;
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        Ok(found)
    }

    fn is_populated(&self) -> Result<bool> {
        let path = self.path.join("cgroup.events");
        let text = fs::read_to_string(&path).at("read", &path)?;
        Ok(text.lines().any(|line| line == "populated 1"))
    }

    /// Removes the cgroup and those below. The kernel keeps a cgroup busy for a moment after its last process.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVAL_DEADLINE;
        loop {
            let busy = match self.try_remove() {
                Ok(()) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => error,
                Err(error) => return Err(error).at("remove cgroup", &self.path),
            };
            if Instant::now() >= deadline {
                return Err(busy).at("remove cgroup", &self.path);
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        let directories = self.directories_bottom_up();
        for directory in directories.map_err(|error| io::Error::other(error.to_string()))? {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Without recursion: the container may have made as deep a tree as it likes.
    fn directories_bottom_up(&self) -> Result<Vec<PathBuf>> {
        let mut found = vec![self.path.clone()];
        let mut next = 0;
        while let Some(directory) = found.get(next).cloned() {
            next += 1;
            match fs::read_dir(&directory) {
                Ok(entries) => {
                    let is_directory =
                        |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
                    found.extend(
                        entries
                            .flatten()
                            .filter(is_directory)
                            .map(|entry| entry.path()),
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("read", &directory),
            }
        }
        found.reverse();
        Ok(found)
    }
}

fn mount_point() -> Result<&'static Path> {
    let is_cgroup2 =
        |path: &&&str| statfs(**path).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC);
    let found = MOUNT_POINTS.iter().find(is_cgroup2);
    found
        .map(Path::new)
        .ok_or_else(|| Error::Unsupported("a host without cgroup v2 at /sys/fs/cgroup".into()))
}

/// Lets the children of a cgroup use the controllers that are required or useful.
fn enable_controllers(cgroup: &Path, required: &[&str]) -> Result<()> {
    let list = |file: &str| -> Result<Vec<String>> {
        let path = cgroup.join(file);
        let text = fs::read_to_string(&path).at("read", &path)?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let (available, enabled) = (list("cgroup.controllers")?, list("cgroup.subtree_control")?);
    let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    if let Some(missing) = required.iter().find(|name| !has(&available, name)) {
        let cgroup = cgroup.display();
        return Err(Error::Unsupported(format!(
            "limits of {missing}: cgroup {cgroup} has no such controller"
        )));
    }
    let useful = USEFUL_CONTROLLERS
        .iter()
        .filter(|name| !required.contains(name) && has(&available, name));
    for (name, required) in required
        .iter()
        .map(|name| (name, true))
        .chain(useful.map(|name| (name, false)))
    {
        if has(&enabled, name) {
            continue;
        }
        let path = cgroup.join("cgroup.subtree_control");
        match write(&path, &format!("+{name}")) {
            Err(error) if required => return Err(error).at("enable controllers in", &path),
            _ => {}
        }
    }
    Ok(())
}

/// One write, as the files of cgroupfs want it.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
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
