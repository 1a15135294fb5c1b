//! The few route netlink requests that init needs (RFC 3549): links up, IPv4 addresses, IPv4 routes.
//!
//! Written by hand rather than by a crate: six messages are less than any netlink crate brings into PID 1.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use rustix::time::Timespec;

const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

/// The multicast group of link changes (`RTMGRP_LINK`).
const LINK_GROUP: u32 = 1;
/// `IFF_UP`.
const UP: u32 = 1;
const LOOPBACK_INDEX: u32 = 1;

const FAMILY: u8 = 2;
const HEADER_SIZE: usize = 16;

/// A route of IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The network; 0.0.0.0 with prefix 0 is the default route.
    pub destination: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// The router; `None`: the network is on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// The router is on the link, although the address's own network does not hold it.
    pub on_link: bool,
}

/// A route netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// Brings the loopback interface up; the kernel gives it 127.0.0.1 and ::1 itself.
///
/// # Errors
/// What the kernel answers.
pub fn bring_up_loopback() -> io::Result<()> {
    Netlink::open()?.bring_up(LOOPBACK_INDEX)
}

impl Netlink {
    /// Opens a socket for requests.
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn bring_up(&mut self, index: u32) -> io::Result<()> {
        let mut body = vec![0, 0, 0, 0];
        for field in [index, UP, UP] {
            body.extend(field.to_ne_bytes());
        }
        self.request(NEW_LINK, 0, &body)
    }

    /// Adds an address or renews it, valid for `seconds` (`u32::MAX`: for ever).
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
        seconds: u32,
    ) -> io::Result<()> {
        let mut body = address_body(index, address, prefix);
        let broadcast = broadcast_of(address, prefix);
        if prefix < 31 {
            push_attribute(&mut body, 4, &broadcast.octets());
        }
        let mut lifetimes = Vec::from(seconds.to_ne_bytes());
        lifetimes.extend(seconds.to_ne_bytes());
        lifetimes.extend([0; 8]);
        push_attribute(&mut body, 6, &lifetimes);
        self.request(NEW_ADDRESS, CREATE | REPLACE, &body)
    }

    /// Removes an address.
    ///
    /// # Errors
    /// What the kernel answers; `EADDRNOTAVAIL` when it is gone already.
    pub fn remove_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.request(DELETE_ADDRESS, 0, &address_body(index, address, prefix))
    }

    /// Adds a route or replaces it.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_route(&mut self, index: u32, route: &Route, source: Ipv4Addr) -> io::Result<()> {
        self.request(
            NEW_ROUTE,
            CREATE | REPLACE,
            &route_body(index, route, source),
        )
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = encode(kind, REQUEST | ACKNOWLEDGE | flags, self.sequence, body);
        send(&self.socket, &message, SendFlags::empty())?;
        let mut answer = [0_u8; 4096];
        loop {
            let (size, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            if let Some(result) = acknowledgement(&answer[..size], self.sequence) {
                return result;
            }
        }
    }
}

fn encode(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_SIZE + body.len()).expect("requests are a few hundred bytes");
    let mut message = Vec::from(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// The result that an answer holds, if it is the one to this request.
fn acknowledgement(answer: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let answered = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    if kind != ERROR || answered != sequence {
        return None;
    }
    match i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?) {
        0 => Some(Ok(())),
        code => Some(Err(io::Error::from_raw_os_error(-code))),
    }
}

fn address_body(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![FAMILY, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    push_attribute(&mut body, 2, &address.octets());
    push_attribute(&mut body, 1, &address.octets());
    body
}

fn route_body(index: u32, route: &Route, source: Ipv4Addr) -> Vec<u8> {
    const MAIN_TABLE: u8 = 254;
    const BY_DHCP: u8 = 16;
    const UNICAST: u8 = 1;
    const LINK_SCOPE: u8 = 253;
    const ON_LINK: u32 = 4;
    let scope = if route.gateway.is_some() {
        0
    } else {
        LINK_SCOPE
    };
    let mut body = vec![
        FAMILY,
        route.prefix,
        0,
        0,
        MAIN_TABLE,
        BY_DHCP,
        scope,
        UNICAST,
    ];
    body.extend(if route.on_link { ON_LINK } else { 0 }.to_ne_bytes());
    if route.prefix > 0 {
        push_attribute(&mut body, 1, &route.destination.octets());
    }
    push_attribute(&mut body, 4, &index.to_ne_bytes());
    if let Some(gateway) = route.gateway {
        push_attribute(&mut body, 5, &gateway.octets());
    }
    push_attribute(&mut body, 7, &source.octets());
    body
}

/// Values here are multiples of four bytes, so that no padding is needed.
fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes are a few bytes");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn broadcast_of(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) | host_bits)
}

