//! What routers say that the kernel does not use itself: name servers and search domains (RFC 8106), with their times.
//!
//! The kernel checks advertisements (RFC 4861 §6.1.2: hop limit, source, checksum, lengths) and does what they say of
//! addresses, routes, hop limits and the MTU, as well as a process could and without one; it hands on these options.

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::net::domain_name as domain;

const NAME_SERVERS: u8 = 25;
const SEARCH: u8 = 31;
/// What was told on another cable holds at most so long if nobody tells it again.
const DOUBT: Duration = Duration::from_secs(30);
/// For ever, as a time in seconds.
const INFINITE: u32 = u32::MAX;
/// The most of each kind that is kept.
const MOST: usize = 8;

/// What the routers of one link say.
#[derive(Debug, Default)]
pub struct Advice {
    dns: Vec<(Ipv6Addr, Option<Duration>)>,
    search: Vec<(String, Option<Duration>)>,
}

impl Advice {
    /// Takes an option: type, length in eight bytes, the rest.
    pub fn take(&mut self, option: &[u8], now: Duration) {
        let parts = (option.first(), option.get(4..8), option.get(8..));
        let (Some(&kind), Some(seconds), Some(rest)) = parts else {
            return;
        };
        let seconds = seconds.try_into().map(u32::from_be_bytes).unwrap_or(0);
        let end = (seconds != INFINITE).then(|| now + Duration::from_secs(seconds.into()));
        match kind {
            NAME_SERVERS => {
                for octets in rest.chunks_exact(16) {
                    let octets: [u8; 16] = octets.try_into().expect("chunks are exact");
                    let address = Ipv6Addr::from(octets);
                    if !address.is_unspecified() && !address.is_multicast() {
                        keep(&mut self.dns, address, end);
                    }
                }
            }
            SEARCH => {
                for name in domain::read(rest) {
                    keep(&mut self.search, name, end);
                }
            }
            _ => {}
        }
        self.expire(now);
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Duration) {
        let is_there = |end: &Option<Duration>| end.is_none_or(|end| end > now);
        self.dns.retain(|(_, end)| is_there(end));
        self.search.retain(|(_, end)| is_there(end));
    }

    /// Another network may be on the cable. The kernel asks its routers at once: what they do not tell again is over soon.
    pub fn doubt(&mut self, now: Duration) {
        let dns = self.dns.iter_mut().map(|(_, end)| end);
        let search = self.search.iter_mut().map(|(_, end)| end);
        for end in dns.chain(search) {
            *end = Some(end.map_or(now + DOUBT, |end| end.min(now + DOUBT)));
        }
    }

    /// When something is over.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let dns = self.dns.iter().filter_map(|(_, end)| *end);
        let search = self.search.iter().filter_map(|(_, end)| *end);
        dns.chain(search).min()
    }

    /// Name servers, in the order in which they were told.
    pub fn dns(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.dns.iter().map(|(address, _)| *address)
    }

    /// Search domains, in the order in which they were told.
    pub fn search(&self) -> impl Iterator<Item = &str> {
        self.search.iter().map(|(name, _)| name.as_str())
    }
}

/// What is there gets its new end; of what is too much the one that ends first goes.
fn keep<T: PartialEq>(all: &mut Vec<(T, Option<Duration>)>, one: T, end: Option<Duration>) {
    if let Some(known) = all.iter_mut().find(|(known, _)| *known == one) {
        known.1 = end;
        return;
    }
    all.push((one, end));
    if all.len() > MOST {
        let first = (0..all.len()).min_by_key(|&at| all[at].1.unwrap_or(Duration::MAX));
        all.remove(first.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(seconds: u32, last: &[u8]) -> Vec<u8> {
        let mut option = vec![25, 1, 0, 0];
        option.extend(seconds.to_be_bytes());
        for &last in last {
            option.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).octets());
        }
        option
    }

    fn count(advice: &Advice) -> (usize, usize) {
        (advice.dns().count(), advice.search().count())
    }

    #[test]
    fn servers_live_as_long_as_they_are_told_to() {
        let mut advice = Advice::default();
        let at = Duration::from_secs;
        advice.take(&servers(60, &[1, 2]), at(0));
        advice.take(&servers(90, &[2]), at(0));
        advice.take(b"\x1f\x02\0\0\xff\xff\xff\xff\x03lan\0\0\0\0", at(0));
        assert_eq!(count(&advice), (2, 1));
        assert_eq!(advice.next_deadline(), Some(at(60)));
        advice.expire(at(60));
        assert_eq!(count(&advice), (1, 1));
        advice.take(&servers(0, &[2]), at(61));
        assert_eq!(count(&advice), (0, 1));
        assert_eq!(advice.next_deadline(), None);
        assert_eq!(advice.search().next(), Some("lan"));
    }

    #[test]
    fn no_more_than_a_few_are_kept_and_the_first_to_end_goes() {
        let mut advice = Advice::default();
        advice.take(&servers(1000, &[1]), Duration::ZERO);
        for last in 2..=20 {
            advice.take(&servers(500 + u32::from(last), &[last]), Duration::ZERO);
        }
        assert_eq!(count(&advice), (MOST, 0));
        assert_eq!(advice.dns().next().unwrap().segments()[7], 1);
    }

    #[test]
    fn what_was_told_on_another_cable_is_soon_over_unless_it_is_told_again() {
        let mut advice = Advice::default();
        let at = Duration::from_secs;
        let all: Vec<u8> = (1..=8).collect();
        advice.take(&servers(INFINITE, &all), at(0));
        advice.doubt(at(100));
        advice.take(&servers(INFINITE, &[2, 9]), at(101));
        let dns: Vec<_> = advice.dns().map(|server| server.segments()[7]).collect();
        assert_eq!((dns.len(), dns.contains(&9)), (MOST, true));
        advice.expire(at(130));
        assert_eq!(count(&advice), (2, 0));
        assert_eq!(advice.next_deadline(), None);
    }

    #[test]
    fn hostile_options_are_read_within_the_bounds() {
        let mut advice = Advice::default();
        for good in [
            servers(9, &[1, 2, 3]),
            b"\x1f\x02\0\0\xff\xff\xff\xff\x03lan\0\0\0\0".to_vec(),
        ] {
            crate::net::random::mutated(20_000, &good, |option| {
                advice.take(option, Duration::ZERO);
                let (dns, search) = count(&advice);
                assert!(dns <= MOST && search <= MOST);
            });
        }
    }
}
