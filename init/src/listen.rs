//! The sockets of `[socket.NAME]`: init listens on them from the beginning, and hands them to the workload that they
//! start. Nothing is ever accepted or read here.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use config::boot::{BootSocket, Listen, socket_path};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};

/// A socket of the machine's file.
#[derive(Debug)]
pub struct Listener {
    /// Its name in the file.
    pub name: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(OwnedFd),
    /// It could not be opened, for this reason.
    Failed(String),
    Closed,
}

impl Listener {
    /// Begins to listen. Whether that went well shows at [`Listener::descriptor`].
    #[must_use]
    pub fn open(spec: &BootSocket) -> Self {
        let state = match open(spec) {
            Ok(descriptor) => State::Open(descriptor),
            Err(error) => State::Failed(format!("socket {}: {error}", spec.name)),
        };
        Self {
            name: spec.name.clone(),
            state,
        }
    }

    /// What is handed to the workload.
    ///
    /// # Errors
    /// In words, why there is none.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>, String> {
        match &self.state {
            State::Open(descriptor) => Ok(descriptor.as_fd()),
            State::Failed(reason) => Err(reason.clone()),
            State::Closed => Err(format!("socket {} is closed", self.name)),
        }
    }

    /// Whoever connects from now on is refused. A workload that has the socket keeps it. The file of a Unix socket stays:
    /// without it, those that connect to it could not even start.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }
}

fn open(spec: &BootSocket) -> io::Result<OwnedFd> {
    match spec.listen {
        Listen::Tcp { address, port } => {
            let socket = inet(address, port, SocketType::STREAM)?;
            listen(&socket, backlog(spec))?;
            Ok(socket)
        }
        Listen::Udp { address, port } => inet(address, port, SocketType::DGRAM),
        Listen::Unix { mode } => unix(spec, mode),
    }
}

fn backlog(spec: &BootSocket) -> i32 {
    i32::try_from(spec.backlog).unwrap_or(i32::MAX)
}

fn inet(address: IpAddr, port: u16, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, kind == SocketType::STREAM)?;
    if address.is_ipv6() {
        // So that the same port of IPv4 is another socket's, whatever the system's default.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // The address may come by DHCP only later.
    sockopt::set_ip_freebind(&socket, true)?;
    bind(&socket, &SocketAddr::new(address, port))?;
    Ok(socket)
}

fn unix(spec: &BootSocket, mode: u32) -> io::Result<OwnedFd> {
    let path = socket_path(&spec.name);
    let socket = bound(&path, SocketType::STREAM, SocketFlags::CLOEXEC, mode)?;
    listen(&socket, backlog(spec))?;
    Ok(socket)
}

/// A Unix socket at a path, in a folder that only root enters: others get there by a mount of the file alone.
pub(crate) fn bound(
    path: &str,
    kind: SocketType,
    flags: SocketFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    if let Some((folder, _)) = path.rsplit_once('/') {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    fn tcp(port: u16) -> BootSocket {
        BootSocket {
            name: "web".to_owned(),
            listen: Listen::Tcp {
                address: Ipv4Addr::LOCALHOST.into(),
                port,
            },
            backlog: 8,
        }
    }

    #[test]
    fn a_socket_listens_until_it_is_closed() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut listener = Listener::open(&tcp(port));
        listener.descriptor().unwrap();
        let place = (Ipv4Addr::LOCALHOST, port);
        assert!(TcpStream::connect(place).is_ok());
        listener.close();
        assert!(TcpStream::connect(place).is_err());
        assert!(listener.descriptor().unwrap_err().contains("closed"));
    }

    #[test]
    fn a_port_that_is_taken_is_told_by_its_socket_name() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listener = Listener::open(&tcp(other.local_addr().unwrap().port()));
        assert!(
            listener
                .descriptor()
                .unwrap_err()
                .starts_with("socket web:")
        );
    }
}
