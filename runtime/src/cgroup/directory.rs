//! One cgroup in one hierarchy: a directory of cgroupfs, made, written to, emptied and removed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::limits::{Mode, Setting};
use crate::error::{Context, Error, Result};

/// Enabled for every container where the host has them, so that its use can be seen.
const USEFUL_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// How long the kernel may take to let go of a cgroup whose processes were killed.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(10);

/// It mostly does at once.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Makes a cgroup of v2 with its ancestors. Refuses one that has processes.
pub(super) fn create_unified(mount: &Path, relative: &Path, required: &[&str]) -> Result<PathBuf> {
    let mut path = mount.to_owned();
    let mut is_new = true;
    for name in relative.components() {
        enable_controllers(&path, required)?;
        path.push(name);
        is_new = make(&path)?;
    }
    if !is_new {
        if is_populated(&path)? {
            return Err(occupied(&path));
        }
        refuse_frozen(&path)?;
    }
    Ok(path)
}

/// A process that is made in a frozen cgroup would never get to say anything.
fn refuse_frozen(path: &Path) -> Result<()> {
    let file = path.join("cgroup.freeze");
    // Kernels before 5.2 have no such file.
    match fs::read_to_string(&file) {
        Ok(text) if text.trim() == "1" => Err(Error::Container(format!(
            "container's cgroup unexpectedly frozen: {}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Lets an existing cgroup of v2 use more controllers.
pub(super) fn enable_along(mount: &Path, relative: &Path, required: &[&str]) -> Result<()> {
    let mut path = mount.to_owned();
    for name in relative.components() {
        enable_controllers(&path, required)?;
        path.push(name);
    }
    Ok(())
}

/// Makes a cgroup of v1 with its ancestors. A new cpuset has no processors and no memory: it gets its parent's.
pub(super) fn create_legacy(mount: &Path, relative: &Path, controller: &str) -> Result<PathBuf> {
    let mut path = mount.to_owned();
    for name in relative.components() {
        let parent = path.clone();
        path.push(name);
        make(&path)?;
        if controller == "cpuset" {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                inherit(&parent.join(file), &path.join(file))?;
            }
        }
    }
    Ok(path)
}

/// A cgroup of v1 must have no processes yet.
pub(super) fn refuse_occupied(path: &Path) -> Result<()> {
    if processes_below(path)?.is_empty() {
        Ok(())
    } else {
        Err(occupied(path))
    }
}

/// Whether the directory is new.
fn make(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).at("make cgroup", path),
    }
}

fn occupied(path: &Path) -> Error {
    let path = path.display();
    Error::Container(format!("cgroup {path} already has processes"))
}

fn inherit(from: &Path, to: &Path) -> Result<()> {
    if fs::read_to_string(to).at("read", to)?.trim().is_empty() {
        let value = fs::read_to_string(from).at("read", from)?;
        write(to, value.trim()).at("write", to)?;
    }
    Ok(())
}

/// Lets the children of a cgroup use the controllers that are required or useful.
fn enable_controllers(cgroup: &Path, required: &[&str]) -> Result<()> {
    let list = |file: &str| -> Result<String> {
        let path = cgroup.join(file);
        fs::read_to_string(&path).at("read", &path)
    };
    let has = |list: &str, name: &str| list.split_whitespace().any(|entry| entry == name);
    let enabled = list("cgroup.subtree_control")?;
    let wanted = required.iter().chain(&USEFUL_CONTROLLERS);
    if wanted.clone().all(|name| has(&enabled, name)) {
        return Ok(());
    }
    let available = list("cgroup.controllers")?;
    for name in wanted {
        let needed = required.contains(name);
        if needed && !has(&available, name) {
            let cgroup = cgroup.display();
            return Err(Error::Unsupported(format!(
                "limits of {name}: cgroup {cgroup} has no such controller"
            )));
        }
        if has(&enabled, name) || !has(&available, name) {
            continue;
        }
        let path = cgroup.join("cgroup.subtree_control");
        match write(&path, &format!("+{name}")) {
            Err(error) if needed => return Err(error).at("enable controllers in", &path),
            _ => {}
        }
    }
    Ok(())
}

/// Writes the settings in their order.
pub(super) fn apply(cgroup: &Path, settings: &[Setting]) -> Result<()> {
    for setting in settings {
        let mut path = cgroup.join(&setting.file);
        let mut result = write(&path, &setting.value);
        if let (Err(error), Some((file, value))) = (&result, &setting.otherwise)
            && error.kind() == io::ErrorKind::NotFound
        {
            path = cgroup.join(file);
            result = write(&path, value);
        }
        match (result, setting.mode) {
            (Err(_), Mode::Attempt) => {}
            (Err(error), Mode::IfPresent) if error.kind() == io::ErrorKind::NotFound => {}
            (result, _) => result.at("set limit", &path)?,
        }
    }
    Ok(())
}

/// One write, as the files of cgroupfs want it.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// A value of a `key value` line.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value)
}

fn is_populated(cgroup: &Path) -> Result<bool> {
    let path = cgroup.join("cgroup.events");
    let text = fs::read_to_string(&path).at("read", &path)?;
    Ok(keyed(&text, "populated") == Some(1))
}

/// The processes in the cgroup and below.
pub(super) fn processes_below(cgroup: &Path) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for directory in bottom_up(cgroup).at("read", cgroup)? {
        let path = directory.join("cgroup.procs");
        match fs::read_to_string(&path) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            // The container may remove what it made at any time; a threaded cgroup lists its processes above.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
                ) => {}
            Err(error) => return Err(error).at("read", &path),
        }
    }
    Ok(found)
}

/// Removes the cgroup and those below. The kernel keeps a cgroup busy for a moment after its last process.
pub(super) fn remove(cgroup: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVAL_DEADLINE;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let busy = match try_remove(cgroup) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => error,
            Err(error) => return Err(error).at("remove cgroup", cgroup),
        };
        if Instant::now() >= deadline {
            return Err(busy).at("remove cgroup", cgroup);
        }
        sleep(pause);
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

fn try_remove(cgroup: &Path) -> io::Result<()> {
    // Most have none below.
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        other => return other,
    }
    for directory in bottom_up(cgroup)? {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Without recursion: the container may have made as deep a tree as it likes.
fn bottom_up(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![cgroup.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        match fs::read_dir(&directory) {
            Ok(entries) => {
                let is_directory =
                    |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
                let below = entries.flatten().filter(is_directory);
                found.extend(below.map(|entry| entry.path()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.reverse();
    Ok(found)
}

/// The own part of a line of `/proc/PID/cgroup`: `0::/path`, or `4:memory:/path` for a v1 controller.
pub(super) fn parse_membership<'a>(text: &'a str, controller: &str) -> Option<&'a Path> {
    let path = |line: &'a str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let is_it = names.split(',').any(|name| name == controller);
        is_it.then(|| Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())))
    };
    text.lines().find_map(path)
}
