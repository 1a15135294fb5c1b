//! What several fuzz targets use. `scripts/fuzz` runs them.

use std::time::Duration;

/// The fuzzer's bytes as packets, each with the time that passes before it: two bytes that say how long, two of length.
#[derive(Debug)]
pub struct Packets<'a>(pub &'a [u8]);

impl<'a> Iterator for Packets<'a> {
    type Item = (Duration, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[mantissa, exponent, high, low], rest) = self.0.split_first_chunk()?;
        // From nothing to twelve days.
        let pause = u64::from(mantissa) << (exponent % 23);
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        self.0 = rest;
        Some((Duration::from_millis(pause), packet))
    }
}

/// Lets time pass as the loop does that waits for deadlines. Panics if one that was heeded is not later than before: the
/// loop would not sleep any more.
pub fn pass<C>(
    client: &mut C,
    now: &mut Duration,
    pause: Duration,
    next_deadline: impl Fn(&C) -> Option<Duration>,
    mut tick: impl FnMut(&mut C, Duration),
) {
    let end = *now + pause;
    // Who asks on without an answer does so for ever: some hundred times are enough.
    for _ in 0..300 {
        let Some(next) = next_deadline(client).filter(|next| *next <= end) else {
            break;
        };
        *now = next.max(*now);
        tick(client, *now);
        let later = next_deadline(client);
        assert!(later.is_none_or(|later| later > *now), "{later:?} at {now:?}");
    }
    *now = end;
    tick(client, *now);
}
