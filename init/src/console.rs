//! The machine's console: init's own lines, and the workloads' lines with their names in front.
//!
//! Writing never blocks PID 1: lines go into a bounded queue, and the queue goes to the console as fast as
//! the console takes it. Init's own lines are always kept; a workload's line that finds the queue full is
//! dropped and counted, and the count is said once there is room. Nothing that a workload prints can look
//! like a line of init's: see [`crate::lines::LineSplitter`].

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// What workloads' lines may take up in memory while the console is slow.
const QUEUE_LIMIT: usize = 256 * 1024;

/// Time since the machine started, with what it spent suspended.
#[must_use]
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The console with its queue.
#[derive(Debug)]
pub struct Console {
    device: Option<OwnedFd>,
    queue: VecDeque<u8>,
    lost: u64,
    opened: Duration,
}

impl Console {
    /// Opens `/dev/console`, or takes standard output where that fails (devtmpfs not mounted yet and no node
    /// in the initramfs); without either, lines go nowhere and init works on.
    #[must_use]
    pub fn open() -> Self {
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/console", flags, Mode::empty())
            .or_else(|_| rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3))
            .ok();
        Self {
            device,
            queue: VecDeque::new(),
            lost: 0,
            opened: now(),
        }
    }

    /// Prints `coracle: [SECONDS.mmm] TEXT`.
    pub fn say(&mut self, text: impl fmt::Display) {
        let mut line = String::with_capacity(96);
        write_own_line(&mut line, now(), &text);
        self.queue.extend(line.as_bytes());
        self.write_some();
    }

    /// Prints a line of init's own that may be missed: it is dropped and counted when the queue is full.
    pub fn say_if_room(&mut self, text: impl fmt::Display) {
        if self.queue.len() > QUEUE_LIMIT {
            self.lost += 1;
        } else {
            self.say(text);
        }
    }

    /// Prints one already sanitized line of a workload: `NAME | TEXT`.
    pub fn say_for(&mut self, name: &str, text: &str) {
        if self.queue.len() + name.len() + text.len() + 4 > QUEUE_LIMIT {
            self.lost += 1;
            return;
        }
        for part in [name, " | ", text, "\n"] {
            self.queue.extend(part.as_bytes());
        }
    }

    /// Writes what the console takes now; call it when [`Console::fd`] is writable and after each batch.
    pub fn write_some(&mut self) {
        let Some(device) = &self.device else {
            self.queue.clear();
            return;
        };
        while !self.queue.is_empty() {
            match rustix::io::write(device, self.queue.as_slices().0) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return,
                Ok(written) => drop(self.queue.drain(..written)),
                Err(rustix::io::Errno::INTR) => {}
                // A console that went away (a hung-up line) must not stop the machine.
                Err(_) => self.queue.clear(),
            }
        }
        self.tell_losses();
    }

    fn tell_losses(&mut self) {
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.say(format_args!(
                "{lost} lines were not shown: the console is slower than the workloads"
            ));
        }
    }

    /// Something waits for the console to take it.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When it was opened: what the kernel logged before is not of init's doing.
    #[must_use]
    pub const fn opened(&self) -> Duration {
        self.opened
    }

    /// The console's descriptor, to wait on for writability.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.as_ref().map(AsFd::as_fd)
    }

    /// Blocks until everything is on the wire, at most for `limit`.
    pub fn drain(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.write_some();
        while self.has_backlog() && Instant::now() < deadline {
            let Some(device) = &self.device else { return };
            let step = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            let _ = poll(&mut [PollFd::new(device, PollFlags::OUT)], Some(&step));
            self.write_some();
        }
        if let Some(device) = &self.device {
            let _ = rustix::termios::tcdrain(device);
        }
    }
}

/// Appends the line to `out`; control characters in `text` become spaces, so that it stays one line.
fn write_own_line(out: &mut String, at: Duration, text: &impl fmt::Display) {
    let start = out.len();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "coracle: [{}.{:03}] {text}",
        at.as_secs(),
        at.subsec_millis()
    );
    if out[start..].contains(char::is_control) {
        let clean: String = out[start..]
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        out.replace_range(start.., &clean);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_carry_seconds_and_milliseconds_without_padding() {
        let mut out = String::new();
        write_own_line(&mut out, Duration::from_millis(7_042), &"stage root");
        assert_eq!(out, "coracle: [7.042] stage root\n");
    }

    #[test]
    fn an_own_line_stays_one_line_whatever_it_quotes() {
        let mut out = String::new();
        write_own_line(&mut out, Duration::ZERO, &"bad\nname\r\u{1b}[2J");
        assert_eq!(out, "coracle: [0.000] bad name  [2J\n");
    }

    #[test]
    fn a_flood_is_dropped_and_counted_but_own_lines_are_kept() {
        let mut console = Console {
            device: None,
            queue: VecDeque::new(),
            lost: 0,
            opened: now(),
        };
        let text = "x".repeat(1000);
        for _ in 0..QUEUE_LIMIT / 1000 + 10 {
            console.say_for("noisy", &text);
        }
        assert!(console.lost > 0);
        assert!(console.queue.len() <= QUEUE_LIMIT);
    }
}
