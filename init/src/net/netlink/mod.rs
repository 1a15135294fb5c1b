//! Route netlink (RFC 3549): links, addresses, routes, neighbours, and news of them.
//!
//! [`message`] and what stands on it ([`link`], [`address`], [`route`]) make and read bytes; [`Socket`] and
//! [`Monitor`] send and receive them. Written by hand: what init asks for is some KiB of code, where the crates that
//! speak all of netlink bring 88 KiB and more.

pub mod address;
pub mod connection;
pub mod ethernet;
pub mod link;
pub mod message;
pub mod monitor;
pub mod route;
pub mod socket;

use std::io;
use std::net::IpAddr;
use std::path::Path;

pub use ethernet::Ethernet;
pub use monitor::Monitor;
pub use socket::{Refused, Socket};

/// `AF_INET`.
const INET: u8 = 2;
/// `AF_INET6`.
const INET6: u8 = 10;
/// The index of the loopback interface, in each namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// Brings the loopback interface up; the kernel gives it 127.0.0.1 and ::1 itself.
///
/// # Errors
/// What the kernel answers.
pub fn bring_up_loopback() -> io::Result<()> {
    Ok(Socket::open()?.request(&link::bring_up(LOOPBACK_INDEX))?)
}

/// Whether the kernel speaks IPv6, which its command line may forbid.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

const fn family_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => INET,
        IpAddr::V6(_) => INET6,
    }
}
