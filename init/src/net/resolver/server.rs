//! The loop: sockets, clock and random numbers around [`Forwarder`].
//!
//! Each source of input gets a bounded share of a turn, so that none keeps the others waiting.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::connection::{Connection, is_temporary};
use super::forwarder::{Action, Client, Forwarder, Via};
use super::socket::{self, Upstream};
use crate::console::now;
use crate::net::entropy::random;
use crate::net::pulse::Pulse;

/// So many datagrams of one socket are taken in a turn.
const SHARE: usize = 32;
/// So many connections are open at once, in all and of one client; nobody has more than are left, so that some are left
/// for who has none.
const MOST_CONNECTIONS: usize = 64;
const MOST_CONNECTIONS_OF_ONE: usize = 8;

/// What an event is about; it fits in the 64 bits that the kernel keeps for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Signal,
    Udp(usize),
    Tcp(usize),
    Connection(u64),
    Upstream(u64),
}

impl Token {
    const KINDS: u64 = 5;

    fn encode(self) -> EventData {
        let (kind, number) = match self {
            Self::Signal => (0, 0),
            Self::Udp(index) => (1, index as u64),
            Self::Tcp(index) => (2, index as u64),
            Self::Connection(number) => (3, number),
            Self::Upstream(number) => (4, number),
        };
        EventData::new_u64(number * Self::KINDS + kind)
    }

    fn decode(data: EventData) -> Self {
        let value = data.u64();
        let number = value / Self::KINDS;
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        match value % Self::KINDS {
            0 => Self::Signal,
            1 => Self::Udp(index),
            2 => Self::Tcp(index),
            3 => Self::Connection(number),
            _ => Self::Upstream(number),
        }
    }
}

/// Why [`Server::serve`] comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A signal has come, by its number.
    Signal(i32),
}

/// All that is open.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    signals: OwnedFd,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    connections: HashMap<u64, Connection>,
    upstreams: HashMap<u64, Upstream>,
    last_connection: u64,
    /// Connections with answers to send, which may go on with the questions behind them.
    answered: Vec<u64>,
    forwarder: Forwarder,
    pulse: Pulse,
}

