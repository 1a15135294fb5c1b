//! The ruleset as netlink messages of nf_tables (`linux/netfilter/nf_tables.h`), one batch.
//!
//! All messages are one transaction: the kernel takes all of them or none. Sequence numbers count from 0 (the batch's
//! beginning); the last message before the batch's end asks for an acknowledgement, so an answer of that number and of error
//! 0 says that the table is there, and any other number with an error says which message is wrong.

use std::net::IpAddr;

use config::boot::Protocol;
use config::network::Prefix;

use super::ruleset::{
    Chain, Clause, Element, Family, Field, Hook, Rule, Ruleset, Set, Side, Statement, Value,
};

const TABLE: &str = config::boot::FIREWALL_TABLE;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
/// An attribute holds less than 64 KiB: so many bytes of elements go into one message.
const MOST_OF_ELEMENTS: usize = 32 << 10;

/// The first register of 16 bytes; one of 4 bytes has [`WORD`] and its place.
const REGISTER: u32 = 1;
/// The first register of 4 bytes, at the place of [`REGISTER`].
const WORD: u32 = 8;
/// Words in a register of 16 bytes.
const WORDS: u32 = 4;

/// nft's own numbers of types, by which it shows sets; the kernel does not look at them.
const TYPE_BITS: u32 = 6;

impl Ruleset {
    /// The batch, as a process with `CAP_NET_ADMIN` sends it to a `NETLINK_NETFILTER` socket at once.
    pub fn messages(&self) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.mark(BATCH_BEGIN);
        let name = |m: &mut Message| m.text(1, TABLE);
        batch.add(NEW_TABLE, NLM_F_CREATE, name);
        batch.add(DELETE_TABLE, 0, name);
        batch.add(NEW_TABLE, NLM_F_CREATE, name);
        for (at, set) in self.sets.iter().enumerate() {
            add_set(&mut batch, set, at);
        }
        for chain in &self.chains {
            add_chain(&mut batch, chain);
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                add_rule(&mut batch, &chain.name, rule);
            }
        }
        batch.acknowledge_last();
        batch.mark(BATCH_END);
        batch.bytes
    }
}

/// Messages in a row.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    fn add(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) {
        let mut message = Message(Vec::new());
        fill(&mut message);
        self.put(kind, flags, NFPROTO_INET, 0, &message.0);
    }

    fn mark(&mut self, kind: u16) {
        self.put(kind, 0, NFPROTO_UNSPEC, SUBSYSTEM, &[]);
    }

    /// `nlmsghdr`, `nfgenmsg`, attributes.
    fn put(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        self.last = self.bytes.len();
        let length = u32::try_from(20 + attributes.len()).expect("a message is small");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
        self.sequence += 1;
    }

    fn acknowledge_last(&mut self) {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | NLM_F_ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// The attributes of a message, or those nested in one.
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("an attribute has less than 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0);
    }
}

fn add_set(batch: &mut Batch, set: &Set, at: usize) {
    const NFT_SET_MAP: u32 = 0x8;
    const NFT_SET_TIMEOUT: u32 = 0x10;
    const NFT_SET_CONCAT: u32 = 0x80;
    let id = u32::try_from(at + 1).expect("sets are few");
    let mut flags = 0;
    if set.data.is_some() {
        flags |= NFT_SET_MAP;
    }
    if set.expires {
        flags |= NFT_SET_TIMEOUT;
    }
    if set.key.len() > 1 {
        flags |= NFT_SET_CONCAT;
    }
    let lengths: Vec<u32> = set
        .key
        .iter()
        .map(|field| padded(length_of(*field)))
        .collect();
    batch.add(NEW_SET, NLM_F_CREATE, |m| {
        m.text(1, TABLE);
        m.text(2, &set.name);
        m.number(3, flags);
        m.number(4, type_of(&set.key));
        let length = match set.key[..] {
            [field] => length_of(field),
            _ => lengths.iter().sum(),
        };
        m.number(5, length);
        if let Some(family) = set.data {
            m.number(6, type_of(&[Field::Destination(family), Field::Port]));
            m.number(7, length_of(Field::Destination(family)) + 4);
        }
        if set.key.len() > 1 {
            m.nested(9, |m| {
                m.nested(2, |m| {
                    for length in set.key.iter().map(|field| length_of(*field)) {
                        m.nested(1, |m| m.number(1, length));
                    }
                });
            });
        }
        m.number(10, id);
    });
    let mut rest = &set.elements[..];
    while !rest.is_empty() {
        let mut elements = Message(Vec::new());
        while let Some((first, others)) = rest.split_first() {
            if elements.0.len() > MOST_OF_ELEMENTS {
                break;
            }
            elements.nested(1, |m| fill_element(m, first));
            rest = others;
        }
        batch.add(NEW_ELEMENTS, NLM_F_CREATE, |m| {
            m.text(1, TABLE);
            m.text(2, &set.name);
            m.nested(3, |m| m.0 = elements.0);
            m.number(4, id);
        });
    }
}

