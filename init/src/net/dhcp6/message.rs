//! DHCPv6 messages: written for requests, read from whatever arrives on port 546 (RFC 8415 §8, §21).
//!
//! Reading is strict about structure and bounded: no more than [`MOST`] of each kind is taken.

use std::net::Ipv6Addr;

use crate::net::domain_name as domain;

/// The most of each kind that is taken of an answer.
pub const MOST: usize = 8;
/// The longest identifier of a server (RFC 8415 §11.1).
const LONGEST_DUID: usize = 130;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const ADDRESSES: u16 = 3;
const ADDRESS: u16 = 5;
const WANTED: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const NAME_SERVERS: u16 = 23;
const SEARCH: u16 = 24;
const SIMPLE_TIME_SERVERS: u16 = 31;
const REFRESH: u16 = 32;
const TIME_SERVERS: u16 = 56;
const LONGEST_SOLICIT: u16 = 82;

const ASKED_FOR: [u16; 6] = [
    NAME_SERVERS,
    SEARCH,
    SIMPLE_TIME_SERVERS,
    REFRESH,
    TIME_SERVERS,
    LONGEST_SOLICIT,
];

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `SOLICIT`: who has an address?
    Solicit,
    /// `REQUEST`: this server shall give its address.
    Request(Binding),
    /// `CONFIRM`: are these addresses right on this link?
    Confirm(Vec<Ipv6Addr>),
    /// `RENEW`, to the server that gave them.
    Renew(Binding),
    /// `REBIND`, to any server.
    Rebind(Vec<Ipv6Addr>),
    /// `RELEASE`: they are not needed any more.
    Release(Binding),
    /// `DECLINE`: somebody else has them.
    Decline(Binding),
    /// `INFORMATION-REQUEST`: name servers and the like, no address.
    Inform,
}

/// Addresses and who gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The server's identifier.
    pub server: Vec<u8>,
    /// Its addresses.
    pub addresses: Vec<Ipv6Addr>,
}

impl Request {
    const fn kind(&self) -> u8 {
        match self {
            Self::Solicit => 1,
            Self::Request(_) => 3,
            Self::Confirm(_) => 4,
            Self::Renew(_) => 5,
            Self::Rebind(_) => 6,
            Self::Release(_) => 8,
            Self::Decline(_) => 9,
            Self::Inform => 11,
        }
    }

    fn parts(&self) -> (Option<&[u8]>, Option<&[Ipv6Addr]>) {
        match self {
            Self::Solicit => (None, Some(&[])),
            Self::Request(binding)
            | Self::Renew(binding)
            | Self::Release(binding)
            | Self::Decline(binding) => (Some(&binding.server), Some(&binding.addresses)),
            Self::Confirm(addresses) | Self::Rebind(addresses) => (None, Some(addresses)),
            Self::Inform => (None, None),
        }
    }
}

/// The client's side of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The client's identifier (DUID-LL, RFC 8415 §11.4): the same at each boot without a state.
    pub hardware_address: [u8; 6],
    /// The number of the interface's one association (IAID).
    pub association: u32,
}

impl Identity {
    fn duid(&self) -> Vec<u8> {
        [&[0, 3, 0, 1][..], &self.hardware_address].concat()
    }
}

/// Writes a message. `transaction` has 24 bits; `elapsed` is in hundredths of a second.
#[must_use]
pub fn encode(identity: &Identity, request: &Request, transaction: u32, elapsed: u16) -> Vec<u8> {
    let [_, high, middle, low] = transaction.to_be_bytes();
    let mut message = vec![request.kind(), high, middle, low];
    push(&mut message, CLIENT_ID, &identity.duid());
    let (server, addresses) = request.parts();
    if let Some(server) = server {
        push(&mut message, SERVER_ID, server);
    }
    push(&mut message, ELAPSED, &elapsed.to_be_bytes());
    if let Some(addresses) = addresses {
        let mut association = Vec::from(identity.association.to_be_bytes());
        association.extend([0; 8]);
        for address in addresses {
            let body = [&address.octets()[..], &[0; 8]].concat();
            push(&mut association, ADDRESS, &body);
        }
        push(&mut message, ADDRESSES, &association);
    }
    if *request == Request::Solicit {
        push(&mut message, RAPID_COMMIT, &[]);
    }
    let ends = matches!(
        request,
        Request::Release(_) | Request::Decline(_) | Request::Confirm(_)
    );
    if !ends {
        let wanted: Vec<u8> = ASKED_FOR
            .iter()
            .flat_map(|code| code.to_be_bytes())
            .collect();
        push(&mut message, WANTED, &wanted);
    }
    message
}

fn push(message: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("options of init's own are short");
    message.extend(code.to_be_bytes());
    message.extend(length.to_be_bytes());
    message.extend(value);
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `ADVERTISE`, with an address.
    Advertise(Grant),
    /// `REPLY`.
    Reply(Grant),
}

/// An address of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// The address.
    pub address: Ipv6Addr,
    /// For how many seconds it is used for new connections.
    pub preferred: u32,
    /// For how many seconds it is there; 0: not any more.
    pub valid: u32,
}

