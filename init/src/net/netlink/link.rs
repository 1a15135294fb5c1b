//! Links: what makes, changes and removes them, and what the kernel tells of them (rtnetlink(7), `struct ifinfomsg`).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{Answer, CREATE, EXCLUSIVE, Request, attributes, number, text};

pub(super) const NEW_LINK: u16 = 16;
pub(super) const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;

/// Bytes of `struct ifinfomsg`.
const FIXED_SIZE: usize = 16;

/// `IFF_UP`.
pub const UP: u32 = 0x1;
/// `IFF_LOOPBACK`.
pub const LOOPBACK: u32 = 0x8;
/// `IFF_LOWER_UP`: there is a carrier.
pub const CARRIER: u32 = 0x1_0000;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LOWER: u16 = 5;
const MASTER: u16 = 10;
const PROTOCOL_INFO: u16 = 12;
const INFO: u16 = 18;
const GROUP: u16 = 27;
const NAMESPACE: u16 = 28;
const PERMANENT_ADDRESS: u16 = 54;
const FAMILIES: u16 = 26;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const VLAN_ID: u16 = 1;
const INET: u16 = 2;
const INET6: u16 = 10;
/// `IFLA_INET_CONF`, and three of its numbers (`IPV4_DEVCONF_*`).
const INET_CONFIGURATION: u16 = 1;
const SEND_REDIRECTS: u16 = 6;
const REVERSE_PATH: u16 = 8;
const ROUTE_LOCALNET: u16 = 26;
/// `IFLA_INET6_FLAGS` and `IFLA_INET6_ADDR_GEN_MODE`.
const INET6_FLAGS: u16 = 1;
const INET6_ADDRESS_MODE: u16 = 8;
const NO_ADDRESS: u8 = 1;

/// A hardware address of Ethernet.
pub type HardwareAddress = [u8; 6];

/// What one may ask of a link that is there or to be.
#[derive(Debug, Clone, Default)]
pub struct Wishes<'a> {
    /// Its new name, at most 15 characters.
    pub name: Option<&'a str>,
    /// Its hardware address.
    pub hardware_address: Option<HardwareAddress>,
    /// The most bytes of a packet.
    pub mtu: Option<u32>,
    /// Its group (`IFLA_GROUP`), which rules of the firewall match.
    pub group: Option<u32>,
    /// The index of the bond or bridge that it is to be a part of; 0: of none. A bond wants parts that are down.
    pub master: Option<u32>,
    /// Up or down; `None`: as it is.
    pub up: Option<bool>,
    /// It gets no IPv6 address of its own making, so that it asks and tells its link nothing. Of a link that is there
    /// and down: where it is brought up by the same request, it is up first.
    pub no_link_local: bool,
    /// It is no detour of the machine's: packets from and to 127.0.0.0/8 may be routed by it, and nobody is told of a
    /// shorter way. Whatever comes in by it, questions for neighbours among them, comes from an address that is routed
    /// there, so that it fills no table of others. Only of a link that is there.
    pub route_localnet: bool,
}

/// The sort of a link that is to be made.
#[derive(Debug, Clone)]
pub enum Kind<'a> {
    /// A pair of links, the other one in another namespace.
    Veth(Peer<'a>),
    /// A VLAN (IEEE 802.1Q) of the link with the index `of`.
    Vlan {
        /// 1 to 4094.
        id: u16,
        /// The index of the link that carries it.
        of: u32,
    },
    /// Another sort by its name, e.g. `bond`, `bridge`, `wireguard`, `dummy`, with attributes of its own
    /// (`IFLA_INFO_DATA`): number and value.
    Other(&'a str, &'a [(u16, Vec<u8>)]),
}

/// The other end of a veth.
#[derive(Debug, Clone)]
pub struct Peer<'a> {
    /// The namespace that it is in.
    pub namespace: BorrowedFd<'a>,
    /// Its index there.
    pub index: u32,
    /// How it is; it cannot be up yet, since the kernel makes it before what it is the peer of.
    pub wishes: Wishes<'a>,
}

