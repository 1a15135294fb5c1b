//! What the host has: programs on the search path and free ports.
//!
//! Everything is looked at before a machine starts, so that the user reads what is missing and not what QEMU makes
//! of it.

use std::ffi::OsStr;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use config::boot::Protocol;

use super::{Error, Forward};

/// QEMU's program for the only architecture there is.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// QEMU on the search path.
pub(crate) fn find_qemu() -> Result<PathBuf, Error> {
    find_program(QEMU, std::env::var_os("PATH").as_deref()).ok_or(Error::QemuMissing)
}

/// QEMU puts its program's name before each message.
pub(crate) fn without_program(complaint: &str) -> &str {
    complaint
        .split_once(&format!("{QEMU}: "))
        .map_or(complaint, |(_, message)| message)
}

/// A program on the process's search path.
pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    find_program(name, std::env::var_os("PATH").as_deref())
}

fn find_program(name: &str, search_path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(search_path?)
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(candidate: &std::path::Path) -> bool {
    std::fs::metadata(candidate)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Refuses ports that something else has, or that two workloads want.
///
/// All are held until the last one is tried, so that a port that is wanted twice is found too. QEMU takes them
/// a moment later; what comes in between is QEMU's error to tell.
pub(crate) fn check_ports(forwards: &[Forward]) -> Result<(), Error> {
    let mut held = Vec::new();
    for forward in forwards {
        let port = hold_port(forward).map_err(|source| Error::PortTaken {
            port: forward.host_port,
            published: forward.published,
            protocol: forward.protocol,
            workload: forward.workload.clone(),
            source,
        })?;
        held.push(port);
    }
    Ok(())
}

/// A bound socket; it only has to exist for a while.
#[expect(dead_code, reason = "the sockets are held, never used")]
enum Held {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

fn hold_port(forward: &Forward) -> io::Result<Held> {
    let address = (forward.host_address, forward.host_port);
    match forward.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(Held::Tcp),
        Protocol::Udp => UdpSocket::bind(address).map(Held::Udp),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn forward(workload: &str, host_port: u16) -> Forward {
        Forward {
            workload: workload.into(),
            host_address: Ipv4Addr::LOCALHOST,
            host_port,
            published: 8080,
            guest_port: 80,
            protocol: Protocol::Tcp,
            check: None,
        }
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_taken_port_is_named_with_its_workload_and_a_way_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check_ports(&[forward("web", port)]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&port.to_string()) && text.contains("web"),
            "{text}"
        );
        assert!(error.hint().unwrap().contains("--port 8080="));
    }

    #[test]
    fn a_port_wanted_twice_is_refused_for_the_second() {
        let port = free_port();
        let error = check_ports(&[forward("one", port), forward("two", port)]).unwrap_err();
        assert!(error.to_string().contains("two"), "{error}");
        check_ports(&[forward("one", port)]).unwrap();
    }

    #[test]
    fn programs_are_found_on_the_search_path_only_and_only_if_executable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        std::fs::write(&path, "").unwrap();
        let search = Some(directory.path().as_os_str());
        assert_eq!(find_program("tool", search), None);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program("tool", search), Some(path));
        assert_eq!(find_program("tool", None), None);
        assert_eq!(find_program("tool", Some(OsStr::new(""))), None);
    }
}
