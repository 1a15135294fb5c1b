//! DHCPv4 on one link: the socket and the kernel around [`Client`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use config::boot::BootAddress;

use crate::net::dhcp::client::{Client, Known, Output};
use crate::net::dhcp::message::{self, Grant, Identity, Reply, Request};
use crate::net::message::note;
use crate::net::netlink::address::Address;
use crate::net::netlink::link::{self, HardwareAddress, Wishes};
use crate::net::netlink::route::{Origin, Route};
use crate::net::netlink::{Refused, Socket};

use super::exchange::Exchange;
use super::lease_file::LeaseFile;
use super::sockets;

/// A route as DHCP tells it: network, prefix, router.
type Destination = (Ipv4Addr, u8, Ipv4Addr);

/// The link as this needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct On {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub device: String,
    /// Its address.
    pub hardware: HardwareAddress,
    /// Of the routes.
    pub metric: u32,
    /// What DHCP may set: at least so many bytes; `None`: the file says it.
    pub least_mtu: Option<u32>,
    /// Its MTU before DHCP set any.
    pub mtu: u32,
    /// The workloads' addresses, to which nobody outside has the way.
    pub pool: Option<BootAddress>,
    /// Those that workloads and their router have.
    pub inside: Vec<IpAddr>,
}

/// The client of one link.
#[derive(Debug)]
pub struct Dhcp4 {
    on: On,
    client: Client,
    socket: UdpSocket,
    identity: Identity,
    begun: Duration,
    bound: Option<Grant>,
    file: Option<LeaseFile>,
    /// It was told that an address is refused.
    has_refused: bool,
}

