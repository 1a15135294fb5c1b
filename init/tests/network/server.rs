//! A DHCPv4 server that does what a test tells it to, and tells what it was asked.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use std::{mem, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Net;

const LIMIT: Duration = Duration::from_secs(90);

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    bytes: Vec<u8>,
    /// Option 53.
    pub kind: u8,
    /// `ciaddr`.
    pub from: Ipv4Addr,
    /// Option 50.
    pub wish: Option<Ipv4Addr>,
}

/// The kinds of option 53.
pub const DISCOVER: u8 = 1;
pub const OFFER: u8 = 2;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;
pub const RELEASE: u8 = 7;

/// The server.
pub struct Scripted {
    socket: UdpSocket,
}

impl Scripted {
    /// Listens at the server's `eth0`, which has the address 10.7.0.1.
    pub fn new(net: &Net) -> Self {
        let namespace = net.server_namespace();
        // A socket stays in the namespace that it was made in; the thread must not stay there.
        let open = move || {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
            let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
            socket.set_broadcast(true).unwrap();
            coracle_init::sys::bind_to_device(&socket, "eth0").unwrap();
            socket
        };
        let socket = thread::spawn(open).join().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        Self { socket }
    }

    /// The next packet of a client.
    pub fn next(&self) -> Packet {
        let deadline = Instant::now() + LIMIT;
        let mut buffer = [0; 1500];
        while Instant::now() < deadline {
            if let Ok(size) = self.socket.recv(&mut buffer) {
                return Packet::new(&buffer[..size]);
            }
        }
        panic!("no client asks");
    }

    /// The next packet of this kind; others are left without an answer.
    pub fn wait_for(&self, kind: u8) -> Packet {
        let deadline = Instant::now() + LIMIT;
        let mut others = Vec::new();
        while Instant::now() < deadline {
            let packet = self.next();
            if packet.kind == kind {
                return packet;
            }
            others.push(packet.kind);
        }
        panic!("no packet of kind {kind} among {others:?}");
    }

    /// Forgets what came meanwhile.
    pub fn forget(&self) {
        let mut buffer = [0; 1500];
        while self.socket.recv(&mut buffer).is_ok() {}
    }

    /// Answers with an address for so many seconds.
    pub fn answer(&self, to: &Packet, kind: u8, address: [u8; 4], seconds: u32) {
        self.send(&reply(to, kind, address, seconds));
    }

    /// Offers an address to each who looks for one, and grants it when it is asked for.
    pub fn serve(&self, address: [u8; 4], seconds: u32) {
        let mut packet = self.wait_for(DISCOVER);
        while packet.kind != REQUEST {
            // A client that missed an offer, as it may on a busy machine, looks again.
            if packet.kind == DISCOVER {
                self.answer(&packet, OFFER, address, seconds);
            }
            packet = self.next();
        }
        self.answer(&packet, ACK, address, seconds);
    }

    /// Sends bytes to everyone.
    pub fn send(&self, bytes: &[u8]) {
        let everyone = SocketAddr::from(([255, 255, 255, 255], 68));
        // A flood may be more than the link takes at once.
        let _ = self.socket.send_to(bytes, everyone);
    }
}

impl Packet {
    fn new(bytes: &[u8]) -> Self {
        let option = |wanted: u8| {
            let mut rest = bytes.get(240..)?;
            while let [code, length, value @ ..] = rest {
                let value = value.get(..usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                rest = &rest[2 + value.len()..];
            }
            None
        };
        let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
        Self {
            bytes: bytes.to_vec(),
            kind: option(53).unwrap()[0],
            from: address(&bytes[12..16]).unwrap(),
            wish: option(50).and_then(address),
        }
    }
}

/// The same with one option more: its code and value.
pub fn reply_with(answer: &[u8], code: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = answer[..answer.len() - 1].to_vec();
    bytes.extend([code, u8::try_from(value.len()).unwrap()]);
    bytes.extend(value);
    bytes.push(255);
    bytes
}

/// The answer to a packet.
pub fn reply(to: &Packet, kind: u8, address: [u8; 4], seconds: u32) -> Vec<u8> {
    let mut bytes = mem::take(&mut to.bytes.clone())[..236].to_vec();
    bytes[0] = 2;
    bytes[16..20].copy_from_slice(&address);
    bytes.extend([99, 130, 83, 99, 53, 1, kind, 54, 4, 10, 7, 0, 1]);
    if kind != NAK {
        bytes.extend([51, 4]);
        bytes.extend(seconds.to_be_bytes());
        bytes.extend([1, 4, 255, 255, 255, 0, 3, 4, 10, 7, 0, 1]);
    }
    bytes.push(255);
    bytes
}
