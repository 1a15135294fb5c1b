//! The kernel's table of connections (`linux/netfilter/nfnetlink_conntrack.h`), by a socket of `NETLINK_NETFILTER`.

use std::net::IpAddr;

use super::message::{Answer, Request, address, attributes};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`, which the entries of a list are.
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

/// Bytes of `struct nfgenmsg`.
const FIXED_SIZE: usize = 4;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
/// `CTA_PROTOINFO`, and in it what there is of TCP, and its state.
const PROTOCOL: u16 = 4;
const TCP: u16 = 1;
const STATE: u16 = 1;
const ID: u16 = 12;
/// `CTA_TUPLE_IP`, and in it the sources.
const ADDRESSES: u16 = 1;
const SOURCE: u16 = 1;
const SOURCE6: u16 = 3;
/// `IPS_ASSURED`.
const ASSURED: u32 = 1 << 2;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`.
const OVER: [u8; 2] = [7, 8];

/// A connection that the kernel tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection<'a> {
    /// Who began it.
    pub from: IpAddr,
    /// Who answers it, whatever the first one thinks.
    pub by: IpAddr,
    /// Both sides were heard: the kernel does not give it up for others when there is no room.
    pub is_assured: bool,
    /// Both sides closed it, or one reset it: it is kept for packets that are late.
    pub is_over: bool,
    family: u8,
    original: &'a [u8],
    id: &'a [u8],
}

impl<'a> Connection<'a> {
    /// Reads an entry of a list; `None`: it is something else, or torn.
    #[must_use]
    pub fn read(answer: &Answer<'a>) -> Option<Self> {
        let rest = answer
            .body
            .get(FIXED_SIZE..)
            .filter(|_| answer.kind == NEW)?;
        let part = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted);
        let original = part(ORIGINAL)?.1;
        let status: [u8; 4] = part(STATUS)?.1.try_into().ok()?;
        Some(Self {
            from: source(original)?,
            by: source(part(REPLY)?.1)?,
            is_assured: u32::from_be_bytes(status) & ASSURED != 0,
            is_over: part(PROTOCOL).is_some_and(|(_, protocol)| is_over(protocol)),
            family: answer.body[0],
            original,
            id: part(ID)?.1,
        })
    }

    /// Has the kernel forget it, and no other one that has its place by now.
    #[must_use]
    pub fn forget(&self) -> Request {
        const NESTED: u16 = 0x8000;
        let mut request = Request::new(DELETE, 0, &[self.family, 0, 0, 0]);
        request.put(ORIGINAL | NESTED, self.original);
        request.put(ID, self.id);
        request
    }
}

fn source(tuple: &[u8]) -> Option<IpAddr> {
    let (_, addresses) = attributes(tuple).find(|(kind, _)| *kind == ADDRESSES)?;
    let mut sources = attributes(addresses).filter(|(kind, _)| matches!(*kind, SOURCE | SOURCE6));
    address(sources.next()?.1)
}

fn is_over(protocol: &[u8]) -> bool {
    let of_tcp = attributes(protocol).find(|(kind, _)| *kind == TCP);
    let state = of_tcp.and_then(|(_, tcp)| attributes(tcp).find(|(kind, _)| *kind == STATE));
    matches!(state, Some((_, [state])) if OVER.contains(state))
}

/// Asks for all connections: for [`super::Socket::list`] and [`Connection::read`].
#[must_use]
pub fn list() -> Request {
    Request::new(GET, 0, &[0; FIXED_SIZE])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::message::answers;

    fn entry(state: u8) -> Vec<u8> {
        let tuple = |request: &mut Request, kind, from: &str, to: &str| {
            request.nest(kind, |tuple| {
                tuple.nest(ADDRESSES, |addresses| {
                    addresses.put_address(SOURCE, from.parse().unwrap());
                    addresses.put_address(2, to.parse().unwrap());
                });
            });
        };
        let mut request = Request::new(NEW, 0, &[2, 0, 0, 0]);
        tuple(&mut request, ORIGINAL, "10.213.0.2", "192.0.2.1");
        tuple(&mut request, REPLY, "192.0.2.1", "192.0.2.7");
        request.put(STATUS, &0x18e_u32.to_be_bytes());
        request.nest(PROTOCOL, |protocol| {
            protocol.nest(TCP, |tcp| {
                tcp.put(STATE, &[state]);
            });
        });
        request.put(ID, &[1, 2, 3, 4]);
        let mut bytes = Vec::new();
        request.finish(0, 0, &mut bytes);
        bytes
    }

    #[test]
    fn an_entry_is_forgotten_by_what_it_was_read_with() {
        let bytes = entry(3);
        let answer = answers(&bytes).next().unwrap();
        let connection = Connection::read(&answer).unwrap();
        assert_eq!(connection.from, IpAddr::from([10, 213, 0, 2]));
        assert_eq!(connection.by, IpAddr::from([192, 0, 2, 1]));
        assert!(connection.is_assured && !connection.is_over);
        let mut deletion = Vec::new();
        connection.forget().finish(0, 0, &mut deletion);
        let deletion = answers(&deletion).next().unwrap();
        assert_eq!((deletion.kind, deletion.body[0]), (DELETE, 2));
        let parts: Vec<_> = attributes(&deletion.body[FIXED_SIZE..]).collect();
        assert_eq!(
            parts,
            [(ORIGINAL, connection.original), (ID, &[1, 2, 3, 4][..])]
        );
    }

    #[test]
    fn a_connection_that_both_sides_closed_or_one_reset_is_over() {
        for (state, expected) in [(0, false), (3, false), (6, false), (7, true), (8, true)] {
            let bytes = entry(state);
            let connection = Connection::read(&answers(&bytes).next().unwrap()).unwrap();
            assert_eq!(connection.is_over, expected, "state {state}");
        }
    }

    #[test]
    fn hostile_entries_are_read_without_a_fault() {
        crate::net::random::mutated(20_000, &entry(7), |bytes| {
            for answer in answers(bytes) {
                let _ = Connection::read(&answer).map(|connection| connection.forget());
            }
        });
    }
}
