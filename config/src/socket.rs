//! `[socket.NAME]`: what init listens on, to start a workload at the first connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Spanned;

use crate::boot::{Listen, Protocol};
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Manifest, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed};

/// The connections that may wait if the file does not say.
const DEFAULT_BACKLOG: u32 = 128;
/// The mode of a Unix socket if the file does not say: whoever is given it by `connect` may connect.
const DEFAULT_MODE: u16 = 0o666;

/// A validated socket; exactly one workload has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its name, a DNS label.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// The most connections that wait to be accepted.
    pub backlog: u32,
}

impl Socket {
    /// Validates one; `None`: what it says of where to listen makes no sense.
    pub(crate) fn new(
        name: &Text,
        from: &manifest::Socket,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        mistakes.take(value::dns_label(name, "socket name"));
        let mode = mistakes.take_some(from.mode.as_ref(), value::mode);
        let listen = mistakes.take(listen(&from.listen, mode.unwrap_or(DEFAULT_MODE)));
        let backlog = from
            .backlog
            .as_ref()
            .and_then(|b| mistakes.take(backlog(b)));
        if let (Some(mode), Some(Listen::Tcp { .. } | Listen::Udp { .. })) = (&from.mode, &listen) {
            mistakes.push(
                Diagnostic::at(mode.span(), "`mode` of a socket that is no file")
                    .hint("remove it, or write listen = \"unix\""),
            );
        }
        Some(Self {
            name: name.get_ref().clone(),
            listen: listen?,
            backlog: backlog.unwrap_or(DEFAULT_BACKLOG),
        })
    }

    /// Address, port and transport, if it listens on the machine's network.
    #[must_use]
    pub const fn endpoint(&self) -> Option<(IpAddr, u16, Protocol)> {
        match self.listen {
            Listen::Tcp { address, port } => Some((address, port, Protocol::Tcp)),
            Listen::Udp { address, port } => Some((address, port, Protocol::Udp)),
            Listen::Unix { .. } => None,
        }
    }
}

/// `unix`, `PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`, the last three with `/tcp` or `/udp`.
fn listen(text: &Text, mode: u16) -> Parsed<Listen> {
    let whole = text.get_ref().as_str();
    if whole == "unix" {
        return Ok(Listen::Unix { mode: mode.into() });
    }
    let (place, protocol) = match whole.rsplit_once('/') {
        None => (whole, "tcp"),
        Some((place, protocol)) => (place, protocol),
    };
    let address: SocketAddr = place
        .parse()
        .ok()
        .or_else(|| Some((Ipv4Addr::UNSPECIFIED, plain_port(place)?).into()))
        .filter(|address: &SocketAddr| address.port() != 0)
        .ok_or_else(|| {
            Diagnostic::at(text.span(), format!("`{whole}` is nothing to listen on"))
                .hint("write \"8080\", \"127.0.0.1:8080\", \"[::]:53/udp\" or \"unix\"")
        })?;
    let (address, port) = (address.ip(), address.port());
    match protocol {
        "tcp" => Ok(Listen::Tcp { address, port }),
        "udp" => Ok(Listen::Udp { address, port }),
        other => Err(Diagnostic::at(
            text.span(),
            format!("`{whole}` has the unknown protocol `{other}`"),
        )
        .hint(suggest(other, ["tcp", "udp"]))),
    }
}

/// Port and transport of a text that [`Socket::new`] takes.
pub(crate) fn listens_on(text: &Text) -> Option<(u16, Protocol)> {
    match listen(text, DEFAULT_MODE).ok()? {
        Listen::Tcp { port, .. } => Some((port, Protocol::Tcp)),
        Listen::Udp { port, .. } => Some((port, Protocol::Udp)),
        Listen::Unix { .. } => None,
    }
}

fn plain_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

fn backlog(backlog: &Spanned<i64>) -> Parsed<u32> {
    let count = *backlog.get_ref();
    u32::try_from(count)
        .ok()
        .filter(|_| (1..=65_535).contains(&count))
        .ok_or_else(|| {
            Diagnostic::at(
                backlog.span(),
                format!("a backlog of `{count}` is out of range"),
            )
            .hint("from 1 to 65535")
        })
}