/// What a server gives or would give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The server's identifier.
    pub server: Vec<u8>,
    /// The higher, the more it wants to be taken.
    pub preference: u8,
    /// It came in answer to a `SOLICIT`, at once.
    pub rapid: bool,
    /// The addresses of this client's association.
    pub addresses: Vec<Leased>,
    /// T1 in seconds; 0: as the client likes.
    pub renewal: u32,
    /// T2 in seconds; 0: as the client likes.
    pub rebinding: u32,
    /// What the server says of the request as a whole, or of the association: 0 is success, 3 `NoBinding`,
    /// 4 `NotOnLink`.
    pub status: u16,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// The domains to search names in.
    pub search: Vec<String>,
    /// Time servers.
    pub ntp: Vec<Ipv6Addr>,
    /// When information without an address is to be asked for again, in seconds.
    pub refresh: Option<u32>,
    /// The longest pause between two `SOLICIT`s, in seconds.
    pub longest_solicit: Option<u32>,
}

/// Reads an answer to this client; `None` for any other packet.
#[must_use]
pub fn parse(packet: &[u8], identity: &Identity, transaction: u32) -> Option<Reply> {
    let (head, rest) = packet.split_at_checked(4)?;
    let is_ours = head[1..] == transaction.to_be_bytes()[1..];
    let mut client = None;
    let mut grant = Grant {
        server: Vec::new(),
        preference: 0,
        rapid: false,
        addresses: Vec::new(),
        renewal: 0,
        rebinding: 0,
        status: 0,
        dns: Vec::new(),
        search: Vec::new(),
        ntp: Vec::new(),
        refresh: None,
        longest_solicit: None,
    };
    for option in Options(rest) {
        let (code, value) = option?;
        match code {
            CLIENT_ID => client = Some(value),
            SERVER_ID => grant.server = value.to_vec(),
            _ => grant.take(code, value, identity)?,
        }
    }
    let valid_server = (1..=LONGEST_DUID).contains(&grant.server.len());
    if !is_ours || client != Some(&identity.duid()[..]) || !valid_server {
        return None;
    }
    match head[0] {
        2 => Some(Reply::Advertise(grant)),
        7 => Some(Reply::Reply(grant)),
        _ => None,
    }
}

impl Grant {
    fn take(&mut self, code: u16, value: &[u8], identity: &Identity) -> Option<()> {
        match code {
            PREFERENCE => self.preference = *value.first()?,
            STATUS => self.status = short(value, 0)?,
            RAPID_COMMIT => self.rapid = true,
            ADDRESSES if number(value, 0)? == identity.association => {
                self.renewal = number(value, 4)?;
                self.rebinding = number(value, 8)?;
                for option in Options(value.get(12..)?) {
                    self.take_inner(option?)?;
                }
            }
            NAME_SERVERS => push_addresses(&mut self.dns, value),
            SIMPLE_TIME_SERVERS => push_addresses(&mut self.ntp, value),
            TIME_SERVERS => {
                for option in Options(value) {
                    // 1 is an address; 2 a multicast group, 3 a name: DHCPv4 has neither.
                    if let (1, address) = option? {
                        push_addresses(&mut self.ntp, address);
                    }
                }
            }
            SEARCH => self.search = domain::read(value),
            REFRESH => self.refresh = number(value, 0),
            LONGEST_SOLICIT => {
                let range = 60..=86_400;
                self.longest_solicit = number(value, 0).filter(|seconds| range.contains(seconds));
            }
            _ => {}
        }
        Some(())
    }

    /// An option of the association.
    fn take_inner(&mut self, (code, value): (u16, &[u8])) -> Option<()> {
        match code {
            STATUS => self.status = short(value, 0)?,
            ADDRESS => {
                let octets: [u8; 16] = value.get(..16)?.try_into().ok()?;
                let leased = Leased {
                    address: Ipv6Addr::from(octets),
                    preferred: number(value, 16)?,
                    valid: number(value, 20)?,
                };
                let usable = is_usable(leased.address) && leased.preferred <= leased.valid;
                if usable && self.addresses.len() < MOST {
                    self.addresses.push(leased);
                }
            }
            _ => {}
        }
        Some(())
    }

    /// The addresses that are there, for a request.
    #[must_use]
    pub fn binding(&self) -> Binding {
        let there = self.addresses.iter().filter(|leased| leased.valid > 0);
        Binding {
            server: self.server.clone(),
            addresses: there.map(|leased| leased.address).collect(),
        }
    }
}

/// One that a host can have beyond its link.
const fn is_usable(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local())
}

fn push_addresses(into: &mut Vec<Ipv6Addr>, bytes: &[u8]) {
    let addresses = bytes.chunks_exact(16).filter_map(|bytes| {
        let octets: [u8; 16] = bytes.try_into().ok()?;
        Some(Ipv6Addr::from(octets))
    });
    for address in addresses.filter(|address| !address.is_unspecified() && !address.is_multicast())
    {
        if into.len() < MOST && !into.contains(&address) {
            into.push(address);
        }
    }
}

