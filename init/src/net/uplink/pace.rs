//! How often it is told what is otherwise than before: anybody on a link can send advertisements that change something,
//! as many as fit on it, and each would be a line of the log and wake other processes. Pure.

use std::time::Duration;

/// So often at once; a boot with many interfaces tells some ten times.
const MOST: u32 = 64;
/// Then so far apart.
const PAUSE: Duration = Duration::from_secs(2);

/// A bucket of `MOST` that fills by one each `PAUSE`.
#[derive(Debug)]
pub struct Pace {
    left: u32,
    /// When the bucket had `left`.
    since: Duration,
    /// Something waits to be told.
    is_late: bool,
}

impl Pace {
    /// A full one.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self {
            left: MOST,
            since: now,
            is_late: false,
        }
    }

    /// Whether it is told now, if there is something to tell; what is not is told later, as it is then.
    pub fn may(&mut self, has_something: bool, now: Duration) -> bool {
        while self.left < MOST && now >= self.since + PAUSE {
            self.left += 1;
            self.since += PAUSE;
        }
        if self.left == MOST {
            self.since = now;
        }
        self.is_late = has_something && self.left == 0;
        let may = has_something && self.left > 0;
        self.left -= u32::from(may);
        may
    }

    /// When what waits may be told.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.is_late.then(|| self.since + PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_now_and_then_and_its_end_for_certain() {
        let start = Duration::from_secs(100);
        let mut pace = Pace::new(start);
        assert!(!pace.may(false, start));
        let told = (0..10_000).filter(|_| pace.may(true, start)).count();
        assert_eq!(told, 64);
        let later = pace.next_deadline().unwrap();
        assert_eq!(later, start + PAUSE);
        assert!(pace.may(true, later));
        assert!(!pace.may(false, later), "it is as it was before");
        assert_eq!(pace.next_deadline(), None);
        let much_later = later + Duration::from_secs(3600);
        let told = (0..10_000).filter(|_| pace.may(true, much_later)).count();
        assert_eq!(told, 64);
    }
}
