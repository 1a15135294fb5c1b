//! Packet sockets of ARP (packet(7)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETH_P_ARP`, in the network's order as the kernel wants it.
const ARP: u16 = 0x0806_u16.to_be();

/// A socket that has, without their Ethernet headers, those ARP packets of one link whose senders have `address` but not
/// the hardware address `own`; it waits for nothing. The kernel drops all others, which are many on a large network.
///
/// # Errors
/// What the kernel answers, e.g. `ENODEV`.
pub fn open_arp(index: u32, address: Ipv4Addr, own: [u8; 6]) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Of no protocol until it is bound: else it would have packets of other links in between.
    // SAFETY: takes integers; what it returns is checked below.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    filter(&socket, address, own)?;
    let address = link_address(index);
    // SAFETY: the kernel reads an address of the size that is told.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), SIZE) };
    if result == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Classic BPF over an ARP packet for Ethernet and IPv4: the sender's hardware address is at 8, its address at 14.
fn filter(socket: &OwnedFd, address: Ipv4Addr, own: [u8; 6]) -> io::Result<()> {
    const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let [head @ .., fifth, sixth] = own;
    let step = |code: u32, on_equal: u8, on_other: u8, value: u32| libc::sock_filter {
        code: u16::try_from(code).expect("a code has 16 bits"),
        jt: on_equal,
        jf: on_other,
        k: value,
    };
    let mut program = [
        step(WORD, 0, 0, 14),
        step(EQUAL, 0, 4, address.to_bits()),
        step(WORD, 0, 0, 8),
        step(EQUAL, 0, 3, u32::from_be_bytes(head)),
        step(HALF, 0, 0, 12),
        step(EQUAL, 0, 1, u16::from_be_bytes([fifth, sixth]).into()),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("eight steps"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel reads a program of the size that is told, and copies its steps, of which there are as many as
    // it says and which live until it has returned.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            PROGRAM_SIZE,
        )
    };
    if result == 0 {
        Ok(())
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

#[allow(clippy::cast_possible_truncation, reason = "a struct of sixteen bytes")]
const PROGRAM_SIZE: libc::socklen_t = size_of::<libc::sock_fprog>() as libc::socklen_t;

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