/// Hears of changes of links.
#[derive(Debug)]
pub struct LinkMonitor(OwnedFd);

impl LinkMonitor {
    /// Subscribes from now on.
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, LINK_GROUP))?;
        Ok(Self(socket))
    }

    /// Waits for the next change, at most for `limit`.
    pub fn wait(&self, limit: Duration) {
        let timeout = Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout));
        let mut buffer = [0_u8; 8192];
        while recv(&self.0, &mut buffer[..], RecvFlags::empty()).is_ok() {}
    }
}

/// An interface as sysfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its Ethernet address.
    pub hardware_address: [u8; 6],
}

impl Link {
    /// The interface with this name; without one, the first Ethernet interface by index.
    #[must_use]
    pub fn find(name: Option<&str>) -> Option<Self> {
        if let Some(name) = name {
            return Self::read(name);
        }
        let names = fs::read_dir("/sys/class/net").ok()?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter_map(|name| Self::read(&name))
            .min_by_key(|link| link.index)
    }

    /// `None` for what is not Ethernet (the loopback interface is not).
    fn read(name: &str) -> Option<Self> {
        let file = |file: &str| fs::read_to_string(format!("/sys/class/net/{name}/{file}")).ok();
        let is_ethernet = file("type")?.trim() == "1";
        let index = file("ifindex")?.trim().parse().ok()?;
        let hardware_address = parse_hardware_address(file("address")?.trim())?;
        is_ethernet.then(|| Self {
            name: name.to_owned(),
            index,
            hardware_address,
        })
    }

    /// The link is up and has a carrier.
    #[must_use]
    pub fn has_carrier(&self) -> bool {
        let path = format!("/sys/class/net/{}/carrier", self.name);
        fs::read_to_string(path).is_ok_and(|carrier| carrier.trim() == "1")
    }
}

fn parse_hardware_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_with_their_length_and_kind() {
        let message = encode(NEW_LINK, REQUEST, 7, &[1, 2, 3, 4]);
        assert_eq!(message[..8], [20, 0, 0, 0, 16, 0, 1, 0]);
        assert_eq!(message[8..12], 7_u32.to_ne_bytes());
        assert_eq!(message[16..], [1, 2, 3, 4]);
    }

    #[test]
    fn answers_are_matched_by_sequence_and_truncated_ones_ignored() {
        let answer =
            |kind: u16, sequence: u32, code: i32| encode(kind, 0, sequence, &code.to_ne_bytes());
        assert!(matches!(
            acknowledgement(&answer(ERROR, 3, 0), 3),
            Some(Ok(()))
        ));
        let refused = acknowledgement(&answer(ERROR, 3, -19), 3)
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(19));
        assert!(acknowledgement(&answer(ERROR, 2, 0), 3).is_none());
        assert!(acknowledgement(&answer(NEW_LINK, 3, 0), 3).is_none());
        assert!(acknowledgement(&answer(ERROR, 3, 0)[..10], 3).is_none());
    }

    #[test]
    fn a_default_route_names_no_destination() {
        let gateway = Some(Ipv4Addr::new(10, 0, 2, 2));
        let route = Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway,
            on_link: true,
        };
        let body = route_body(2, &route, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(body[..12], [2, 0, 0, 0, 254, 16, 0, 1, 4, 0, 0, 0]);
        assert_eq!(body[12..20], [8, 0, 4, 0, 2, 0, 0, 0]);
        assert_eq!(body[20..28], [8, 0, 5, 0, 10, 0, 2, 2]);
    }

    #[test]
    fn broadcast_addresses_fill_the_host_bits() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        for (prefix, last) in [
            (24, [10, 1, 2, 255]),
            (0, [255; 4]),
            (32, [10, 1, 2, 3]),
            (20, [10, 1, 15, 255]),
        ] {
            assert_eq!(broadcast_of(address, prefix), Ipv4Addr::from(last));
        }
    }

    #[test]
    fn hardware_addresses_are_six_bytes() {
        assert_eq!(
            parse_hardware_address("52:54:00:12:34:56"),
            Some([0x52, 0x54, 0, 0x12, 0x34, 0x56])
        );
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "zz:54:00:12:34:56",
        ] {
            assert_eq!(parse_hardware_address(bad), None);
        }
    }
}
