//! A ruleset of nftables as data: as much of it as a machine needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::boot::Protocol;
use config::network::Prefix;

/// The table, `inet coracle`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Chains; whoever jumps to one stands behind it or before it.
    pub chains: Vec<Chain>,
}

/// A set or, with data, a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What its keys are made of.
    pub key: Vec<Field>,
    /// What its keys lead to: an address and a port.
    pub data: Option<Family>,
    /// What is added while the machine runs is gone again after a time that is said then.
    pub expires: bool,
    /// What is in it; each key once.
    pub elements: Vec<Element>,
}

/// An entry of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// As many values as the set's key has fields.
    pub key: Vec<Value>,
    /// Address and port; `None`: the set is no map.
    pub data: Option<(IpAddr, u16)>,
}

/// A value in a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// The name of an interface.
    Interface(String),
    /// An address.
    V4(Ipv4Addr),
    /// An address.
    V6(Ipv6Addr),
    /// A transport.
    Protocol(Protocol),
    /// A port.
    Port(u16),
    /// A type of ICMP or ICMPv6.
    Icmp(u8),
}

/// A part of a packet that a key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The interface that it came in by.
    InterfaceName,
    /// Where it comes from.
    Source(Family),
    /// Where it goes.
    Destination(Family),
    /// Its transport.
    Protocol,
    /// The port that it goes to.
    Port,
    /// Its type of ICMP or, by IPv6, ICMPv6.
    IcmpType(Family),
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// A name of a set or chain for one family.
    pub fn named(self, name: &str) -> String {
        match self {
            Self::V4 => format!("{name}4"),
            Self::V6 => format!("{name}6"),
        }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets come in; `None`: others jump to it.
    pub hook: Option<Hook>,
    /// Packets that no rule decides on are dropped.
    pub drop: bool,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a chain is hooked in, with its kind and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before connections are tracked.
    RawPrerouting,
    /// For the machine itself.
    Input,
    /// From one interface to another.
    Forward,
    /// Whatever leaves, once it is known by which interface.
    Postrouting,
    /// New connections that come in.
    DestinationPrerouting,
    /// New connections of the machine's own.
    DestinationOutput,
    /// New connections that go out.
    SourcePostrouting,
}

/// Conditions, all of which must hold, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub clauses: Vec<Clause>,
    /// What happens.
    pub statement: Statement,
}

/// Where an interface stands to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It comes in by it.
    In,
    /// It goes out by it.
    Out,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clause {
    /// The group of an interface is this one, or is not.
    Group(Side, u32, bool),
    /// The interface is the loopback interface, or is not.
    Loopback(Side, bool),
    /// It belongs to a connection that is there.
    Established,
    /// It belongs to no connection and begins none.
    Invalid,
    /// Its connection's destination was translated.
    Translated,
    /// It is of that family.
    Family(Family),
    /// It comes from there.
    From(Prefix),
    /// It goes there.
    To(Prefix),
    /// It goes to one of the machine's own addresses.
    ToMachine,
    /// It goes to one of these ports, from the first to the last.
    Ports(Protocol, u16, u16),
    /// It is ICMP or, by IPv6, ICMPv6 of that type.
    Icmp(Family, u8),
    /// The fields are a key of the set, or are not.
    In(Vec<Field>, String, bool),
}

/// What happens with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// It goes on.
    Accept,
    /// It is gone.
    Drop,
    /// The chain's rules come first, then those behind this one.
    Jump(String),
    /// The chain's rules come, then the policy.
    Goto(String),
    /// Its destination becomes what its key leads to in the map; without such a key the next rule comes.
    TranslateByMap(Family, Vec<Field>, String),
    /// Its destination becomes that address, with the port that it has.
    TranslateTo(IpAddr),
    /// Its destination keeps the address and gets that port.
    TranslatePort(u16),
    /// Its source becomes that address.
    Source(IpAddr),
    /// Its source becomes the address of the interface that it leaves by.
    Masquerade,
}
