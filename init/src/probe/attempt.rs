//! One try of a probe: a connection to a port of the loopback address, and for HTTP one request. It never waits: it goes
//! as far as it gets, and says what it waits for.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getpeername, recv, send,
    socket_with, sockopt,
};

use super::answer::{self, Answer};
use super::request::Question;

/// What is read at once, and how often: so much of one server that the others get their turn.
const CHUNK: usize = 4096;
const READS: usize = 4;

/// How far a try has come.
#[derive(Debug)]
enum Phase {
    Connecting,
    /// So many bytes of the request are sent.
    Sending(usize),
    Reading(Answer),
}

/// What a try has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is over: whether it passed.
    Over(bool),
    /// It waits for this.
    Waits(EventFlags),
}

/// One try.
#[derive(Debug)]
pub(super) struct Attempt {
    socket: OwnedFd,
    request: Option<Vec<u8>>,
    phase: Phase,
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Attempt {
    /// Begins to connect in this thread's network.
    ///
    /// # Errors
    /// When there is no socket to be had: that says nothing of the workload.
    pub(super) fn begin(question: &Question) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, question.port());
        // How that ends is seen later: refused it is at once, and the socket remembers it.
        let _ = connect(&socket, &address);
        let request = match question {
            Question::Tcp(_) => None,
            Question::Http { path, host, .. } => Some(answer::request(path, host)),
        };
        Ok(Self {
            socket,
            request,
            phase: Phase::Connecting,
        })
    }

    /// Goes on as far as it gets.
    pub(super) fn go_on(&mut self) -> Progress {
        for _ in 0..READS {
            match self.step() {
                Ok(Some(passed)) => return Progress::Over(passed),
                Ok(None) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Progress::Over(self.is_success_despite_reset()),
            }
        }
        Progress::Waits(match self.phase {
            Phase::Connecting | Phase::Sending(_) => EventFlags::OUT,
            Phase::Reading(_) => EventFlags::IN,
        })
    }

    /// One system call's worth of it; whether it passed, once that is known.
    fn step(&mut self) -> Result<Option<bool>, Errno> {
        match (&mut self.phase, &self.request) {
            (Phase::Connecting, request) => {
                sockopt::socket_error(&self.socket)??;
                match getpeername(&self.socket) {
                    Err(Errno::NOTCONN) => Err(Errno::AGAIN),
                    Err(errno) => Err(errno),
                    Ok(_) if request.is_none() => Ok(Some(true)),
                    Ok(_) => {
                        self.phase = Phase::Sending(0);
                        Ok(None)
                    }
                }
            }
            (Phase::Sending(sent), Some(request)) => {
                *sent += send(&self.socket, &request[*sent..], SendFlags::NOSIGNAL)?;
                if *sent == request.len() {
                    self.phase = Phase::Reading(Answer::default());
                }
                Ok(None)
            }
            (Phase::Sending(_), None) => Ok(Some(true)),
            (Phase::Reading(answer), _) => {
                let mut chunk = [0; CHUNK];
                let (size, _) = recv(&self.socket, &mut chunk[..], RecvFlags::empty())?;
                let goes_on = size > 0 && answer.push(&chunk[..size]);
                Ok((!goes_on).then(|| answer.is_success()))
            }
        }
    }

    /// A server may reset the connection after its whole answer.
    fn is_success_despite_reset(&self) -> bool {
        match &self.phase {
            Phase::Reading(answer) => answer.has_status() && answer.is_success(),
            Phase::Connecting | Phase::Sending(_) => false,
        }
    }
}
