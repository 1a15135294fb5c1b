//! A DHCPv4 client (RFC 2131), one for each interface of the child `uplink`.
//!
//! [`message`] reads and writes packets, [`client`] decides (pure, under a fake clock in its tests), [`run`]
//! acts. It does not probe the offered address by ARP, and does not release it at the end: a machine that
//! comes back gets the same one.

pub mod client;
pub mod lease;
pub mod message;
pub mod run;
