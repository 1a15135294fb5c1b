//! A few requests of rtnetlink(7): moving a device to another network namespace, and its addresses.
//!
//! Refuses nothing by itself. Every length that the kernel gives is checked against what was received, and every one
//! that is sent is counted from what is there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_NEW: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
/// Those without the label, which has the old name, and the times, which a permanent address does not have.
const KEPT: [u16; 4] = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY];
const IFA_F_PERMANENT: u32 = 0x80;
/// Of an IPv6 address that is being checked for duplicates, or has one.
const IFA_F_IN_DOUBT: u32 = 0x48;
const RT_SCOPE_UNIVERSE: u8 = 0;

const HEADER_BYTES: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_BYTES: usize = 8;
/// The kernel sends no larger messages to whoever reads so much.
const BUFFER_BYTES: usize = 32 * 1024;

/// In one network namespace for ever.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

/// A permanent address of global scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    family: u8,
    prefix_length: u8,
    flags: u32,
    /// Attributes, padded, ready to be sent.
    attributes: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket {
    /// In the network namespace of the caller.
    pub(super) fn open() -> io::Result<Self> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        Ok(Self(socket_with(family, SocketType::RAW, flags, None)?))
    }

    /// Moves a device, which is brought down by that.
    pub(super) fn rename_into(
        &self,
        index: u32,
        namespace: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<()> {
        let mut body = link(index, 0, 0);
        let descriptor = namespace.as_raw_fd().to_ne_bytes();
        attribute(&mut body, IFLA_NET_NS_FD, &descriptor);
        attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        self.request(RTM_NEWLINK, NLM_F_ACK, &body).map(drop)
    }

    pub(super) fn bring_up(&self, index: u32) -> io::Result<()> {
        self.request(RTM_NEWLINK, NLM_F_ACK, &link(index, IFF_UP, IFF_UP))
            .map(drop)
    }

    /// The permanent addresses of global scope.
    pub(super) fn addresses(&self, index: u32) -> io::Result<Vec<Address>> {
        let messages = self.request(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_BYTES])?;
        let of_index = messages
            .iter()
            .filter_map(|body| parse_address(body, index));
        Ok(of_index.collect())
    }

    pub(super) fn add_address(&self, index: u32, address: &Address) -> io::Result<()> {
        let Address {
            family,
            prefix_length,
            ..
        } = *address;
        let mut body = vec![family, prefix_length, 0, RT_SCOPE_UNIVERSE];
        body.extend(index.to_ne_bytes());
        body.extend(&address.attributes);
        attribute(&mut body, IFA_FLAGS, &address.flags.to_ne_bytes());
        self.request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_NEW, &body)
            .map(drop)
    }

    /// Sends one request, and receives up to the end of the answer: the bodies of its messages.
    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        // One request at a time, so that neither sequence nor sender need a number.
        message.extend([0; 8]);
        message.extend(body);
        send(&self.0, &message, SendFlags::empty())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut bodies = Vec::new();
        loop {
            let (length, _) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())?;
            if collect(&buffer[..length], &mut bodies)? {
                return Ok(bodies);
            }
        }
    }
}

/// Splits what was received into messages; whether the answer has ended.
fn collect(mut received: &[u8], bodies: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some((header, _)) = received.split_at_checked(HEADER_BYTES) {
        let length = u32_at(header, 0).unwrap_or(0) as usize;
        let Some(body) = received.get(HEADER_BYTES..length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => match u32_at(body, 0).map(u32::cast_signed) {
                Some(0) => return Ok(true),
                Some(code) => return Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                None => return Err(io::ErrorKind::InvalidData.into()),
            },
            _ => bodies.push(body.to_vec()),
        }
        received = received
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(false)
}

/// `None` if it is another device's, or not for outside, or not for ever.
fn parse_address(body: &[u8], index: u32) -> Option<Address> {
    let (head, mut rest) = body.split_at_checked(ADDRESS_BYTES)?;
    let (family, prefix_length, scope) = (head[0], head[1], head[3]);
    if u32_at(head, 4)? != index || scope != RT_SCOPE_UNIVERSE {
        return None;
    }
    let (mut flags, mut attributes) = (u32::from(head[2]), Vec::new());
    while let Some((head, _)) = rest.split_at_checked(4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let value = rest.get(4..length)?;
        if kind == IFA_FLAGS {
            flags = u32_at(value, 0)?;
        } else if KEPT.contains(&kind) {
            attribute(&mut attributes, kind, value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let address = Address {
        family,
        prefix_length,
        flags: flags & !IFA_F_IN_DOUBT,
        attributes,
    };
    (flags & IFA_F_PERMANENT != 0).then_some(address)
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let words = [0, index, flags, change];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Appends an attribute, padded. Values are names and addresses, or a part of what was received.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("an attribute is no longer than one");
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER_BYTES + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    fn address(scope: u8, flags: u8, index: u32, attributes: &[u8]) -> Vec<u8> {
        let head = vec![2, 24, flags, scope];
        [head, index.to_ne_bytes().to_vec(), attributes.to_vec()].concat()
    }

    #[test]
    fn answer_ends_with_its_last_message_or_its_error() {
        let mut bodies = Vec::new();
        let two = [message(RTM_NEWADDR, &[1; 4]), message(RTM_NEWADDR, &[2; 8])].concat();
        assert!(!collect(&two, &mut bodies).expect("valid"));
        assert_eq!(bodies, [vec![1; 4], vec![2; 8]]);
        assert!(collect(&message(NLMSG_DONE, &[0; 4]), &mut bodies).expect("valid"));
        assert!(collect(&message(NLMSG_ERROR, &[0; 4]), &mut bodies).expect("good"));
        let refused = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        let error = collect(&refused, &mut bodies).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn lengths_beyond_what_was_received_are_refused() {
        for length in [0_u32, 15, 21, u32::MAX] {
            let mut lying = message(RTM_NEWADDR, &[0; 4]);
            lying[..4].copy_from_slice(&length.to_ne_bytes());
            let collected = collect(&lying, &mut Vec::new());
            assert!(collected.is_err(), "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut attributes = Vec::new();
            attribute(&mut attributes, IFA_LOCAL, &[10, 0, 0, 1]);
            attributes[..2].copy_from_slice(&length.to_ne_bytes());
            let body = address(0, 0x80, 7, &attributes);
            assert_eq!(parse_address(&body, 7), None, "{length}");
        }
    }

    #[test]
    fn only_permanent_global_addresses_of_the_device_are_kept() {
        let mut attributes = Vec::new();
        attribute(&mut attributes, IFA_LOCAL, &[10, 0, 0, 1]);
        let mut kept = attributes.clone();
        // The label is not.
        attribute(&mut attributes, 3, b"eth0\0");
        attribute(&mut kept, IFA_BROADCAST, &[10, 0, 0, 255]);
        attribute(&mut attributes, IFA_BROADCAST, &[10, 0, 0, 255]);
        let found = parse_address(&address(0, 0x80, 7, &attributes), 7).expect("kept");
        assert_eq!((found.prefix_length, found.attributes), (24, kept));
        for (scope, flags, index) in [(253, 0x80, 7), (0, 0, 7), (0, 0x80, 8)] {
            assert_eq!(
                parse_address(&address(scope, flags, index, &attributes), 7),
                None
            );
        }
    }
}
