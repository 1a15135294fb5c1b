//! This program's own questions: a static program has no other way to names.
//!
//! It asks the name servers one by one and waits for them, so it is for children that have nothing else to do meanwhile. It
//! shares with the resolver how a question is written and what of an answer is believed.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use domain::base::iana::Rtype;
use domain::base::name::{Name, ParsedName};
use domain::rdata::AllRecordData;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::answer::{Answer, Transport};
use super::question::Key;
use super::server::random_number;
use super::socket::Upstream;
use super::upstream::{self, Outcome};

/// Each name server is asked so often.
const ROUNDS: u32 = 2;
/// So long one is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);
/// No server is asked any more for addresses of one kind after this, however the others spent the time: who asks shows
/// that it lives between two names only, and must not count as one that hangs.
const LONGEST: Duration = Duration::from_secs(24);

/// The addresses of a host, IPv4 first; none if there is no such host, or nobody knows. An address is its own.
#[must_use]
pub fn lookup(host: &str, servers: &[SocketAddr]) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    let Ok(name) = Name::<Vec<u8>>::vec_from_str(host) else {
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for rtype in [Rtype::A, Rtype::AAAA] {
        if let Some(answer) = ask_all(&Key::new(&name, rtype), servers) {
            addresses.extend(addresses_of(&answer));
        }
    }
    addresses
}

fn addresses_of(answer: &Answer) -> Vec<IpAddr> {
    let records = answer.message().answer().into_iter().flatten().flatten();
    let address = |record: domain::base::record::ParsedRecord<'_, [u8]>| {
        let record = record
            .to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>()
            .ok()?;
        match record.data() {
            AllRecordData::A(data) => Some(IpAddr::V4(data.addr())),
            AllRecordData::Aaaa(data) => Some(IpAddr::V6(data.addr())),
            _ => None,
        }
    };
    records.filter_map(address).collect()
}

fn ask_all(key: &Key, servers: &[SocketAddr]) -> Option<Answer> {
    let end = Instant::now() + LONGEST;
    let tries = (0..ROUNDS).flat_map(|_| servers);
    let mut tries = tries.take_while(|_| Instant::now() < end);
    tries.find_map(|&server| ask(key, server, Transport::Udp, true))
}

fn ask(
    key: &Key,
    server: SocketAddr,
    transport: Transport,
    with_extension: bool,
) -> Option<Answer> {
    let id = random_number();
    let message = upstream::compose(key, id, with_extension);
    let mut socket = Upstream::ask(server, transport, &message).ok()?;
    let deadline = Instant::now() + PATIENCE;
    while let Some(bytes) = receive(&mut socket, deadline) {
        match upstream::accept(&bytes, key, id, with_extension) {
            Outcome::Answer(answer, _) => return Some(answer),
            Outcome::Truncated if transport == Transport::Udp => {
                return ask(key, server, Transport::Tcp, with_extension);
            }
            Outcome::WithoutExtension => return ask(key, server, transport, false),
            Outcome::Unfit => {}
            Outcome::Truncated | Outcome::Failure => return None,
        }
    }
    None
}

/// `None` when nothing comes in time, or nothing will.
fn receive(socket: &mut Upstream, deadline: Instant) -> Option<Vec<u8>> {
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).ok()?,
            tv_nsec: left.subsec_nanos().into(),
        };
        let is_sending = socket.wants() == rustix::event::epoll::EventFlags::OUT;
        let flags = if is_sending {
            PollFlags::OUT
        } else {
            PollFlags::IN
        };
        match poll(&mut [PollFd::new(&*socket, flags)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        match socket.proceed() {
            Ok(bytes) => return Some(bytes),
            Err(error) if super::connection::is_temporary(&error) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pulse::SILENCE;

    #[test]
    fn no_lookup_takes_so_long_that_who_asks_counts_as_one_that_hangs() {
        // The last server that is asked may be asked again without the extension, and again over TCP.
        let last = 3 * PATIENCE;
        let kinds = 2;
        assert!(kinds * (LONGEST + last) < SILENCE);
    }
}