fn fill_element(m: &mut Message, element: &Element) {
    let is_concatenation = element.key.len() > 1;
    let mut key = Vec::new();
    for value in &element.key {
        key.extend(value_bytes(value));
        if is_concatenation {
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    m.nested(1, |m| m.bytes(1, &key));
    if let Some((address, port)) = element.data {
        let mut data = address_bytes(address);
        data.extend(port.to_be_bytes());
        data.extend([0; 2]);
        m.nested(2, |m| m.bytes(1, &data));
    }
}

fn value_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Interface(name) => interface_name(name),
        Value::V4(address) => address.octets().to_vec(),
        Value::V6(address) => address.octets().to_vec(),
        Value::Protocol(protocol) => vec![protocol_number(*protocol)],
        Value::Port(port) => port.to_be_bytes().to_vec(),
        Value::Icmp(number) => vec![*number],
    }
}

/// `IFNAMSIZ` bytes.
fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

const fn length_of(field: Field) -> u32 {
    match field {
        Field::InterfaceName => 16,
        Field::Source(Family::V4) | Field::Destination(Family::V4) => 4,
        Field::Source(Family::V6) | Field::Destination(Family::V6) => 16,
        Field::Protocol | Field::IcmpType(_) => 1,
        Field::Port => 2,
    }
}

const fn padded(length: u32) -> u32 {
    length.next_multiple_of(4)
}

fn type_of(fields: &[Field]) -> u32 {
    let number = |field: &Field| match field {
        Field::Source(Family::V4) | Field::Destination(Family::V4) => 7,
        Field::Source(Family::V6) | Field::Destination(Family::V6) => 8,
        Field::Protocol => 12,
        Field::Port => 13,
        Field::IcmpType(Family::V4) => 14,
        Field::IcmpType(Family::V6) => 29,
        Field::InterfaceName => 41,
    };
    fields
        .iter()
        .fold(0, |all, field| all << TYPE_BITS | number(field))
}

fn add_chain(batch: &mut Batch, chain: &Chain) {
    batch.add(NEW_CHAIN, NLM_F_CREATE, |m| {
        m.text(1, TABLE);
        m.text(3, &chain.name);
        if let Some(hook) = chain.hook {
            let (number, priority, kind) = hook_numbers(hook);
            m.nested(4, |m| {
                m.number(1, number);
                m.bytes(2, &priority.to_be_bytes());
            });
            m.number(5, u32::from(!chain.drop));
            m.text(7, kind);
        }
    });
}

/// Hook, priority and type.
const fn hook_numbers(hook: Hook) -> (u32, i32, &'static str) {
    match hook {
        Hook::RawPrerouting => (0, -300, "filter"),
        Hook::Input => (1, 0, "filter"),
        Hook::Forward => (2, 0, "filter"),
        Hook::DestinationPrerouting => (0, -100, "nat"),
        Hook::DestinationOutput => (3, -100, "nat"),
        Hook::SourcePostrouting => (4, 100, "nat"),
    }
}

fn add_rule(batch: &mut Batch, chain: &str, rule: &Rule) {
    let mut expressions = Expressions::default();
    for clause in &rule.clauses {
        expressions.clause(clause);
    }
    expressions.statement(&rule.statement);
    batch.add(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |m| {
        m.text(1, TABLE);
        m.text(2, chain);
        m.nested(4, |m| m.0 = expressions.list.0);
    });
}

/// A rule's expressions, with what the ones before have made sure of.
struct Expressions {
    list: Message,
    family: Option<Family>,
    transport: Option<u8>,
}

impl Default for Expressions {
    fn default() -> Self {
        Self {
            list: Message(Vec::new()),
            family: None,
            transport: None,
        }
    }
}

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;

/// What `meta` loads.
mod meta {
    pub(super) const IIF: u32 = 4;
    pub(super) const IIFNAME: u32 = 6;
    pub(super) const NFPROTO: u32 = 15;
    pub(super) const L4PROTO: u32 = 16;
    pub(super) const IIFGROUP: u32 = 21;
    pub(super) const OIFGROUP: u32 = 22;
}