/// Options by code and value; `None` for one that reaches beyond the bytes, and then nothing more.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = self.split();
        if option.is_none() {
            self.0 = &[];
        }
        Some(option)
    }
}

impl<'a> Options<'a> {
    fn split(&mut self) -> Option<(u16, &'a [u8])> {
        let code = short(self.0, 0)?;
        let end = 4 + usize::from(short(self.0, 2)?);
        let value = self.0.get(4..end)?;
        self.0 = &self.0[end..];
        Some((code, value))
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            hardware_address: [0x52, 0x54, 0, 1, 2, 3],
            association: 16,
        }
    }

    fn reply(kind: u8, association: u32) -> Vec<u8> {
        let mut message = vec![kind, 1, 2, 3];
        push(&mut message, CLIENT_ID, &identity().duid());
        push(&mut message, SERVER_ID, b"server");
        let mut body = [association, 50, 80].map(u32::to_be_bytes).concat();
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let inner = [
            &address.octets()[..],
            &60_u32.to_be_bytes(),
            &100_u32.to_be_bytes(),
        ]
        .concat();
        push(&mut body, ADDRESS, &inner);
        push(&mut message, ADDRESSES, &body);
        let dns: Ipv6Addr = "2001:db8::53".parse().unwrap();
        push(&mut message, NAME_SERVERS, &dns.octets());
        push(&mut message, SEARCH, b"\x03lan\x00");
        let time = [&[0, 1, 0, 16][..], &dns.octets()].concat();
        push(&mut message, TIME_SERVERS, &time);
        message
    }

    #[test]
    fn an_answer_has_addresses_and_servers() {
        let Some(Reply::Reply(grant)) = parse(&reply(7, 16), &identity(), 0x01_0203) else {
            panic!("no reply");
        };
        let binding = grant.binding();
        assert_eq!(binding.server, b"server");
        assert_eq!(
            binding.addresses,
            ["2001:db8::7".parse::<Ipv6Addr>().unwrap()]
        );
        assert_eq!(
            (grant.renewal, grant.rebinding, grant.addresses[0].valid),
            (50, 80, 100)
        );
        assert_eq!(grant.dns, grant.ntp);
        assert_eq!(grant.search, ["lan"]);
        assert!(matches!(
            parse(&reply(2, 16), &identity(), 0x01_0203),
            Some(Reply::Advertise(_))
        ));
    }

    #[test]
    fn answers_to_others_and_torn_ones_are_refused() {
        assert_eq!(parse(&reply(7, 16), &identity(), 0x01_0204), None);
        assert_eq!(parse(&reply(1, 16), &identity(), 0x01_0203), None);
        let other = Identity {
            hardware_address: [0; 6],
            ..identity()
        };
        assert_eq!(parse(&reply(7, 16), &other, 0x01_0203), None);
        let whole = reply(7, 16);
        assert_eq!(
            parse(&whole[..whole.len() - 1], &identity(), 0x01_0203),
            None
        );
        let Some(Reply::Reply(grant)) = parse(&reply(7, 17), &identity(), 0x01_0203) else {
            panic!("no reply");
        };
        assert!(grant.addresses.is_empty(), "another association's");
    }

    #[test]
    fn requests_have_their_parts() {
        let solicit = encode(&identity(), &Request::Solicit, 0x0a_0b0c, 5);
        assert_eq!(solicit[..8], [1, 0x0a, 0x0b, 0x0c, 0, 1, 0, 10]);
        assert_eq!(solicit[18..24], [0, 8, 0, 2, 0, 5]);
        assert_eq!(solicit[24..32], [0, 3, 0, 12, 0, 0, 0, 16]);
        let binding = Binding {
            server: b"s".to_vec(),
            addresses: vec!["2001:db8::7".parse().unwrap()],
        };
        let release = encode(&identity(), &Request::Release(binding), 1, 0);
        assert_eq!(release[18..23], [0, 2, 0, 1, b's']);
        assert_eq!(release[29..33], [0, 3, 0, 40]);
        let inform = encode(&identity(), &Request::Inform, 1, 0);
        assert_eq!(inform[24..28], [0, 6, 0, 12]);
    }

    #[test]
    fn hostile_answers_are_read_within_the_bounds() {
        let mut taken = 0;
        let mut check = |packet: &[u8]| {
            if let Some(Reply::Advertise(grant) | Reply::Reply(grant)) =
                parse(packet, &identity(), 0x01_0203)
            {
                taken += 1;
                assert!(grant.addresses.len() <= MOST && grant.dns.len() <= MOST);
                assert!(grant.ntp.len() <= MOST && grant.search.len() <= domain::MOST);
                assert!(grant.server.len() <= LONGEST_DUID);
            }
        };
        crate::net::random::mutated(50_000, &reply(7, 16), &mut check);
        crate::net::random::random_bytes(20_000, 300, |bytes| {
            check(&[&reply(7, 16)[..], bytes].concat());
        });
        assert!(taken > 100, "{taken}");
    }
}