impl Dhcp4 {
    /// Begins at `now`, with the address of before if one is known.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(on: On, file: Option<LeaseFile>, now: Duration) -> io::Result<Self> {
        let socket = sockets::open(&on.device)?;
        let known = file.as_ref().and_then(|file| file.read(on.hardware));
        let identity = Identity {
            xid: sockets::random(),
            hardware_address: on.hardware,
            hostname: hostname(),
        };
        Ok(Self {
            client: Client::new(now, known, sockets::random()),
            on,
            socket,
            identity,
            begun: now,
            bound: None,
            file,
            has_refused: false,
        })
    }

    /// The lease whose address is on the link.
    #[must_use]
    pub const fn bound(&self) -> Option<&Grant> {
        self.bound.as_ref()
    }

    /// When [`Exchange::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.client.next_deadline()
    }

    /// The link was lost and is back.
    pub fn link_is_back(&mut self, now: Duration) {
        self.begun = now;
        self.client.link_is_back(now);
    }

    /// Somebody else has the address.
    ///
    /// # Errors
    /// As [`Exchange::tick`].
    pub fn decline(&mut self, now: Duration, netlink: &mut Socket) -> Result<(), String> {
        let outputs = self.client.decline(now);
        if let Some(file) = &self.file {
            file.remove();
        }
        self.perform(outputs, now, netlink)
    }

    /// The machine ends, and its address is not needed any more. What is on record is a wish from now on.
    pub fn release(self) {
        let Some(Output::Unicast(request, server)) = self.client.release() else {
            return;
        };
        let bytes = message::encode(&self.identity, &request, 0);
        let _ = self.socket.send_to(&bytes, sockets::server(Some(server)));
        if let (Some(file), Some(grant)) = (&self.file, &self.bound) {
            let _ = file.write(Known::Released(grant.address), self.on.hardware);
        }
    }

    /// The link has become another one: its address goes, and nobody is told.
    pub fn abandon(mut self, netlink: &mut Socket) {
        self.unbind(netlink);
    }

    fn send(
        &self,
        request: &Request,
        server: Option<Ipv4Addr>,
        now: Duration,
    ) -> Result<(), String> {
        let seconds = u16::try_from(now.saturating_sub(self.begun).as_secs()).unwrap_or(u16::MAX);
        let bytes = message::encode(&self.identity, request, seconds);
        let sent = self.socket.send_to(&bytes, sockets::server(server));
        sent.map(drop).map_err(|error| error.to_string())
    }

    fn bind(&mut self, grant: Grant, netlink: &mut Socket) -> Result<(), Refused> {
        let (old_address, old_routes) = match &self.bound {
            Some(old) => (Some((old.address, old.prefix)), self.routes_of(old)),
            None => (None, Vec::new()),
        };
        if old_address.is_some_and(|old| old != (grant.address, grant.prefix)) {
            self.unbind(netlink);
        }
        if self.bound.as_ref().map(|old| &old.routes) != Some(&grant.routes) {
            self.tell_refused(&grant);
        }
        let routes = self.routes_of(&grant);
        let mut address = Address::new(self.on.index, grant.address.into(), grant.prefix);
        address.valid = grant.seconds;
        address.preferred = grant.seconds;
        address.metric = Some(self.on.metric);
        let mut requests = vec![address.set()];
        requests.extend(routes.iter().map(Route::set));
        let is_old = |route: &&Route| !routes.contains(route);
        requests.extend(old_routes.iter().filter(is_old).map(Route::remove));
        requests.extend(self.mtu_of(&grant));
        if let Some(file) = &self.file {
            // A state that cannot be written is told of by who keeps it.
            let _ = file.write(Known::Held(grant.address), self.on.hardware);
        }
        self.bound = Some(grant);
        let refused = netlink.request_each(&requests)?;
        // A route that the change of an address took along is gone, which is all that was wanted.
        let wanted = 1 + routes.len();
        match refused.into_iter().find(|refused| refused.request < wanted) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    fn mtu_of(&self, grant: &Grant) -> Option<crate::net::netlink::message::Request> {
        let mtu = u32::from(grant.mtu?);
        let wishes = Wishes {
            mtu: Some(mtu).filter(|&mtu| self.on.least_mtu.is_some_and(|least| mtu >= least)),
            ..Wishes::default()
        };
        wishes.mtu.map(|_| link::change(self.on.index, &wishes))
    }

    /// Routes into the workloads' addresses are not taken: what is for a workload is not for the outside.
    fn is_refused(&self, &(destination, prefix, _): &Destination) -> bool {
        let within =
            |pool: &BootAddress| pool.prefix <= prefix && pool.contains(destination.into());
        self.on.pool.as_ref().is_some_and(within)
    }

    fn tell_refused(&self, grant: &Grant) {
        for route in grant.routes.iter().filter(|route| self.is_refused(route)) {
            note(format_args!(
                "DHCP on {}: the route to {}/{} is refused, it is in the workloads' addresses",
                self.on.device, route.0, route.1
            ));
        }
    }

    /// The kernel removes the routes with the address.
    fn unbind(&mut self, netlink: &mut Socket) {
        if let Some(old) = self.bound.take() {
            let address = Address::new(self.on.index, old.address.into(), old.prefix);
            let _ = netlink.request(&address.remove());
            if self.mtu_of(&old).is_some() {
                let before = Wishes {
                    mtu: Some(self.on.mtu),
                    ..Wishes::default()
                };
                let _ = netlink.request(&link::change(self.on.index, &before));
            }
            if let Some(file) = &self.file {
                file.remove();
            }
        }
    }

    /// Routes on the link come first: routers may stand behind them.
    fn routes_of(&self, grant: &Grant) -> Vec<Route> {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(grant.prefix))
            .unwrap_or(0);
        let is_near =
            |router: Ipv4Addr| u32::from(router) & mask == u32::from(grant.address) & mask;
        let mut routes: Vec<Route> = grant
            .routes
            .iter()
            .filter(|route| !self.is_refused(route))
            .map(|&(destination, prefix, router)| {
                let gateway = (!router.is_unspecified()).then_some(router);
                Route {
                    gateway: gateway.map(Into::into),
                    source: Some(grant.address.into()),
                    on_link: gateway.is_some_and(|router| !is_near(router)),
                    metric: Some(self.on.metric),
                    ..Route::new(self.on.index, destination.into(), prefix, Origin::Dhcp)
                }
            })
            .collect();
        routes.sort_by_key(|route| route.gateway.is_some());
        routes
    }
}

impl Exchange for Dhcp4 {
    type Reply = Reply;
    type Output = Output;

    fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    fn parse(&self, packet: &[u8]) -> Option<Reply> {
        message::parse(packet, &self.identity)
    }

