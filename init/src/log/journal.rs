//! PID 1's side of the log: appends lines to the rings, keeps the log process, and says who has to wait.
//!
//! Nothing here blocks or fails to its caller. Without a memfd there is no log, and without a state partition it
//! stays in the rings.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use config::boot::BootSpec;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, send, socketpair};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::OWN;
use super::batch::{Batch, HEADER, Origin, Stamp};
use super::process::Arguments;
use super::ring::{Layout, Rings};
use crate::children;
use crate::lines::LINE_LIMIT;

/// What is read of a workload's output at once.
pub const READ: usize = 4096;
/// The room that what is read at once may need: each byte made visible as four, with what was left from before.
const ROOM: u64 = (HEADER + 4 * (READ + LINE_LIMIT)) as u64;
/// How long a workload waits for a log process that does not read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon the log process is started again: at first, and at most.
const RESTART: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// How long the log process may take at the end of the machine.
const FINISH: Duration = Duration::from_secs(5);

/// What the log process has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Rings were read.
    pub has_read: bool,
    /// For the console.
    pub texts: Vec<String>,
}

/// The log process, as far as PID 1 is concerned.
#[derive(Debug)]
struct Copying {
    arguments: Arguments,
    link: Option<OwnedFd>,
    /// A word is on its way, and will be answered.
    is_woken: bool,
    /// Lines came since.
    has_lines: bool,
    /// When it is started, if it does not run; `None`: not yet.
    start_at: Option<Duration>,
    pause: Duration,
    /// Since when workloads wait in vain; their rings are written over after some patience.
    waited_since: BTreeMap<usize, Duration>,
}

/// All rings, and who copies them.
#[derive(Debug)]
pub struct Journal {
    rings: Option<Rings>,
    own: usize,
    copying: Option<Copying>,
}

impl Journal {
    /// Makes the rings; lines are copied to below `mount_point`, if there is one, once [`Journal::begin`] is called.
    ///
    /// # Errors
    /// In words, beside a journal that keeps nothing.
    pub fn new(spec: &BootSpec, mount_point: Option<&str>) -> (Self, Result<(), String>) {
        let own = spec.workloads.len();
        let layout = Layout {
            rings: own + 1,
            capacity: spec.log.memory.max(ROOM).next_multiple_of(4096),
        };
        let (rings, result) = match Rings::new(layout) {
            Ok(rings) => (Some(rings), Ok(())),
            Err(error) => (
                None,
                Err(format!("no log: cannot make its memory: {error}")),
            ),
        };
        let has_rings = rings.is_some();
        let copying = mount_point
            .filter(|_| has_rings)
            .map(|mount_point| Copying {
                arguments: arguments(spec, mount_point, layout.capacity),
                link: None,
                is_woken: false,
                has_lines: false,
                start_at: None,
                pause: RESTART,
                waited_since: BTreeMap::new(),
            });
        let journal = Self {
            rings,
            own,
            copying,
        };
        (journal, result)
    }

    /// Appends what a workload printed.
    pub fn append(&mut self, ring: usize, origin: Origin, batch: &Batch) {
        if batch.lines() > 0 {
            self.append_at(ring, origin, Stamp::now(), batch);
        }
    }

    /// Appends a line of init's own.
    pub fn append_own(&mut self, stamp: Stamp, text: &str) {
        let mut batch = Batch::default();
        batch.push(text);
        self.append_at(self.own, Origin::Own, stamp, &batch);
    }

    fn append_at(&mut self, ring: usize, origin: Origin, stamp: Stamp, batch: &Batch) {
        if let Some(rings) = &mut self.rings {
            rings.append(ring, origin, stamp, batch);
        }
        if let Some(copying) = &mut self.copying {
            copying.has_lines = true;
        }
    }

    /// Whether [`READ`] bytes of a workload's output may be read now. If not, the log process is told to hurry.
    pub fn has_room(&mut self, ring: usize, now: Duration) -> bool {
        let (Some(rings), Some(copying)) = (&mut self.rings, &mut self.copying) else {
            return true;
        };
        if rings.room(ring) < ROOM {
            rings.refresh(ring);
        }
        if rings.room(ring) >= ROOM {
            copying.waited_since.remove(&ring);
            return true;
        }
        let since = *copying.waited_since.entry(ring).or_insert(now);
        copying.start_at.get_or_insert(now);
        copying.send("u");
        now.saturating_sub(since) >= PATIENCE
    }

    /// The log process may be started from now on.
    pub fn begin(&mut self, now: Duration) {
        if let Some(copying) = &mut self.copying {
            copying.start_at.get_or_insert(now);
        }
    }

