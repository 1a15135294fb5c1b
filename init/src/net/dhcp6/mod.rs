//! A DHCPv6 client (RFC 8415) for what routers do not say: [`message`] reads and writes packets, [`client`] decides
//! (pure, under a fake clock in its tests). Who acts is [`super::uplink`].
//!
//! It asks for one address (`IA_NA`) where routers say "managed", and for name servers, domains and time servers
//! where they say "other". It asks for no prefixes.

pub mod client;
mod lease;
pub mod message;
