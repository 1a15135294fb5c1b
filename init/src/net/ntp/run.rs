//! `coracle-init ntp`: sockets, clock and names around [`Client`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::boot::BOOT_SPEC_PATH;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::CapabilitySet;
use rustix::time::Timespec;

use super::client::{Action, Client, seconds};
use super::clock::{Clock, System};
use super::{DEFAULT_SERVER, PORT};
use crate::clock::Record;
use crate::console::now;
use crate::net::confine::confine;
use crate::net::entropy::random;
use crate::net::facts::{FACTS, Facts};
use crate::net::message::{Message, note};
use crate::net::pulse::{BEAT, Pulse};
use crate::net::resolver::settings::{self, Spec};
use crate::net::resolver::stub;
use crate::sys;

/// So many addresses are asked, and so many of one name.
const MOST_SERVERS: usize = 8;
const MOST_OF_ONE: usize = 4;
/// No machine ran this program before: 2025-01-01.
const BEFORE_THIS_PROGRAM: i64 = 1_735_689_600;
/// A clock that is off by less is not worth a line, in nanoseconds.
const WORTH_TELLING: i64 = 10_000_000;

/// Keeps the clock until it is killed or fails; returns the exit status.
#[must_use]
pub fn run() -> i32 {
    match serve() {
        Ok(never) => match never {},
        Err(error) => {
            note(error);
            1
        }
    }
}

fn serve() -> io::Result<std::convert::Infallible> {
    let spec = Spec::read(Path::new(BOOT_SPEC_PATH))?;
    let earliest = spec.epoch.max(BEFORE_THIS_PROGRAM);
    let signals = sys::catch_signals(&[libc::SIGHUP])?;
    let facts = Path::new(FACTS);
    let folder = facts.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let facts = facts.file_name().map(PathBuf::from).unwrap_or_default();
    let state = spec.state.as_ref();
    let record = state.and_then(|state| Record::open(&state.mount_point).ok());
    confine(folder, CapabilitySet::SYS_TIME)?;
    let read = || {
        spec.fix(Facts::read(&facts).unwrap_or_else(|error| {
            note(format_args!("cannot read the network's facts: {error}"));
            Facts::default()
        }))
    };
    let mut driver = Driver::new(System, earliest);
    driver.facts = read();
    driver.record = record;
    let mut pulse = Pulse::new(now());
    loop {
        pulse.beat(now());
        for text in driver.turn(Some(signals.as_fd()))? {
            note(text);
        }
        let mut byte = [0];
        if rustix::io::read(&signals, &mut byte) == Ok(1) {
            let facts = read();
            if facts != driver.facts {
                driver.facts = facts;
                driver.client.reset(now());
            } else {
                driver.client.network_is_back(now());
            }
        }
    }
}

/// A client with its sockets and a clock.
#[derive(Debug)]
pub struct Driver<C> {
    /// What the network told.
    pub facts: Facts,
    /// The port of the servers.
    pub port: u16,
    /// Where the time is left for the next boot, after each round.
    pub record: Option<Record>,
    client: Client,
    clock: C,
    sockets: Vec<Option<UdpSocket>>,
    has_told: bool,
}

impl<C: Clock> Driver<C> {
    /// Without facts yet. `earliest`: no time before is believed, in seconds since 1970.
    #[must_use]
    pub fn new(clock: C, earliest: i64) -> Self {
        Self {
            facts: Facts::default(),
            port: PORT,
            record: None,
            client: Client::new(earliest, now()),
            clock,
            sockets: Vec::new(),
            has_told: false,
        }
    }

