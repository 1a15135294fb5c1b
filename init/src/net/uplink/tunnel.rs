//! WireGuard by generic netlink (`linux/wireguard.h`): keys, port and peers of a link, and when a peer last answered.

use std::net::{IpAddr, SocketAddr};

use config::boot::{BootPeer, BootWireGuard, wireguard_key};
use rustix::net::netlink::GENERIC;

use crate::net::netlink::message::{Answer, Request, attributes, number};
use crate::net::netlink::{Refused, Socket};
use crate::secrets;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, and the attributes of its answer.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const VERSION: u8 = 1;

const INDEX: u16 = 1;
const PRIVATE_KEY: u16 = 3;
const FLAGS: u16 = 5;
const PORT: u16 = 6;
const PEERS: u16 = 8;
const REPLACE_PEERS: u32 = 1;

const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_ALLOWED: u16 = 9;
const REPLACE_ALLOWED: u32 = 2;
const UPDATE_ONLY: u32 = 4;

const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_PREFIX: u16 = 3;

/// A key; not shown.
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        secrets::wipe(&mut self.0);
    }
}

/// The keys of a tunnel: its own, and the preshared one of each peer that has one.
#[derive(Debug)]
pub struct Keys {
    own: Key,
    preshared: Vec<Option<Key>>,
}

impl Keys {
    /// Reads the secrets.
    ///
    /// # Errors
    /// In words, which one has not come or is no key; never with anything of its content.
    pub fn read(tunnel: &BootWireGuard) -> Result<Self, String> {
        let preshared = tunnel.peers.iter().map(|peer| {
            let name = peer.preshared_key.as_deref();
            name.map(read_key).transpose()
        });
        Ok(Self {
            own: read_key(&tunnel.key)?,
            preshared: preshared.collect::<Result<_, _>>()?,
        })
    }
}

fn read_key(name: &str) -> Result<Key, String> {
    let mut bytes =
        secrets::read(name)?.ok_or_else(|| format!("the secret {name} has not come"))?;
    let text = std::str::from_utf8(&bytes).ok();
    let key = text.and_then(|text| wireguard_key(text.trim())).map(Key);
    secrets::wipe(&mut bytes);
    key.ok_or_else(|| format!("the secret {name} is no key of WireGuard's"))
}

/// The kernel's WireGuard.
#[derive(Debug)]
pub struct WireGuard {
    socket: Socket,
    family: u16,
}

impl WireGuard {
    /// Finds it.
    ///
    /// # Errors
    /// When the kernel has none.
    pub fn open() -> Result<Self, String> {
        let mut socket = Socket::of(Some(GENERIC)).map_err(|error| error.to_string())?;
        let request = Request::new(CONTROL, 0, &[GET_FAMILY, VERSION, 0, 0]);
        let families = socket
            .list(&request, read_family)
            .map_err(|refused| refused.to_string())?;
        let family = families.first().copied();
        let family = family.ok_or("the kernel has no WireGuard")?;
        Ok(Self { socket, family })
    }

    /// Gives a link its keys, its port and its peers with those endpoints that are known.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set(
        &mut self,
        index: u32,
        tunnel: &BootWireGuard,
        keys: &Keys,
        endpoints: &[Option<SocketAddr>],
    ) -> Result<(), Refused> {
        // One request a peer: a message holds no more than 64 KiB.
        let mut requests = vec![self.device(index, tunnel, keys)];
        for ((peer, key), endpoint) in tunnel.peers.iter().zip(&keys.preshared).zip(endpoints) {
            requests.push(self.peer(index, |request| {
                put_peer(request, peer, key.as_ref(), *endpoint);
            }));
        }
        self.socket.request_all(&requests)
    }

    /// Tells where a peer is now.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_endpoint(
        &mut self,
        index: u32,
        public_key: &[u8; 32],
        endpoint: SocketAddr,
    ) -> Result<(), Refused> {
        let request = self.peer(index, |peer| {
            peer.put(PEER_PUBLIC_KEY, public_key);
            peer.put_u32(PEER_FLAGS, UPDATE_ONLY);
            peer.put(PEER_ENDPOINT, &socket_address(endpoint));
        });
        self.socket.request(&request)
    }

    /// When each peer that is told of last answered: its public key, and seconds of the machine's clock (0: never).
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn handshakes(&mut self, index: u32) -> Result<Vec<([u8; 32], u64)>, Refused> {
        let mut request = Request::new(self.family, 0, &[GET_DEVICE, VERSION, 0, 0]);
        request.put_u32(INDEX, index);
        let parts = self
            .socket
            .list(&request, |answer| Some(read_peers(answer)))?;
        Ok(parts.into_iter().flatten().collect())
    }

    fn device(&self, index: u32, tunnel: &BootWireGuard, keys: &Keys) -> Request {
        let mut request = Request::new(self.family, 0, &[SET_DEVICE, VERSION, 0, 0]);
        request.put_u32(INDEX, index);
        request.put(PRIVATE_KEY, &keys.own.0);
        request.put_u32(FLAGS, REPLACE_PEERS);
        request.put(PORT, &tunnel.listen.unwrap_or(0).to_ne_bytes());
        request
    }

    fn peer(&self, index: u32, fill: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request::new(self.family, 0, &[SET_DEVICE, VERSION, 0, 0]);
        request.put_u32(INDEX, index);
        request.nest(PEERS, |peers| {
            peers.nest(0, fill);
        });
        request
    }
}

