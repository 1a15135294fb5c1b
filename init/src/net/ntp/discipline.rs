//! What is done about a clock that is off: set, drawn, or left.
//!
//! At first it is set if it is off by more than half a second. Later it is drawn by the kernel (RFC 5905's phase-locked
//! loop), and set only when three rounds one after another say that it is off by about the same. A time before the
//! image was made, or a lifetime behind it, is refused whoever says so.

const SECOND: i64 = 1_000_000_000;
/// Up to this it is drawn; the kernel takes no more.
pub const MOST_DRAWN: i64 = SECOND / 2;
/// So many rounds have to agree before a clock that was right is set.
const ROUNDS: u32 = 3;
/// The shortest and the longest pause between two rounds, as powers of two of a second.
pub const SHORTEST: u8 = 6;
/// 17 minutes.
pub const LONGEST: u8 = 10;
/// An image is not used for longer than that after it was made, in seconds: 40 years.
const LIFETIME: i64 = 40 * 366 * 24 * 60 * 60;
/// Below the one the pause grows, above the other it shrinks.
const CALM: i64 = SECOND / 100;
const UNREST: i64 = SECOND / 20;

/// What is to be done with the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Put it forward by so many nanoseconds; back, if they are negative.
    Step(i64),
    /// Draw it there bit by bit.
    Slew(i64),
    /// Wait for the next round.
    Hold,
    /// The time cannot be: it is before the image was made, or too far behind.
    Refuse,
}

/// What is known from former rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discipline {
    earliest: i64,
    was_right: bool,
    suspected: Option<(i64, u32)>,
    pause: u8,
}

impl Discipline {
    /// `earliest`: when the image was made, in seconds since 1970.
    #[must_use]
    pub const fn new(earliest: i64) -> Self {
        Self {
            earliest,
            was_right: false,
            suspected: None,
            pause: SHORTEST,
        }
    }

    /// The pause to the next round, as a power of two of a second.
    #[must_use]
    pub const fn pause(&self) -> u8 {
        self.pause
    }

    /// The clock has been right, or was set.
    #[must_use]
    pub const fn was_right(&self) -> bool {
        self.was_right
    }

    /// A round's outcome: at `now` the clock is behind by `offset`, in nanoseconds.
    pub fn decide(&mut self, offset: i64, now: i64) -> Decision {
        let seconds = now.saturating_add(offset).div_euclid(SECOND);
        if seconds < self.earliest || seconds > self.earliest.saturating_add(LIFETIME) {
            return Decision::Refuse;
        }
        if offset.abs() <= MOST_DRAWN {
            self.was_right = true;
            self.suspected = None;
            self.pause = next_pause(self.pause, offset.abs());
            return Decision::Slew(offset);
        }
        self.pause = SHORTEST;
        if self.was_right && !self.is_proven(offset) {
            return Decision::Hold;
        }
        self.was_right = true;
        self.suspected = None;
        Decision::Step(offset)
    }

    fn is_proven(&mut self, offset: i64) -> bool {
        let count = match self.suspected {
            Some((before, count)) if before.abs_diff(offset) < MOST_DRAWN.unsigned_abs() => {
                count + 1
            }
            _ => 1,
        };
        self.suspected = Some((offset, count));
        count >= ROUNDS
    }
}

fn next_pause(pause: u8, off: i64) -> u8 {
    match off {
        ..CALM => (pause + 1).min(LONGEST),
        CALM..UNREST => pause,
        _ => (pause - 1).max(SHORTEST),
    }
}

/// The time between two days is in the last minute of a month: only then a leap second is (ITU-R TF.460-6). `now` in
/// nanoseconds since 1970.
#[must_use]
pub fn is_last_day_of_month(now: i64) -> bool {
    let tomorrow = now.div_euclid(SECOND * 24 * 60 * 60) + 1;
    day_of_month(tomorrow) == 1
}

