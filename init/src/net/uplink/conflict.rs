//! Does somebody else have the address (RFC 5227), now or later? Pure: (packet or time) → packets to send and the verdict.
//!
//! The address is in use while this asks. RFC 5227 §2.1 would have it wait for up to seven seconds, and no boot shall
//! wait for what hardly ever happens: servers ask before they offer. Most others go one step further:
//! systemd-networkd and udhcpc do not ask at all unless they are told to, dhcpcd asks first. Here it is asked at once,
//! and an address that turns out to be somebody's is given up. It is announced (§2.3) only when nobody has answered, so
//! that a mistake does not take the rightful owner's traffic.
//!
//! Whoever comes later with the same address is answered with an announcement, once; one that persists has it (§2.4 b).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::net::netlink::link::HardwareAddress;

/// `PROBE_NUM`, then `ANNOUNCE_NUM`.
const PROBES: u32 = 3;
const ANNOUNCEMENTS: u32 = 2;
/// `PROBE_MIN` and `ANNOUNCE_WAIT`, `ANNOUNCE_INTERVAL`.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(2);
/// `DEFEND_INTERVAL`.
const DEFEND_PAUSE: Duration = Duration::from_secs(10);

/// Bytes of an ARP packet for Ethernet and IPv4 (RFC 826).
const SIZE: usize = 28;
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;

/// One address being asked for, and defended when nobody has answered.
#[derive(Debug)]
pub struct Question {
    address: Ipv4Addr,
    own: HardwareAddress,
    sent: u32,
    /// `None`: all is asked.
    next: Option<Duration>,
    /// When it was defended last.
    defended: Option<Duration>,
}

/// What is to be done at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this to everyone.
    Send([u8; SIZE]),
    /// Nothing, or nothing yet.
    Wait,
}

/// What a packet means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Unconcerned,
    /// Somebody else claims the address: send this to everyone.
    Defend([u8; SIZE]),
    /// It is the address of this one.
    Owned(HardwareAddress),
}

impl Question {
    /// Begins at `now`.
    #[must_use]
    pub const fn new(address: Ipv4Addr, own: HardwareAddress, now: Duration) -> Self {
        Self {
            address,
            own,
            sent: 0,
            next: Some(now),
            defended: None,
        }
    }

    /// When [`Question::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) -> Step {
        if self.next.is_none_or(|next| next > now) {
            return Step::Wait;
        }
        self.sent += 1;
        let is_probe = self.sent <= PROBES;
        self.next = match self.sent {
            ..PROBES => Some(now + PROBE_PAUSE),
            sent if sent < PROBES + ANNOUNCEMENTS => Some(now + ANNOUNCE_PAUSE),
            _ => None,
        };
        // A probe says nothing of its sender's address, an announcement does.
        let sender = if is_probe {
            Ipv4Addr::UNSPECIFIED
        } else {
            self.address
        };
        Step::Send(encode(self.own, sender, self.address))
    }

    /// A packet came.
    pub fn receive(&mut self, packet: &[u8], now: Duration) -> Verdict {
        let Some(owner) = self.owner(packet) else {
            return Verdict::Unconcerned;
        };
        let is_defended = |at: Duration| now.saturating_sub(at) < DEFEND_PAUSE;
        if self.sent <= PROBES || self.defended.is_some_and(is_defended) {
            return Verdict::Owned(owner);
        }
        self.defended = Some(now);
        Verdict::Defend(encode(self.own, self.address, self.address))
    }

    /// Whose packet says that the address is its own; `None`: this one says nothing of it.
    fn owner(&self, packet: &[u8]) -> Option<HardwareAddress> {
        if packet.get(..6)? != HEAD {
            return None;
        }
        let hardware: HardwareAddress = packet.get(8..14)?.try_into().ok()?;
        let sender: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
        let is_other = Ipv4Addr::from(sender) == self.address && hardware != self.own;
        is_other.then_some(hardware)
    }
}

fn encode(own: HardwareAddress, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; SIZE] {
    let mut packet = [0; SIZE];
    packet[..6].copy_from_slice(&HEAD);
    packet[6..8].copy_from_slice(&REQUEST.to_be_bytes());
    packet[8..14].copy_from_slice(&own);
    packet[14..18].copy_from_slice(&sender.octets());
    packet[24..].copy_from_slice(&target.octets());
    packet
}

/// `52:54:00:12:34:56`.
#[must_use]
pub fn show(address: HardwareAddress) -> String {
    let bytes: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: HardwareAddress = [0x52, 0x54, 0, 0, 0, 1];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    #[test]
    fn three_probes_are_followed_by_two_announcements() {
        let mut question = Question::new(ADDRESS, OWN, Duration::ZERO);
        let mut senders = Vec::new();
        while let Some(now) = question.next_deadline() {
            let Step::Send(packet) = question.tick(now) else {
                panic!("the deadline is now");
            };
            assert_eq!(packet[24..], ADDRESS.octets());
            senders.push(packet[14..18] == ADDRESS.octets());
            assert_eq!(question.tick(now), Step::Wait);
        }
        assert_eq!(senders, [false, false, false, true, true]);
    }

    #[test]
    fn an_address_is_given_up_at_once_while_it_is_asked_for_and_defended_once_later() {
        let other: HardwareAddress = [0x52, 0x54, 0, 0, 0, 9];
        let claim = encode(other, ADDRESS, ADDRESS);
        let mut question = Question::new(ADDRESS, OWN, Duration::ZERO);
        assert_eq!(
            question.receive(&claim, Duration::ZERO),
            Verdict::Owned(other)
        );
        while let Some(now) = question.next_deadline() {
            question.tick(now);
        }
        let defence = Verdict::Defend(encode(OWN, ADDRESS, ADDRESS));
        let at = Duration::from_secs;
        assert_eq!(question.receive(&claim, at(100)), defence);
        assert_eq!(question.receive(&claim, at(110)), defence);
        assert_eq!(question.receive(&claim, at(119)), Verdict::Owned(other));
        let own = encode(OWN, ADDRESS, ADDRESS);
        assert_eq!(question.receive(&own, at(119)), Verdict::Unconcerned);
    }

    #[test]
    fn only_another_sender_with_the_address_is_its_owner() {
        let question = Question::new(ADDRESS, OWN, Duration::ZERO);
        let other: HardwareAddress = [0x52, 0x54, 0, 0, 0, 9];
        assert_eq!(
            question.owner(&encode(other, ADDRESS, ADDRESS)),
            Some(other)
        );
        assert_eq!(question.owner(&encode(OWN, ADDRESS, ADDRESS)), None);
        let elsewhere = Ipv4Addr::new(10, 0, 2, 16);
        assert_eq!(question.owner(&encode(other, elsewhere, ADDRESS)), None);
        assert_eq!(question.owner(&encode(other, ADDRESS, ADDRESS)[..17]), None);
        assert_eq!(show(other), "52:54:00:00:00:09");
    }

    #[test]
    fn hostile_packets_are_read_without_a_fault() {
        let question = Question::new(ADDRESS, OWN, Duration::ZERO);
        let mut owners = 0;
        let good = encode([2, 0, 0, 0, 0, 1], ADDRESS, ADDRESS);
        crate::net::random::mutated(20_000, &good, |packet| {
            owners += usize::from(question.owner(packet).is_some());
        });
        assert!(owners > 0);
    }
}
