//! A WireGuard interface over time: its keys once, and where its peers are as often as that is asked.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::boot::{BootAddress, BootPeer, BootWireGuard};

use super::lookup::Lookup;
use super::tunnel::{Keys, WireGuard};

/// How often it is looked whether peers answer whose endpoints have names, and whether a name is found.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_SOON: Duration = Duration::from_secs(1);
/// WireGuard makes a new session every two minutes; one that is older than this is dead (`REJECT_AFTER_TIME`).
const DEAD: u64 = 180;

/// One tunnel.
#[derive(Debug)]
pub struct Tunnel {
    spec: BootWireGuard,
    kernel: Option<WireGuard>,
    next: Option<Duration>,
    /// The pause after a name that is not found.
    again: Duration,
    /// Names of peers that are being looked up.
    lookups: Vec<(usize, Lookup)>,
}

impl Tunnel {
    /// Nothing is set yet.
    #[must_use]
    pub const fn new(spec: BootWireGuard) -> Self {
        Self {
            spec,
            kernel: None,
            next: None,
            again: LOOK_SOON,
            lookups: Vec::new(),
        }
    }

    /// The networks behind its peers that get a route: all but default ones, which would take the way to the peers
    /// themselves along.
    pub fn networks(&self) -> impl Iterator<Item = BootAddress> {
        let all = self.spec.peers.iter().flat_map(|peer| &peer.allowed);
        all.copied().filter(|network| network.prefix > 0)
    }

    /// Gives the link its keys, port and peers.
    ///
    /// # Errors
    /// A secret that has not come, or what the kernel answers.
    pub fn set(&mut self, index: u32, now: Duration) -> Result<(), String> {
        let keys = Keys::read(&self.spec)?;
        let endpoints: Vec<Option<SocketAddr>> = self.spec.peers.iter().map(numeric).collect();
        let mut kernel = WireGuard::open()?;
        kernel
            .set(index, &self.spec, &keys, &endpoints)
            .map_err(|refused| format!("WireGuard: {refused}"))?;
        self.kernel = Some(kernel);
        self.next = self.has_names().then_some(now);
        Ok(())
    }

    /// It has its keys.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.kernel.is_some()
    }

    /// Its link is another one.
    pub fn forget(&mut self) {
        self.kernel = None;
        self.next = None;
        self.lookups.clear();
    }

    fn has_names(&self) -> bool {
        self.spec
            .peers
            .iter()
            .any(|peer| peer.endpoint.is_some() && numeric(peer).is_none())
    }

    /// When [`Tunnel::tick`] has something to do.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Resolves the names of peers that do not answer, without waiting.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn tick(&mut self, index: u32, now: Duration) -> Result<(), String> {
        if self.next.is_none_or(|next| next > now) {
            return Ok(());
        }
        // Whatever comes of it: what is refused is not tried again at once.
        self.next = Some(now + LOOK);
        if self.lookups.is_empty() {
            self.begin_lookups(index)?;
        } else {
            let are_found = self.take_answers(index)?;
            if self.lookups.is_empty() {
                self.next = Some(now + pause(&mut self.again, are_found));
            }
        }
        if !self.lookups.is_empty() {
            self.next = Some(now + LOOK_SOON);
        }
        Ok(())
    }

    fn begin_lookups(&mut self, index: u32) -> Result<(), String> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let told = kernel
            .handshakes(index)
            .map_err(|refused| refused.to_string())?;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock = clock.map_or(0, |time| time.as_secs());
        for (at, peer) in self.spec.peers.iter().enumerate() {
            let last = told.iter().find(|(key, _)| *key == peer.public_key);
            let is_alive = last.is_some_and(|(_, last)| last + DEAD > clock && *last > 0);
            if let (false, None, Some((name, _))) = (is_alive, numeric(peer), &peer.endpoint) {
                self.lookups
                    .extend(Lookup::begin(name).map(|lookup| (at, lookup)));
            }
        }
        Ok(())
    }

    /// Whether all that came are addresses.
    fn take_answers(&mut self, index: u32) -> Result<bool, String> {
        let mut found = Vec::new();
        let mut are_found = true;
        self.lookups.retain(|(at, lookup)| match lookup.answer() {
            Some(address) => {
                are_found &= address.is_some();
                found.extend(address.map(|address| (*at, address)));
                false
            }
            None => true,
        });
        let Some(kernel) = &mut self.kernel else {
            return Ok(are_found);
        };
        for (at, address) in found {
            let peer = &self.spec.peers[at];
            let port = peer.endpoint.as_ref().map_or(0, |(_, port)| *port);
            let endpoint = SocketAddr::new(address, port);
            kernel
                .set_endpoint(index, &peer.public_key, endpoint)
                .map_err(|refused| refused.to_string())?;
        }
        Ok(are_found)
    }
}

/// The pause after names were looked up. Before there is a network none is found, and the tunnel is not to wait for long
/// once there is: a failure is followed by the next try soon, and then ever later.
fn pause(again: &mut Duration, are_found: bool) -> Duration {
    if are_found {
        *again = LOOK_SOON;
        return LOOK;
    }
    let pause = *again;
    *again = (pause * 2).min(LOOK);
    pause
}

/// An endpoint that needs no name server.
fn numeric(peer: &BootPeer) -> Option<SocketAddr> {
    let (host, port) = peer.endpoint.as_ref()?;
    let address: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(address, *port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_found_is_looked_up_again_soon_and_then_ever_later() {
        let mut again = LOOK_SOON;
        let pauses: Vec<u64> = (0..7).map(|_| pause(&mut again, false).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause(&mut again, true), LOOK);
        assert_eq!(pause(&mut again, false), LOOK_SOON);
    }
}
