//! The child `relieve`: makes room in the kernel's table of connections when a few workloads fill it for all.
//!
//! The kernel helps itself with connections of which only one side was heard. Those of which both were heard stay for
//! hours, and who has a helper outside can make as many as there is room for. So PID 1 looks now and then how full the
//! table is ([`is_crowded`]), and at three quarters starts this child. It has forgotten first what is over: a server of many
//! short connections fills the table with those alone, as the kernel keeps each for two minutes more, and is no culprit.
//! Where that is not enough it counts whose the others are, has what is too much forgotten, and puts whose they were into a
//! set of the firewall's for a while: nothing new comes from them or to them, and everybody else has room again. Nothing
//! that lives is taken from who holds less than the others' equal share.
//!
//! A limit for each workload in the firewall (`ct count`) was not taken: it keeps a list a workload that is walked for
//! new connections, knows nothing of closed ones that are in the table still, and costs each boot two modules.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use config::boot::{BootFabric, CROWDED_SETS, FIREWALL_TABLE};

use super::fabric::read_fabric;
use super::firewall;
use super::message::note;
use super::netlink::connection::{self, Connection};
use super::netlink::message::Request;
use super::netlink::{Refused, Socket};
use crate::describe;
use crate::modules;

/// How often PID 1 looks at the table.
pub const LOOK: Duration = Duration::from_secs(2);
/// How soon it looks again after the table was relieved.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// So long nothing new comes from a workload that had too much.
const PENANCE: Duration = Duration::from_secs(30);
const SETTINGS: &str = "/proc/sys/net/netfilter";
/// A connection takes some 300 bytes: a table that is full takes about a fiftieth of the memory.
const KIB_A_CONNECTION: u64 = 16;
const FEWEST: u64 = 8 << 10;
const MOST: u64 = 1 << 20;
/// The kernel's five days of silence are more than any connection that is alive needs: keep-alives come every two hours.
const ESTABLISHED_S: u64 = 24 * 60 * 60;
/// Messages that are sent at once.
const AT_ONCE: usize = 128;

/// Sets how many connections there may be, by the machine's memory, and how long a silent one is kept.
///
/// # Errors
/// When the kernel does not take it.
pub fn set_limits() -> io::Result<()> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limit = limit_for(&memory).max(setting("nf_conntrack_max").unwrap_or(0));
    set("nf_conntrack_max", limit)?;
    set("nf_conntrack_tcp_timeout_established", ESTABLISHED_S)
}

/// By the text of `/proc/meminfo`.
fn limit_for(memory: &str) -> u64 {
    let total = memory.lines().find_map(|line| {
        let words = line.strip_prefix("MemTotal:")?;
        words.split_whitespace().next()?.parse::<u64>().ok()
    });
    (total.unwrap_or(0) / KIB_A_CONNECTION).clamp(FEWEST, MOST)
}

fn setting(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{SETTINGS}/{name}")).ok()?;
    text.trim().parse().ok()
}

fn set(name: &str, value: u64) -> io::Result<()> {
    fs::write(format!("{SETTINGS}/{name}"), value.to_string())
}

/// Whether the table of connections is three quarters full.
#[must_use]
pub fn is_crowded() -> bool {
    let numbers = (setting("nf_conntrack_count"), setting("nf_conntrack_max"));
    matches!(numbers, (Some(count), Some(limit)) if is_much(count, limit))
}

const fn is_much(count: u64, limit: u64) -> bool {
    count > limit / 4 * 3
}

/// Does it; returns the exit status.
#[must_use]
pub fn run() -> i32 {
    let result = read_fabric().and_then(|fabric| {
        let Some(fabric) = fabric else { return Ok(()) };
        for path in &fabric.spare_modules {
            if let Err(error) = modules::load(path) {
                note(describe(&error));
            }
        }
        let limit = setting("nf_conntrack_max").unwrap_or(FEWEST);
        // Where there are many, they are to be found fast; a kernel counts on fewer.
        if setting("nf_conntrack_buckets").is_some_and(|buckets| buckets < limit / 4) {
            let _ = set("nf_conntrack_buckets", limit / 4);
        }
        relieve(&fabric, limit).map_err(|error| format!("the table of connections: {error}"))
    });
    match result {
        Ok(()) => 0,
        Err(reason) => {
            note(reason);
            1
        }
    }
}

/// Leaves each workload no more than its share of a table of `limit` connections, and shuts out for a while who had more.
///
/// # Errors
/// What the kernel answers.
pub fn relieve(fabric: &BootFabric, limit: u64) -> io::Result<()> {
    let owners = owners(fabric);
    let mut held = vec![0; fabric.endpoints.len()];
    let (mut others, mut over) = (0, 0);
    let mut socket = Socket::of(Some(rustix::net::netlink::NETFILTER))?;
    let mut forgetting = Forgetting::new()?;
    each(&mut socket, |connection| {
        if connection.is_over {
            over += 1;
            forgetting.add(connection.forget());
            return;
        }
        match owner(&owners, connection) {
            Some(at) => held[at] += 1,
            None => others += 1,
        }
    })?;
    forgetting.send()?;
    let is_enough = over > 0 && !is_much(held.iter().sum::<u64>() + others, limit);
    let Some(share) = share(&held, others, limit).filter(|_| !is_enough) else {
        return Ok(());
    };
    let crowded: Vec<usize> = (0..held.len()).filter(|&at| held[at] > share).collect();
    shut_out(fabric, &crowded)?;
    let mut excess: Vec<u64> = held.iter().map(|held| held.saturating_sub(share)).collect();
    each(&mut socket, |connection| {
        let too_much = owner(&owners, connection).map(|at| &mut excess[at]);
        if let Some(left) = too_much.filter(|left| **left > 0) {
            *left -= 1;
            forgetting.add(connection.forget());
        }
    })?;
    forgetting.send()?;
    for at in crowded {
        note(format_args!(
            "{} held {} of {limit} connections: {} are forgotten, and it gets no new ones for {} s",
            fabric.endpoints[at].name,
            held[at],
            held[at] - share,
            PENANCE.as_secs()
        ));
    }
    Ok(())
}

