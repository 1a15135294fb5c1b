//! Netlink messages as bytes (RFC 3549 §2.2, §2.3): requests with nested attributes, and what answers hold.
//!
//! Does no I/O. Every length that is read is checked against what was received; every one that is written is counted
//! from what is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of `struct nlmsghdr`.
pub const HEADER_SIZE: usize = 16;
const ATTRIBUTE_HEADER_SIZE: usize = 4;
/// `NLA_TYPE_MASK`: without the marks of nesting and byte order.
const KIND_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NLMSG_ERROR`, which an acknowledgement is, too.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const ACKNOWLEDGE: u16 = 0x4;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;

/// One request to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request(Vec<u8>);

impl Request {
    /// Begins with the fixed part of the message's kind. `flags` beside [`REQUEST`].
    #[must_use]
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes)
    }

    /// Appends an attribute, padded to four bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_SIZE + value.len());
        let length = length.expect("attributes are shorter than 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
        self
    }

    /// Appends a number of 32 bits in the machine's order.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends text with the zero byte that ends it.
    pub fn put_text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut value = Vec::from(text);
        value.push(0);
        self.put(kind, &value)
    }

    /// Appends an address in the network's order.
    pub fn put_address(&mut self, kind: u16, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => self.put(kind, &address.octets()),
            IpAddr::V6(address) => self.put(kind, &address.octets()),
        }
    }

    /// Appends an attribute that holds others: `fill` appends them.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_behind(kind, &[], fill)
    }

    /// The same with something of a fixed size before them, as the peer of a veth has its `struct ifinfomsg`.
    pub fn nest_behind(
        &mut self,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Self),
    ) -> &mut Self {
        let start = self.0.len();
        self.put(kind | NESTED, fixed);
        fill(self);
        let length = u16::try_from(self.0.len() - start);
        let length = length.expect("attributes are shorter than 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// The whole message with its length, these flags more, and its number.
    pub fn finish(&self, flags: u16, sequence: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend(&self.0);
        let length = u32::try_from(self.0.len()).expect("requests are a few hundred bytes");
        let all = u16::from_ne_bytes([self.0[6], self.0[7]]) | flags;
        into[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        into[start + 6..start + 8].copy_from_slice(&all.to_ne_bytes());
        into[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        into.resize(into.len().next_multiple_of(4), 0);
    }
}

/// A message of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its kind, e.g. `RTM_NEWLINK`.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The number of the request that it answers; 0 for news.
    pub sequence: u32,
    /// What is behind the header.
    pub body: &'a [u8],
}

/// The messages of what was received; ends at the first one that is not whole.
pub fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER_SIZE)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer {
            kind: short(message, 4)?,
            flags: short(message, 6)?,
            sequence: number(message, 8)?,
            body: &message[HEADER_SIZE..],
        })
    })
}

/// The attributes that begin there, by kind and value; ends at the first one that is not whole.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes, 0)?);
        let kind = short(bytes, 2)? & KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_SIZE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// 16 bits in the machine's order.
#[must_use]
pub fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// 32 bits in the machine's order.
#[must_use]
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Text up to its zero byte.
#[must_use]
pub fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let bytes = &bytes[..end.unwrap_or(bytes.len())];
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// Four bytes or sixteen.
#[must_use]
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(request: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.finish(ACKNOWLEDGE, 7, &mut bytes);
        bytes
    }

    #[test]
    fn a_request_says_its_length_and_is_read_back() {
        let mut request = Request::new(16, CREATE, &[1, 2, 3, 4]);
        request.put_text(3, "eth0").put_u32(4, 1500);
        request.nest(18, |info| {
            info.put_text(1, "veth");
            info.nest(2, |data| {
                data.nest_behind(1, &[9; 16], |peer| {
                    peer.put(3, b"p\0");
                });
            });
        });
        let bytes = finished(&request);
        let answer = answers(&bytes).next().unwrap();
        assert_eq!((answer.kind, answer.sequence), (16, 7));
        assert_eq!(answer.flags, REQUEST | CREATE | ACKNOWLEDGE);
        let found: Vec<_> = attributes(&answer.body[4..]).collect();
        assert_eq!(found[0], (3, &b"eth0\0"[..]));
        assert_eq!(found[1], (4, &1500_u32.to_ne_bytes()[..]));
        let info: Vec<_> = attributes(found[2].1).collect();
        assert_eq!((found[2].0, text(info[0].1).unwrap()), (18, "veth".into()));
        let peer = attributes(info[1].1).next().unwrap().1;
        assert_eq!(peer[..16], [9; 16]);
        assert_eq!(attributes(&peer[16..]).next(), Some((3, &b"p\0"[..])));
    }

    #[test]
    fn several_messages_are_found_and_a_torn_one_ends_them() {
        let mut bytes = finished(&Request::new(1, 0, &[1]));
        assert_eq!(bytes.len() % 4, 0);
        bytes.extend(finished(&Request::new(2, 0, &[])));
        let kinds = |bytes: &[u8]| answers(bytes).map(|answer| answer.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&bytes), [1, 2]);
        assert_eq!(kinds(&bytes[..bytes.len() - 1]), [1]);
        bytes[..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(kinds(&bytes), [] as [u16; 0]);
    }

    #[test]
    fn torn_attributes_end_the_list() {
        for bytes in [
            &[][..],
            &[8, 0, 1, 0, 1, 2, 3],
            &[3, 0, 1, 0],
            &[0, 0, 0, 0],
        ] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        let nested = [5, 0, 1, 0x80, 7, 0, 0, 0];
        assert_eq!(attributes(&nested).next(), Some((1, &[7][..])));
    }

    #[test]
    fn addresses_have_four_bytes_or_sixteen() {
        assert_eq!(address(&[10, 0, 0, 1]), "10.0.0.1".parse().ok());
        assert_eq!(address(&[0; 16]), "::".parse().ok());
        assert_eq!(address(&[0; 5]), None);
    }
}
