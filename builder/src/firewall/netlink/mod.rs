//! The ruleset as netlink messages of nf_tables (`linux/netfilter/nf_tables.h`), one batch.
//!
//! All messages are one transaction: the kernel takes all of them or none. Sequence numbers count from 0 (the batch's
//! beginning); the last message before the batch's end asks for an acknowledgement, so an answer of that number and of error
//! 0 says that the table is there, and any other number with an error says which message is wrong.

mod batch;
mod expressions;
mod values;

use super::ruleset::{Chain, Element, Family, Field, Hook, Rule, Ruleset, Set};
use batch::{Batch, Message};
use expressions::Expressions;
use values::{address_bytes, length_of, padded, value_bytes};

const TABLE: &str = config::boot::FIREWALL_TABLE;

const NFPROTO_INET: u8 = 1;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// An attribute holds less than 64 KiB: so many bytes of elements go into one message.
const MOST_OF_ELEMENTS: usize = 32 << 10;

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
        Hook::Postrouting => (4, 0, "filter"),
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
