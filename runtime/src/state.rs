//! What is known of each container between two commands: a directory below `--root` for each.
//!
//! - `config.json` is a copy of the bundle's, as it was at `create`: later changes have no effect (runtime.md,
//!   "Lifecycle").
//! - `state.json` is replaced atomically, so readers need no lock.
//! - The directory itself is the lock (`flock`): one changing command a container at a time.
//! - `removal` exists while `delete --force` waits for that lock: whoever holds it gives up its hooks.
//! - `start.sock` exists until the command has been executed; the container's process listens on it.
//!
//! A process id may be used again by the kernel, so the time of start is kept with it, and whoever signals goes
//! through a pidfd. Status (runtime.md, "State"): *creating* while `create` or `run` sets up; *created* until the
//! command is executed; *running*; *stopped* once the process is gone or a zombie, or its creator died half-way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, inotify};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::mount::shared::SharedMounts;
use crate::resctrl;
use crate::spec::{self, OCI_VERSION, Spec};

/// Exists once `delete --force` waits for the lock.
const REMOVAL: &str = "removal";

/// Of the container's process, as the specification names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being set up.
    Creating,
    /// Set up; the command waits for `start`.
    Created,
    /// The command has been executed.
    Running,
    /// All processes stand still until `resume`.
    Paused,
    /// The process has ended.
    Stopped,
}

impl Status {
    /// As in the state document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// In the pid namespace of the runtime.
    pub pid: i32,
    /// Clock ticks after boot (proc(5), `starttime`).
    pub start_time: u64,
}

/// The content of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Never *stopped* or *paused*: that is found by looking at the process.
    pub phase: Status,
    /// Once there is one.
    pub process: Option<Process>,
    /// Absolute.
    pub bundle: PathBuf,
    /// Where its processes are, once there is one.
    pub cgroup: Option<Cgroup>,
    /// Its class of service, if it asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Membership>,
    /// What it has mounted in a mount namespace that it shares with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_mounts: Option<SharedMounts>,
    /// RFC 3339.
    pub created: String,
    /// Of `config.json`.
    pub annotations: BTreeMap<String, String>,
    /// Whether `config.json` has no process, so that the container cannot be started.
    #[serde(default)]
    pub lacks_process: bool,
    /// Whether `config.json` has hooks for after the execve.
    #[serde(default)]
    pub late_hooks: bool,
}

/// The state document (runtime.md, "State").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct State<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub status: Status,
    /// 0 if there is no process (any more), as other runtimes say it.
    pub pid: i32,
    pub bundle: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

/// One container's directory.
#[derive(Debug)]
pub struct Container {
    id: String,
    directory: PathBuf,
}

/// The right to change a container; given up when dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its lock")] fs::File);