/// Makes a link; `index` is the one that it gets, 0: the next one.
#[must_use]
pub fn create(name: &str, index: u32, kind: &Kind<'_>, wishes: &Wishes<'_>) -> Request {
    let fixed = fixed(index, wishes);
    let mut request = Request::new(NEW_LINK, CREATE | EXCLUSIVE, &fixed);
    request.put_text(NAME, name);
    put_wishes(&mut request, wishes);
    if let Kind::Vlan { of, .. } = kind {
        request.put_u32(LOWER, *of);
    }
    request.nest(INFO, |info| put_kind(info, kind));
    request
}

fn put_kind(info: &mut Request, kind: &Kind<'_>) {
    match kind {
        Kind::Veth(peer) => {
            info.put_text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                let fixed = fixed(peer.index, &peer.wishes);
                data.nest_behind(VETH_PEER, &fixed, |link| {
                    link.put_text(NAME, peer.wishes.name.unwrap_or("eth0"));
                    put_wishes(link, &peer.wishes);
                    let namespace = peer.namespace.as_raw_fd();
                    link.put_u32(NAMESPACE, namespace.cast_unsigned());
                });
            });
        }
        Kind::Vlan { id, .. } => {
            info.put_text(INFO_KIND, "vlan").nest(INFO_DATA, |data| {
                data.put(VLAN_ID, &id.to_ne_bytes());
            });
        }
        Kind::Other(name, values) => {
            info.put_text(INFO_KIND, name).nest(INFO_DATA, |data| {
                for (number, value) in *values {
                    data.put(*number, value);
                }
            });
        }
    }
}

/// Changes a link.
#[must_use]
pub fn change(index: u32, wishes: &Wishes<'_>) -> Request {
    let mut request = Request::new(SET_LINK, 0, &fixed(index, wishes));
    if let Some(name) = wishes.name {
        request.put_text(NAME, name);
    }
    put_wishes(&mut request, wishes);
    if wishes.no_link_local || wishes.route_localnet {
        request.nest(FAMILIES, |families| put_families(families, wishes));
    }
    request
}

fn put_families(families: &mut Request, wishes: &Wishes<'_>) {
    if wishes.route_localnet {
        families.nest(INET, |inet| {
            inet.nest(INET_CONFIGURATION, |values| {
                values.put_u32(ROUTE_LOCALNET, 1);
                values.put_u32(SEND_REDIRECTS, 0);
                values.put_u32(REVERSE_PATH, 1);
            });
        });
    }
    if wishes.no_link_local {
        families.nest(INET6, |inet6| {
            inet6.put(INET6_ADDRESS_MODE, &[NO_ADDRESS]);
        });
    }
}

/// Sets a link up.
#[must_use]
pub fn bring_up(index: u32) -> Request {
    let wishes = Wishes {
        up: Some(true),
        ..Wishes::default()
    };
    change(index, &wishes)
}

/// Removes a link by its name.
#[must_use]
pub fn delete(name: &str) -> Request {
    let mut request = Request::new(DELETE_LINK, 0, &[0; FIXED_SIZE]);
    request.put_text(NAME, name);
    request
}

/// Asks for all links: for [`super::Socket::list`] and [`Link::read`].
#[must_use]
pub fn list() -> Request {
    Request::new(GET_LINK, 0, &[0; FIXED_SIZE])
}

fn put_wishes(request: &mut Request, wishes: &Wishes<'_>) {
    if let Some(address) = wishes.hardware_address {
        request.put(ADDRESS, &address);
    }
    for (kind, value) in [
        (MTU, wishes.mtu),
        (GROUP, wishes.group),
        (MASTER, wishes.master),
    ] {
        if let Some(value) = value {
            request.put_u32(kind, value);
        }
    }
}

fn fixed(index: u32, wishes: &Wishes<'_>) -> [u8; FIXED_SIZE] {
    let (flags, change) = match wishes.up {
        Some(true) => (UP, UP),
        Some(false) => (0, UP),
        None => (0, 0),
    };
    let mut fixed = [0; FIXED_SIZE];
    for (field, value) in [(4, index), (8, flags), (12, change)] {
        fixed[field..field + 4].copy_from_slice(&value.to_ne_bytes());
    }
    fixed
}