    /// The clock.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Does what is due, and waits until something is to be done, or something can be read from `signals`; what is to be
    /// shown.
    ///
    /// # Errors
    /// When the kernel does not let it wait.
    pub fn turn(
        &mut self,
        signals: Option<std::os::fd::BorrowedFd<'_>>,
    ) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        let actions = self.client.tick(now(), self.clock.now());
        self.perform(actions, &mut notes);
        if notes.is_empty() {
            let ready = self.wait(signals)?;
            for index in ready {
                self.receive(index, &mut notes);
            }
        }
        Ok(notes)
    }

    /// The numbers of the servers that have something to read.
    fn wait(&self, signals: Option<std::os::fd::BorrowedFd<'_>>) -> io::Result<Vec<usize>> {
        let mut wanted = Vec::new();
        let mut indices = Vec::new();
        for (index, socket) in self.sockets.iter().enumerate() {
            if let Some(socket) = socket {
                wanted.push(PollFd::new(socket, PollFlags::IN));
                indices.push(index);
            }
        }
        if let Some(signals) = &signals {
            wanted.push(PollFd::new(signals, PollFlags::IN));
        }
        // The clock may be a little behind the kernel's timer.
        let left = self.client.next_deadline().saturating_sub(now());
        let left = left.clamp(Duration::from_millis(1), BEAT);
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut wanted, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready =
            |(wanted, index): (&PollFd<'_>, usize)| (!wanted.revents().is_empty()).then_some(index);
        Ok(wanted.iter().zip(indices).filter_map(is_ready).collect())
    }

    fn receive(&mut self, index: usize, notes: &mut Vec<String>) {
        // As early as can be: each moment counts as the way from the server.
        let wall = self.clock.now();
        let mut buffer = [0; 512];
        let Some(Some(socket)) = self.sockets.get(index) else {
            return;
        };
        match socket.recv(&mut buffer) {
            Ok(size) => {
                let actions = self.client.receive(index, &buffer[..size], wall);
                self.perform(actions, notes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                self.sockets[index] = None;
                self.client.unreachable(index);
            }
        }
    }

    fn perform(&mut self, actions: Vec<Action>, notes: &mut Vec<String>) {
        for action in actions {
            let is_right = matches!(action, Action::Step(..) | Action::Slew(..));
            match action {
                Action::Send(index) => self.send(index),
                Action::Resolve => {
                    let addresses = self.resolve();
                    self.sockets.clear();
                    self.client.set_servers(&addresses, now());
                }
                Action::Step(by, quality, server) => {
                    self.has_told = true;
                    notes.push(match self.clock.step(by, quality) {
                        Ok(()) => format!("clock stepped by {} by {server}", seconds(by)),
                        Err(error) => format!("cannot set the clock: {error}"),
                    });
                }
                Action::Slew(by, quality, server) => match self.clock.slew(by, quality) {
                    Err(error) => notes.push(format!("cannot draw the clock: {error}")),
                    Ok(()) if !self.has_told || by.abs() > WORTH_TELLING => {
                        self.has_told = true;
                        notes.push(format!("clock off by {} by {server}", seconds(by)));
                    }
                    Ok(()) => {}
                },
                Action::Note(text) => notes.push(text),
            }
            if let Some(record) = self.record.as_ref().filter(|_| is_right) {
                record.keep();
            }
        }
    }

    fn send(&mut self, index: usize) {
        let Some(address) = self.client.address(index) else {
            return;
        };
        let socket = open(address, self.port);
        let nonce = u64::from_ne_bytes(random());
        let request = self.client.sent(index, nonce, now(), self.clock.now());
        let sent = socket.and_then(|socket| socket.send(&request).map(|_| socket));
        self.sockets
            .resize_with(self.sockets.len().max(index + 1), || None);
        self.sockets[index] = sent.ok();
        if self.sockets[index].is_none() {
            self.client.unreachable(index);
        }
    }

    fn resolve(&self) -> Vec<IpAddr> {
        let fallback = [DEFAULT_SERVER.to_owned()];
        let names = if self.facts.ntp.is_empty() {
            &fallback[..]
        } else {
            &self.facts.ntp
        };
        let servers = settings::servers(&self.facts, &[], settings::link_index);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for name in names.iter().take(MOST_SERVERS) {
            // Name servers that do not answer take a while for each name.
            Message::Alive.tell();
            let found = stub::lookup(name, &servers);
            // Without a way to an address it cannot be asked.
            let usable = found
                .into_iter()
                .filter(|&address| open(address, self.port).is_ok());
            for address in usable.take(MOST_OF_ONE) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        addresses.truncate(MOST_SERVERS);
        addresses
    }
}

/// A socket with a port that is chosen anew each time, to which only this server's packets come.
fn open(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(address, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