    fn hear(&mut self, reply: Reply, now: Duration) -> Vec<Output> {
        if let Reply::Offer(grant) | Reply::Acknowledge(grant) = &reply
            && self.on.inside.contains(&grant.address.into())
        {
            // With it on this link, the machine would take for itself what is for the workload.
            if !std::mem::replace(&mut self.has_refused, true) {
                let (who, address) = (self.describe(), grant.address);
                note(format_args!(
                    "{who}: {address} is refused, it is a workload's address"
                ));
            }
            return Vec::new();
        }
        self.client.receive(reply, now)
    }

    fn pass(&mut self, now: Duration) -> Vec<Output> {
        self.client.tick(now)
    }

    fn act(&mut self, output: Output, now: Duration, netlink: &mut Socket) -> Result<(), String> {
        match output {
            Output::Broadcast(request) => self.send(&request, None, now),
            Output::Unicast(request, server) => self.send(&request, Some(server), now),
            Output::Bound(grant) => self
                .bind(grant, netlink)
                .map_err(|refused| refused.to_string()),
            Output::Lost => {
                self.unbind(netlink);
                Ok(())
            }
        }
    }

    fn describe(&self) -> String {
        format!("DHCP on {}", self.on.device)
    }
}

fn hostname() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

/// The router of the default route of a lease.
#[must_use]
pub fn gateway(grant: &Grant) -> Option<Ipv4Addr> {
    let default = grant.routes.iter().find(|(_, prefix, _)| *prefix == 0);
    default
        .map(|(.., router)| *router)
        .filter(|router| !router.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_on_the_link_come_first_and_far_routers_are_marked() {
        let near = Ipv4Addr::new(10, 0, 2, 2);
        let far = Ipv4Addr::new(10, 9, 9, 9);
        let grant = Grant {
            address: Ipv4Addr::new(10, 0, 2, 15),
            server: near,
            prefix: 24,
            routes: vec![
                (Ipv4Addr::UNSPECIFIED, 0, far),
                (Ipv4Addr::new(10, 7, 0, 0), 16, near),
                (Ipv4Addr::new(10, 9, 9, 9), 32, Ipv4Addr::UNSPECIFIED),
                (Ipv4Addr::new(10, 213, 7, 0), 24, near),
                (Ipv4Addr::new(10, 0, 0, 0), 8, near),
            ],
            dns: Vec::new(),
            domain: None,
            search: Vec::new(),
            ntp: Vec::new(),
            hostname: None,
            mtu: Some(1400),
            seconds: 60,
            renewal: None,
            rebinding: None,
        };
        let on = On {
            index: 1,
            device: "lo".to_owned(),
            hardware: [2, 0, 0, 0, 0, 1],
            metric: 7,
            least_mtu: Some(1280),
            mtu: 1500,
            pool: BootAddress::parse("10.213.0.0/16"),
            inside: vec![IpAddr::from([10, 213, 0, 2])],
        };
        let identity = Identity {
            xid: 1,
            hardware_address: on.hardware,
            hostname: String::new(),
        };
        let mut client = Dhcp4 {
            client: Client::new(Duration::ZERO, None, 1),
            on,
            socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
            identity,
            begun: Duration::ZERO,
            bound: None,
            file: None,
            has_refused: false,
        };
        let routes = client.routes_of(&grant);
        assert_eq!(routes[0].gateway, None);
        let by_prefix = |prefix: u8| routes.iter().find(|route| route.prefix == prefix).unwrap();
        assert!(by_prefix(0).on_link && !by_prefix(16).on_link);
        assert!(routes.iter().all(|route| route.metric == Some(7)));
        assert_eq!(gateway(&grant), Some(far));
        // A wider one leaves the workloads' addresses to the machine, a route into them does not.
        assert_eq!(by_prefix(8).gateway, Some(near.into()));
        assert!(routes.iter().all(|route| route.prefix != 24));
        assert!(client.mtu_of(&grant).is_some());
        client.on.least_mtu = None;
        assert!(client.mtu_of(&grant).is_none());
        // An address of the pool that nobody has is told of elsewhere, a workload's own is not taken.
        client.client.tick(Duration::ZERO);
        for (last, is_taken) in [(2, false), (3, true)] {
            let address = Ipv4Addr::new(10, 213, 0, last);
            let offer = Reply::Offer(Grant {
                address,
                ..grant.clone()
            });
            let outputs = client.hear(offer, Duration::ZERO);
            assert_eq!(!outputs.is_empty(), is_taken, "{address}");
        }
    }
}
