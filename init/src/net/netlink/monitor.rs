//! News of the kernel's: links, addresses, routes, and what routers advertise.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::address::{Address, DELETE_ADDRESS};
use super::link::{DELETE_LINK, Link};
use super::message::{Answer, address, answers, attributes, number, short};
use super::route::{DELETE_ROUTE, Route};
use super::socket::Socket;

/// Groups of news (`RTMGRP_*`); any sum of them.
pub mod group {
    /// Links.
    pub const LINK: u32 = 0x1;
    /// Addresses of IPv4.
    pub const IPV4_ADDRESS: u32 = 0x10;
    /// Routes of IPv4.
    pub const IPV4_ROUTE: u32 = 0x40;
    /// Addresses of IPv6.
    pub const IPV6_ADDRESS: u32 = 0x100;
    /// Routes of IPv6.
    pub const IPV6_ROUTE: u32 = 0x400;
    /// What routers say of a link's addresses ([`super::Link::router_flags`]).
    pub const IPV6_LINK: u32 = 0x800;
    /// Prefixes that routers advertise.
    pub const IPV6_PREFIX: u32 = 0x2_0000;
    /// Options of advertisements that the kernel does not use itself: name servers (RFC 8106).
    pub const ROUTER_OPTION: u32 = 0x8_0000;
}

/// What is read in one turn; the rest waits for the next.
const MESSAGES_AT_ONCE: usize = 256;
const NEW_PREFIX: u16 = 52;
const NEW_ROUTER_OPTION: u16 = 68;

/// One of the news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A link is there, or is otherwise than before.
    Link(Link),
    /// A link is gone.
    LinkGone(Link),
    /// An address is there, or is otherwise than before.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route of the main table is there.
    Route(Route),
    /// A route of the main table is gone.
    RouteGone(Route),
    /// A router advertises a prefix.
    Prefix(Prefix),
    /// A router advertises an option (RFC 4861 §4.6): type, length in eight bytes, the rest.
    RouterOption {
        /// The link that it came by.
        index: u32,
        /// The option, whole.
        bytes: Vec<u8>,
    },
    /// There was more than was heard in time: what is there must be looked at anew.
    Lost,
}

/// A prefix that a router advertises (RFC 4861 §4.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The link that it came by.
    pub index: u32,
    /// The prefix.
    pub address: IpAddr,
    /// Its length.
    pub length: u8,
    /// `IF_PREFIX_ONLINK` 1, `IF_PREFIX_AUTOCONF` 2.
    pub flags: u8,
    /// For how many seconds addresses in it are used for new connections.
    pub preferred: u32,
    /// For how many seconds addresses in it are there.
    pub valid: u32,
}

/// Hears of changes.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Monitor {
    /// Subscribes to [`group`]s from now on.
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub fn open(groups: u32) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::subscribed(groups)?,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// What there is to hear now: call it when the descriptor is readable. Empty: nothing of interest. Who makes news
    /// without end is heard in parts.
    pub fn read(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for _ in 0..MESSAGES_AT_ONCE {
            match self.socket.receive_now(&mut self.buffer) {
                Ok(Some(size)) => news.extend(answers(&self.buffer[..size]).filter_map(parse)),
                Ok(None) => return news,
                Err(_) => {
                    news.push(News::Lost);
                    return news;
                }
            }
        }
        news
    }

    /// Waits for the next change, at most for `limit`, and forgets what it is.
    pub fn wait(&mut self, limit: Duration) {
        let timeout = Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let _ = poll(
            &mut [PollFd::new(&self.socket, PollFlags::IN)],
            Some(&timeout),
        );
        drop(self.read());
    }
}

fn parse(answer: Answer<'_>) -> Option<News> {
    // A link that leaves a bridge is told of as gone, in the bridge's family.
    if answer.kind == DELETE_LINK && answer.body.first() != Some(&0) {
        return None;
    }
    if let Some(link) = Link::read(&answer) {
        return Some(match answer.kind {
            DELETE_LINK => News::LinkGone(link),
            _ => News::Link(link),
        });
    }
    if let Some(address) = Address::read(&answer) {
        return Some(match answer.kind {
            DELETE_ADDRESS => News::AddressGone(address),
            _ => News::Address(address),
        });
    }
    if let Some(route) = Route::read(&answer) {
        return Some(match answer.kind {
            DELETE_ROUTE => News::RouteGone(route),
            _ => News::Route(route),
        });
    }
    match answer.kind {
        NEW_PREFIX => parse_prefix(answer.body).map(News::Prefix),
        NEW_ROUTER_OPTION => parse_option(answer.body),
        _ => None,
    }
}

/// `struct prefixmsg`, then attributes.
fn parse_prefix(body: &[u8]) -> Option<Prefix> {
    const ADDRESS: u16 = 1;
    const CACHE: u16 = 2;
    let rest = body.get(12..)?;
    let find = |wanted: u16| {
        let mut all = attributes(rest);
        all.find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let cache = find(CACHE)?;
    Some(Prefix {
        index: number(body, 4)?,
        address: address(find(ADDRESS)?)?,
        length: body[9],
        flags: body[10],
        preferred: number(cache, 0)?,
        valid: number(cache, 4)?,
    })
}

/// `struct nduseroptmsg`, then the option.
fn parse_option(body: &[u8]) -> Option<News> {
    let length = usize::from(short(body, 2)?);
    Some(News::RouterOption {
        index: number(body, 4)?,
        bytes: body.get(16..16 + length)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, body: &[u8]) -> Answer<'_> {
        Answer {
            kind,
            flags: 0,
            sequence: 0,
            body,
        }
    }

    #[test]
    fn options_of_routers_are_taken_whole_or_not() {
        let mut body = vec![10, 0, 8, 0, 3, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0];
        body.extend([25, 1, 0, 0, 0, 0, 0, 60]);
        let Some(News::RouterOption { index, bytes }) = parse(answer(NEW_ROUTER_OPTION, &body))
        else {
            panic!("no option");
        };
        assert_eq!((index, bytes.as_slice()), (3, &body[16..]));
        assert_eq!(parse(answer(NEW_ROUTER_OPTION, &body[..20])), None);
    }

    #[test]
    fn prefixes_come_with_their_times() {
        let mut body = vec![10, 0, 0, 0, 3, 0, 0, 0, 3, 64, 3, 0];
        body.extend([20, 0, 1, 0]);
        body.extend("fd00::".parse::<std::net::Ipv6Addr>().unwrap().octets());
        body.extend([12, 0, 2, 0, 30, 0, 0, 0, 60, 0, 0, 0]);
        let expected = Prefix {
            index: 3,
            address: "fd00::".parse().unwrap(),
            length: 64,
            flags: 3,
            preferred: 30,
            valid: 60,
        };
        let found = parse(answer(NEW_PREFIX, &body));
        assert_eq!(found, Some(News::Prefix(expected)));
        assert_eq!(parse(answer(NEW_PREFIX, &body[..40])), None);
    }

    #[test]
    fn what_is_no_news_is_left_out() {
        assert_eq!(parse(answer(3, &[0; 40])), None);
        assert_eq!(parse(answer(16, &[0; 3])), None);
        let mut gone = [0; 16];
        assert!(matches!(
            parse(answer(DELETE_LINK, &gone)),
            Some(News::LinkGone(_))
        ));
        gone[0] = 7;
        assert_eq!(parse(answer(DELETE_LINK, &gone)), None);
    }
}
