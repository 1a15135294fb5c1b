//! DHCP messages: written for requests, read from whatever arrives on port 68 (RFC 2131 §2, RFC 2132).
//!
//! Reading is strict about structure and bounded; what a value means is judged in [`super::client`].

use std::net::Ipv4Addr;

use super::options::{
    CLASSLESS_ROUTES, DOMAIN, END, HOST_NAME, LEASE_TIME, MAXIMUM_SIZE, MESSAGE_TYPE, MTU,
    NAME_SERVERS, Options, PAD, PARAMETERS, REBINDING_TIME, RENEWAL_TIME, REQUESTED_ADDRESS,
    ROUTER, SEARCH, SERVER, SUBNET_MASK, TIME_SERVERS, address_at,
};

/// `op`, `htype` … `file`: what stands before the magic cookie.
pub(super) const FIXED_SIZE: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some relays drop what is shorter (RFC 1542 §2.1).
const MINIMUM_SIZE: usize = 300;
/// Answers by broadcast: the client has no address to receive a unicast at.
const BROADCAST_FLAG: u16 = 0x8000;

/// What is asked for, what matters most first (RFC 3442: classless routes before the router).
const WANTED: [u8; 13] = [
    SUBNET_MASK,
    CLASSLESS_ROUTES,
    ROUTER,
    NAME_SERVERS,
    HOST_NAME,
    DOMAIN,
    MTU,
    TIME_SERVERS,
    LEASE_TIME,
    SERVER,
    RENEWAL_TIME,
    REBINDING_TIME,
    SEARCH,
];

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `DHCPDISCOVER`.
    Discover {
        /// The address that it would like.
        wish: Option<Ipv4Addr>,
    },
    /// `DHCPREQUEST` for an offer.
    Select {
        /// The offered address.
        address: Ipv4Addr,
        /// The server that offered it.
        server: Ipv4Addr,
    },
    /// `DHCPREQUEST` for an address of before, which may not be right on this network (INIT-REBOOT).
    Confirm {
        /// The address.
        address: Ipv4Addr,
    },
    /// `DHCPREQUEST` for the address that the client has.
    Extend {
        /// The address.
        address: Ipv4Addr,
    },
    /// `DHCPDECLINE`: somebody else has the address.
    Decline {
        /// The address.
        address: Ipv4Addr,
        /// The server that granted it.
        server: Ipv4Addr,
    },
    /// `DHCPRELEASE`: the address is not needed any more.
    Release {
        /// The address.
        address: Ipv4Addr,
        /// The server that granted it.
        server: Ipv4Addr,
    },
}

impl Request {
    /// Option 53.
    const fn kind(&self) -> u8 {
        match self {
            Self::Discover { .. } => 1,
            Self::Select { .. } | Self::Confirm { .. } | Self::Extend { .. } => 3,
            Self::Decline { .. } => 4,
            Self::Release { .. } => 7,
        }
    }

    /// Options 50 and 54 (RFC 2131 table 5).
    const fn address_and_server(&self) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
        match *self {
            Self::Discover { wish } => (wish, None),
            Self::Confirm { address } => (Some(address), None),
            Self::Select { address, server } | Self::Decline { address, server } => {
                (Some(address), Some(server))
            }
            Self::Extend { .. } => (None, None),
            Self::Release { server, .. } => (None, Some(server)),
        }
    }

    /// Whether an answer is expected, and with it what is asked for.
    const fn asks(&self) -> bool {
        !matches!(self, Self::Decline { .. } | Self::Release { .. })
    }
}

/// What a server sends, as far as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `DHCPOFFER`.
    Offer(Grant),
    /// `DHCPACK`.
    Acknowledge(Grant),
    /// `DHCPNAK`.
    Refuse,
}

/// An offered or granted address with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// `yiaddr`.
    pub address: Ipv4Addr,
    /// The server.
    pub server: Ipv4Addr,
    /// Prefix length of the subnet mask.
    pub prefix: u8,
    /// Destination, prefix length, router (0.0.0.0: on the link); RFC 3442 over the router option.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The domain.
    pub domain: Option<String>,
    /// The domains to search names in (RFC 3397).
    pub search: Vec<String>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// The name that the machine shall have.
    pub hostname: Option<String>,
    /// The largest packet in bytes.
    pub mtu: Option<u16>,
    /// Lease time in seconds, never 0.
    pub seconds: u32,
    /// T1 in seconds.
    pub renewal: Option<u32>,
    /// T2 in seconds.
    pub rebinding: Option<u32>,
}

/// The client's side of a conversation, the same in each of its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The transaction.
    pub xid: u32,
    /// The Ethernet address.
    pub hardware_address: [u8; 6],
    /// The name that the server may register.
    pub hostname: String,
}

/// Writes a message. `seconds`: since the client began.
#[must_use]
pub fn encode(identity: &Identity, request: &Request, seconds: u16) -> Vec<u8> {
    let mut message = vec![0; FIXED_SIZE];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&identity.xid.to_be_bytes());
    message[8..10].copy_from_slice(&seconds.to_be_bytes());
    match request {
        Request::Extend { address } | Request::Release { address, .. } => {
            message[12..16].copy_from_slice(&address.octets());
        }
        _ => message[10..12].copy_from_slice(&BROADCAST_FLAG.to_be_bytes()),
    }
    message[28..34].copy_from_slice(&identity.hardware_address);
    message.extend(COOKIE);
    push_option(&mut message, MESSAGE_TYPE, &[request.kind()]);
    let (address, server) = request.address_and_server();
    if let Some(address) = address {
        push_option(&mut message, REQUESTED_ADDRESS, &address.octets());
    }
    if let Some(server) = server {
        push_option(&mut message, SERVER, &server.octets());
    }
    if request.asks() {
        push_option(&mut message, MAXIMUM_SIZE, &1500_u16.to_be_bytes());
        if (1..=63).contains(&identity.hostname.len()) {
            push_option(&mut message, HOST_NAME, identity.hostname.as_bytes());
        }
        push_option(&mut message, PARAMETERS, &WANTED);
    }
    message.push(END);
    message.resize(message.len().max(MINIMUM_SIZE), PAD);
    message
}

fn push_option(message: &mut Vec<u8>, code: u8, value: &[u8]) {
    message.extend([
        code,
        u8::try_from(value.len()).expect("options of init's own are short"),
    ]);
    message.extend(value);
}

/// Reads an answer to this client; `None` for any other packet.
#[must_use]
pub fn parse(packet: &[u8], identity: &Identity) -> Option<Reply> {
    let fixed = packet.get(..FIXED_SIZE)?;
    let is_answer = fixed[..3] == [2, 1, 6];
    let is_ours =
        fixed[4..8] == identity.xid.to_be_bytes() && fixed[28..34] == identity.hardware_address;
    if !is_answer || !is_ours || packet.get(FIXED_SIZE..FIXED_SIZE + 4)? != COOKIE {
        return None;
    }
    let options = Options::parse(packet)?;
    let address = address_at(fixed, 16)?;
    match options.get(MESSAGE_TYPE)? {
        [2] => options.grant(address).map(Reply::Offer),
        [5] => options.grant(address).map(Reply::Acknowledge),
        [6] => Some(Reply::Refuse),
        _ => None,
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
