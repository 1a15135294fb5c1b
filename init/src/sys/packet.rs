//! Packet sockets of ARP (packet(7)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETH_P_ARP`, in the network's order as the kernel wants it.
const ARP: u16 = 0x0806_u16.to_be();

/// A socket that has the ARP packets of one link without their Ethernet headers, and waits for nothing.
///
/// # Errors
/// What the kernel answers, e.g. `ENODEV`.
pub fn open_arp(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Of no protocol until it is bound: else it would have packets of other links in between.
    // SAFETY: takes integers; what it returns is checked below.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = link_address(index);
    // SAFETY: the kernel reads an address of the size that is told.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), SIZE) };
    if result == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends an ARP packet to everyone on a link.
///
/// # Errors
/// What the kernel answers, e.g. `ENETDOWN`.
pub fn send_arp(socket: &OwnedFd, index: u32, packet: &[u8]) -> io::Result<()> {
    let mut address = link_address(index);
    address.sll_halen = 6;
    address.sll_addr[..6].fill(0xff);
    // SAFETY: the kernel reads as many bytes of the packet as it has, and an address of the size that is told.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            SIZE,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a struct of twenty bytes")]
const SIZE: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

const fn link_address(index: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: ARP,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}
