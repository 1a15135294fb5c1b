//! DHCP messages: written for requests, read from whatever arrives on port 68 (RFC 2131 §2, RFC 2132).
//!
//! Reading is strict about structure and bounded; what a value means is judged in [`super::client`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::net::domain_name as domain;

/// `op`, `htype` … `file`: what stands before the magic cookie.
const FIXED_SIZE: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some relays drop what is shorter (RFC 1542 §2.1).
const MINIMUM_SIZE: usize = 300;
/// Answers by broadcast: the client has no address to receive a unicast at.
const BROADCAST_FLAG: u16 = 0x8000;

const PAD: u8 = 0;
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVERS: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const TIME_SERVERS: u8 = 42;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const MAXIMUM_SIZE: u8 = 57;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const SEARCH: u8 = 119;
const CLASSLESS_ROUTES: u8 = 121;
const END: u8 = 255;

/// The most of each kind that is taken of an answer.
const MOST: usize = 8;
/// The most routes that are taken of an answer.
const MOST_ROUTES: usize = 64;

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

/// Options by their code. Repeated ones are joined (RFC 3396).
struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    fn parse(packet: &[u8]) -> Option<Self> {
        let mut options = Self(BTreeMap::new());
        options.read_field(packet.get(FIXED_SIZE + 4..)?)?;
        let overload = options
            .get(OVERLOAD)
            .and_then(|value| value.first().copied())
            .unwrap_or(0);
        if overload & 1 != 0 {
            options.read_field(&packet[108..236])?;
        }
        if overload & 2 != 0 {
            options.read_field(&packet[44..108])?;
        }
        Some(options)
    }

    /// `None` when an option reaches beyond the field. A field without an end is taken as it is.
    fn read_field(&mut self, mut field: &[u8]) -> Option<()> {
        while let Some((&code, rest)) = field.split_first() {
            match code {
                PAD => field = rest,
                END => break,
                _ => {
                    let (&length, rest) = rest.split_first()?;
                    let value = rest.get(..usize::from(length))?;
                    self.0.entry(code).or_default().extend(value);
                    field = &rest[usize::from(length)..];
                }
            }
        }
        Some(())
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(code)?.try_into().ok()?))
    }

    fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let bytes = self.get(code).unwrap_or_default();
        let addresses = bytes
            .chunks_exact(4)
            .filter_map(|bytes| address_at(bytes, 0));
        addresses
            .filter(|address| !address.is_unspecified())
            .take(MOST)
            .collect()
    }

    fn grant(&self, address: Ipv4Addr) -> Option<Grant> {
        let usable = !(address.is_unspecified()
            || address.is_broadcast()
            || address.is_multicast()
            || address.is_loopback());
        let seconds = self.number(LEASE_TIME).filter(|&seconds| seconds > 0)?;
        usable.then_some(())?;
        Some(Grant {
            address,
            server: self.addresses(SERVER).first().copied()?,
            prefix: self.prefix(address)?,
            routes: self.routes()?,
            dns: self.addresses(NAME_SERVERS),
            domain: self.name(DOMAIN),
            search: self
                .get(SEARCH)
                .map(domain::read_compressed)
                .unwrap_or_default(),
            ntp: self.addresses(TIME_SERVERS),
            hostname: self.name(HOST_NAME),
            mtu: self.mtu(),
            seconds,
            renewal: self.number(RENEWAL_TIME),
            rebinding: self.number(REBINDING_TIME),
        })
    }

    /// Without a mask, that of the address's class. `None` for a mask with holes.
    fn prefix(&self, address: Ipv4Addr) -> Option<u8> {
        let Some(mask) = self.number(SUBNET_MASK) else {
            return Some(match address.octets()[0] {
                0..128 => 8,
                128..192 => 16,
                _ => 24,
            });
        };
        (mask.leading_ones() == mask.count_ones())
            .then(|| u8::try_from(mask.count_ones()).unwrap_or(32))
    }

    /// Classless routes where there are any, else a default route over the first router.
    fn routes(&self) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
        match self.get(CLASSLESS_ROUTES) {
            Some(bytes) => parse_classless_routes(bytes),
            None => {
                let router = self.addresses(ROUTER).into_iter().take(1);
                Some(
                    router
                        .map(|router| (Ipv4Addr::UNSPECIFIED, 0, router))
                        .collect(),
                )
            }
        }
    }

    fn name(&self, code: u8) -> Option<String> {
        let text = std::str::from_utf8(self.get(code)?).ok()?;
        domain::checked(text.trim_end_matches('\0'))
    }

    /// Less than 576 bytes is no network that this machine could use (RFC 791).
    fn mtu(&self) -> Option<u16> {
        let bytes = self.get(MTU)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes)).filter(|&mtu| mtu >= 576)
    }
}

