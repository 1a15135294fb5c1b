//! Does somebody else have the address (RFC 5227)? Pure: (packet or time) → packets to send and the verdict.
//!
//! The address is in use while this asks. RFC 5227 §2.1 would have it wait for up to seven seconds, and no boot shall
//! wait for what hardly ever happens: servers ask before they offer. Most others go one step further:
//! systemd-networkd and udhcpc do not ask at all unless they are told to, dhcpcd asks first. Here it is asked at once,
//! and an address that turns out to be somebody's is given up. It is announced (§2.3) only when nobody has answered, so
//! that a mistake does not take the rightful owner's traffic.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::net::netlink::link::HardwareAddress;

/// `PROBE_NUM`, then `ANNOUNCE_NUM`.
const PROBES: u32 = 3;
const ANNOUNCEMENTS: u32 = 2;
/// `PROBE_MIN` and `ANNOUNCE_WAIT`, `ANNOUNCE_INTERVAL`.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(2);

/// Bytes of an ARP packet for Ethernet and IPv4 (RFC 826).
const SIZE: usize = 28;
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;

/// One address being asked for.
#[derive(Debug)]
pub struct Question {
    address: Ipv4Addr,
    own: HardwareAddress,
    sent: u32,
    next: Duration,
}

/// What is to be done at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this to everyone.
    Send([u8; SIZE]),
    /// It is too early.
    Wait,
    /// Nobody has it.
    Done,
}

impl Question {
    /// Begins at `now`.
    #[must_use]
    pub const fn new(address: Ipv4Addr, own: HardwareAddress, now: Duration) -> Self {
        Self {
            address,
            own,
            sent: 0,
            next: now,
        }
    }

    /// When [`Question::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Duration {
        self.next
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) -> Step {
        if self.next > now {
            return Step::Wait;
        }
        let sent = self.sent;
        self.sent += 1;
        let is_probe = sent < PROBES;
        let pauses_long = sent + 1 >= PROBES;
        self.next = now
            + if pauses_long {
                ANNOUNCE_PAUSE
            } else {
                PROBE_PAUSE
            };
        if sent >= PROBES + ANNOUNCEMENTS {
            return Step::Done;
        }
        // A probe says nothing of its sender's address, an announcement does.
        let sender = if is_probe {
            Ipv4Addr::UNSPECIFIED
        } else {
            self.address
        };
        Step::Send(encode(self.own, sender, self.address))
    }

    /// Whose packet says that the address is its own; `None`: this one says nothing of it.
    #[must_use]
    pub fn owner(&self, packet: &[u8]) -> Option<HardwareAddress> {
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
        loop {
            let now = question.next_deadline();
            match question.tick(now) {
                Step::Send(packet) => {
                    assert_eq!(packet[24..], ADDRESS.octets());
                    senders.push(packet[14..18] == ADDRESS.octets());
                }
                Step::Wait => panic!("the deadline is now"),
                Step::Done => break,
            }
            assert_eq!(question.tick(now), Step::Wait);
        }
        assert_eq!(senders, [false, false, false, true, true]);
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
