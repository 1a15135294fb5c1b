//! The DHCP client's loop: socket and interface around [`Client`].

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use rustix::rand::{GetRandomFlags, getrandom};

use super::client::{Client, Output};
use super::lease::{Lease, Told};
use super::message::{self, Grant, Identity};
use crate::console::now;
use crate::net::netlink::address::Address;
use crate::net::netlink::monitor::group;
use crate::net::netlink::route::{Origin, Route};
use crate::net::netlink::{Ethernet, Monitor, Socket, link};
use crate::sys;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// When it is told that a device or its carrier is missing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom the client tells what it has.
type Tell<'a> = &'a dyn Fn(Told);

/// Runs the client for `device` (`None`: the first Ethernet interface) until it fails.
///
/// # Errors
/// What keeps it from going on.
pub fn serve(device: Option<&str>, tell: Tell<'_>) -> io::Result<std::convert::Infallible> {
    let link = wait_for_link(device, tell)?;
    let mut interface = Interface {
        tell,
        netlink: Socket::open()?,
        link,
        bound: None,
    };
    let socket = open_socket(&interface.link.name)?;
    let identity = Identity {
        xid: random()?,
        hardware_address: interface.link.hardware_address,
        hostname: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
    };
    let begun = now();
    let mut client = Client::new(begun, None, random()?);
    let mut packet = [0; 1500];
    loop {
        let mut outputs = client.tick(now());
        if outputs.is_empty() {
            let wait = client
                .next_deadline()
                .map(|deadline| deadline.saturating_sub(now()));
            // A timeout of zero would mean none.
            socket.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
            let size = match socket.recv(&mut packet) {
                Ok(size) => size,
                Err(error) if is_temporary(&error) => continue,
                Err(error) => return Err(error),
            };
            if let Some(reply) = message::parse(&packet[..size], &identity) {
                outputs = client.receive(reply, now());
            }
        }
        let seconds = u16::try_from((now() - begun).as_secs()).unwrap_or(u16::MAX);
        for output in outputs {
            interface.perform(output, &socket, &identity, seconds);
        }
    }
}

/// Waits for the interface and its carrier, by the kernel's word.
fn wait_for_link(device: Option<&str>, tell: Tell<'_>) -> io::Result<Ethernet> {
    let mut monitor = Monitor::open(group::LINK)?;
    let missing = format!("waiting for the interface {}", device.unwrap_or("(any)"));
    let link = wait_until(&mut monitor, &missing, tell, || Ethernet::find(device));
    Socket::open()?.request(&link::bring_up(link.index))?;
    let missing = format!("waiting for the carrier of {}", link.name);
    wait_until(&mut monitor, &missing, tell, || {
        link.has_carrier().then_some(())
    });
    Ok(link)
}

/// Looks at once and after each change of a link. What is missing for long is told once.
fn wait_until<T>(
    monitor: &mut Monitor,
    missing: &str,
    tell: Tell<'_>,
    look: impl Fn() -> Option<T>,
) -> T {
    let mut tell_at = Some(now() + PATIENCE);
    loop {
        if let Some(found) = look() {
            return found;
        }
        if tell_at.is_some_and(|at| at <= now()) {
            tell_at = None;
            tell(Told::Note(missing.to_owned()));
        }
        monitor.wait(PATIENCE);
    }
}

/// Bound to the interface, so that it sends and receives there without an address.
fn open_socket(device: &str) -> io::Result<UdpSocket> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_broadcast(&socket, true)?;
    sys::bind_to_device(&socket, device)?;
    bind(
        &socket,
        &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
    )?;
    Ok(UdpSocket::from(socket))
}

/// The interface with the address that it has by this client.
struct Interface<'a> {
    tell: Tell<'a>,
    netlink: Socket,
    link: Ethernet,
    bound: Option<Grant>,
}

