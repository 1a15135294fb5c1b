//! How long to wait before the next try: doubling from a first delay to a ceiling.

use std::time::Duration;

/// Delays that double with each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    /// The first delay, and the longest.
    #[must_use]
    pub const fn new(first: Duration, ceiling: Duration) -> Self {
        Self {
            first,
            ceiling,
            next: first,
        }
    }

    /// The delay before this try; the one after it is twice as long.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.ceiling);
        delay
    }

    /// Begins again at the first delay.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_ceiling_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let delays: Vec<_> = (0..9).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(
            delays,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        backoff.reset();
        assert_eq!(backoff.next_delay().as_millis(), 100);
    }
}
