//! The child `uplink`: all of the machine's interfaces in one loop.
//!
//! It makes and sets up links ([`links`]), keeps each interface ([`port`]), and tells what they have ([`told`]): facts
//! for `resolver` and `ntp`, `resolv.conf`, the hostname, and lines for PID 1. What decides is pure ([`matching`],
//! [`conflict`], [`router`], the DHCP clients); what is here only waits and carries.
//!
//! It may end at any time: what it did stays in the kernel, and the next one takes it over. SIGTERM releases the leases,
//! SIGINT keeps them for the machine that comes back.

pub mod conflict;
pub mod dhcp4;
pub mod dhcp6;
pub mod exchange;
pub mod lease_file;
pub mod links;
pub mod lookup;
pub mod matching;
pub mod pace;
pub mod port;
pub mod router;
pub mod sockets;
pub mod solicitation;
pub mod told;
pub mod tunnel;
pub mod tunnels;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::boot::{BootAddress, BootSpec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::system::sethostname;
use rustix::time::Timespec;

use super::facts::{FACTS, Facts};
use super::message::{Message, note};
use super::netlink::address::{self, Address, DUPLICATE, TENTATIVE};
use super::netlink::monitor::{News, group};
use super::netlink::{Monitor, Socket};
use super::pulse::Pulse;
use super::{RESOLV_CONF, overwrite, write_hosts};
use crate::console::now;
use crate::{sys, system};
use links::Links;
use pace::Pace;
use port::Port;
use told::{Fixed, Told};

const GROUPS: u32 = group::LINK | group::IPV6_ADDRESS | group::IPV6_LINK | group::ROUTER_OPTION;
/// After so long what an interface still lacks is told as lost: a process before this one may have told that it was there.
const TRUST: Duration = Duration::from_secs(10);
/// `IFA_F_OPTIMISTIC`: used although it is not known yet whether somebody else has it.
const OPTIMISTIC: u32 = 0x04;

/// Runs until it is told to end or cannot go on; returns the exit status.
#[must_use]
pub fn run() -> i32 {
    let result = system::read_spec().and_then(|spec| {
        let failed = |error: io::Error| format!("cannot begin: {error}");
        let signals = sys::catch_signals(&[libc::SIGTERM, libc::SIGINT]).map_err(failed)?;
        let mut uplink = Uplink::new(&spec).map_err(failed)?;
        uplink.serve(&signals);
        Ok(())
    });
    match result {
        Ok(()) => 0,
        Err(reason) => {
            note(reason);
            1
        }
    }
}

/// Everything that the child holds.
struct Uplink {
    ports: Vec<Port>,
    links: Links,
    netlink: Socket,
    monitor: Monitor,
    fixed: Fixed,
    /// Where the state is mounted.
    state: Option<PathBuf>,
    /// The machine's name as the file has it.
    hostname: String,
    /// What was told last, by interface.
    told: Vec<Option<Told>>,
    facts: Option<Facts>,
    /// The workloads' addresses.
    pools: Vec<BootAddress>,
    /// Of telling.
    pace: Pace,
    /// When [`TRUST`] ends, until then.
    trust_until: Option<Duration>,
    pulse: Pulse,
}

impl Uplink {
    fn new(spec: &BootSpec) -> io::Result<Self> {
        // News come from now on, so that nothing is missed between the list and the first one.
        let monitor = Monitor::open(GROUPS)?;
        let now = now();
        let interfaces = spec.interfaces.iter().cloned();
        let pools = pools(spec);
        let inside = inside(spec);
        let mut uplink = Self {
            ports: interfaces
                .map(|interface| Port::new(interface, pools.clone(), inside.clone(), now))
                .collect(),
            links: Links::default(),
            netlink: Socket::open()?,
            monitor,
            fixed: fixed(spec),
            state: spec
                .state
                .as_ref()
                .map(|state| PathBuf::from(&state.mount_point)),
            hostname: spec.hostname.clone(),
            told: vec![None; spec.interfaces.len()],
            facts: None,
            pools: pools.clone(),
            pace: Pace::new(now),
            trust_until: Some(now + TRUST),
            pulse: Pulse::new(now),
        };
        uplink.look(now);
        Ok(uplink)
    }

    fn serve(&mut self, signals: &OwnedFd) {
        loop {
            let now = now();
            for port in &mut self.ports {
                port.tick(&mut self.netlink, now);
            }
            self.publish(now);
            self.end_trust(now);
            self.pulse.beat(now);
            self.wait(signals);
            let mut numbers = [0_u8; 16];
            if let Ok(size) = rustix::io::read(signals, &mut numbers) {
                let comes_back = numbers[..size]
                    .iter()
                    .any(|&number| i32::from(number) == libc::SIGINT);
                return self.end(comes_back);
            }
            self.hear();
        }
    }

