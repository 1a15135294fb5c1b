//! A DHCPv4 client (RFC 2131), run as a child of PID 1: `coracle-init dhcp [DEVICE]`.
//!
//! [`message`] reads and writes packets, [`client`] decides (pure, under a fake clock in its tests), [`run`]
//! acts. It does not probe the offered address by ARP, and does not release it at the end: a machine that
//! comes back gets the same one.

pub mod client;
pub mod message;
pub mod run;
