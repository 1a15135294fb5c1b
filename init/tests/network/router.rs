//! A router and a DHCPv6 server that say what a test tells them to.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with, sockopt,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Net;

const LIMIT: Duration = Duration::from_secs(90);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// For ever, as a time in seconds.
pub const INFINITE: u32 = u32::MAX;

/// The kinds of messages.
pub const SOLICIT: u8 = 1;
pub const ADVERTISE: u8 = 2;
pub const REQUEST: u8 = 3;
pub const RENEW: u8 = 5;
pub const REPLY: u8 = 7;

/// Both, at the server's `eth0`, which gets the address fe80::1.
pub struct Router {
    advertiser: OwnedFd,
    socket: UdpSocket,
    index: u32,
}

/// What a client sent, and from where.
#[derive(Debug, Clone)]
pub struct Asked {
    pub bytes: Vec<u8>,
    from: std::net::SocketAddr,
}

impl Asked {
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }

    fn option(&self, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.bytes.get(4..)?;
        while let [a, b, c, d, value @ ..] = rest {
            let value = value.get(..usize::from(u16::from_be_bytes([*c, *d])))?;
            if u16::from_be_bytes([*a, *b]) == wanted {
                return Some(value);
            }
            rest = &rest[4 + value.len()..];
        }
        None
    }
}

impl Router {
    pub fn new(net: &Net) -> Self {
        net.server(&["addr", "add", "fe80::1/64", "dev", "eth0", "nodad"]);
        let index = net.server(&["-o", "link", "show", "eth0"]);
        let index = index.split(':').next().unwrap().parse().unwrap();
        let namespace = net.server_namespace();
        // A socket stays in the namespace that it was made in; the thread must not stay there.
        let open = move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            let flags = SocketFlags::CLOEXEC;
            let raw = socket_with(
                AddressFamily::INET6,
                SocketType::RAW,
                flags,
                Some(ipproto::ICMPV6),
            );
            let raw = raw.unwrap();
            // No router is further away (RFC 4861 §6.1.2).
            sockopt::set_ipv6_multicast_hops(&raw, 255).unwrap();
            let socket = UdpSocket::bind("[::]:547").unwrap();
            socket.join_multicast_v6(&ALL_SERVERS, index).unwrap();
            (raw, socket)
        };
        let (advertiser, socket) = thread::spawn(open).join().unwrap();
        let patience = Some(Duration::from_millis(200));
        socket.set_read_timeout(patience).unwrap();
        Self {
            advertiser,
            socket,
            index,
        }
    }

    /// Advertises itself as a router for so many seconds, with these flags (managed 0x80, other 0x40) and options.
    pub fn advertise(&self, flags: u8, seconds: u16, options: &[u8]) {
        let mut bytes = vec![134, 0, 0, 0, 64, flags];
        bytes.extend(seconds.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(options);
        self.send_raw(&bytes);
    }

    /// Sends a message of ICMPv6 to all.
    pub fn send_raw(&self, bytes: &[u8]) {
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index);
        // A flood may be more than the link takes at once.
        let _ = sendto(&self.advertiser, bytes, SendFlags::empty(), &to);
    }

    /// The next message of a client within this time.
    pub fn next_within(&self, limit: Duration) -> Option<Asked> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 1500];
        while Instant::now() < deadline {
            if let Ok((size, from)) = self.socket.recv_from(&mut buffer) {
                let bytes = buffer[..size].to_vec();
                return Some(Asked { bytes, from });
            }
        }
        None
    }

    /// The next message of this kind; others are left without an answer.
    pub fn wait_for(&self, kind: u8) -> Asked {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            let asked = self.next_within(LIMIT).expect("a client asks");
            if asked.kind() == kind {
                return asked;
            }
        }
        panic!("no message of kind {kind}");
    }

    /// Forgets what came meanwhile.
    pub fn forget(&self) {
        let mut buffer = [0; 1500];
        while self.socket.recv(&mut buffer).is_ok() {}
    }

    /// Sends bytes to a client.
    pub fn send(&self, to: &Asked, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, to.from);
    }

    /// Grants an address to whoever solicits, once.
    pub fn serve(&self, address: Ipv6Addr, times: (u32, u32)) {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            let asked = self.next_within(LIMIT).expect("a client asks");
            let kind = if asked.kind() == SOLICIT {
                ADVERTISE
            } else {
                REPLY
            };
            self.send(&asked, &grant(&asked, kind, address, times));
            if asked.kind() == REQUEST {
                return;
            }
        }
        panic!("nobody asks for an address");
    }
}

/// An answer that grants an address, for these preferred and valid times.
pub fn grant(to: &Asked, kind: u8, address: Ipv6Addr, (preferred, valid): (u32, u32)) -> Vec<u8> {
    let mut bytes = to.bytes[..4].to_vec();
    bytes[0] = kind;
    let mut put = |code: u16, value: &[u8]| {
        bytes.extend(code.to_be_bytes());
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
    };
    put(1, to.option(1).unwrap());
    put(2, &[0, 3, 0, 1, 2, 0, 0, 0, 7, 1]);
    let mut association = to.option(3).map_or(vec![0; 4], |value| value[..4].to_vec());
    association.extend([0; 8]);
    association.extend([0, 5, 0, 24]);
    association.extend(address.octets());
    association.extend(preferred.to_be_bytes());
    association.extend(valid.to_be_bytes());
    put(3, &association);
    bytes
}

/// An option that tells a prefix, on the link and for addresses (RFC 4861 §4.6.2).
pub fn prefix(prefix: Ipv6Addr, length: u8, (preferred, valid): (u32, u32)) -> Vec<u8> {
    let mut option = vec![3, 4, length, 0xc0];
    option.extend(valid.to_be_bytes());
    option.extend(preferred.to_be_bytes());
    option.extend([0; 4]);
    option.extend(prefix.octets());
    option
}

/// An option that tells name servers (RFC 8106 §5.1).
pub fn name_servers(seconds: u32, servers: &[Ipv6Addr]) -> Vec<u8> {
    let length = u8::try_from(1 + 2 * servers.len()).unwrap();
    let mut option = vec![25, length, 0, 0];
    option.extend(seconds.to_be_bytes());
    option.extend(servers.iter().flat_map(Ipv6Addr::octets));
    option
}