/// A link as the kernel tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// `IFF_*`.
    pub flags: u32,
    /// `ARPHRD_*`: 1 for Ethernet.
    pub hardware: u16,
    /// Its name.
    pub name: String,
    /// Its hardware address, where it has six bytes.
    pub hardware_address: Option<HardwareAddress>,
    /// The address that its hardware has, whatever it was given since.
    pub permanent_address: Option<HardwareAddress>,
    /// The most bytes of a packet.
    pub mtu: u32,
    /// Its group.
    pub group: u32,
    /// All of it is told; news of IPv6 or of a bridge leave out much.
    pub is_whole: bool,
    /// The bond or bridge that it is a part of.
    pub master: Option<u32>,
    /// The sort of what is no device, e.g. `veth`.
    pub kind: Option<String>,
    /// What routers said last (`IF_RA_MANAGED` 0x40, `IF_RA_OTHERCONF` 0x80, `IF_RA_RCVD` 0x20), where it is told.
    pub router_flags: Option<u32>,
}

impl Link {
    /// Reads `RTM_NEWLINK` and `RTM_DELLINK`; `None`: it is something else, or torn.
    #[must_use]
    pub fn read(answer: &Answer<'_>) -> Option<Self> {
        let body = answer.body;
        let is_link = matches!(answer.kind, NEW_LINK | DELETE_LINK);
        let rest = body.get(FIXED_SIZE..).filter(|_| is_link)?;
        let mut link = Self {
            is_whole: body[0] == 0,
            hardware: super::message::short(body, 2)?,
            index: number(body, 4)?,
            flags: number(body, 8)?,
            ..Self::default()
        };
        for (kind, value) in attributes(rest) {
            link.take(kind, value);
        }
        Some(link)
    }

    fn take(&mut self, kind: u16, value: &[u8]) {
        match kind {
            NAME => self.name = text(value).unwrap_or_default(),
            ADDRESS => self.hardware_address = value.try_into().ok(),
            PERMANENT_ADDRESS => self.permanent_address = value.try_into().ok(),
            MTU => self.mtu = number(value, 0).unwrap_or_default(),
            GROUP => self.group = number(value, 0).unwrap_or_default(),
            MASTER => self.master = number(value, 0),
            INFO => {
                self.kind = find(value, INFO_KIND).and_then(text);
            }
            FAMILIES => {
                let inet6 = find(value, INET6).unwrap_or_default();
                self.router_flags = find(inet6, INET6_FLAGS).and_then(|flags| number(flags, 0));
            }
            PROTOCOL_INFO => {
                self.router_flags = find(value, INET6_FLAGS).and_then(|flags| number(flags, 0));
            }
            _ => {}
        }
    }

    /// Up, and with a carrier.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.flags & (UP | CARRIER) == UP | CARRIER
    }
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::message::answers;

    #[test]
    fn a_link_that_is_made_is_read_back() {
        let wishes = Wishes {
            hardware_address: Some([2, 0, 0, 0, 0, 1]),
            mtu: Some(1400),
            group: Some(8),
            master: Some(4),
            up: Some(true),
            ..Wishes::default()
        };
        let values = [(1_u16, vec![4])];
        for (kind, name) in [
            (Kind::Vlan { id: 10, of: 2 }, "vlan"),
            (Kind::Other("bond", &values), "bond"),
        ] {
            let mut bytes = Vec::new();
            create("x", 9, &kind, &wishes).finish(0, 0, &mut bytes);
            let link = Link::read(&answers(&bytes).next().unwrap()).unwrap();
            let expected = Link {
                is_whole: true,
                index: 9,
                flags: UP,
                name: "x".to_owned(),
                hardware_address: wishes.hardware_address,
                mtu: 1400,
                group: 8,
                master: Some(4),
                kind: Some(name.to_owned()),
                ..Link::default()
            };
            assert_eq!(link, expected);
        }
    }

    #[test]
    fn other_messages_are_no_links() {
        let mut bytes = Vec::new();
        list().finish(0, 0, &mut bytes);
        assert_eq!(Link::read(&answers(&bytes).next().unwrap()), None);
        let torn = Answer {
            kind: NEW_LINK,
            flags: 0,
            sequence: 0,
            body: &[0; 15],
        };
        assert_eq!(Link::read(&torn), None);
    }
}