    /// Until something happens or is due.
    fn wait(&self, signals: &OwnedFd) {
        let deadlines = self.ports.iter().filter_map(Port::next_deadline);
        let deadlines = deadlines.chain(self.pace.next_deadline());
        let deadlines = deadlines.chain(self.trust_until);
        let deadlines = deadlines.chain([self.pulse.next_deadline()]);
        let timeout = deadlines.min().map(|deadline| {
            let left = deadline.saturating_sub(now());
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let ports = self.ports.iter().flat_map(Port::descriptors);
        let mut waiting = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(&self.monitor, PollFlags::IN),
        ];
        waiting.extend(ports.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let _ = poll(&mut waiting, timeout.as_ref());
    }

    fn end(&mut self, comes_back: bool) {
        if !comes_back {
            let now = now();
            for port in &mut self.ports {
                port.release(now);
            }
        }
    }

    /// Looks at everything anew.
    fn look(&mut self, now: Duration) {
        if let Err(refused) = self.links.list(&mut self.netlink) {
            note(format_args!("cannot list the links: {refused}"));
        }
        self.reconcile(now);
        let addresses = self.netlink.list(&address::list(), Address::read);
        for address in addresses.unwrap_or_default() {
            self.on_address(&address, true, now);
        }
    }

    fn hear(&mut self) {
        let news = self.monitor.read();
        let now = now();
        let mut changed = false;
        for one in news {
            match one {
                News::Link(link) => {
                    self.links.update(link);
                    changed = true;
                }
                News::LinkGone(link) => {
                    self.links.remove(link.index);
                    changed = true;
                }
                News::Address(address) => self.on_address(&address, true, now),
                News::AddressGone(address) => self.on_address(&address, false, now),
                News::RouterOption { index, bytes } => {
                    if let Some(port) = self.port(index) {
                        port.advise(&bytes, now);
                    }
                }
                News::Lost => return self.look(now),
                News::Route(_) | News::RouteGone(_) | News::Prefix(_) => {}
            }
        }
        if changed {
            self.reconcile(now);
        }
    }

    fn port(&mut self, index: u32) -> Option<&mut Port> {
        self.ports
            .iter_mut()
            .find(|port| port.index() == Some(index))
    }

    fn on_address(&mut self, told: &Address, there: bool, now: Duration) {
        let IpAddr::V6(address) = told.address else {
            return;
        };
        let Some(at) = (0..self.ports.len()).find(|&at| self.ports[at].index() == Some(told.index))
        else {
            return;
        };
        let is_running = self
            .links
            .get(told.index)
            .is_some_and(|link| link.is_running());
        let port = &mut self.ports[at];
        // One with an end that is somebody else's is removed by the kernel.
        let is_taken = !there && is_running && port.has_leased6(address);
        if told.flags & DUPLICATE != 0 || is_taken {
            port.on_duplicate6(address, &mut self.netlink, now);
        }
        let usable = told.flags & TENTATIVE == 0 || told.flags & OPTIMISTIC != 0;
        let usable = usable && told.flags & DUPLICATE == 0;
        port.set_address6(address, told.prefix, there && usable);
    }

    /// Makes what is missing, and gives each interface its link.
    fn reconcile(&mut self, now: Duration) {
        while self.make() {
            if let Err(refused) = self.links.list(&mut self.netlink) {
                note(format_args!("cannot list the links: {refused}"));
                break;
            }
        }
        let specs: Vec<_> = self.ports.iter().map(|port| port.spec.clone()).collect();
        let held: Vec<_> = self.ports.iter().map(Port::index).collect();
        let indices = matching::assign(&specs, &held, &self.links.seen());
        for (at, index) in indices.iter().enumerate() {
            if held[at].is_some() && held[at] != *index {
                self.ports[at].detach(now);
            }
            let Some(link) = index.and_then(|index| self.links.get(index)) else {
                continue;
            };
            let master = specs[at].master.as_deref();
            let master =
                master.and_then(|master| specs.iter().position(|spec| spec.label == master));
            let master = master.and_then(|place| {
                Some((indices[place]?, links::wants_parts_down(&specs[place].link)))
            });
            let joins = master.is_some_and(|(master, _)| link.master != Some(master));
            let port = &mut self.ports[at];
            // What was refused makes news of the link, upon which it must not be tried again at once.
            let joins = joins && port.may_join(now);
            if held[at] != *index || joins {
                let result = links::set_up(link, &specs[at], master, &mut self.netlink);
                port.joins(now);
                port.check(result.map_err(|refused| refused.to_string()));
            }
            if held[at] != *index {
                port.attach(link, &mut self.netlink, now);
            }
            port.update(link, self.state.as_deref(), &mut self.netlink, now);
        }
    }

    /// Makes one link that is missing; whether it did.
    fn make(&mut self) -> bool {
        let lower: Vec<(String, Option<u32>)> = self
            .ports
            .iter()
            .map(|port| (port.spec.label.clone(), port.index()))
            .collect();
        let find = |label: &str| lower.iter().find(|(other, _)| other == label)?.1;
        for port in &mut self.ports {
            match self.links.make(&port.spec, find, &mut self.netlink) {
                Ok(false) => {}
                Ok(true) => return true,
                Err(reason) => port.check(Err(reason)),
            }
        }
        false
    }

    /// Tells what is otherwise than before.
    fn publish(&mut self, now: Duration) {
        let told: Vec<Option<Told>> = self.ports.iter().map(Port::told).collect();
        let is_same = self.facts.is_some() && told == self.told;
        if !self.pace.may(!is_same, now) {
            return;
        }
        // The facts come first: who hears that the network is there may look at them.
        let has_changed = self.publish_facts(&told);
        let mut pairs = told.iter().zip(&self.told);
        let is_back = pairs.any(|(new, old)| new.is_some() && old.is_none());
        if is_back && !has_changed {
            // Where the file fixes all facts they are the same as before, but now there is a way to the servers.
            Message::Changed.tell();
        }
        for ((port, new), old) in self.ports.iter().zip(&told).zip(&self.told) {
            let label = port.spec.label.clone();
            let text = new.as_ref().map(Told::describe);
            match text {
                Some(text) if old.as_ref().map(Told::describe).as_ref() != Some(&text) => {
                    Message::Bound { label, text }.tell();
                    self.tell_meeting(port, new.as_ref());
                }
                None if old.is_some() => Message::Lost { label }.tell(),
                _ => {}
            }
        }
        self.told = told;
    }

    /// A network that has workloads' addresses is one that the machine cannot reach all of.
    fn tell_meeting(&self, port: &Port, told: Option<&Told>) {
        for address in told.iter().flat_map(|told| &told.addresses) {
            if let Some(pool) = self.pools.iter().find(|pool| pool.meets(address)) {
                note(format_args!(
                    "{}: the network of {address} meets the workloads' addresses, {pool}: choose another pool for them",
                    port.spec.label
                ));
            }
        }
    }

    fn end_trust(&mut self, now: Duration) {
        if self.trust_until.is_none_or(|at| at > now) {
            return;
        }
        self.trust_until = None;
        for (port, told) in self.ports.iter().zip(&self.told) {
            if told.is_none() {
                let label = port.spec.label.clone();
                Message::Lost { label }.tell();
            }
        }
    }

    /// Whether there were any other than before.
    fn publish_facts(&mut self, told: &[Option<Told>]) -> bool {
        let known: Vec<&Told> = told.iter().flatten().collect();
        let facts = told::facts(&known, &self.fixed);
        if self.facts.as_ref() == Some(&facts) {
            return false;
        }
        if let Err(error) = overwrite(RESOLV_CONF, &told::resolv_conf(&facts)) {
            note(format_args!("cannot write {RESOLV_CONF}: {error}"));
        }
        let name_before = self
            .facts
            .as_ref()
            .and_then(|facts| facts.hostname.as_ref());
        if name_before != facts.hostname.as_ref() {
            let name = facts.hostname.as_ref().unwrap_or(&self.hostname);
            let named = sethostname(name.as_bytes()).map_err(io::Error::from);
            if let Err(error) = named.and_then(|()| write_hosts(name)) {
                note(format_args!("cannot set the hostname {name}: {error}"));
            }
        }
        match facts.write(Path::new(FACTS)) {
            Ok(()) => Message::Changed.tell(),
            Err(error) => note(format_args!("cannot write {FACTS}: {error}")),
        }
        self.facts = Some(facts);
        true
    }
}

/// The addresses of workloads, where there may be any.
fn pools(spec: &BootSpec) -> Vec<BootAddress> {
    let fabric = spec.fabric.as_ref().filter(|f| !f.endpoints.is_empty());
    fabric.map_or_else(Vec::new, |fabric| {
        let (v4, v6) = (fabric.pool, fabric.pool6);
        let pool = |address, prefix| BootAddress { address, prefix };
        vec![pool(v4.0.into(), v4.1), pool(v6.0.into(), v6.1)]
    })
}

/// The addresses that workloads and their router have.
fn inside(spec: &BootSpec) -> Vec<IpAddr> {
    let fabric = spec.fabric.iter().filter(|f| !f.endpoints.is_empty());
    fabric
        .flat_map(|fabric| {
            let workloads = fabric.endpoints.iter().map(|e| (e.address, e.address6));
            workloads.chain([(fabric.gateway, fabric.gateway6)])
        })
        .flat_map(|(v4, v6)| [IpAddr::V4(v4), IpAddr::V6(v6)])
        .collect()
}

fn fixed(spec: &BootSpec) -> Fixed {
    let dns: Vec<String> = spec.dns.iter().map(ToString::to_string).collect();
    Fixed {
        dns: (!dns.is_empty()).then_some(dns),
        search: (!spec.search.is_empty()).then(|| spec.search.clone()),
        ntp: spec.ntp.clone(),
        hostname: spec.hostname_fixed,
    }
}
