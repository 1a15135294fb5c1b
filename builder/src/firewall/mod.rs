//! The machine's firewall: one nftables table that follows from the machine's file alone.
//!
//! [`compile()`] makes a [`Ruleset`] of the [`Spec`](config::Spec); it becomes netlink messages ([`Ruleset::messages`]), which
//! init sends in one transaction, and text for nft(8) ([`Ruleset::text`]), for people and for tests. All traffic between
//! workloads is routed by the machine, so the chains of this one table see all of it; nothing in it changes while the
//! machine runs. Addresses and groups of interfaces are matched, never names of interfaces that only the running machine
//! knows.

mod compile;
mod inbound;
mod netlink;
mod publish;
mod reach;
mod ruleset;
mod text;

pub use compile::{compile, modules, spare_modules};
pub use ruleset::{
    Chain, Clause, Element, Family, Field, Hook, Rule, Ruleset, Set, Side, Statement, Value,
};

/// Where the messages lie in the machine's root.
pub const FIREWALL_PATH: &str = "/usr/lib/coracle/firewall";
