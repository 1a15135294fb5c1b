//! The watchdog device: it starts the machine again when PID 1 stalls (Linux: watchdog-api).
//!
//! It is fed from the loop only, after a turn in which everything was heard and the engine is not behind: a PID 1 that
//! hangs, or that turns without getting anything done, does not feed it. It is shut off at an orderly end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::sys;

/// The first device that a driver registered. Drivers of hardware are loaded before the kernel's own timer.
const DEVICE: &str = "/dev/watchdog";
/// So often it is fed within its time: two turns may be missed.
const FEEDS: u32 = 3;
/// An engine whose deadline has been over for so long in spite of its ticks has stalled.
const STALLED: Duration = Duration::from_secs(10);

/// An armed device.
#[derive(Debug)]
pub struct Watchdog {
    device: OwnedFd,
    every: Duration,
    next: Duration,
}

impl Watchdog {
    /// Arms the device. Returns it with what is to be said of it.
    ///
    /// # Errors
    /// In words, when there is no device.
    pub fn arm(seconds: u32, now: Duration) -> Result<(Self, String), String> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let device = rustix::fs::open(DEVICE, flags, Mode::empty())
            .map_err(|errno| format!("no watchdog: cannot open {DEVICE}: {errno}"))?;
        // A device that does not take the time tells its own.
        let granted = sys::watchdog_timeout(device.as_fd(), seconds).unwrap_or(seconds);
        let name = sys::watchdog_name(device.as_fd()).unwrap_or_else(|_| "a device".to_owned());
        let every = Duration::from_secs(granted.into()) / FEEDS;
        let watchdog = Self {
            device,
            every,
            next: now,
        };
        let text = format!("watchdog armed: {name}, {granted} s");
        Ok((watchdog, text))
    }

    /// When it wants to be fed.
    #[must_use]
    pub const fn next_deadline(&self) -> Duration {
        self.next
    }

    /// After a whole turn: feeds it if it is time and the engine is not behind.
    pub fn after_turn(&mut self, engine_deadline: Option<Duration>, now: Duration) {
        if now >= self.next && is_healthy(engine_deadline, now) {
            self.feed();
            self.next = now + self.every;
        }
    }

    /// Feeds it, between the steps of an orderly end.
    pub fn feed(&self) {
        let _ = rustix::io::write(&self.device, &[0]);
    }

    /// Shuts it off: a `V` before the end says that this is meant.
    pub fn disarm(self) {
        let _ = rustix::io::write(&self.device, b"V");
    }
}

/// Each turn gives the engine its tick, after which no deadline of its is over.
fn is_healthy(engine_deadline: Option<Duration>, now: Duration) -> bool {
    engine_deadline.is_none_or(|deadline| now < deadline + STALLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watchdog that writes into a file, and what was written.
    fn watchdog(name: &str) -> (Watchdog, impl Fn() -> Vec<u8>) {
        let path = std::env::temp_dir().join(format!("coracle-{name}-{}", std::process::id()));
        let device = OwnedFd::from(std::fs::File::create(&path).unwrap());
        let watchdog = Watchdog {
            device,
            every: Duration::from_secs(10),
            next: Duration::ZERO,
        };
        (watchdog, move || std::fs::read(&path).unwrap())
    }

    #[test]
    fn it_is_fed_when_it_is_time_and_shut_off_at_the_end() {
        let (mut watchdog, written) = watchdog("watchdog-fed");
        for seconds in [0, 9, 10, 11] {
            watchdog.after_turn(None, Duration::from_secs(seconds));
        }
        assert_eq!(watchdog.next_deadline(), Duration::from_secs(20));
        watchdog.disarm();
        assert_eq!(written(), b"\0\0V");
    }

    #[test]
    fn a_stalled_engine_does_not_feed_it() {
        let (mut watchdog, written) = watchdog("watchdog-stalled");
        let deadline = Some(Duration::from_secs(100));
        watchdog.after_turn(deadline, Duration::from_secs(109));
        assert_eq!(written(), b"\0");
        for seconds in [119, 200, 3600] {
            watchdog.after_turn(deadline, Duration::from_secs(seconds));
        }
        assert_eq!(written(), b"\0");
    }
}