/// Every connection of which both sides were heard.
fn each(socket: &mut Socket, mut take: impl FnMut(&Connection<'_>)) -> Result<(), Refused> {
    let none: Vec<()> = socket.list(&connection::list(), |answer| {
        if let Some(connection) = Connection::read(answer).filter(|c| c.is_assured) {
            take(&connection);
        }
        None
    })?;
    debug_assert!(none.is_empty(), "nothing is kept");
    Ok(())
}

fn owners(fabric: &BootFabric) -> BTreeMap<IpAddr, usize> {
    let endpoints = fabric.endpoints.iter().enumerate();
    endpoints
        .flat_map(|(at, e)| [(e.address.into(), at), (e.address6.into(), at)])
        .collect()
}

/// Whose a connection is: of the workload that began it, else of the one that serves it.
fn owner(owners: &BTreeMap<IpAddr, usize>, connection: &Connection<'_>) -> Option<usize> {
    let by = || owners.get(&connection.by);
    owners.get(&connection.from).or_else(by).copied()
}

/// How many each may keep so that all workloads have a half of the table, without what others have of it, and at least an
/// eighth; `None`: they have no more than that.
fn share(held: &[u64], others: u64, limit: u64) -> Option<u64> {
    let mut left = (limit / 2).saturating_sub(others).max(limit / 8);
    let mut sorted = held.to_vec();
    sorted.sort_unstable();
    for (at, held) in sorted.iter().enumerate() {
        let share = left / (sorted.len() - at) as u64;
        if *held > share {
            return Some(share);
        }
        left -= held;
    }
    None
}

/// Deletions, many at once.
struct Forgetting {
    socket: Socket,
    requests: Vec<Request>,
}

impl Forgetting {
    fn new() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::of(Some(rustix::net::netlink::NETFILTER))?,
            requests: Vec::new(),
        })
    }

    fn add(&mut self, request: Request) {
        self.requests.push(request);
        if self.requests.len() == AT_ONCE {
            let _ = self.send();
        }
    }

    /// One that is gone by itself is refused, which is fine.
    fn send(&mut self) -> Result<(), Refused> {
        let sent = self.socket.request_each(&self.requests);
        self.requests.clear();
        sent.map(drop)
    }
}

fn shut_out(fabric: &BootFabric, crowded: &[usize]) -> io::Result<()> {
    let addresses = |at: &usize| {
        let endpoint = &fabric.endpoints[*at];
        [endpoint.address.into(), endpoint.address6.into()]
    };
    let addresses: Vec<[IpAddr; 2]> = crowded.iter().map(addresses).collect();
    let lists = CROWDED_SETS.iter().enumerate().map(|(family, set)| {
        let elements = addresses.iter().map(|both| both[family]);
        firewall::elements(FIREWALL_TABLE, set, elements, PENANCE)
    });
    let bytes = firewall::batch(&lists.collect::<Vec<_>>());
    firewall::load(bytes).map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_with_the_memory_within_bounds() {
        for (kib, limit) in [(65_536, 8192), (524_288, 32_768), (1 << 30, 1 << 20)] {
            let text = format!("MemTotal:       {kib} kB\nMemFree:        1 kB\n");
            assert_eq!(limit_for(&text), limit);
        }
        assert_eq!(limit_for("nothing of it"), FEWEST);
        assert!(is_much(7681, 10_240) && !is_much(7680, 10_240));
    }

    #[test]
    fn who_has_little_keeps_it_and_who_has_much_is_cut_to_an_equal_share() {
        for (held, others, limit, expected) in [
            (&[][..], 0, 1000, None),
            (&[100, 50], 0, 1000, None),
            (&[250, 250], 0, 1000, None),
            (&[900, 50], 0, 1000, Some(450)),
            (&[600, 300, 20], 0, 1000, Some(240)),
            // What the machine itself holds is nobody's fault, and does not take everything.
            (&[200, 10], 700, 1000, Some(115)),
            (&[100], 900, 1000, None),
        ] {
            assert_eq!(share(held, others, limit), expected, "{held:?}");
            let kept: u64 = held
                .iter()
                .map(|held| *held.min(&expected.unwrap_or(u64::MAX)))
                .sum();
            assert!(
                kept + others.min(limit / 2 - limit / 8) <= limit / 2,
                "{held:?}"
            );
        }
    }
}
