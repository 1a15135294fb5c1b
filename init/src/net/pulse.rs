//! The sign of life of a child that runs as long as the machine does. One that is not heard of for [`SILENCE`] hangs: PID 1
//! kills it, and starts another.

use std::time::Duration;

use super::message::Message;

/// How often a child that waits shows that it lives.
pub const BEAT: Duration = Duration::from_secs(15);
/// After so long without a word a child hangs. What it waits for by itself, such as a name server's answer, is shorter.
pub const SILENCE: Duration = Duration::from_secs(60);

/// When the next sign of life is due.
#[derive(Debug)]
pub struct Pulse(Duration);

impl Pulse {
    /// Who has just begun was heard of.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self(now.saturating_add(BEAT))
    }

    /// When [`Pulse::beat`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Duration {
        self.0
    }

    /// Shows that this child lives, if it is time to.
    pub fn beat(&mut self, now: Duration) {
        if self.0 <= now {
            *self = Self::new(now);
            Message::Alive.tell();
        }
    }
}
