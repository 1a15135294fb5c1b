//! A lease over time: when it is renewed, rebound, and over (RFC 8415 §18.2.4, §18.2.5).

use std::time::Duration;

use super::message::Grant;

/// For ever, as a time in seconds.
pub(super) const INFINITE: u32 = u32::MAX;

/// A lease with its absolute times; `None`: never.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) grant: Grant,
    pub(super) renewal: Option<Duration>,
    pub(super) rebinding: Option<Duration>,
    pub(super) end: Option<Duration>,
}

impl Held {
    pub(super) fn new(grant: Grant, now: Duration) -> Self {
        let there = || grant.addresses.iter().filter(|leased| leased.valid > 0);
        let longest = there().map(|leased| leased.valid).max().unwrap_or(0);
        let preferred = there().map(|leased| leased.preferred).min().unwrap_or(0);
        // §21.4: half and four fifths of the shortest preferred time where the server leaves them to the client.
        let or = |told: u32, own: u32| if told == 0 { own } else { told }.min(longest);
        let half = (preferred / 2).max(1);
        let renewal = or(grant.renewal, half);
        let rebinding = or(grant.rebinding, (preferred / 5 * 4).max(half)).max(renewal);
        let at = |seconds: u32| {
            (seconds != INFINITE).then(|| now + Duration::from_secs(u64::from(seconds)))
        };
        let never = preferred == INFINITE;
        Self {
            renewal: at(renewal).filter(|_| !never),
            rebinding: at(rebinding).filter(|_| !never),
            end: at(longest),
            grant,
        }
    }
}