/// Prefix length, the destination's significant bytes, the router (RFC 3442).
fn parse_classless_routes(mut bytes: &[u8]) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = bytes.split_first() {
        let significant = usize::from(prefix.div_ceil(8));
        if prefix > 32 || rest.len() < significant + 4 {
            return None;
        }
        let mut destination = [0; 4];
        destination[..significant].copy_from_slice(&rest[..significant]);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let destination = Ipv4Addr::from(u32::from_be_bytes(destination) & mask);
        let router = address_at(rest, significant)?;
        if routes.len() < MOST_ROUTES {
            routes.push((destination, prefix, router));
        }
        bytes = &rest[significant + 4..];
    }
    Some(routes)
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            xid: 0x0102_0304,
            hardware_address: [0x52, 0x54, 0, 1, 2, 3],
            hostname: "web-1".to_owned(),
        }
    }

    /// An answer with these options behind the cookie.
    fn answer(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; FIXED_SIZE];
        packet[..4].copy_from_slice(&[2, 1, 6, 0]);
        packet[4..8].copy_from_slice(&identity().xid.to_be_bytes());
        packet[16..20].copy_from_slice(&[10, 0, 2, 15]);
        packet[28..34].copy_from_slice(&identity().hardware_address);
        packet.extend(COOKIE);
        packet.extend(options);
        packet
    }

    const GOOD: [u8; 36] = [
        53, 1, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 1, 0x51, 0x80, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0,
        2, 2, 6, 4, 10, 0, 2, 3, 0, 0, 255,
    ];

    fn granted(options: &[u8]) -> Option<Grant> {
        match parse(&answer(options), &identity())? {
            Reply::Offer(grant) | Reply::Acknowledge(grant) => Some(grant),
            Reply::Refuse => None,
        }
    }

    fn with(extra: &[u8]) -> Vec<u8> {
        [&GOOD[..33], extra, &[255]].concat()
    }

    #[test]
    fn a_grant_is_read() {
        let grant = granted(&GOOD).unwrap();
        assert_eq!(
            (grant.address, grant.prefix),
            (Ipv4Addr::new(10, 0, 2, 15), 24)
        );
        assert_eq!(
            (grant.server, grant.seconds),
            (Ipv4Addr::new(10, 0, 2, 2), 86_400)
        );
        assert_eq!(
            grant.routes,
            [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 2))]
        );
        assert_eq!(grant.dns, [Ipv4Addr::new(10, 0, 2, 3)]);
    }

    #[test]
    fn every_truncation_is_survived() {
        let whole = answer(&GOOD);
        for length in 0..whole.len() {
            let _ = parse(&whole[..length], &identity());
        }
        assert_eq!(parse(&whole[..240], &identity()), None);
    }

    #[test]
    fn every_broken_byte_is_survived() {
        for at in 0..answer(&GOOD).len() {
            for bit in 0..8 {
                let mut packet = answer(&GOOD);
                packet[at] ^= 1 << bit;
                let _ = parse(&packet, &identity());
            }
        }
    }

    #[test]
    fn packets_for_others_are_ignored() {
        for at in [0, 1, 2, 4, 7, 28, 33, 236, 239] {
            let mut packet = answer(&GOOD);
            packet[at] ^= 1;
            assert_eq!(parse(&packet, &identity()), None, "byte {at}");
        }
    }

    #[test]
    fn malformed_options_are_refused() {
        let cases: [&[u8]; 8] = [
            &[],
            &[53],
            &[53, 1],
            &[53, 200, 5],
            &[53, 1, 5, 255],
            &[53, 2, 5, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0, 60, 255],
            &[53, 1, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0, 0, 255],
            &[
                53, 1, 5, 54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0, 60, 1, 4, 255, 0, 255, 0, 255,
            ],
        ];
        for options in cases {
            assert_eq!(granted(options), None, "{options:?}");
        }
    }

    #[test]
    fn unusable_addresses_are_refused() {
        for address in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
            let mut packet = answer(&GOOD);
            packet[16..20].copy_from_slice(&address);
            assert_eq!(parse(&packet, &identity()), None, "{address:?}");
        }
    }

    #[test]
    fn a_refusal_needs_no_address() {
        assert_eq!(
            parse(&answer(&[53, 1, 6, 255]), &identity()),
            Some(Reply::Refuse)
        );
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let routes = [121, 12, 0, 10, 0, 2, 9, 16, 10, 7, 0, 0, 0, 0, 0, 0];
        let grant = granted(&with(&routes[..14])).unwrap();
        let expected = [
            (Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 9)),
            (Ipv4Addr::new(10, 7, 0, 0), 16, Ipv4Addr::UNSPECIFIED),
        ];
        assert_eq!(grant.routes, expected);
        for bad in [
            &[121_u8, 1, 33][..],
            &[121, 3, 24, 10, 7],
            &[121, 5, 33, 1, 2, 3, 4],
        ] {
            assert_eq!(granted(&with(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn a_domain_is_a_name_or_nothing() {
        for (text, good) in [
            ("example.org", true),
            ("a b", false),
            ("x\nnameserver 6.6.6.6", false),
            ("", false),
        ] {
            let option = [&[15, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            assert_eq!(
                granted(&with(&option)).unwrap().domain.is_some(),
                good,
                "{text:?}"
            );
        }
    }

    #[test]
    fn overloaded_fields_hold_options_too() {
        let mut packet = answer(&[52, 1, 1, 255]);
        packet[108..108 + GOOD.len()].copy_from_slice(&GOOD);
        assert!(matches!(
            parse(&packet, &identity()),
            Some(Reply::Acknowledge(_))
        ));
    }

    #[test]
    fn requests_have_their_parts_in_place() {
        let address = Ipv4Addr::new(10, 0, 2, 15);
        let discover = encode(&identity(), &Request::Discover { wish: None }, 3);
        assert!(discover.len() >= MINIMUM_SIZE);
        assert_eq!(discover[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 3, 0x80, 0]);
        assert_eq!(discover[236..243], [99, 130, 83, 99, 53, 1, 1]);
        let extend = encode(&identity(), &Request::Extend { address }, 0);
        assert_eq!(extend[10..16], [0, 0, 10, 0, 2, 15]);
        let select = encode(
            &identity(),
            &Request::Select {
                address,
                server: address,
            },
            0,
        );
        assert_eq!(select[243..255], [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 15]);
    }

    #[test]
    fn what_ends_a_lease_asks_for_nothing() {
        let address = Ipv4Addr::new(10, 0, 2, 15);
        let server = Ipv4Addr::new(10, 0, 2, 2);
        let release = encode(&identity(), &Request::Release { address, server }, 0);
        assert_eq!(release[12..16], [10, 0, 2, 15]);
        assert_eq!(release[240..250], [53, 1, 7, 54, 4, 10, 0, 2, 2, 255]);
        let decline = encode(&identity(), &Request::Decline { address, server }, 0);
        assert_eq!(decline[12..16], [0; 4]);
        assert_eq!(
            decline[240..256],
            [53, 1, 4, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2, 255]
        );
    }

    #[test]
    fn names_time_servers_and_the_mtu_are_read() {
        let more = [
            &[12, 5][..],
            b"web-9",
            &[26, 2, 5, 120, 42, 4, 10, 0, 2, 7, 119, 5],
            b"\x03lan\x00",
        ]
        .concat();
        let grant = granted(&with(&more)).unwrap();
        assert_eq!(grant.hostname.as_deref(), Some("web-9"));
        assert_eq!(grant.mtu, Some(1400));
        assert_eq!(grant.ntp, [Ipv4Addr::new(10, 0, 2, 7)]);
        assert_eq!(grant.search, ["lan"]);
        assert_eq!(granted(&with(&[26, 2, 0, 10])).unwrap().mtu, None);
    }

    #[test]
    fn hostile_answers_are_read_within_the_bounds() {
        let options = with(&[121, 5, 0, 10, 0, 2, 2, 119, 5, 3, 108, 97, 110, 0]);
        let mut taken = 0;
        let mut check = |packet: &[u8]| {
            if let Some(Reply::Offer(grant) | Reply::Acknowledge(grant)) =
                parse(packet, &identity())
            {
                taken += 1;
                assert!(grant.dns.len() <= MOST && grant.ntp.len() <= MOST);
                assert!(grant.routes.len() <= MOST_ROUTES && grant.search.len() <= domain::MOST);
                assert!(grant.prefix <= 32 && grant.seconds > 0);
            }
        };
        crate::net::random::mutated(50_000, &answer(&options), &mut check);
        crate::net::random::random_bytes(20_000, 600, |options| check(&answer(options)));
        assert!(taken > 100, "{taken}");
    }
}
