//! DHCPv6 on one link: the socket and the kernel around [`Client`].

use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use crate::net::dhcp6::client::{Client, Output, Want};
use crate::net::dhcp6::message::{self, Grant, Identity, Leased, Reply, Request};
use crate::net::netlink::Socket;
use crate::net::netlink::address::Address;
use crate::net::netlink::link::HardwareAddress;

use super::exchange::Exchange;
use super::sockets;

/// One address, no network: what is on the link is for routers to say (RFC 5942).
const PREFIX: u8 = 128;

/// The client of one link.
#[derive(Debug)]
pub struct Dhcp6 {
    index: u32,
    device: String,
    client: Client,
    socket: UdpSocket,
    identity: Identity,
    bound: Option<Grant>,
    informed: Option<Grant>,
    /// Addresses that workloads and their router have.
    inside: Vec<IpAddr>,
}

impl Dhcp6 {
    /// Wants nothing yet.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(
        index: u32,
        device: &str,
        hardware_address: HardwareAddress,
        association: u32,
        inside: Vec<IpAddr>,
    ) -> io::Result<Self> {
        Ok(Self {
            index,
            device: device.to_owned(),
            client: Client::new(sockets::random()),
            socket: sockets::open6(device)?,
            identity: Identity {
                hardware_address,
                association,
            },
            bound: None,
            informed: None,
            inside,
        })
    }

    /// What servers said last.
    #[must_use]
    pub fn told(&self) -> Option<&Grant> {
        self.bound.as_ref().or(self.informed.as_ref())
    }

    /// Whether an address is there by it.
    #[must_use]
    pub fn has(&self, address: Ipv6Addr) -> bool {
        let addresses = self.bound.iter().flat_map(|grant| &grant.addresses);
        let mut there = addresses.filter(|leased| leased.valid > 0);
        there.any(|leased| leased.address == address)
    }

    /// What routers say is wanted.
    pub fn want(&mut self, want: Want, now: Duration) {
        self.client.want(want, now);
    }

    /// When [`Exchange::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.client.next_deadline()
    }

    /// The link was lost and is back.
    pub fn link_is_back(&mut self, now: Duration) {
        // It is asked for again at once, and what another network said holds here no more.
        self.informed = None;
        self.client.link_is_back(now);
    }

    /// Somebody else has the addresses.
    ///
    /// # Errors
    /// As [`Exchange::tick`].
    pub fn decline(&mut self, now: Duration, netlink: &mut Socket) -> Result<(), String> {
        let outputs = self.client.decline(now);
        self.perform(outputs, now, netlink)
    }

    /// The machine ends, and its addresses are not needed any more.
    pub fn release(&mut self, now: Duration) {
        if let Some(Output::Send(request)) = self.client.release(now) {
            let _ = self.send(&request, now);
        }
    }

    /// The link has become another one: its addresses go, and nobody is told.
    pub fn abandon(mut self, netlink: &mut Socket) {
        let grant = self.bound.take();
        let addresses = grant.iter().flat_map(|grant| &grant.addresses);
        self.remove(addresses.map(|leased| leased.address), netlink);
    }

    /// Those that are not there any more are gone, which is all that is wanted.
    fn remove(&self, addresses: impl Iterator<Item = Ipv6Addr>, netlink: &mut Socket) {
        for address in addresses {
            let address = Address::new(self.index, address.into(), PREFIX);
            let _ = netlink.request(&address.remove());
        }
    }

    fn send(&self, request: &Request, now: Duration) -> io::Result<()> {
        let elapsed = self.client.elapsed(now);
        let transaction = self.client.transaction();
        let bytes = message::encode(&self.identity, request, transaction, elapsed);
        match self.socket.send_to(&bytes, sockets::servers6(self.index)) {
            // There is no link-local address yet, or it is not known yet to be nobody else's: the next try has one.
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            result => result.map(drop),
        }
    }

    fn bind(&mut self, grant: Grant, netlink: &mut Socket) -> Result<(), String> {
        let (there, gone): (Vec<&Leased>, Vec<&Leased>) =
            grant.addresses.iter().partition(|leased| leased.valid > 0);
        // Mostly it went with the lease before, or never was.
        self.remove(gone.into_iter().map(|leased| leased.address), netlink);
        let requests: Vec<_> = there
            .into_iter()
            .map(|leased| {
                let mut address = Address::new(self.index, leased.address.into(), PREFIX);
                address.valid = leased.valid;
                address.preferred = leased.preferred;
                address.set()
            })
            .collect();
        self.bound = Some(grant);
        netlink
            .request_all(&requests)
            .map_err(|refused| refused.to_string())
    }
}

impl Exchange for Dhcp6 {
    type Reply = Reply;
    type Output = Output;

    fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Who grants a workload's address is not heard: with it on this link, the machine would take for itself what is for
    /// the workload.
    fn parse(&self, packet: &[u8]) -> Option<Reply> {
        let reply = message::parse(packet, &self.identity, self.client.transaction())?;
        let (Reply::Advertise(grant) | Reply::Reply(grant)) = &reply;
        let addresses = grant.addresses.iter().map(|leased| leased.address.into());
        let is_inside = |address: IpAddr| self.inside.contains(&address);
        (!addresses.into_iter().any(is_inside)).then_some(reply)
    }

    fn hear(&mut self, reply: Reply, now: Duration) -> Vec<Output> {
        self.client.receive(reply, now)
    }

    fn pass(&mut self, now: Duration) -> Vec<Output> {
        self.client.tick(now)
    }

    fn act(&mut self, output: Output, now: Duration, netlink: &mut Socket) -> Result<(), String> {
        match output {
            Output::Send(request) => self.send(&request, now).map_err(|error| error.to_string()),
            Output::Bound(grant) => self.bind(grant, netlink),
            Output::Informed(grant) => {
                self.informed = Some(grant);
                Ok(())
            }
            Output::Lost(addresses) => {
                self.bound = None;
                self.remove(addresses.into_iter(), netlink);
                Ok(())
            }
        }
    }

    fn describe(&self) -> String {
        format!("DHCPv6 on {}", self.device)
    }
}
