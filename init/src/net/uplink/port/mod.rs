//! One interface of the file: its link, what is on it, and what it was told.

mod conflicts;
mod fixed;
mod telling;

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use config::boot::{BootAddress, BootInterface, BootLink, Ipv6};

use super::dhcp4::{Dhcp4, On};
use super::dhcp6::Dhcp6;
use super::exchange::Exchange;
use super::lease_file::LeaseFile;
use super::router::Advice;
use super::sockets;
use super::solicitation::Solicitation;
use super::tunnels::Tunnel;
use crate::net::dhcp6::client::Want;
use crate::net::message::note;
use crate::net::netlink::Socket;
use crate::net::netlink::link::{HardwareAddress, Link};
use conflicts::Asked;

/// When it is told that a link or its carrier is missing.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least MTU that DHCP may set: IPv6 needs more (RFC 8200 §5) than IPv4 (RFC 791).
const LEAST_MTU: u32 = 576;
const LEAST_MTU6: u32 = 1280;
/// Flags of a router's advertisement as the kernel tells them.
const MANAGED: u32 = 0x40;
const OTHER: u32 = 0x80;

/// The link that the interface has now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Current {
    index: u32,
    device: String,
    hardware: HardwareAddress,
    running: bool,
    /// As it was when it came.
    mtu: u32,
}

/// One interface.
#[derive(Debug)]
pub struct Port {
    /// As the file has it.
    pub spec: BootInterface,
    link: Option<Current>,
    dhcp4: Option<Dhcp4>,
    dhcp6: Option<Dhcp6>,
    advice: Advice,
    asked: Vec<Asked>,
    /// Global addresses of IPv6, by the kernel's word.
    addresses6: Vec<BootAddress>,
    tunnel: Option<Tunnel>,
    /// When it is told what is missing; `None`: it was, or nothing is.
    complain_at: Option<Duration>,
    /// The last thing that failed, so that the same one is told once.
    failed: Option<String>,
    /// When it was tried last to make it part of another link.
    joined_at: Option<Duration>,
    /// When what the file says is put on its link again; `None`: it is there.
    put_again_at: Option<Duration>,
    /// There was a carrier before.
    was_running: bool,
    /// Routers are asked again.
    solicitation: Solicitation,
    /// The workloads' addresses.
    pools: Vec<BootAddress>,
    /// Those of them that somebody has.
    inside: Vec<IpAddr>,
}

impl Port {
    /// Has no link yet.
    #[must_use]
    pub fn new(
        spec: BootInterface,
        pools: Vec<BootAddress>,
        inside: Vec<IpAddr>,
        now: Duration,
    ) -> Self {
        let tunnel = match &spec.link {
            BootLink::WireGuard(tunnel) => Some(Tunnel::new(tunnel.clone())),
            _ => None,
        };
        Self {
            spec,
            link: None,
            dhcp4: None,
            dhcp6: None,
            advice: Advice::default(),
            asked: Vec::new(),
            addresses6: Vec::new(),
            tunnel,
            complain_at: Some(now + PATIENCE),
            failed: None,
            joined_at: None,
            put_again_at: None,
            was_running: false,
            solicitation: Solicitation::default(),
            pools,
            inside,
        }
    }

    /// Whether it is to be tried to make it part of another link. Not for a while after it was: a refusal makes news of
    /// the link, and so does a success, of which the first ones show it as no part yet.
    #[must_use]
    pub fn may_join(&self, now: Duration) -> bool {
        self.joined_at.is_none_or(|at| now >= at + PATIENCE)
    }

    /// It is tried.
    pub const fn joins(&mut self, now: Duration) {
        self.joined_at = Some(now);
    }