    /// Whether the log process is to be started now.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// When the log process is to be started.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let copying = self.copying.as_ref()?;
        copying.start_at.filter(|_| copying.link.is_none())
    }

    /// Starts the log process; returns its process id.
    ///
    /// # Errors
    /// When there is no process or socket to be had; it is tried again later.
    pub fn start(&mut self, now: Duration) -> io::Result<Option<i32>> {
        let (Some(rings), Some(copying)) = (&self.rings, &mut self.copying) else {
            return Ok(None);
        };
        copying.start_at = Some(now + copying.pause);
        copying.pause = (copying.pause * 2).min(RESTART_MAX);
        let (pid, link) = copying.execute(rings)?;
        copying.link = Some(link);
        copying.is_woken = false;
        copying.has_lines = true;
        Ok(Some(pid))
    }

    /// The log process ended; [`Journal::start`] is due after a pause.
    pub fn on_exit(&mut self, now: Duration) {
        if let Some(copying) = &mut self.copying {
            copying.link = None;
            let soonest = copying.start_at.unwrap_or(now);
            copying.start_at = Some(soonest.max(now + RESTART));
        }
    }

    /// The socket to the log process, to wait for its words.
    #[must_use]
    pub fn link(&self) -> Option<BorrowedFd<'_>> {
        let copying = self.copying.as_ref()?;
        copying.link.as_ref().map(AsFd::as_fd)
    }

    /// Takes the log process's words. Once it has closed the socket, nothing is listened to until it is started again.
    pub fn read_link(&mut self) -> Word {
        let mut word = Word::default();
        let Some(copying) = &mut self.copying else {
            return word;
        };
        let mut bytes = [0; 512];
        while let Some(link) = &copying.link {
            match recv(link, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => copying.link = None,
                Ok((size, _)) => match String::from_utf8_lossy(&bytes[..size]).strip_prefix('!') {
                    Some(text) => word.texts.push(text.to_owned()),
                    None => word.has_read = true,
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => copying.link = None,
            }
        }
        if word.has_read {
            copying.is_woken = false;
            copying.pause = RESTART;
        }
        word
    }

    /// Tells the log process of new lines; once each turn of the loop.
    pub fn wake(&mut self) {
        if let Some(copying) = &mut self.copying
            && copying.has_lines
            && !copying.is_woken
            && copying.send("w")
        {
            copying.is_woken = true;
            copying.has_lines = false;
        }
    }

    /// Has everything written to the disk, by a log process of its own that ends then. Only when no other one runs.
    /// `meanwhile` is called again and again while it takes its time.
    ///
    /// # Errors
    /// In words, when that does not work within some seconds.
    pub fn finish(&mut self, meanwhile: impl Fn()) -> Result<(), String> {
        let (Some(rings), Some(copying)) = (&self.rings, &mut self.copying) else {
            return Ok(());
        };
        copying.link = None;
        let explain = |what: &str| format!("the end of the log is not written: {what}");
        let (pid, link) = copying
            .execute(rings)
            .map_err(|error| explain(&error.to_string()))?;
        // Without a listener the process writes what is there and ends.
        drop(link);
        match wait_for(pid, FINISH, &meanwhile) {
            Some(0) => Ok(()),
            Some(_) => Err(explain("the file system does not take it")),
            None => {
                let _ = crate::sys::kill(pid, libc::SIGKILL);
                let _ = wait_for(pid, Duration::from_secs(1), &meanwhile);
                Err(explain("it takes too long"))
            }
        }
    }
}

impl Copying {
    fn execute(&self, rings: &Rings) -> io::Result<(i32, OwnedFd)> {
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = children::command();
        command.arg("log").args(self.arguments.words());
        command.stdin(rings.file().try_clone()?).stdout(far);
        Ok((children::spawn(&mut command)?, near))
    }

    fn send(&self, word: &str) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A full socket holds a word already.
        let sent = |link| send(link, word.as_bytes(), flags);
        matches!(
            self.link.as_ref().map(sent),
            Some(Ok(_) | Err(Errno::AGAIN))
        )
    }
}

fn arguments(spec: &BootSpec, mount_point: &str, capacity: u64) -> Arguments {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let names = spec.workloads.iter().map(|workload| workload.name.clone());
    Arguments {
        directory: Path::new(mount_point).join("log"),
        kernel: "/dev/kmsg".to_owned(),
        boot_id: boot_id.trim().to_owned(),
        version: format!(
            "{} {}, Linux {}",
            spec.name,
            spec.version,
            rustix::system::uname().release().to_string_lossy()
        ),
        size: spec.log.size,
        capacity,
        names: names.chain([OWN.to_owned()]).collect(),
    }
}

/// Waits for a child; its exit status, -1 for a signal.
fn wait_for(pid: i32, limit: Duration, meanwhile: &impl Fn()) -> Option<i32> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        meanwhile();
        match waitpid(Pid::from_raw(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return Some(status.exit_status().unwrap_or(-1)),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(pause),
            Err(Errno::INTR) => {}
            Ok(None) => return None,
            Err(_) => return Some(-1),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
