//! The sockets of DHCPv4 and DHCPv6: each bound to one link, and none waits.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with, sockopt,
};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::sys;

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
const SERVER6: u16 = 547;
const CLIENT6: u16 = 546;
/// `All_DHCP_Relay_Agents_and_Servers` (RFC 8415 §7.1).
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Sends and receives on a link without an address.
///
/// # Errors
/// What the kernel answers.
pub fn open(device: &str) -> io::Result<UdpSocket> {
    let socket = udp(AddressFamily::INET, device)?;
    sockopt::set_socket_broadcast(&socket, true)?;
    let all = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT);
    bind(&socket, &all)?;
    Ok(UdpSocket::from(socket))
}

/// The same of DHCPv6.
///
/// # Errors
/// What the kernel answers.
pub fn open6(device: &str) -> io::Result<UdpSocket> {
    let socket = udp(AddressFamily::INET6, device)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    let all = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT6, 0, 0);
    bind(&socket, &all)?;
    Ok(UdpSocket::from(socket))
}

fn udp(family: AddressFamily, device: &str) -> io::Result<std::os::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sys::bind_to_device(&socket, device)?;
    Ok(socket)
}

/// The server at an address, or all of them.
#[must_use]
pub fn server(address: Option<Ipv4Addr>) -> SocketAddr {
    SocketAddrV4::new(address.unwrap_or(Ipv4Addr::BROADCAST), SERVER).into()
}

/// All DHCPv6 servers of a link.
#[must_use]
pub fn servers6(index: u32) -> SocketAddr {
    SocketAddrV6::new(ALL_SERVERS, SERVER6, 0, index).into()
}

/// Asks the routers of a link to tell what they have to (RFC 4861 §4.1).
///
/// # Errors
/// What the kernel answers.
pub fn solicit_routers(index: u32, device: &str) -> io::Result<()> {
    const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];
    const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(ipproto::ICMPV6);
    let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, protocol)?;
    sys::bind_to_device(&socket, device)?;
    // Routers believe that it comes from their link by this alone. The checksum is the kernel's to make.
    sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    let routers = SocketAddrV6::new(ALL_ROUTERS, 0, 0, index);
    sendto(&socket, &SOLICITATION, SendFlags::empty(), &routers)?;
    Ok(())
}

/// Never blocks: a machine that just started may have little entropy, and these numbers guard nothing.
#[must_use]
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without any the machines that start together ask together, which is no fault.
    let _ = getrandom(&mut bytes[..], GetRandomFlags::INSECURE);
    u32::from_ne_bytes(bytes)
}