impl Expressions {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Message)) {
        self.list.nested(1, |m| {
            m.text(1, name);
            m.nested(2, fill);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.add("meta", |m| {
            m.number(1, register);
            m.number(2, key);
        });
    }

    fn compare(&mut self, operation: u32, value: &[u8]) {
        self.add("cmp", |m| {
            m.number(1, REGISTER);
            m.number(2, operation);
            m.nested(3, |m| m.bytes(1, value));
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).expect("a register is small");
        self.add("bitwise", |m| {
            m.number(1, REGISTER);
            m.number(2, REGISTER);
            m.number(3, length);
            m.nested(4, |m| m.bytes(1, mask));
            m.nested(5, |m| m.bytes(1, &vec![0; mask.len()]));
        });
    }

    /// Of the network header (1) or the transport's (2).
    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.add("payload", |m| {
            m.number(1, register);
            m.number(2, base);
            m.number(3, offset);
            m.number(4, length);
        });
    }

    fn ensure_family(&mut self, family: Family) {
        if self.family != Some(family) {
            self.family = Some(family);
            self.meta(meta::NFPROTO, REGISTER);
            self.compare(EQUAL, &[number_of(family)]);
        }
    }

    fn ensure_transport(&mut self, number: u8) {
        if self.transport != Some(number) {
            self.transport = Some(number);
            self.meta(meta::L4PROTO, REGISTER);
            self.compare(EQUAL, &[number]);
        }
    }

    fn connection(&mut self, key: u32, bits: u32) {
        self.add("ct", |m| {
            m.number(1, REGISTER);
            m.number(2, key);
        });
        self.mask(&bits.to_ne_bytes());
        self.compare(NOT_EQUAL, &[0; 4]);
    }

    fn clause(&mut self, clause: &Clause) {
        const CT_STATE: u32 = 0;
        const CT_STATUS: u32 = 2;
        const INVALID: u32 = 1;
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        const DESTINATION_TRANSLATED: u32 = 1 << 5;
        const LOOPBACK_INDEX: u32 = 1;
        let operation = |is: bool| if is { EQUAL } else { NOT_EQUAL };
        match clause {
            Clause::Group(side, group, is) => {
                let key = match side {
                    Side::In => meta::IIFGROUP,
                    Side::Out => meta::OIFGROUP,
                };
                self.meta(key, REGISTER);
                self.compare(operation(*is), &group.to_ne_bytes());
            }
            Clause::Loopback(is) => {
                self.meta(meta::IIF, REGISTER);
                self.compare(operation(*is), &LOOPBACK_INDEX.to_ne_bytes());
            }
            Clause::Established => self.connection(CT_STATE, ESTABLISHED_OR_RELATED),
            Clause::Invalid => self.connection(CT_STATE, INVALID),
            Clause::Translated => self.connection(CT_STATUS, DESTINATION_TRANSLATED),
            Clause::Family(family) => self.ensure_family(*family),
            Clause::From(prefix) => self.prefix(*prefix, Field::Source),
            Clause::To(prefix) => self.prefix(*prefix, Field::Destination),
            Clause::ToMachine => self.destination_is_local(),
            Clause::Ports(protocol, first, last) => self.ports(*protocol, *first, *last),
            Clause::Icmp(family, kind) => {
                self.load(&[Field::IcmpType(*family)]);
                self.compare(EQUAL, &[*kind]);
            }
            Clause::In(fields, set, is) => {
                self.load(fields);
                self.add("lookup", |m| {
                    m.text(1, set);
                    m.number(2, REGISTER);
                    if !is {
                        m.number(5, 1);
                    }
                });
            }
        }
    }

    fn prefix(&mut self, prefix: Prefix, field: fn(Family) -> Field) {
        let family = Family::of(prefix.address);
        self.load(&[field(family)]);
        let address = address_bytes(prefix.address);
        if usize::from(prefix.length) < address.len() * 8 {
            let bits = |at: usize| usize::from(prefix.length).saturating_sub(at * 8).min(8);
            let mask: Vec<u8> = (0..address.len())
                .map(|at| u8::try_from(0xff00_u32 >> bits(at) & 0xff).expect("a byte"))
                .collect();
            self.mask(&mask);
        }
        self.compare(EQUAL, &address);
    }

    fn destination_is_local(&mut self) {
        const ADDRESS_TYPE: u32 = 3;
        const BY_DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        self.add("fib", |m| {
            m.number(1, REGISTER);
            m.number(2, ADDRESS_TYPE);
            m.number(3, BY_DESTINATION);
        });
        self.compare(EQUAL, &LOCAL.to_ne_bytes());
    }

    fn ports(&mut self, protocol: Protocol, first: u16, last: u16) {
        self.ensure_transport(protocol_number(protocol));
        self.load(&[Field::Port]);
        if first == last {
            self.compare(EQUAL, &first.to_be_bytes());
        } else {
            self.compare(AT_LEAST, &first.to_be_bytes());
            self.compare(AT_MOST, &last.to_be_bytes());
        }
    }

    /// Loads the fields into registers, one behind the other.
    fn load(&mut self, fields: &[Field]) {
        for field in fields {
            match field {
                Field::Source(family) | Field::Destination(family) => self.ensure_family(*family),
                Field::IcmpType(family) => self.ensure_transport(match family {
                    Family::V4 => 1,
                    Family::V6 => 58,
                }),
                Field::InterfaceName | Field::Protocol | Field::Port => {}
            }
        }
        let mut word = 0;
        for field in fields {
            let length = length_of(*field);
            let register = register(word);
            word += padded(length) / 4;
            match field {
                Field::InterfaceName => self.meta(meta::IIFNAME, register),
                Field::Protocol => self.meta(meta::L4PROTO, register),
                Field::Source(Family::V4) => self.payload(1, 12, length, register),
                Field::Destination(Family::V4) => self.payload(1, 16, length, register),
                Field::Source(Family::V6) => self.payload(1, 8, length, register),
                Field::Destination(Family::V6) => self.payload(1, 24, length, register),
                Field::Port => self.payload(2, 2, length, register),
                Field::IcmpType(_) => self.payload(2, 0, length, register),
            }
        }
    }

    fn statement(&mut self, statement: &Statement) {
        const ACCEPT: i32 = 1;
        const DROP: i32 = 0;
        const JUMP: i32 = -3;
        const GOTO: i32 = -4;
        match statement {
            Statement::Accept => self.verdict(ACCEPT, None),
            Statement::Drop => self.verdict(DROP, None),
            Statement::Jump(chain) => self.verdict(JUMP, Some(chain)),
            Statement::Goto(chain) => self.verdict(GOTO, Some(chain)),
            Statement::TranslateByMap(family, fields, map) => {
                self.load(fields);
                self.add("lookup", |m| {
                    m.text(1, map);
                    m.number(2, REGISTER);
                    m.number(3, REGISTER);
                });
                let words = length_of(Field::Destination(*family)) / 4;
                self.translate(
                    true,
                    number_of(*family),
                    Some(REGISTER),
                    Some(register(words)),
                );
            }
            Statement::TranslateTo(address) => self.translate_to(true, *address),
            Statement::Source(address) => self.translate_to(false, *address),
            Statement::TranslatePort(port) => {
                self.immediate(&port.to_be_bytes());
                self.translate(true, NFPROTO_INET, None, Some(REGISTER));
            }
            Statement::Masquerade => self.add("masq", |_| {}),
        }
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        const VERDICT_REGISTER: u32 = 0;
        self.add("immediate", |m| {
            m.number(1, VERDICT_REGISTER);
            m.nested(2, |m| {
                m.nested(2, |m| {
                    m.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        m.text(2, chain);
                    }
                });
            });
        });
    }

    fn immediate(&mut self, value: &[u8]) {
        self.add("immediate", |m| {
            m.number(1, REGISTER);
            m.nested(2, |m| m.bytes(1, value));
        });
    }

    fn translate_to(&mut self, destination: bool, address: IpAddr) {
        self.immediate(&address_bytes(address));
        let family = number_of(Family::of(address));
        self.translate(destination, family, Some(REGISTER), None);
    }

    fn translate(
        &mut self,
        destination: bool,
        family: u8,
        address: Option<u32>,
        port: Option<u32>,
    ) {
        self.add("nat", |m| {
            m.number(1, u32::from(destination));
            m.number(2, family.into());
            if let Some(register) = address {
                m.number(3, register);
            }
            if let Some(register) = port {
                m.number(5, register);
            }
        });
    }
}

const fn number_of(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

/// The register at that word; whole ones by their own number, as nft has it.
const fn register(word: u32) -> u32 {
    if word.is_multiple_of(WORDS) {
        REGISTER + word / WORDS
    } else {
        WORD + word
    }
}
