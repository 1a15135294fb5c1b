//! What a guest's serial console has said so far, to be waited on.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// An error shows this many of the last lines.
const QUOTED_LINES: usize = 30;

/// The console of one machine; its raw bytes go to a file as they come.
#[derive(Debug)]
pub(crate) struct Console {
    shared: Arc<Shared>,
    log: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Heard {
    lines: Vec<String>,
    unfinished: Vec<u8>,
    ended: bool,
}

/// Why a wait did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Time was up.
    Late,
    /// The machine has ended.
    Ended,
}

impl Console {
    /// Reads `stream` to its end in a thread of its own.
    pub(crate) fn read(mut stream: impl Read + Send + 'static, log: &Path) -> Result<Self> {
        let mut file = File::create(log).with_context(|| format!("make {}", log.display()))?;
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                // A full disk loses the log, not the case.
                let _ = file.write_all(&buffer[..length]);
                writer.update(|heard| heard.push(&buffer[..length]));
            }
            writer.update(|heard| heard.ended = true);
        });
        Ok(Self {
            shared,
            log: log.to_owned(),
        })
    }

    /// Waits until a line from `from` on has `wanted` in it; returns the line and the position behind it.
    pub(crate) fn wait_for(
        &self,
        wanted: &str,
        from: usize,
        patience: Duration,
    ) -> Result<(String, usize), Missed> {
        self.shared.wait(patience, |heard| {
            let mut lines = heard.lines.iter().enumerate().skip(from);
            let (at, line) = lines.find(|(_, line)| line.contains(wanted))?;
            Some((line.clone(), at + 1))
        })
    }

    /// Waits until the machine's side is closed.
    pub(crate) fn wait_for_end(&self, patience: Duration) -> bool {
        let ended = |heard: &Heard| heard.ended.then_some(());
        self.shared.wait(patience, ended).is_ok()
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.shared.lock().lines.clone()
    }

    /// The log's path and the last lines, for an error.
    pub(crate) fn quote(&self) -> String {
        let lines = self.lines();
        let last = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
        let log = self.log.display();
        format!("console ({log}):\n    {}", last.join("\n    "))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait<T>(&self, patience: Duration, find: impl Fn(&Heard) -> Option<T>) -> Result<T, Missed> {
        let deadline = Instant::now() + patience;
        let mut heard = self.lock();
        loop {
            if let Some(found) = find(&heard) {
                return Ok(found);
            }
            if heard.ended {
                return Err(Missed::Ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Missed::Late);
            }
            let waited = self.changed.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Heard {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.unfinished);
                    self.lines.push(String::from_utf8_lossy(&line).into_owned());
                }
                b'\r' => {}
                _ => self.unfinished.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn console(name: &str) -> (Console, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let log = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let console = Console::read(near, &log).unwrap();
        std::fs::remove_file(log).unwrap();
        (console, far)
    }

    #[test]
    fn a_wait_goes_on_from_where_the_last_one_ended() {
        let (console, mut guest) = console("console-wait");
        guest.write_all(b"one\r\ntwo one\r\nthr").unwrap();
        let second = Duration::from_secs(5);
        let (line, next) = console.wait_for("one", 0, second).unwrap();
        assert_eq!((line.as_str(), next), ("one", 1));
        let (line, next) = console.wait_for("one", next, second).unwrap();
        assert_eq!((line.as_str(), next), ("two one", 2));
        let late = console.wait_for("thr", next, Duration::from_millis(20));
        assert_eq!(late, Err(Missed::Late));
    }

    #[test]
    fn a_wait_ends_with_the_machine() {
        let (console, guest) = console("console-end");
        drop(guest);
        let missed = console.wait_for("x", 0, Duration::from_secs(5));
        assert_eq!(missed, Err(Missed::Ended));
        assert!(console.wait_for_end(Duration::ZERO));
    }
}