fn put_peer(
    request: &mut Request,
    peer: &BootPeer,
    key: Option<&Key>,
    endpoint: Option<SocketAddr>,
) {
    request.put(PEER_PUBLIC_KEY, &peer.public_key);
    request.put_u32(PEER_FLAGS, REPLACE_ALLOWED);
    if let Some(key) = key {
        request.put(PEER_PRESHARED_KEY, &key.0);
    }
    if let Some(endpoint) = endpoint {
        request.put(PEER_ENDPOINT, &socket_address(endpoint));
    }
    if let Some(seconds) = peer.keepalive {
        request.put(PEER_KEEPALIVE, &seconds.to_ne_bytes());
    }
    request.nest(PEER_ALLOWED, |all| {
        for network in &peer.allowed {
            all.nest(0, |one| {
                one.put(ALLOWED_FAMILY, &family(network.address).to_ne_bytes());
                one.put_address(ALLOWED_ADDRESS, network.address);
                one.put(ALLOWED_PREFIX, &[network.prefix]);
            });
        }
    });
}

/// `AF_INET` or `AF_INET6`.
const fn family(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(endpoint: SocketAddr) -> Vec<u8> {
    let mut bytes = family(endpoint.ip()).to_ne_bytes().to_vec();
    bytes.extend(endpoint.port().to_be_bytes());
    match endpoint {
        SocketAddr::V4(endpoint) => {
            bytes.extend(endpoint.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(endpoint) => {
            bytes.extend([0; 4]);
            bytes.extend(endpoint.ip().octets());
            bytes.extend(endpoint.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn read_family(answer: &Answer<'_>) -> Option<u16> {
    let body = answer.body.get(4..)?;
    let find = |wanted: u16| {
        let mut all = attributes(body);
        all.find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let is_it = find(FAMILY_NAME)? == b"wireguard\0";
    let id: [u8; 2] = find(FAMILY_ID)?.try_into().ok()?;
    is_it.then(|| u16::from_ne_bytes(id))
}

fn read_peers(answer: &Answer<'_>) -> Vec<([u8; 32], u64)> {
    let body = answer.body.get(4..).unwrap_or_default();
    let lists = attributes(body).filter(|(kind, _)| *kind == PEERS);
    let peers = lists.flat_map(|(_, list)| attributes(list));
    peers.filter_map(|(_, peer)| read_peer(peer)).collect()
}

fn read_peer(bytes: &[u8]) -> Option<([u8; 32], u64)> {
    let (mut key, mut seconds) = (None, 0);
    for (kind, value) in attributes(bytes) {
        match kind {
            PEER_PUBLIC_KEY => key = value.try_into().ok(),
            // The kernel's seconds have 64 bits, of which the low ones come first where this runs.
            PEER_LAST_HANDSHAKE => {
                let low = u64::from(number(value, 0)?);
                seconds = u64::from(number(value, 4)?) << 32 | low;
            }
            _ => {}
        }
    }
    Some((key?, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_the_kernels_socket_addresses() {
        let bytes = socket_address("192.0.2.1:51820".parse().unwrap());
        assert_eq!(bytes[2..8], [0xca, 0x6c, 192, 0, 2, 1]);
        assert_eq!(bytes.len(), 16);
        let bytes = socket_address("[2001:db8::1]:51820".parse().unwrap());
        assert_eq!(bytes.len(), 28);
        assert_eq!(bytes[8..12], [0x20, 1, 0xd, 0xb8]);
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", Key([7; 32])), "Key");
    }
}
