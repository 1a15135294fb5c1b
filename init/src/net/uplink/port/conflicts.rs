//! Whether somebody else has an address of an interface's: asked, heard, and what follows.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

use super::Port;
use crate::net::message::note;
use crate::net::netlink::Socket;
use crate::net::netlink::link::HardwareAddress;
use crate::net::uplink::conflict::{Question, Step, Verdict, show};
use crate::net::uplink::dhcp4::Dhcp4;
use crate::sys::packet;

/// What is read of one link's ARP packets in one turn.
const PACKETS_AT_ONCE: usize = 64;

/// An address being asked for, or defended.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) socket: OwnedFd,
    pub(super) address: Ipv4Addr,
}

impl Port {
    /// Asks whether somebody else has the address.
    pub(super) fn ask(&mut self, address: Ipv4Addr, now: Duration) {
        let Some(link) = &self.link else { return };
        self.asked.retain(|asked| asked.address != address);
        match packet::open_arp(link.index, address, link.hardware) {
            Ok(socket) => self.asked.push(Asked {
                question: Question::new(address, link.hardware, now),
                socket,
                address,
            }),
            Err(error) => self.check(Err(format!("cannot ask for {address}: {error}"))),
        }
    }

    pub(super) fn tick_questions(&mut self, netlink: &mut Socket, now: Duration) {
        let Some(index) = self.index() else { return };
        let mut owned = Vec::new();
        self.asked.retain_mut(|asked| {
            if let Some(owner) = asked.receive(index, now) {
                owned.push((asked.address, owner));
                return false;
            }
            if let Step::Send(packet) = asked.question.tick(now) {
                // A link that cannot send now is asked again by the next packet.
                let _ = packet::send_arp(&asked.socket, index, &packet);
            }
            true
        });
        for (address, owner) in owned {
            self.on_conflict(address, owner, netlink, now);
        }
    }

    fn on_conflict(
        &mut self,
        address: Ipv4Addr,
        owner: HardwareAddress,
        netlink: &mut Socket,
        now: Duration,
    ) {
        let label = &self.spec.label;
        let owner = show(owner);
        let leased = self.dhcp4.as_ref().and_then(Dhcp4::bound);
        if leased.is_none_or(|grant| grant.address != address) {
            note(format_args!(
                "{label}: {address} is the address of {owner} too"
            ));
            return;
        }
        note(format_args!(
            "{label}: {address} is the address of {owner}: declined"
        ));
        if let Some(client) = &mut self.dhcp4 {
            let result = client.decline(now, netlink);
            self.check(result);
        }
    }

    /// The kernel found that somebody else has an address of IPv6.
    pub fn on_duplicate6(&mut self, address: Ipv6Addr, netlink: &mut Socket, now: Duration) {
        let label = &self.spec.label;
        let declined = self.dhcp6.as_mut().filter(|client| client.has(address));
        match declined {
            Some(client) => {
                note(format_args!(
                    "{label}: {address} is somebody else's address: declined"
                ));
                let result = client.decline(now, netlink);
                self.check(result);
            }
            None => note(format_args!(
                "{label}: {address} is somebody else's address too"
            )),
        }
    }

    /// Whether an address is there by DHCPv6.
    #[must_use]
    pub fn has_leased6(&self, address: Ipv6Addr) -> bool {
        self.dhcp6
            .as_ref()
            .is_some_and(|client| client.has(address))
    }
}

impl Asked {
    /// Defends the address; whose it is, if it is somebody else's.
    fn receive(&mut self, index: u32, now: Duration) -> Option<HardwareAddress> {
        let mut packet = [0_u8; 64];
        for _ in 0..PACKETS_AT_ONCE {
            let (size, _) = recv(&self.socket, &mut packet[..], RecvFlags::empty()).ok()?;
            match self.question.receive(&packet[..size], now) {
                Verdict::Unconcerned => {}
                Verdict::Defend(packet) => {
                    let _ = packet::send_arp(&self.socket, index, &packet);
                }
                Verdict::Owned(owner) => return Some(owner),
            }
        }
        None
    }
}
