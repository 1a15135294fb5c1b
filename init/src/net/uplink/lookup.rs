//! The address of a name, found beside the loop: name servers may be slow, and the interfaces must not be.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use crate::net::facts::{FACTS, Facts};
use crate::net::resolver::{settings, stub};

/// A name that is being looked up.
#[derive(Debug)]
pub struct Lookup(Receiver<Option<IpAddr>>);

impl Lookup {
    /// Begins with the name servers that are known now; `None`: there is no thread to be had.
    #[must_use]
    pub fn begin(name: &str) -> Option<Self> {
        let facts = Facts::read(Path::new(FACTS)).unwrap_or_default();
        let servers = servers(&facts, settings::link_index);
        let (answer, waiting) = channel();
        let name = name.to_owned();
        let work = move || {
            let _ = answer.send(find(&name, &servers));
        };
        thread::Builder::new().spawn(work).ok()?;
        Some(Self(waiting))
    }

    /// The answer, once there is one.
    #[must_use]
    pub fn answer(&self) -> Option<Option<IpAddr>> {
        match self.0.try_recv() {
            Ok(address) => Some(address),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(None),
        }
    }
}

/// Those that are link-local are asked by their link.
fn servers(facts: &Facts, link: impl Fn(&str) -> io::Result<u32>) -> Vec<SocketAddr> {
    settings::servers(facts, &[], link)
}

fn find(name: &str, servers: &[SocketAddr]) -> Option<IpAddr> {
    stub::lookup(name, servers).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_with_link_local_addresses_are_asked_too() {
        let facts = Facts {
            dns: vec!["fe80::1%eth0".to_owned(), "192.0.2.53".to_owned()],
            ..Facts::default()
        };
        let servers = servers(&facts, |_| Ok(3));
        let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["[fe80::1%3]:53", "192.0.2.53:53"]);
    }
}
