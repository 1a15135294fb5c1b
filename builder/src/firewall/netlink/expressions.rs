//! A rule as the kernel's little programs: each expression loads, compares or does something.

use std::net::IpAddr;

use config::boot::Protocol;
use config::network::Prefix;

use super::NFPROTO_INET;
use super::batch::Message;
use super::values::{address_bytes, length_of, padded, protocol_number};
use crate::firewall::ruleset::{Clause, Family, Field, Side, Statement};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// The first register of 16 bytes; one of 4 bytes has [`WORD`] and its place.
const REGISTER: u32 = 1;
/// The first register of 4 bytes, at the place of [`REGISTER`].
const WORD: u32 = 8;
/// Words in a register of 16 bytes.
const WORDS: u32 = 4;

/// A rule's expressions, with what the ones before have made sure of.
pub(super) struct Expressions {
    pub(super) list: Message,
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
    pub(super) const OIF: u32 = 5;
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

    pub(super) fn clause(&mut self, clause: &Clause) {
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
            Clause::Loopback(side, is) => {
                let key = match side {
                    Side::In => meta::IIF,
                    Side::Out => meta::OIF,
                };
                self.meta(key, REGISTER);
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

    pub(super) fn statement(&mut self, statement: &Statement) {
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
