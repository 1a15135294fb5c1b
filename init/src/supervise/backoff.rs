//! How long to wait before the next try: doubling from a first delay to a ceiling, and shortened a little at random, so
//! that those who failed together do not all come back together.

use std::time::Duration;

/// Delays that double with each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    next: Duration,
    /// The generator's state; 0: there is no jitter.
    seed: u64,
}

impl Backoff {
    /// The first delay, and the longest, without jitter.
    #[must_use]
    pub const fn new(first: Duration, ceiling: Duration) -> Self {
        Self {
            first,
            ceiling,
            next: first,
            seed: 0,
        }
    }

    /// The same with jitter that follows from the seed; with 0 there is none.
    #[must_use]
    pub const fn with_jitter(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The delay before this try, at most a fifth shorter than what is due; the one after it is twice as long.
    pub fn next_delay(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.ceiling);
        due - due / 5 * self.draw(1000) / 1000
    }

    /// The shortest delay, without jitter.
    #[must_use]
    pub const fn first_delay(&self) -> Duration {
        self.first
    }

    /// Begins again at the first delay.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// Below `limit`, by xorshift64 (Marsaglia 2003), whose state is never 0 unless it begins so.
    fn draw(&mut self, limit: u32) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        u32::try_from(self.seed % u64::from(limit)).expect("a remainder is below its divisor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(10);

    #[test]
    fn delays_double_to_the_ceiling_and_begin_again() {
        let mut backoff = Backoff::new(FIRST, CEILING);
        let delays: Vec<_> = (0..9).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(
            delays,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        backoff.reset();
        assert_eq!(backoff.next_delay().as_millis(), 100);
    }

    #[test]
    fn jitter_shortens_each_delay_by_a_fifth_at_most_and_follows_from_the_seed() {
        let delays = |seed| {
            let mut backoff = Backoff::new(FIRST, CEILING).with_jitter(seed);
            (0..20).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        let plain = delays(0);
        for seed in 1..50 {
            let jittered = delays(seed);
            assert_eq!(jittered, delays(seed));
            assert_ne!(jittered, plain);
            for (delay, due) in jittered.iter().zip(&plain) {
                assert!(
                    delay <= due && *delay >= *due * 4 / 5,
                    "{delay:?} of {due:?}"
                );
            }
        }
        assert_ne!(delays(1), delays(2));
    }
}
