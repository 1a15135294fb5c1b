//! The address of a name, found beside the loop: name servers may be slow, and the interfaces must not be.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use crate::net::facts::{FACTS, Facts};
use crate::net::resolver::stub;

/// The port of name servers.
const PORT: u16 = 53;

/// A name that is being looked up.
#[derive(Debug)]
pub struct Lookup(Receiver<Option<IpAddr>>);

impl Lookup {
    /// Begins with the name servers that are known now; `None`: there is no thread to be had.
    #[must_use]
    pub fn begin(name: &str) -> Option<Self> {
        let facts = Facts::read(Path::new(FACTS)).unwrap_or_default();
        let servers: Vec<SocketAddr> = facts
            .dns
            .iter()
            .filter_map(|server| Some(SocketAddr::new(server.parse().ok()?, PORT)))
            .collect();
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

fn find(name: &str, servers: &[SocketAddr]) -> Option<IpAddr> {
    stub::lookup(name, servers).into_iter().next()
}