    /// The index of its link.
    #[must_use]
    pub fn index(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.index)
    }

    /// Tells what failed, once.
    pub fn check(&mut self, result: Result<(), String>) {
        if let Err(text) = result
            && self.failed.as_ref() != Some(&text)
        {
            note(format_args!("{}: {text}", self.spec.label));
            self.failed = Some(text);
        }
    }

    /// Its link is there and set up: what the file says of it is put on it.
    pub fn attach(&mut self, link: &Link, netlink: &mut Socket, now: Duration) {
        self.link = Some(Current {
            index: link.index,
            device: link.name.clone(),
            hardware: link.hardware_address.unwrap_or_default(),
            running: false,
            mtu: link.mtu,
        });
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.forget();
        }
        self.put(netlink, now);
    }

    /// Its link is gone, and everything with it.
    pub fn detach(&mut self, now: Duration) {
        self.link = None;
        self.put_again_at = None;
        self.joined_at = None;
        self.was_running = false;
        self.solicitation = Solicitation::default();
        self.dhcp4 = None;
        self.dhcp6 = None;
        self.advice = Advice::default();
        self.asked.clear();
        self.addresses6.clear();
        self.complain_at = Some(now + PATIENCE);
    }

    /// Its link is otherwise than before.
    pub fn update(
        &mut self,
        link: &Link,
        state: Option<&Path>,
        netlink: &mut Socket,
        now: Duration,
    ) {
        let Some(current) = &mut self.link else {
            return;
        };
        current.device.clone_from(&link.name);
        let hardware = link.hardware_address.unwrap_or_default();
        let other_hardware = std::mem::replace(&mut current.hardware, hardware) != hardware;
        let was_running = std::mem::replace(&mut current.running, link.is_running());
        if self.spec.master.is_some() {
            self.complain_at = None;
            return;
        }
        if other_hardware {
            // A bond has the address of its first part, which comes mostly while there is no carrier: who it was with
            // another one is nobody any more, and does not defend what it had.
            self.asked.clear();
            if let Some(client) = self.dhcp4.take() {
                client.abandon(netlink);
            }
            if let Some(client) = self.dhcp6.take() {
                client.abandon(netlink);
            }
        }
        if link.is_running() && (!was_running || other_hardware) {
            self.complain_at = None;
            self.begin(state, netlink, now);
        }
        if !link.is_running() && was_running {
            self.complain_at = Some(now + PATIENCE);
            self.asked.clear();
        }
        self.want(link.router_flags.unwrap_or(0), now);
    }

    /// There is a carrier, for the first time or again.
    fn begin(&mut self, state: Option<&Path>, netlink: &mut Socket, now: Duration) {
        let Some(link) = self.link.clone() else {
            return;
        };
        if std::mem::replace(&mut self.was_running, true) && self.spec.ipv6 == Ipv6::Auto {
            // The kernel asks for routers the first time only; this may be another network.
            self.solicitation.begin(now);
        }
        if let Some(client) = &mut self.dhcp4 {
            client.link_is_back(now);
        } else if self.spec.dhcp {
            let least = if self.spec.ipv6 == Ipv6::Off {
                LEAST_MTU
            } else {
                LEAST_MTU6
            };
            let on = On {
                index: link.index,
                device: link.device.clone(),
                hardware: link.hardware,
                metric: self.spec.metric,
                least_mtu: self.spec.mtu.is_none().then_some(least),
                mtu: link.mtu,
                pool: self
                    .pools
                    .iter()
                    .copied()
                    .find(|pool| pool.address.is_ipv4()),
                inside: self.inside.clone(),
            };
            let file = state.map(|state| LeaseFile::new(state, &self.spec.label));
            match Dhcp4::new(on, file, now) {
                Ok(client) => self.dhcp4 = Some(client),
                Err(error) => self.check(Err(format!("no DHCP: {error}"))),
            }
        }
        if let Some(client) = &mut self.dhcp6 {
            client.link_is_back(now);
        } else if self.spec.ipv6 == Ipv6::Auto {
            let inside = self.inside.clone();
            match Dhcp6::new(
                link.index,
                &link.device,
                link.hardware,
                self.spec.group,
                inside,
            ) {
                Ok(client) => self.dhcp6 = Some(client),
                Err(error) => self.check(Err(format!("no DHCPv6: {error}"))),
            }
        }
        self.advice.doubt(now);
        // Who has come to the network meanwhile may have an address of this machine's.
        let leased = self.dhcp4.as_ref().and_then(Dhcp4::bound);
        let leased = leased.map(|grant| IpAddr::from(grant.address));
        let own = self.spec.addresses.iter().map(|own| own.address);
        let own: Vec<IpAddr> = own.chain(leased).collect();
        for address in own {
            if let (IpAddr::V4(address), None) = (address, &self.tunnel) {
                self.ask(address, now);
            }
        }
        self.tick(netlink, now);
    }

    fn want(&mut self, flags: u32, now: Duration) {
        let want = match flags {
            flags if flags & MANAGED != 0 => Want::Address,
            flags if flags & OTHER != 0 => Want::Information,
            _ => Want::Nothing,
        };
        if let Some(client) = &mut self.dhcp6 {
            client.want(want, now);
        }
    }

    /// Time passed, or there may be packets.
    pub fn tick(&mut self, netlink: &mut Socket, now: Duration) {
        self.complain(now);
        let Some(link) = self.link.clone() else {
            return;
        };
        if self.put_again_at.is_some_and(|at| at <= now) {
            self.put(netlink, now);
        }
        if self.advice.next_deadline().is_some_and(|at| at <= now) {
            self.advice.expire(now);
        }
        if !link.running {
            return;
        }
        if let Some(client) = &mut self.dhcp4 {
            let before = client.bound().map(|grant| grant.address);
            let received = client.receive(now, netlink);
            let ticked = client.tick(now, netlink);
            let after = client.bound().map(|grant| grant.address);
            self.check(received);
            self.check(ticked);
            if before != after {
                self.asked.retain(|asked| Some(asked.address) != before);
                if let Some(address) = after {
                    self.ask(address, now);
                }
            }
        }
        if let Some(client) = &mut self.dhcp6 {
            let received = client.receive(now, netlink);
            let ticked = client.tick(now, netlink);
            self.check(received);
            self.check(ticked);
        }
        let index = link.index;
        if self.solicitation.is_due(now) {
            // A link that cannot send yet is asked by again soon.
            let _ = sockets::solicit_routers(index, &link.device);
        }
        if let Some(tunnel) = &mut self.tunnel {
            let result = tunnel.tick(index, now);
            self.check(result);
        }
        self.tick_questions(netlink, now);
    }

    /// A router told something that the kernel does not use itself.
    pub fn advise(&mut self, option: &[u8], now: Duration) {
        if self.spec.ipv6 == Ipv6::Auto {
            self.advice.take(option, now);
        }
    }

    /// An address of IPv6 is there, or not any more.
    pub fn set_address6(&mut self, address: Ipv6Addr, prefix: u8, there: bool) {
        let own = BootAddress {
            address: address.into(),
            prefix,
        };
        self.addresses6.retain(|other| other.address != own.address);
        if there && !address.is_unicast_link_local() {
            self.addresses6.push(own);
        }
    }

    /// When [`Port::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let running = self.link.as_ref().is_some_and(|link| link.running);
        let clients = [
            self.dhcp4.as_ref().and_then(Dhcp4::next_deadline),
            self.dhcp6.as_ref().and_then(Dhcp6::next_deadline),
            self.tunnel.as_ref().and_then(Tunnel::next_deadline),
            self.solicitation.next_deadline(),
        ];
        let questions = self
            .asked
            .iter()
            .filter_map(|asked| asked.question.next_deadline());
        let clients = clients.into_iter().flatten().chain(questions);
        let always = [
            self.complain_at,
            self.put_again_at,
            self.advice.next_deadline(),
        ];
        let clients = clients.filter(|_| running);
        always.into_iter().flatten().chain(clients).min()
    }

    /// What is to be waited for: what [`Port::tick`] would read now.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let running = self.link.as_ref().is_some_and(|link| link.running);
        let dhcp4 = self.dhcp4.iter().map(|client| client.socket().as_fd());
        let dhcp6 = self.dhcp6.iter().map(|client| client.socket().as_fd());
        let asked = self.asked.iter().map(|asked| asked.socket.as_fd());
        let all = dhcp4.chain(dhcp6).chain(asked);
        // A packet that came before the carrier went would wake the loop without end.
        all.filter(move |_| running)
    }

    /// The machine ends and will not come back at once.
    pub fn release(&mut self, now: Duration) {
        if let Some(client) = self.dhcp4.take() {
            client.release();
        }
        if let Some(client) = &mut self.dhcp6 {
            client.release(now);
        }
    }
}