/// Each socket belongs to exactly one workload.
pub(crate) fn check_owners(manifest: &Manifest, mistakes: &mut Mistakes) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (workload, table) in &manifest.workload {
        for socket in &table.sockets {
            if !manifest.socket.contains_key(socket.get_ref().as_str()) {
                let known = manifest.socket.keys().map(|name| name.get_ref().as_str());
                let hint = if manifest.socket.is_empty() {
                    format!("add [socket.{}] with listen = \"8080\"", socket.get_ref())
                } else {
                    suggest(socket.get_ref(), known)
                };
                let what = format!("`{}`: there is no socket of that name", socket.get_ref());
                mistakes.push(Diagnostic::at(socket.span(), what).hint(hint));
            }
            if let Some(other) = owners.insert(socket.get_ref(), workload.get_ref()) {
                mistakes.push(
                    Diagnostic::at(
                        socket.span(),
                        format!("`{}`: `{other}` has this socket already", socket.get_ref()),
                    )
                    .hint("a connection starts one workload: give the other a socket of its own"),
                );
            }
        }
    }
    for name in manifest.socket.keys() {
        if !owners.contains_key(name.get_ref().as_str()) {
            let what = format!("no workload has socket `{}`", name.get_ref());
            let hint = format!("add sockets = [\"{}\"] to one", name.get_ref());
            mistakes.push(Diagnostic::at(name.span(), what).hint(hint));
        }
    }
}

/// Each socket that a workload connects to by a file is one, and its mode lets that workload in.
pub(crate) fn check_connections(manifest: &Manifest, mistakes: &mut Mistakes) {
    for (workload, table) in &manifest.workload {
        for name in table.connect.keys() {
            let (what, hint) = match manifest.socket.get(name.get_ref().as_str()) {
                Some(socket) if socket.listen.get_ref() == "unix" => {
                    if let Some(mistake) = shut_out(workload, table, manifest, socket) {
                        mistakes.push(mistake);
                    }
                    continue;
                }
                Some(_) => (
                    format!("socket `{}` is no file", name.get_ref()),
                    "only a socket with listen = \"unix\" has a path".to_owned(),
                ),
                None => unknown_connection(name.get_ref(), manifest),
            };
            mistakes.push(Diagnostic::at(name.span(), what).hint(hint));
        }
    }
}

/// What is wrong, and what helps: a name that is nearly one of the Unix sockets is a slip.
fn unknown_connection(name: &str, manifest: &Manifest) -> (String, String) {
    let mut known = manifest.socket.iter();
    let hint = if known.any(|(_, socket)| socket.listen.get_ref() == "unix") {
        let unix = manifest.socket.iter();
        let unix = unix.filter(|(_, socket)| socket.listen.get_ref() == "unix");
        suggest(name, unix.map(|(name, _)| name.get_ref().as_str()))
    } else {
        format!("add [socket.{name}] with listen = \"unix\"")
    };
    (format!("`{name}`: there is no socket of that name"), hint)
}

/// The socket's file belongs to the machine's root, whom a workload with ids of its own never is: it comes in by the
/// bits for others alone.
fn shut_out(
    workload: &Text,
    table: &manifest::Workload,
    manifest: &Manifest,
    socket: &manifest::Socket,
) -> Option<Diagnostic> {
    const OTHERS_WRITE: u16 = 0o002;
    let mode = socket.mode.as_ref()?;
    let pod = table.pod.as_ref();
    let pod = pod.and_then(|pod| manifest.pod.get(pod.get_ref().as_str()));
    let ids = match pod {
        Some(pod) => pod.user_namespace.as_ref(),
        None => table.user_namespace.as_ref(),
    };
    let has_machines_ids = ids.is_some_and(|ids| ids.get_ref() == "host");
    // A mode that is none is told elsewhere.
    let bits = value::mode(mode).ok()?;
    if has_machines_ids || bits & OTHERS_WRITE != 0 {
        return None;
    }
    let what = format!(
        "mode {} lets nobody of workload `{}` connect",
        mode.get_ref(),
        workload.get_ref()
    );
    let hint = "leave it out: whoever has no `connect` of it does not see the socket anyway";
    Some(Diagnostic::at(mode.span(), what).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn what_is_listened_on_is_a_port_an_address_or_a_file() {
        let text = |value: &str| Text::new(0..value.len(), value.to_owned());
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        for (value, expected) in [
            (
                "8080",
                Listen::Tcp {
                    address: any,
                    port: 8080,
                },
            ),
            (
                "8080/tcp",
                Listen::Tcp {
                    address: any,
                    port: 8080,
                },
            ),
            (
                "127.0.0.1:80",
                Listen::Tcp {
                    address: Ipv4Addr::LOCALHOST.into(),
                    port: 80,
                },
            ),
            (
                "[::]:53/udp",
                Listen::Udp {
                    address: Ipv6Addr::UNSPECIFIED.into(),
                    port: 53,
                },
            ),
            ("unix", Listen::Unix { mode: 0o666 }),
        ] {
            assert_eq!(listen(&text(value), 0o666).unwrap(), expected, "{value}");
        }
        for bad in [
            "",
            "0",
            "080",
            "65536",
            "127.0.0.1",
            "[::]:0",
            "80/sctp",
            "unix/tcp",
            ":80",
            "localhost:80",
        ] {
            assert!(listen(&text(bad), 0o666).is_err(), "{bad}");
        }
    }
}
