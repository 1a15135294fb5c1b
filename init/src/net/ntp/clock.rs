//! The machine's clock, and in tests another.

use std::io;

use rustix::time::{ClockId, clock_gettime};

use super::packet::Leap;
use crate::sys::clock as kernel;

/// What the kernel is told along with a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// By how much it may be wrong, in nanoseconds.
    pub distance: i64,
    /// The pause between two rounds, as a power of two of a second.
    pub pause: u8,
    /// A leap second at the end of this day.
    pub leap: Leap,
}

/// A clock that can be set.
pub trait Clock {
    /// Nanoseconds since 1970.
    fn now(&self) -> i64;

    /// Puts it forward, or back, at once; in nanoseconds.
    ///
    /// # Errors
    /// What the kernel answers.
    fn step(&mut self, by: i64, quality: Quality) -> io::Result<()>;

    /// Draws it there bit by bit.
    ///
    /// # Errors
    /// What the kernel answers.
    fn slew(&mut self, by: i64, quality: Quality) -> io::Result<()>;
}

/// The kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System;

impl Clock for System {
    fn now(&self) -> i64 {
        let time = clock_gettime(ClockId::Realtime);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    }

    fn step(&mut self, by: i64, quality: Quality) -> io::Result<()> {
        kernel::step_clock(by, &adjustment(quality))
    }

    fn slew(&mut self, by: i64, quality: Quality) -> io::Result<()> {
        kernel::slew_clock(by, &adjustment(quality))
    }
}

fn adjustment(quality: Quality) -> kernel::ClockQuality {
    kernel::ClockQuality {
        error_us: (quality.distance / 1000).max(1),
        // The kernel's loop is for pauses of 16 s times a power of two (RFC 5905 appendix A, `ntp_adjtime`).
        time_constant: i64::from(quality.pause.saturating_sub(4)),
        leap: match quality.leap {
            Leap::None => 0,
            Leap::Inserted => 1,
            Leap::Deleted => -1,
        },
    }
}