impl Container {
    /// Names a container, which need not exist.
    pub fn new(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        Ok(Self {
            id: id.to_owned(),
            directory: root.join(id),
        })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes the directory: the moment from which the id is taken.
    pub fn create(&self) -> Result<Lock> {
        let root = self.directory.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .at("make state directory", root)?;
        match fs::DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Container(
                format!("container {:?} already exists", self.id),
            )),
            Err(error) => Err(error).at("make state directory", &self.directory),
            Ok(()) => self.lock(),
        }
    }

    /// Waits until no other command changes the container.
    ///
    /// Meanwhile it may have been removed, and another one of the same id made, which is not the one asked for.
    pub fn lock(&self) -> Result<Lock> {
        let file = self.open()?;
        flock(&file, FlockOperation::LockExclusive).at("lock", &self.directory)?;
        let locked = file.metadata().at("inspect", &self.directory)?;
        match fs::metadata(&self.directory) {
            Ok(now) if (now.dev(), now.ino()) == (locked.dev(), locked.ino()) => Ok(Lock(file)),
            _ => Err(self.missing()),
        }
    }

    fn open(&self) -> Result<fs::File> {
        match fs::File::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing()),
            other => other.at("open", &self.directory),
        }
    }

    fn missing(&self) -> Error {
        Error::Container(format!("container {:?} does not exist", self.id))
    }

    /// Whether there is a container of this id, in whatever state.
    pub fn exists(&self) -> bool {
        self.directory.exists()
    }

    /// The container's own directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the container's process waits for `start`.
    pub fn start_socket(&self) -> PathBuf {
        self.directory.join("start.sock")
    }

    /// Tells whoever is at work on the container that it is to be removed: see [`Container::watch_for_removal`].
    pub(crate) fn announce_removal(&self) -> Result<()> {
        let path = self.directory.join(REMOVAL);
        match fs::write(&path, "") {
            // Whoever was at work has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("write", path),
        }
    }

    /// Readable once the removal has been announced. For whoever holds the lock: nobody else makes files meanwhile.
    pub(crate) fn watch_for_removal(&self) -> Result<OwnedFd> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).during("watch the container")?;
        inotify::add_watch(&watch, &self.directory, inotify::WatchFlags::CREATE)
            .at("watch", &self.directory)?;
        if self.directory.join(REMOVAL).exists() {
            let text = format!("container {:?} is being removed", self.id);
            return Err(Error::Container(text));
        }
        Ok(watch)
    }

    /// Reads `state.json`. `None` if the creator died before it wrote one.
    pub fn read(&self) -> Result<Option<Record>> {
        self.open()?;
        let path = self.directory.join("state.json");
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
            Ok(text) => spec::parse(&text, &path).map(Some),
        }
    }

    /// The same; without one it is an error.
    pub fn record(&self) -> Result<Record> {
        let none = || Error::Container(format!("container {:?} has no state yet", self.id));
        self.read()?.ok_or_else(none)
    }

    /// Replaces `state.json`.
    pub fn write(&self, record: &Record) -> Result<()> {
        let path = self.directory.join("state.json");
        let text = serde_json::to_vec(record).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        replace_file(&path, &text, 0o600)
    }

    /// Keeps the document that the container is made from.
    pub fn write_config(&self, text: &[u8]) -> Result<()> {
        let path = self.directory.join("config.json");
        fs::write(&path, text).at("write", &path)
    }

    /// The document that the container was made from.
    pub fn config(&self) -> Result<Spec> {
        spec::load(&self.directory)
    }

    /// The status now.
    pub fn status(&self, record: &Record) -> Status {
        match record.process {
            Some(process) if !process.is_alive() => Status::Stopped,
            Some(_) => record.live_status(),
            None if self.is_locked() => record.phase,
            None => Status::Stopped,
        }
    }

    /// The same for whoever holds the lock: nobody else can be creating it.
    pub fn status_under_lock(&self, record: &Record, _lock: &Lock) -> Status {
        match record.process {
            Some(process) if process.is_alive() => record.live_status(),
            _ => Status::Stopped,
        }
    }

    fn is_locked(&self) -> bool {
        let lock = self
            .open()
            .map(|file| flock(&file, FlockOperation::NonBlockingLockShared));
        matches!(lock, Ok(Err(Errno::WOULDBLOCK)))
    }

    /// The state document as hooks get it; the process id is the one that the hook sees (config.md, "Hooks").
    pub fn hook_state(&self, record: &Record, status: Status, pid: i32) -> Result<Vec<u8>> {
        let document = State {
            status,
            pid,
            ..self.describe(record)
        };
        serde_json::to_vec(&document).map_err(|source| Error::Json {
            path: self.directory.join("state.json"),
            source,
        })
    }

    /// The state document.
    pub fn document<'a>(&'a self, record: &'a Record) -> State<'a> {
        let status = self.status(record);
        let alive = record.process.filter(|_| status != Status::Stopped);
        State {
            status,
            pid: alive.map_or(0, |process| process.pid),
            ..self.describe(record)
        }
    }

    fn describe<'a>(&'a self, record: &'a Record) -> State<'a> {
        State {
            oci_version: OCI_VERSION,
            id: &self.id,
            status: Status::Stopped,
            pid: 0,
            bundle: &record.bundle,
            created: &record.created,
            annotations: &record.annotations,
        }
    }

    /// Removes the directory; the id is free from then on.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).at("remove", &self.directory)
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    /// With a process that is alive.
    fn live_status(&self) -> Status {
        let is_frozen = self.cgroup.as_ref().is_some_and(Cgroup::is_frozen);
        if is_frozen && self.phase != Status::Creating {
            Status::Paused
        } else {
            self.phase
        }
    }
}

impl Process {
    /// Remembers a process that is there.
    pub fn observe(pid: i32) -> Result<Self> {
        let (_, start_time) = look(pid).during(format!("look at process {pid}"))?;
        Ok(Self { pid, start_time })
    }

    /// Whether it is this process, and not a zombie.
    pub fn is_alive(self) -> bool {
        look(self.pid).is_ok_and(|(state, start_time)| {
            start_time == self.start_time && !matches!(state, 'Z' | 'X')
        })
    }

    /// A descriptor for this very process; `None` if it is gone.
    pub fn open(self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let opened = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            other => other.during(format!("open process {}", self.pid))?,
        };
        // Looked at after opening: if it is the right one now, the descriptor is for the right one.
        Ok(self.is_alive().then_some(opened))
    }
}

/// Fifty-two numbers of up to twenty digits, and a short name.
const MAX_STAT_BYTES: usize = 2048;

/// State and start time of a process (proc(5), `/proc/PID/stat`).
fn look(pid: i32) -> io::Result<(char, u64)> {
    let mut text = [0; MAX_STAT_BYTES];
    // One read gives all of it.
    let length = fs::File::open(format!("/proc/{pid}/stat"))?.read(&mut text)?;
    parse_stat(&String::from_utf8_lossy(&text[..length]))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The name of the program may have spaces and parentheses, so fields count from the last one.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Writes a file beside the old one and renames it over that.
pub(crate) fn replace_file(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .at("write", path)
}

/// Letters, digits, `_`, `+`, `-` and `.`, as container engines use them; never a path.
fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > 255 || id == "." || id == ".." || !id.bytes().all(plain) {
        return Err(Error::Container(format!(
            "{id:?} is no container id (letters, digits and _+-. only)"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_paths() {
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(256),
        ] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        assert!(check_id("web-1.2_3+4").is_ok());
    }

    #[test]
    fn stat_is_read_from_the_last_parenthesis() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(
            parse_stat(&format!("7 (a) b (c) {rest}")),
            Some(('S', 4242))
        );
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_later_process_with_the_same_id_is_not_ours() {
        let own = Process::observe(std::process::id() as i32).expect("we are there");
        assert!(own.is_alive() && own.open().expect("we are there").is_some());
        let other = Process {
            start_time: own.start_time + 1,
            ..own
        };
        assert!(!other.is_alive() && other.open().expect("no error").is_none());
    }
}
