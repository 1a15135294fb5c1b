//! One interface of the file: its link, what is on it, and what it was told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use config::boot::{BootAddress, BootInterface, BootLink, BootRoute, Ipv6};
use rustix::net::{RecvFlags, recv};

use super::conflict::{Question, Step, Verdict, show};
use super::dhcp4::{self, Dhcp4, On};
use super::dhcp6::Dhcp6;
use super::lease_file::LeaseFile;
use super::router::Advice;
use super::told::Told;
use super::tunnels::Tunnel;
use crate::net::dhcp6::client::Want;
use crate::net::message::note;
use crate::net::netlink::Socket;
use crate::net::netlink::address::Address;
use crate::net::netlink::link::{HardwareAddress, Link};
use crate::net::netlink::route::{Origin, Route};
use crate::sys::packet;

/// When it is told that a link or its carrier is missing.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least MTU that DHCP may set: IPv6 needs more (RFC 8200 §5) than IPv4 (RFC 791).
const LEAST_MTU: u32 = 576;
const LEAST_MTU6: u32 = 1280;
/// Flags of a router's advertisement as the kernel tells them.
const MANAGED: u32 = 0x40;
const OTHER: u32 = 0x80;
/// What is read of one link's ARP packets in one turn.
const PACKETS_AT_ONCE: usize = 64;

/// The link that the interface has now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Current {
    index: u32,
    device: String,
    hardware: HardwareAddress,
    running: bool,
}

/// An address being asked for, or defended.
#[derive(Debug)]
struct Asked {
    question: Question,
    socket: OwnedFd,
    address: Ipv4Addr,
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
    /// When it was refused to be part of another link.
    refused_at: Option<Duration>,
}

impl Port {
    /// Has no link yet.
    #[must_use]
    pub fn new(spec: BootInterface, now: Duration) -> Self {
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
            refused_at: None,
        }
    }

    /// Whether it is to be tried to make it part of another link: after a refusal not for a while.
    #[must_use]
    pub fn may_join(&self, now: Duration) -> bool {
        self.refused_at.is_none_or(|at| now >= at + PATIENCE)
    }

    /// It was tried.
    pub fn joined(&mut self, is_done: bool, now: Duration) {
        self.refused_at = (!is_done).then_some(now);
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
        });
        if let Some(tunnel) = &mut self.tunnel {
            let result = tunnel.set(link.index, now);
            self.check(result);
        }
        let result = self.set_static(link.index, netlink);
        self.check(result);
    }

    /// Its link is gone, and everything with it.
    pub fn detach(&mut self, now: Duration) {
        self.link = None;
        self.dhcp4 = None;
        self.dhcp6 = None;
        self.advice = Advice::default();
        self.asked.clear();
        self.addresses6.clear();
        self.complain_at = Some(now + PATIENCE);
    }

    fn set_static(&self, index: u32, netlink: &mut Socket) -> Result<(), String> {
        let metric = Some(self.spec.metric);
        let addresses = self.spec.addresses.iter().map(|own| {
            let mut address = Address::new(index, own.address, own.prefix);
            address.metric = metric;
            address.set()
        });
        let gateways = self.spec.gateways.iter().map(|gateway| {
            let mut route = Route::default_by(index, *gateway, Origin::Static);
            route.metric = metric;
            route.set()
        });
        let routes = self.spec.routes.iter();
        let routes = routes.map(|route| self.route(index, route).set());
        let tunnel = self.tunnel.iter().flat_map(Tunnel::networks);
        let tunnel = tunnel.map(|network| {
            let mut route = Route::new(index, network.address, network.prefix, Origin::Static);
            route.metric = metric;
            route.set()
        });
        let requests: Vec<_> = addresses
            .chain(tunnel)
            .chain(routes)
            .chain(gateways)
            .collect();
        netlink
            .request_all(&requests)
            .map_err(|refused| refused.to_string())
    }

    fn route(&self, index: u32, from: &BootRoute) -> Route {
        Route {
            gateway: from.via,
            metric: from.metric.or(Some(self.spec.metric)),
            ..Route::new(index, from.to.address, from.to.prefix, Origin::Static)
        }
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
        if other_hardware && was_running {
            // A bond has the address of its first part: who it was with another one is nobody any more.
            self.dhcp4 = None;
            self.dhcp6 = None;
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
            match Dhcp6::new(link.index, &link.device, link.hardware, self.spec.group) {
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

    /// Asks whether somebody else has the address.
    fn ask(&mut self, address: Ipv4Addr, now: Duration) {
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

    /// Time passed, or there may be packets.
    pub fn tick(&mut self, netlink: &mut Socket, now: Duration) {
        self.complain(now);
        let Some(link) = self.link.clone() else {
            return;
        };
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
        if let Some(tunnel) = &mut self.tunnel {
            let result = tunnel.tick(index, now);
            self.check(result);
        }
        self.tick_questions(netlink, now);
    }

    fn tick_questions(&mut self, netlink: &mut Socket, now: Duration) {
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

    fn complain(&mut self, now: Duration) {
        if self.complain_at.is_none_or(|at| at > now) {
            return;
        }
        self.complain_at = None;
        let label = &self.spec.label;
        match &self.link {
            None => note(format_args!("{label}: waiting for its link")),
            Some(link) if !link.running => {
                note(format_args!(
                    "{label}: waiting for the carrier of {}",
                    link.device
                ));
            }
            Some(_) => {}
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
        ];
        let questions = self
            .asked
            .iter()
            .filter_map(|asked| asked.question.next_deadline());
        let clients = clients.into_iter().flatten().chain(questions);
        let always = [self.complain_at, self.advice.next_deadline()];
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

    /// What it has and knows; `None`: it has no carrier or no address.
    #[must_use]
    pub fn told(&self) -> Option<Told> {
        let link = self.link.as_ref().filter(|link| link.running)?;
        let lease = self.dhcp4.as_ref().and_then(Dhcp4::bound);
        let told6 = self.dhcp6.as_ref().and_then(Dhcp6::told);
        let mut told = Told {
            device: link.device.clone(),
            ..Told::default()
        };
        if let Some(lease) = lease {
            told.addresses.push(BootAddress {
                address: lease.address.into(),
                prefix: lease.prefix,
            });
            told.gateways
                .extend(dhcp4::gateway(lease).map(IpAddr::from));
            told.dns.extend(lease.dns.iter().copied().map(IpAddr::from));
            told.search
                .extend(lease.search.iter().chain(&lease.domain).cloned());
            told.ntp.extend(lease.ntp.iter().copied().map(IpAddr::from));
            told.hostname.clone_from(&lease.hostname);
        }
        for own in self.spec.addresses.iter().chain(&self.addresses6) {
            if !told.addresses.contains(own) {
                told.addresses.push(*own);
            }
        }
        told.gateways.extend(&self.spec.gateways);
        told.dns.extend(self.advice.dns().map(IpAddr::from));
        told.search.extend(self.advice.search().map(str::to_owned));
        if let Some(told6) = told6 {
            // Most networks tell the same ones in both ways.
            let servers = told6.dns.iter().copied().map(IpAddr::from);
            for server in servers {
                if !told.dns.contains(&server) {
                    told.dns.push(server);
                }
            }
            told.search.extend(told6.search.iter().cloned());
            told.ntp.extend(told6.ntp.iter().copied().map(IpAddr::from));
        }
        (!told.addresses.is_empty()).then_some(told)
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
