//! When routers are asked for once more (RFC 4861 §6.3.7): the kernel asks when a link comes up first, and not when its
//! cable moves to another network.

use std::time::Duration;

/// `MAX_RTR_SOLICITATIONS`.
const TIMES: u32 = 3;
/// `RTR_SOLICITATION_INTERVAL`.
const PAUSE: Duration = Duration::from_secs(4);

/// The questions that are left.
#[derive(Debug, Default)]
pub struct Solicitation {
    left: u32,
    next: Option<Duration>,
}

impl Solicitation {
    /// Begins at `now`.
    pub const fn begin(&mut self, now: Duration) {
        self.left = TIMES;
        self.next = Some(now);
    }

    /// Whether routers are asked now.
    pub fn is_due(&mut self, now: Duration) -> bool {
        let is_due = self.next.is_some_and(|next| next <= now);
        if is_due {
            self.left = self.left.saturating_sub(1);
            self.next = (self.left > 0).then_some(now + PAUSE);
        }
        is_due
    }

    /// When [`Solicitation::is_due`] will be so.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_asked_three_times() {
        let mut solicitation = Solicitation::default();
        assert!(!solicitation.is_due(PAUSE));
        solicitation.begin(PAUSE);
        let mut asked = 0;
        while let Some(now) = solicitation.next_deadline() {
            assert!(!solicitation.is_due(now - Duration::from_millis(1)));
            assert!(solicitation.is_due(now));
            asked += 1;
        }
        assert_eq!(asked, TIMES);
    }
}