/// By the Gregorian calendar, of a day since 1970: counted from the first of March of the year 0, by which each leap day
/// is the last of its year.
fn day_of_month(day: i64) -> i64 {
    const TO_1970: i64 = 719_468;
    const FOUR_CENTURIES: i64 = 146_097;
    let of_era = (day + TO_1970).rem_euclid(FOUR_CENTURIES);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    of_year - (153 * month + 2) / 5 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: i64 = 1_780_000_000;
    const NOW: i64 = 1_800_000_000 * SECOND;

    #[test]
    fn a_clock_is_set_at_first_and_drawn_later() {
        let mut it = Discipline::new(IMAGE);
        assert!(!it.was_right());
        assert_eq!(it.decide(3 * SECOND, NOW), Decision::Step(3 * SECOND));
        assert!(it.was_right());
        assert_eq!(it.decide(SECOND / 5, NOW), Decision::Slew(SECOND / 5));
        assert_eq!(it.decide(-SECOND / 5, NOW), Decision::Slew(-SECOND / 5));
        let mut right = Discipline::new(IMAGE);
        assert_eq!(right.decide(-1000, NOW), Decision::Slew(-1000));
        assert_eq!(right.decide(3 * SECOND, NOW), Decision::Hold);
    }

    #[test]
    fn a_clock_that_was_right_is_set_only_when_three_rounds_agree() {
        let mut it = Discipline::new(IMAGE);
        it.decide(0, NOW);
        for offset in [-60 * SECOND, -60 * SECOND, 90 * SECOND, -60 * SECOND, 0] {
            assert!(
                !matches!(it.decide(offset, NOW), Decision::Step(_)),
                "{offset}"
            );
        }
        let offset = -60 * SECOND;
        assert_eq!(it.decide(offset, NOW), Decision::Hold);
        assert_eq!(it.decide(offset + 1000, NOW), Decision::Hold);
        assert_eq!(it.decide(offset - 1000, NOW), Decision::Step(offset - 1000));
    }

    #[test]
    fn a_time_that_cannot_be_is_refused() {
        let mut it = Discipline::new(IMAGE);
        let to = |seconds: i64| seconds * SECOND - NOW;
        assert_eq!(it.decide(to(IMAGE - 1), NOW), Decision::Refuse);
        assert_eq!(it.decide(to(0), NOW), Decision::Refuse);
        assert_eq!(it.decide(to(IMAGE + LIFETIME + 1), NOW), Decision::Refuse);
        assert_eq!(it.decide(i64::MAX, NOW), Decision::Refuse);
        assert_eq!(it.decide(i64::MIN + NOW, NOW), Decision::Refuse);
        assert!(!it.was_right());
        assert!(matches!(it.decide(to(IMAGE + 1), NOW), Decision::Step(_)));
    }

    #[test]
    fn the_pause_grows_while_the_clock_is_calm() {
        let mut it = Discipline::new(IMAGE);
        let mut pauses = Vec::new();
        for offset in [0, 0, 0, 0, 0, 0, SECOND / 50, SECOND / 4, 9 * SECOND] {
            it.decide(offset, NOW);
            pauses.push(it.pause());
        }
        assert_eq!(pauses, [7, 8, 9, 10, 10, 10, 10, 9, 6]);
    }

    #[test]
    fn the_calendar_knows_the_last_days_of_months() {
        // 2016-12-31, 2028-02-29, 2030-02-28, 2100-02-28, 2026-06-30
        for day in [17_166, 21_243, 21_973, 47_540, 20_634] {
            let at = |day: i64| day * 24 * 60 * 60 * SECOND;
            assert!(is_last_day_of_month(at(day)), "{day}");
            assert!(is_last_day_of_month(at(day + 1) - 1), "{day}");
            assert!(!is_last_day_of_month(at(day + 1)), "{day}");
            assert!(!is_last_day_of_month(at(day) - 1), "{day}");
        }
        let days: Vec<i64> = (0..60).map(day_of_month).collect();
        let expected: Vec<i64> = (1..=31).chain(1..=28).chain([1]).collect();
        assert_eq!(days, expected, "1970");
    }
}