impl Server {
    /// Listens on all these addresses. `signals`: a pipe with their numbers.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn listen(
        addresses: &[SocketAddr],
        signals: OwnedFd,
        forwarder: Forwarder,
    ) -> io::Result<Self> {
        let mut server = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            signals,
            udp: Vec::new(),
            tcp: Vec::new(),
            connections: HashMap::new(),
            upstreams: HashMap::new(),
            last_connection: 0,
            answered: Vec::new(),
            forwarder,
            pulse: Pulse::new(now()),
        };
        for &address in addresses {
            match socket::listen_udp(address) {
                Ok(socket) => server.udp.push(socket),
                // A machine without IPv6 has clients without it.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
                Err(error) => return Err(error),
            }
            server.tcp.push(socket::listen_tcp(address)?);
        }
        server.watch(&server.signals, Token::Signal, EventFlags::IN)?;
        for (index, socket) in server.udp.iter().enumerate() {
            server.watch(socket, Token::Udp(index), EventFlags::IN)?;
        }
        for (index, socket) in server.tcp.iter().enumerate() {
            server.watch(socket, Token::Tcp(index), EventFlags::IN)?;
        }
        Ok(server)
    }

    fn watch(&self, source: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, token.encode(), flags)?)
    }

    /// Other name servers, and another name of the machine.
    pub fn set_facts(&mut self, servers: &[SocketAddr], hostname: &str) {
        self.forwarder.set_hostname(hostname);
        let actions = self
            .forwarder
            .set_servers(servers, now(), &mut random_number);
        self.perform(actions);
    }

    /// Serves until a signal comes.
    ///
    /// # Errors
    /// When the kernel gives no events any more.
    pub fn serve(&mut self) -> io::Result<Wake> {
        let mut events: Vec<Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = self.timeout();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut wake = None;
            for event in &events {
                match Token::decode(event.data) {
                    Token::Signal => wake = self.read_signal(),
                    token => self.dispatch(token, event.flags),
                }
            }
            for number in std::mem::take(&mut self.answered) {
                self.read_connection(number);
            }
            self.tick();
            if let Some(wake) = wake {
                return Ok(wake);
            }
        }
    }

    fn dispatch(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Signal => {}
            Token::Udp(index) => self.read_datagrams(index),
            Token::Tcp(index) => self.accept(index),
            // Nobody is there to take an answer.
            Token::Connection(number) if flags.intersects(EventFlags::ERR | EventFlags::HUP) => {
                self.connections.remove(&number);
            }
            Token::Connection(number) => self.read_connection(number),
            Token::Upstream(flight) => self.read_upstream(flight),
        }
    }

    fn read_signal(&self) -> Option<Wake> {
        let mut byte = [0];
        let size = rustix::io::read(&self.signals, &mut byte).ok()?;
        (size == 1).then(|| Wake::Signal(byte[0].into()))
    }

    fn read_datagrams(&mut self, index: usize) {
        let mut buffer = [0; 4096];
        for _ in 0..SHARE {
            // An error is of a datagram that is lost, of which the kernel tells here.
            let Ok((size, address)) = socket::receive(&self.udp[index], &mut buffer) else {
                return;
            };
            let client = Client {
                address,
                via: Via::Udp(index),
            };
            self.question(client, &buffer[..size]);
        }
    }

    fn question(&mut self, client: Client, bytes: &[u8]) {
        let actions = self
            .forwarder
            .question(client, bytes, now(), &mut random_number);
        self.perform(actions);
    }

    fn accept(&mut self, index: usize) {
        let Ok((stream, peer)) = self.tcp[index].accept() else {
            return;
        };
        let of_peer = |connection: &&Connection| connection.peer.ip() == peer.ip();
        let count = self.connections.values().filter(of_peer).count();
        let left = MOST_CONNECTIONS.saturating_sub(self.connections.len());
        if count >= MOST_CONNECTIONS_OF_ONE.min(left) {
            return;
        }
        self.last_connection += 1;
        let number = self.last_connection;
        let is_watched = stream.set_nonblocking(true).is_ok()
            && self
                .watch(&stream, Token::Connection(number), EventFlags::IN)
                .is_ok();
        if is_watched {
            let connection = Connection::new(stream, peer, now());
            self.connections.insert(number, connection);
        }
    }

    fn read_connection(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let address = connection.peer;
        let Ok(questions) = connection.read(now()) else {
            self.connections.remove(&number);
            return;
        };
        for bytes in questions {
            let client = Client {
                address,
                via: Via::Tcp(number),
            };
            self.question(client, &bytes);
        }
        self.settle(number);
    }

    /// Sends what there is to send, and waits for what there is to wait for.
    fn settle(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let is_over = connection.write(now()).is_err() || connection.is_done();
        let wants = connection.wants();
        let token = Token::Connection(number).encode();
        let is_watched = wants == connection.watched
            || epoll::modify(&self.epoll, &connection.stream, token, wants).is_ok();
        connection.watched = wants;
        if is_over || !is_watched {
            self.connections.remove(&number);
        }
    }

    fn read_upstream(&mut self, flight: u64) {
        for _ in 0..SHARE {
            let Some(upstream) = self.upstreams.get_mut(&flight) else {
                return;
            };
            let before = upstream.wants();
            let actions = match upstream.proceed() {
                Ok(message) => self
                    .forwarder
                    .answer(flight, &message, now(), &mut random_number),
                Err(error) if is_temporary(&error) => {
                    let wants = upstream.wants();
                    if wants != before {
                        let token = Token::Upstream(flight).encode();
                        let _ = epoll::modify(&self.epoll, &*upstream, token, wants);
                    }
                    return;
                }
                Err(_) => self.forwarder.failed(flight, now(), &mut random_number),
            };
            self.perform(actions);
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Reply(client, message) => self.reply(client, &message),
                Action::Close(flight) => {
                    self.upstreams.remove(&flight);
                }
                Action::HangUp(number) => {
                    self.connections.remove(&number);
                }
                Action::Ask {
                    flight,
                    server,
                    transport,
                    message,
                } => {
                    // The former socket is closed first: its number is the new one's.
                    self.upstreams.remove(&flight);
                    let asked = Upstream::ask(server, transport, &message).and_then(|upstream| {
                        self.watch(&upstream, Token::Upstream(flight), upstream.wants())?;
                        Ok(upstream)
                    });
                    match asked {
                        Ok(upstream) => {
                            self.upstreams.insert(flight, upstream);
                        }
                        Err(_) => {
                            actions.extend(self.forwarder.failed(flight, now(), &mut random_number))
                        }
                    }
                }
            }
        }
    }

    fn reply(&mut self, client: Client, message: &[u8]) {
        match client.via {
            // One that cannot be sent is lost like any other datagram.
            Via::Udp(index) => {
                let _ = self.udp[index].send_to(message, client.address);
            }
            Via::Tcp(number) => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.push(message);
                    self.answered.push(number);
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = now();
        self.pulse.beat(now);
        let actions = self.forwarder.tick(now, &mut random_number);
        self.perform(actions);
        self.connections
            .retain(|_, connection| connection.deadline > now);
    }

    /// How long there is nothing to do unless something comes; a millisecond at least, as the clock may be a little behind
    /// the kernel's timer.
    fn timeout(&self) -> Option<Timespec> {
        let connections = self.connections.values();
        let deadlines = connections.map(|connection| connection.deadline);
        let deadlines = deadlines.chain(self.forwarder.next_deadline());
        let next = deadlines.chain([self.pulse.next_deadline()]).min();
        let mut left = next.map(|at| at.saturating_sub(now()).max(Duration::from_millis(1)));
        if !self.answered.is_empty() {
            left = Some(Duration::ZERO);
        }
        left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }
}

/// The number of a question. Without random numbers nothing is asked that could be answered by a forger.
pub(super) fn random_number() -> u16 {
    u16::from_ne_bytes(random())
}
