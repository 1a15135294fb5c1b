//! Transactions of the firewall against the running kernel, in a network namespace of the test's own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use coracle_init::net::firewall::{self, Error};
use coracle_init::net::netlink::Socket;
use coracle_init::net::netlink::message::{Answer, CREATE, Request};
use coracle_init::sys;
use rustix::io::Errno;

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`.
const TABLES: u8 = 10;
const NEW_TABLE: u16 = (TABLES as u16) << 8;
const GET_TABLE: u16 = NEW_TABLE + 1;
const NEW_CHAIN: u16 = NEW_TABLE + 3;
const INET: u8 = 1;

fn table(name: &str) -> Request {
    let mut request = Request::new(NEW_TABLE, CREATE, &[INET, 0, 0, 0]);
    request.put_text(1, name);
    request
}

fn chain(of: &str) -> Request {
    let mut request = Request::new(NEW_CHAIN, CREATE, &[INET, 0, 0, 0]);
    request.put_text(1, of).put_text(3, "c");
    request
}

/// Begin, these, end.
fn batch(requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let frame = |kind| Request::new(kind, 0, &[0, 0, 0, TABLES]);
    frame(BATCH_BEGIN).finish(0, 0, &mut bytes);
    for request in requests {
        request.finish(0, 0, &mut bytes);
    }
    frame(BATCH_END).finish(0, 0, &mut bytes);
    bytes
}

fn tables() -> usize {
    let mut socket = Socket::of(Some(rustix::net::netlink::NETFILTER)).unwrap();
    let list = Request::new(GET_TABLE, 0, &[INET, 0, 0, 0]);
    let is_table = |answer: &Answer<'_>| (answer.kind == NEW_TABLE).then_some(());
    socket.list(&list, is_table).unwrap().len()
}

#[test]
fn a_transaction_is_taken_whole_or_refused_with_the_number_of_its_message() {
    if sys::unshare(libc::CLONE_NEWNET).is_err() {
        eprintln!("skipped: no network namespace to be had without root");
        return;
    }
    // More than a socket's buffer usually has room for.
    let many: Vec<Request> = (0..6000)
        .map(|number| table(&format!("table-{number}")))
        .collect();
    firewall::load(batch(&many)).unwrap();
    assert_eq!(tables(), 6000);
    let wrong = [
        table("one"),
        chain("one"),
        chain("no-such-table"),
        table("two"),
    ];
    let Err(Error::Refused(refused)) = firewall::load(batch(&wrong)) else {
        panic!("taken");
    };
    // The begin is number 0.
    assert_eq!((refused.request, refused.errno), (3, Errno::NOENT));
    assert_eq!(tables(), 6000);
}
