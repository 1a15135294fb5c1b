//! The firewall's messages (nfnetlink): one transaction that the builder thought out, sent as it is.
//!
//! The kernel takes all of it or nothing. A refusal tells which of the messages it is about.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::netlink::Socket;
use super::netlink::message::{ACKNOWLEDGE, CREATE, ERROR, HEADER_SIZE, Request, answers};
use super::netlink::socket::{Refused, refusal};

/// `NFNL_MSG_BATCH_END`.
const BATCH_END: u16 = 17;
/// What the kernel accounts for a byte that is sent, at the most.
const COST: usize = 4;

/// `NFNL_MSG_BATCH_BEGIN`.
const BATCH_BEGIN: u16 = 16;
/// `NFNL_SUBSYS_NFTABLES`.
const TABLES: u8 = 10;
/// `NFT_MSG_NEWSETELEM`.
const NEW_ELEMENTS: u16 = (TABLES as u16) << 8 | 12;
/// `NFPROTO_INET`.
const INET: u8 = 1;

/// Why the firewall is not set up.
#[derive(Debug)]
pub enum Error {
    /// The file is no sequence of messages with an end.
    Torn,
    /// The kernel has no firewall, or does not take so much at once.
    Send(io::Error),
    /// What it refuses; all of it then.
    Refused(Refused),
    /// It says nothing.
    Silent,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("its file is not whole"),
            Self::Send(error) => write!(f, "cannot be sent: {error}"),
            Self::Refused(refused) => {
                write!(f, "message {} is refused: {refused}", refused.request)
            }
            Self::Silent => f.write_str("the kernel does not say that it has it"),
        }
    }
}

/// Puts addresses into a set for some time.
#[must_use]
pub fn elements(
    table: &str,
    set: &str,
    addresses: impl Iterator<Item = IpAddr>,
    time: Duration,
) -> Request {
    const KEY: u16 = 1;
    const TIMEOUT: u16 = 4;
    let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut request = Request::new(NEW_ELEMENTS, CREATE, &[INET, 0, 0, 0]);
    request.put_text(1, table).put_text(2, set);
    request.nest(3, |list| {
        for address in addresses {
            list.nest(1, |element| {
                element.nest(KEY, |key| {
                    key.put_address(1, address);
                });
                element.put(TIMEOUT, &time.to_be_bytes());
            });
        }
    });
    request
}

/// One transaction of these, for [`load`].
#[must_use]
pub fn batch(requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let frame = |kind| Request::new(kind, 0, &[0, 0, 0, TABLES]);
    frame(BATCH_BEGIN).finish(0, 0, &mut bytes);
    for request in requests {
        request.finish(0, 0, &mut bytes);
    }
    frame(BATCH_END).finish(0, 0, &mut bytes);
    bytes
}

/// Numbers the messages from 0 and has the last one before the end acknowledged, as the kernel acknowledges what is
/// inside of a transaction, but its end only since Linux 6.10; returns that number.
fn prepare(bytes: &mut [u8]) -> Result<u32, Error> {
    let mut messages: Vec<(usize, u16)> = Vec::new();
    let mut at = 0;
    for answer in answers(bytes) {
        messages.push((at, answer.kind));
        at += (HEADER_SIZE + answer.body.len()).next_multiple_of(4);
    }
    let last = messages.len().checked_sub(2);
    let is_whole = at >= bytes.len() && messages.last().is_some_and(|last| last.1 == BATCH_END);
    let last = last.filter(|_| is_whole).ok_or(Error::Torn)?;
    for (number, &(at, _)) in (0_u32..).zip(&messages) {
        bytes[at + 8..at + 12].copy_from_slice(&number.to_ne_bytes());
    }
    let flags = messages[last].0 + 6;
    let acknowledged = u16::from_ne_bytes([bytes[flags], bytes[flags + 1]]) | ACKNOWLEDGE;
    bytes[flags..flags + 2].copy_from_slice(&acknowledged.to_ne_bytes());
    u32::try_from(last).map_err(|_| Error::Torn)
}

/// Has the kernel take the transaction in place of what it had.
///
/// # Errors
/// See [`Error`]; what was there before still is then.
pub fn load(mut bytes: Vec<u8>) -> Result<(), Error> {
    let last = prepare(&mut bytes)?;
    let socket = Socket::of(Some(rustix::net::netlink::NETFILTER)).map_err(Error::Send)?;
    socket
        .make_room(bytes.len().saturating_mul(COST))
        .map_err(Error::Send)?;
    socket.send_bytes(&bytes).map_err(Error::Send)?;
    // The kernel has answered when sending is over.
    let mut buffer = vec![0; 8192];
    let mut done = false;
    while let Some(size) = socket.receive_now(&mut buffer).map_err(Error::Send)? {
        for answer in answers(&buffer[..size]).filter(|answer| answer.kind == ERROR) {
            if let Some(refused) = refusal(&answer, answer.sequence as usize) {
                return Err(Error::Refused(refused));
            }
            done |= answer.sequence == last;
        }
    }
    if done { Ok(()) } else { Err(Error::Silent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(kinds: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &kind in kinds {
            let mut request = Request::new(kind, 0, &[0; 4]);
            request.put_text(1, "x");
            request.finish(0, 77, &mut bytes);
        }
        bytes
    }

    #[test]
    fn messages_are_numbered_and_the_last_one_is_acknowledged() {
        let mut bytes = messages(&[16, 2560, 2563, BATCH_END]);
        assert_eq!(prepare(&mut bytes).unwrap(), 2);
        let all: Vec<_> = answers(&bytes)
            .map(|answer| (answer.sequence, answer.flags & ACKNOWLEDGE != 0))
            .collect();
        assert_eq!(all, [(0, false), (1, false), (2, true), (3, false)]);
    }

    #[test]
    fn a_torn_file_is_not_sent() {
        for kinds in [&[][..], &[16, 2560], &[BATCH_END]] {
            assert!(matches!(prepare(&mut messages(kinds)), Err(Error::Torn)));
        }
        let mut bytes = messages(&[16, 2560, BATCH_END]);
        let end = bytes.len() - 3;
        assert!(matches!(prepare(&mut bytes[..end]), Err(Error::Torn)));
        bytes.extend([1, 2, 3, 4]);
        assert!(matches!(prepare(&mut bytes), Err(Error::Torn)));
    }
}
