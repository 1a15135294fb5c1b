//! A lease over time: when it is extended, and how often (RFC 2131 §4.4.5).

use std::time::Duration;

use super::client::Output;
use super::message::{Grant, Request};

/// The shortest pause between two tries to extend a lease.
const EXTEND_PAUSE: Duration = Duration::from_secs(60);
/// A lease that never ends.
pub(super) const INFINITE: u32 = u32::MAX;

/// A granted lease with its absolute times.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) grant: Grant,
    /// T1, T2 and the end; `None`: never ends.
    pub(super) times: Option<(Duration, Duration, Duration)>,
}

impl Held {
    pub(super) fn new(grant: Grant, now: Duration) -> Self {
        let seconds = grant.seconds;
        let times = (seconds != INFINITE).then(|| {
            // Never at once: a server that grants a moment only would be asked without end.
            let rebinding = grant
                .rebinding
                .filter(|&at| at > 0 && at < seconds)
                .unwrap_or(seconds - seconds.div_ceil(8))
                .max(1);
            let renewal = grant
                .renewal
                .filter(|&at| at > 0 && at < rebinding)
                .unwrap_or(seconds / 2)
                .max(1);
            let at = |seconds: u32| now + Duration::from_secs(u64::from(seconds));
            (at(renewal.min(rebinding)), at(rebinding), at(seconds))
        });
        Self { grant, times }
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.times.is_some_and(|(.., end)| now >= end)
    }

    pub(super) fn is_extending(&self, now: Duration) -> bool {
        self.times.is_some_and(|(renewal, ..)| now >= renewal)
    }

    /// The request for this time and the time of the next; `None`: the lease is over.
    pub(super) fn extend(&self, now: Duration) -> Option<(Output, Duration)> {
        let (_, rebinding, end) = self.times?;
        let request = Request::Extend {
            address: self.grant.address,
        };
        if now >= end {
            None
        } else if now >= rebinding {
            Some((
                Output::Broadcast(request),
                (now + pause(end - now)).min(end),
            ))
        } else {
            Some((
                Output::Unicast(request, self.grant.server),
                (now + pause(rebinding - now)).min(rebinding),
            ))
        }
    }
}

fn pause(left: Duration) -> Duration {
    (left / 2).max(EXTEND_PAUSE)
}
