//! A DHCPv4 client (RFC 2131): [`message`] reads and writes packets, [`client`] decides (pure, under a fake clock in its
//! tests). Who acts is [`super::uplink`].

pub mod client;
mod lease;
pub mod message;
mod options;
