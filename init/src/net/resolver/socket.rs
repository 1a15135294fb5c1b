//! The sockets of a resolver: those that clients know, and one for each question to a name server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, sockopt};

use super::answer::Transport;
use super::frames::{Frames, frame};

/// So many connections wait for being accepted.
const BACKLOG: i32 = 32;
/// What the kernel keeps of datagrams that come all at once, in bytes: some for each of 500 clients.
const BUFFER: usize = 2 << 20;

/// A listening UDP socket. It may be bound before the machine has the address.
///
/// # Errors
/// What the kernel answers.
pub fn listen_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address, SocketType::DGRAM)?;
    free_bind(&socket, address)?;
    // Beyond the machine's limit, where this process may.
    if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
    }
    Ok(UdpSocket::from(socket))
}

/// The same by TCP.
///
/// # Errors
/// What the kernel answers.
pub fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address, SocketType::STREAM)?;
    // A former process's connections may still be in the kernel.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    free_bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn open(address: SocketAddr, kind: SocketType) -> io::Result<std::os::fd::OwnedFd> {
    let family = match address.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

fn free_bind(socket: impl AsFd, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    Ok(bind(&socket, &address)?)
}

/// One question to a name server. Its port is the kernel's choice, another one each time, and only that name server's
/// packets come in.
#[derive(Debug)]
pub enum Upstream {
    /// A datagram that is sent.
    Udp(UdpSocket),
    /// A connection that is being made or used.
    Tcp {
        /// It does not block.
        stream: TcpStream,
        /// What is still to be sent.
        output: Vec<u8>,
        /// What has come.
        input: Frames,
    },
}

impl Upstream {
    /// Sends a question, or begins to.
    ///
    /// # Errors
    /// When there is no way to the name server.
    pub fn ask(server: SocketAddr, transport: Transport, message: &[u8]) -> io::Result<Self> {
        match transport {
            Transport::Udp => {
                let socket = open(server, SocketType::DGRAM)?;
                connect(&socket, &server)?;
                let socket = UdpSocket::from(socket);
                socket.send(message)?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp => {
                let socket = open(server, SocketType::STREAM)?;
                match connect(&socket, &server) {
                    Ok(()) | Err(Errno::INPROGRESS) => {}
                    Err(errno) => return Err(errno.into()),
                }
                Ok(Self::Tcp {
                    stream: TcpStream::from(socket),
                    output: frame(message),
                    input: Frames::default(),
                })
            }
        }
    }

    /// What it waits for.
    #[must_use]
    pub fn wants(&self) -> EventFlags {
        match self {
            Self::Tcp { output, .. } if !output.is_empty() => EventFlags::OUT,
            _ => EventFlags::IN,
        }
    }

    /// Goes on; an answer that has come. `Err(WouldBlock)`: there is nothing now.
    ///
    /// # Errors
    /// When it is of no more use, but for `WouldBlock`.
    pub fn proceed(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; usize::from(super::UDP_SIZE)];
                let size = socket.recv(&mut buffer)?;
                buffer.truncate(size);
                Ok(buffer)
            }
            Self::Tcp {
                stream,
                output,
                input,
            } => {
                if !output.is_empty() {
                    let size = stream.write(output)?;
                    output.drain(..size);
                    return Err(ErrorKind::WouldBlock.into());
                }
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer)? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    size => input.push(&buffer[..size]),
                }
                let message = input.next(usize::from(u16::MAX)).ok().flatten();
                message.ok_or_else(|| ErrorKind::WouldBlock.into())
            }
        }
    }
}

impl AsFd for Upstream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp { stream, .. } => stream.as_fd(),
        }
    }
}

/// One datagram of a client.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
