//! How long a registry is waited for, and when something is tried again. Pure.

use std::time::Duration;

/// What a connection must deliver within each [`Timing::stall`]; one that trickles slower is cut and begun anew.
const LEAST_BYTES: u64 = 1024;
/// A try that brought this many bytes was worth it: the count of tries begins anew.
const WORTH_IT: u64 = 64 << 10;

/// The waits of a registry's client.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The most for a connection with TLS.
    pub connect: Duration,
    /// The most until an answer begins, then without a byte, or with less than a KiB.
    pub stall: Duration,
    /// The wait after the first failure; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait between two tries, also where the registry asks for more: then the build fails and says so.
    pub longest_wait: Duration,
    /// How often something is tried.
    pub tries: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            tries: 6,
        }
    }
}

/// The tries of one thing.
#[derive(Debug)]
pub(super) struct Backoff {
    timing: Timing,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            failures: 0,
        }
    }

    /// After a failure that may pass: how long to wait before the next try, or `None` if it is the last. `asked` is
    /// what the registry asks for (RFC 9110, section 10.2.3).
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        let doubled = 1u32 << (self.failures - 1).min(16);
        let own = (self.timing.first_wait * doubled).min(self.timing.longest_wait);
        let wait = asked.unwrap_or(own).max(self.timing.first_wait);
        (self.failures < self.timing.tries && wait <= self.timing.longest_wait).then_some(wait)
    }

    /// `bytes` came before the failure.
    pub(super) fn gained(&mut self, bytes: u64) {
        if bytes >= WORTH_IT {
            self.failures = 0;
        }
    }
}

/// Notices a connection that trickles.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    began: Duration,
    bytes: u64,
}

impl Pace {
    /// Begins at time zero.
    pub(super) fn new(timing: &Timing) -> Self {
        Self {
            window: timing.stall,
            began: Duration::ZERO,
            bytes: 0,
        }
    }

    /// `bytes` came at `now`; `false` if the window before had too few.
    pub(super) fn note(&mut self, now: Duration, bytes: u64) -> bool {
        self.bytes += bytes;
        if now.saturating_sub(self.began) < self.window {
            return true;
        }
        let enough = self.bytes >= LEAST_BYTES;
        (self.began, self.bytes) = (now, 0);
        enough
    }
}

/// `Retry-After` in seconds; a date is not read, since builds do not ask the clock.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let timing = Timing::default();
        let mut backoff = Backoff::new(Timing {
            tries: 10,
            ..timing
        });
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(None)).collect();
        let millis: Vec<_> = waits.iter().map(Duration::as_millis).collect();
        let want = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(millis, want);
    }

    #[test]
    fn what_the_registry_asks_for_is_kept_within_the_longest() {
        let mut backoff = Backoff::new(Timing::default());
        let seconds = Duration::from_secs;
        assert_eq!(backoff.next(Some(seconds(7))), Some(seconds(7)));
        assert_eq!(
            backoff.next(Some(seconds(0))),
            Some(Duration::from_millis(500))
        );
        assert_eq!(backoff.next(Some(seconds(3600))), None);
        assert_eq!(retry_after(" 30 "), Some(seconds(30)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn bytes_that_came_begin_the_count_anew() {
        let mut backoff = Backoff::new(Timing {
            tries: 2,
            ..Timing::default()
        });
        for _ in 0..5 {
            assert!(backoff.next(None).is_some());
            backoff.gained(1 << 20);
        }
        assert!(backoff.next(None).is_some());
        backoff.gained(10);
        assert!(backoff.next(None).is_none());
    }

    #[test]
    fn trickling_is_noticed() {
        let timing = Timing::default();
        let mut pace = Pace::new(&timing);
        let seconds = Duration::from_secs;
        assert!(pace.note(seconds(1), 1) && pace.note(seconds(29), 2000));
        assert!(pace.note(seconds(30), 1));
        assert!(pace.note(seconds(50), 1));
        assert!(!pace.note(seconds(61), 1));
    }
}
