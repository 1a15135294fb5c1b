//! The log process: copies lines from the rings, and the kernel's messages, into the files.
//!
//! Standard input is the memfd, standard output a socket to PID 1, on which `w` means that there are lines, `u` that
//! somebody waits for room, and its end that this is the last turn; the answers are `a` when rings are read and
//! `!TEXT` for the console. What is copied is acknowledged only after it is written, and what is in the files
//! already is not written again, so this process may end at any point.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::Timespec;

use super::copier::Copier;

/// How long lines gather before they are written together.
const LINGER: Duration = Duration::from_millis(100);
/// How often lines are made safe against a loss of power.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How soon it is tried again after the files could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// What the process is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// Where the files are.
    pub directory: PathBuf,
    /// Where the kernel's messages are; empty: nowhere.
    pub kernel: String,
    /// This boot's ID.
    pub boot_id: String,
    /// What is told of the machine at the beginning of a boot.
    pub version: String,
    /// The most bytes of each stream.
    pub size: u64,
    /// The rings' capacity.
    pub capacity: u64,
    /// The rings' names, in their order.
    pub names: Vec<String>,
}

impl Arguments {
    /// As words of a command line.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![
            self.directory.display().to_string(),
            self.kernel.clone(),
            self.boot_id.clone(),
            self.version.clone(),
            self.size.to_string(),
            self.capacity.to_string(),
        ];
        words.extend(self.names.iter().cloned());
        words
    }

    /// `None`: words of something else.
    #[must_use]
    pub fn parse(words: &[String]) -> Option<Self> {
        let [
            directory,
            kernel,
            boot_id,
            version,
            size,
            capacity,
            names @ ..,
        ] = words
        else {
            return None;
        };
        Some(Self {
            directory: directory.into(),
            kernel: kernel.clone(),
            boot_id: boot_id.clone(),
            version: version.clone(),
            size: size.parse().ok()?,
            capacity: capacity.parse().ok().filter(|&capacity| capacity > 0)?,
            names: names.to_vec(),
        })
    }
}

/// Runs until PID 1 closes the socket; returns the exit status.
#[must_use]
pub fn run(words: &[String]) -> i32 {
    let Some(arguments) = Arguments::parse(words) else {
        return 2;
    };
    let (Ok(memory), Ok(link)) = (
        io::stdin().as_fd().try_clone_to_owned(),
        io::stdout().as_fd().try_clone_to_owned(),
    ) else {
        return 1;
    };
    let mut process = Process {
        link: Link {
            socket: link,
            is_failing: false,
        },
        memory: File::from(memory),
        arguments,
        copier: None,
        synced: Instant::now(),
    };
    process.serve()
}

/// The socket to PID 1.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    is_failing: bool,
}

/// What PID 1 wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    Copy,
    CopyNow,
    Finish,
}

impl Link {
    fn hear(&self) -> Wish {
        let mut wish = Wish::Nothing;
        let mut word = [0; 16];
        loop {
            match recv(&self.socket, &mut word[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Wish::Finish,
                Ok(_) if word[0] == b'u' => wish = Wish::CopyNow,
                Ok(_) if wish == Wish::Nothing => wish = Wish::Copy,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return wish,
                Err(_) => return Wish::Finish,
            }
        }
    }

    fn say(&self, text: &str) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // Without PID 1 there is nobody to tell.
        let _ = send(&self.socket, text.as_bytes(), flags);
    }

    /// Tells when it begins to fail and when it works again.
    fn report(&mut self, result: io::Result<()>) {
        match (&result, self.is_failing) {
            (Err(error), false) => self.say(&format!(
                "!cannot write the log: {error}; the newest lines stay in memory"
            )),
            (Ok(()), true) => self.say("!the log is written again"),
            _ => {}
        }
        self.is_failing = result.is_err();
    }
}

struct Process {
    link: Link,
    memory: File,
    arguments: Arguments,
    copier: Option<Copier>,
    synced: Instant,
}

impl Process {
    fn serve(&mut self) -> i32 {
        let mut wish = Wish::CopyNow;
        loop {
            let result = self.turn();
            self.link.report(result);
            self.link.say("a");
            if wish == Wish::Finish {
                return self.finish();
            }
            self.wait(self.timeout());
            wish = self.link.hear();
            if wish == Wish::Copy {
                // Only the link: kernel messages gather as well.
                wait_for(
                    &[PollFd::new(&self.link.socket, PollFlags::IN)],
                    Some(LINGER),
                );
                wish = self.link.hear();
            }
        }
    }

    /// Copies what is there.
    fn turn(&mut self) -> io::Result<()> {
        if self.copier.is_none() {
            self.copier = Some(Copier::open(&self.arguments, &self.memory)?);
        }
        let Some(copier) = &mut self.copier else {
            return Ok(());
        };
        let copied = copier.copy();
        let is_due = self.synced.elapsed() >= SYNC_EVERY;
        let synced = if is_due && copier.is_dirty() {
            self.synced = Instant::now();
            copier.sync()
        } else {
            Ok(())
        };
        copied.and(synced)
    }

    fn finish(&mut self) -> i32 {
        let synced = self.copier.as_mut().map(Copier::sync);
        match (self.link.is_failing, synced) {
            (false, Some(Ok(()))) => 0,
            _ => 1,
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if self.link.is_failing {
            return Some(RETRY);
        }
        let is_dirty = self.copier.as_ref().is_some_and(Copier::is_dirty);
        is_dirty.then(|| SYNC_EVERY.saturating_sub(self.synced.elapsed()))
    }

    fn wait(&self, timeout: Option<Duration>) {
        // What could not be written is not tried again at each word, of which a flood makes many: only the end is heard
        // at once.
        let words = if self.link.is_failing {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut sources = vec![PollFd::new(&self.link.socket, words)];
        let kernel = self.copier.as_ref().and_then(Copier::kernel_device);
        if let Some(kernel) = kernel.filter(|_| !self.link.is_failing) {
            sources.push(PollFd::new(kernel, PollFlags::IN));
        }
        wait_for(&sources, timeout);
    }
}

/// Interrupted or not: whoever waits looks for itself afterwards.
fn wait_for(sources: &[PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let _ = poll(&mut sources.to_vec(), timeout.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_command_line() {
        let arguments = Arguments {
            directory: "/state/log".into(),
            kernel: String::new(),
            boot_id: "id".to_owned(),
            version: "web 1.0".to_owned(),
            size: 7,
            capacity: 8,
            names: vec!["a".to_owned(), "b".to_owned()],
        };
        let words = arguments.words();
        assert_eq!(Arguments::parse(&words), Some(arguments));
        assert_eq!(Arguments::parse(&words[..5]), None);
    }
}
