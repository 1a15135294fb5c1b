//! What one exchange with a server comes to (RFC 5905 §8), and whom to believe of several.
//!
//! Each sample says that the true time lies within its distance of its offset, if its server is honest. The servers are
//! believed that agree, if they are more than half (RFC 5905 §11.2.1); of those the one that is surest.

use super::packet::{Leap, Reply};

/// All in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// By how much this machine's clock is behind; negative: ahead.
    pub offset: i64,
    /// How long the packets were under way, both together.
    pub delay: i64,
    /// By how much the offset may be wrong.
    pub distance: i64,
    /// What the server announces.
    pub leap: Leap,
}

impl Sample {
    /// `sent`, `received`: by this machine's clock, when the request left and when the reply came. `None` when the reply was
    /// under way for less than no time: a clock was set meanwhile.
    #[must_use]
    pub fn new(reply: &Reply, sent: i64, received: i64) -> Option<Self> {
        let [sent, received] = [sent, received].map(i128::from);
        let [at_server, from_server] = [reply.received, reply.sent].map(i128::from);
        let offset = ((at_server - sent) + (from_server - received)) / 2;
        let delay = (received - sent) - (from_server - at_server);
        let delay = i64::try_from(delay).ok().filter(|&delay| delay >= 0)?;
        Some(Self {
            offset: i64::try_from(offset).ok()?,
            delay,
            distance: delay / 2 + reply.distance,
            leap: reply.leap,
        })
    }

    fn low(&self) -> i64 {
        self.offset.saturating_sub(self.distance)
    }

    fn high(&self) -> i64 {
        self.offset.saturating_add(self.distance)
    }
}

/// The number of the sample to go by, of one from each server; `None` when no more than half of them agree.
#[must_use]
pub fn select(samples: &[Sample]) -> Option<usize> {
    let contains = |sample: &Sample, time: i64| sample.low() <= time && time <= sample.high();
    let agreeing = |time: i64| {
        let of = (0..samples.len()).filter(|&index| contains(&samples[index], time));
        of.collect::<Vec<usize>>()
    };
    // Where the most intervals meet, one of them begins.
    let best = samples.iter().map(|sample| agreeing(sample.low()));
    let best = best.max_by_key(Vec::len)?;
    if best.len() * 2 <= samples.len() {
        return None;
    }
    best.into_iter()
        .min_by_key(|&index| samples[index].distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(offset: i64, distance: i64) -> Sample {
        Sample {
            offset,
            delay: distance,
            distance,
            leap: Leap::None,
        }
    }

    #[test]
    fn an_exchange_says_how_far_the_clock_is_off() {
        let reply = Reply {
            leap: Leap::Inserted,
            stratum: 1,
            distance: 7,
            received: 1_000_030,
            sent: 1_000_040,
        };
        let sample = Sample::new(&reply, 0, 50).unwrap();
        assert_eq!(
            (sample.offset, sample.delay, sample.distance),
            (1_000_010, 40, 27)
        );
        assert_eq!(sample.leap, Leap::Inserted);
        let back = Sample::new(&reply, 2_000_000, 2_000_050).unwrap();
        assert_eq!(back.offset, -999_990);
        assert_eq!(Sample::new(&reply, 0, 9), None);
        assert_eq!(Sample::new(&reply, 50, 0), None);
    }

    #[test]
    fn more_than_half_have_to_agree() {
        type Samples<'a> = &'a [(i64, i64)];
        let cases: [(Samples<'_>, Option<usize>); 8] = [
            (&[], None),
            (&[(5, 1)], Some(0)),
            (&[(5, 1), (6, 1)], Some(0)),
            (&[(5, 1), (8, 1)], None),
            (&[(5, 3), (900, 1), (6, 2)], Some(2)),
            (&[(5, 3), (900, 1), (6, 2), (901, 1)], None),
            (&[(5, 3), (900, 1), (6, 2), (7, 9)], Some(2)),
            (&[(i64::MAX, 5), (i64::MIN, 5), (0, 5)], None),
        ];
        for (samples, expected) in cases {
            let samples: Vec<Sample> = samples.iter().map(|&(o, d)| sample(o, d)).collect();
            assert_eq!(select(&samples), expected, "{samples:?}");
        }
    }
}