impl Interface<'_> {
    /// What fails here is told and tried again by the client's own repetition.
    fn perform(&mut self, output: Output, socket: &UdpSocket, identity: &Identity, seconds: u16) {
        let result = match output {
            Output::Broadcast(request) => {
                let bytes = message::encode(identity, &request, seconds);
                socket
                    .send_to(&bytes, (Ipv4Addr::BROADCAST, SERVER_PORT))
                    .map(drop)
            }
            Output::Unicast(request, server) => {
                let bytes = message::encode(identity, &request, seconds);
                socket.send_to(&bytes, (server, SERVER_PORT)).map(drop)
            }
            Output::Bound(grant) => self.bind(grant),
            Output::Lost => {
                self.unbind();
                (self.tell)(Told::Lost);
                Ok(())
            }
        };
        if let Err(error) = result {
            (self.tell)(Told::Note(format!("DHCP on {}: {error}", self.link.name)));
        }
    }

    fn bind(&mut self, grant: Grant) -> io::Result<()> {
        if self
            .bound
            .as_ref()
            .is_some_and(|old| (old.address, old.prefix) != (grant.address, grant.prefix))
        {
            self.unbind();
        }
        let index = self.link.index;
        let address = Address {
            valid: grant.seconds,
            preferred: grant.seconds,
            ..Address::new(index, grant.address.into(), grant.prefix)
        };
        let mut requests = vec![address.set()];
        requests.extend(routes_of(&grant, index).iter().map(Route::set));
        self.netlink.request_all(&requests)?;
        let lease = lease_of(&self.link.name, &grant);
        let known = self
            .bound
            .replace(grant)
            .map(|old| lease_of(&self.link.name, &old));
        if known.as_ref() != Some(&lease) {
            (self.tell)(Told::Bound(lease));
        }
        Ok(())
    }

    /// The kernel removes the routes with the address.
    fn unbind(&mut self) {
        if let Some(old) = self.bound.take() {
            let address = Address::new(self.link.index, old.address.into(), old.prefix);
            let _ = self.netlink.request(&address.remove());
        }
    }
}

/// Routes on the link come first: routers may stand behind them.
fn routes_of(grant: &Grant, index: u32) -> Vec<Route> {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(grant.prefix))
        .unwrap_or(0);
    let is_near = |router: Ipv4Addr| u32::from(router) & mask == u32::from(grant.address) & mask;
    let mut routes: Vec<Route> = grant
        .routes
        .iter()
        .map(|&(destination, prefix, router)| {
            let gateway = (!router.is_unspecified()).then_some(router);
            Route {
                gateway: gateway.map(Into::into),
                source: Some(grant.address.into()),
                on_link: gateway.is_some_and(|router| !is_near(router)),
                ..Route::new(index, destination.into(), prefix, Origin::Dhcp)
            }
        })
        .collect();
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}

fn lease_of(device: &str, grant: &Grant) -> Lease {
    let default = grant.routes.iter().find(|(_, prefix, _)| *prefix == 0);
    Lease {
        device: device.to_owned(),
        address: grant.address,
        prefix: grant.prefix,
        gateway: default
            .map(|(.., router)| *router)
            .filter(|router| !router.is_unspecified()),
        dns: grant.dns.clone(),
        domain: grant.domain.clone(),
        seconds: grant.seconds,
    }
}

/// Never blocks: a machine that just started may have little entropy, and these numbers guard nothing.
fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes[..], GetRandomFlags::INSECURE)?;
    Ok(u32::from_ne_bytes(bytes))
}

fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
        || error.raw_os_error() == Some(libc::ENETDOWN)
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
            ],
            dns: Vec::new(),
            domain: None,
            search: Vec::new(),
            ntp: Vec::new(),
            hostname: None,
            mtu: None,
            seconds: 60,
            renewal: None,
            rebinding: None,
        };
        let routes = routes_of(&grant, 2);
        assert_eq!(routes[0].gateway, None);
        assert!(
            routes
                .iter()
                .find(|route| route.prefix == 0)
                .unwrap()
                .on_link
        );
        assert!(
            !routes
                .iter()
                .find(|route| route.prefix == 16)
                .unwrap()
                .on_link
        );
        assert_eq!(lease_of("eth0", &grant).gateway, Some(far));
    }
}
