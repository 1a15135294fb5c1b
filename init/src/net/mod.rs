//! The network as PID 1 sees it: one DHCP child an interface, and the files that workloads read names by.
//!
//! PID 1 parses no packets: the child does, and sends lines ([`lease::Message`]) through a pipe. A child that
//! dies is started again with a growing delay; its address stays until then.

pub mod dhcp;
pub mod lease;
pub mod netlink;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use config::boot::{BootInterface, BootLink, BootSpec};
use rustix::pipe::PipeFlags;

use crate::children;
use crate::console::Console;
use crate::lines::LineSplitter;
use crate::supervise::backoff::Backoff;
use crate::sys::{self, Stage};
use lease::{Lease, Message};

/// Where the files that workloads mount are.
pub const FILES: &str = "/run/coracle/etc";
const RESOLV_CONF: &str = "/run/coracle/etc/resolv.conf";
const HOSTS: &str = "/run/coracle/etc/hosts";

/// One interface with its child.
#[derive(Debug)]
struct Interface {
    spec: BootInterface,
    lease: Option<Lease>,
    child: Option<i32>,
    pipe: Option<OwnedFd>,
    splitter: LineSplitter,
    backoff: Backoff,
    start_at: Option<Duration>,
}

/// All interfaces.
#[derive(Debug)]
pub struct Network {
    interfaces: Vec<Interface>,
    was_bound: bool,
}

impl Network {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(spec: &BootSpec) -> Self {
        let interface = |spec: &BootInterface| Interface {
            spec: spec.clone(),
            lease: None,
            child: None,
            pipe: None,
            splitter: LineSplitter::default(),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            start_at: None,
        };
        Self {
            interfaces: spec.interfaces.iter().map(interface).collect(),
            was_bound: false,
        }
    }

    /// How many interfaces the machine has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.interfaces.len()
    }

    /// The machine has no network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
    }

    /// Some interface has an address.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let leases = self.interfaces.iter().map(|interface| &interface.lease);
        leases.flatten().next().is_some()
    }

    /// Starts the DHCP child of an interface; `None` when it wants none.
    ///
    /// # Errors
    /// When there is no pipe or no process to be had.
    pub fn start(&mut self, index: usize) -> io::Result<Option<i32>> {
        let interface = &mut self.interfaces[index];
        interface.start_at = None;
        if !interface.spec.dhcp {
            return Ok(None);
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
        let mut command = children::command();
        let device = match &interface.spec.link {
            BootLink::Found(found) => found.device.as_ref(),
            _ => Some(&interface.spec.label),
        };
        command.arg("dhcp").args(device);
        let pid = children::spawn(command.stdout(write))?;
        interface.pipe = Some(read);
        interface.splitter = LineSplitter::default();
        interface.child = Some(pid);
        Ok(Some(pid))
    }

    /// The pipe on which the child tells.
    #[must_use]
    pub fn pipe(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.interfaces.get(index)?.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what the child told.
    pub fn read(&mut self, index: usize, console: &mut Console) {
        let Some(interface) = self.interfaces.get_mut(index) else {
            return;
        };
        let Some(pipe) = &interface.pipe else { return };
        let mut buffer = [0_u8; 4096];
        let size = match rustix::io::read(pipe, &mut buffer) {
            Ok(size) => size,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => 0,
        };
        if size == 0 {
            interface.pipe = None;
            return;
        }
        let mut messages = Vec::new();
        interface
            .splitter
            .push(&buffer[..size], |line| messages.push(Message::parse(line)));
        for message in messages.into_iter().flatten() {
            self.on_message(index, message, console);
        }
    }

    fn on_message(&mut self, index: usize, message: Message, console: &mut Console) {
        let interface = &mut self.interfaces[index];
        let label = interface.spec.label.clone();
        match message {
            Message::Bound(lease) => {
                console.say(format_args!("network {label} {}", lease.describe()));
                interface.backoff.reset();
                interface.lease = Some(lease);
                self.write_resolv_conf(console);
                if !std::mem::replace(&mut self.was_bound, true) {
                    sys::mark(Stage::Network);
                    console.say("stage network");
                }
            }
            Message::Lost => {
                console.say(format_args!("network {label}: the lease is over"));
                interface.lease = None;
                self.write_resolv_conf(console);
            }
            Message::Note(text) => console.say(format_args!("network {label}: {text}")),
        }
    }

    fn write_resolv_conf(&self, console: &mut Console) {
        let leases: Vec<&Lease> = self
            .interfaces
            .iter()
            .filter_map(|interface| interface.lease.as_ref())
            .collect();
        if let Err(error) = overwrite(RESOLV_CONF, &resolv_conf(&leases)) {
            console.say(format_args!("cannot write {RESOLV_CONF}: {error}"));
        }
    }

    /// The child ended: it is started again after a delay.
    pub fn on_exit(&mut self, index: usize, now: Duration, console: &mut Console) {
        let interface = &mut self.interfaces[index];
        interface.child = None;
        let delay = interface.backoff.next_delay();
        interface.start_at = Some(now + delay);
        let label = &interface.spec.label;
        console.say(format_args!(
            "network {label}: DHCP ended; restarting in {} s",
            delay.as_secs_f64()
        ));
    }

    /// When [`Network::due`] will have something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.interfaces
            .iter()
            .filter_map(|interface| interface.start_at)
            .min()
    }

    /// The interfaces whose child is to be started now.
    #[must_use]
    pub fn due(&self, now: Duration) -> Vec<usize> {
        let is_due = |index: &usize| self.interfaces[*index].start_at.is_some_and(|at| at <= now);
        (0..self.interfaces.len()).filter(is_due).collect()
    }

    /// Stops the children.
    pub fn stop(&mut self) {
        for pid in self
            .interfaces
            .iter_mut()
            .filter_map(|interface| interface.child.take())
        {
            let _ = sys::kill(pid, libc::SIGTERM);
        }
    }
}

/// Makes `resolv.conf` (empty until there is a lease) and `hosts`, which workloads mount.
///
/// # Errors
/// When `/run` cannot be written.
pub fn prepare_files(hostname: &str) -> io::Result<()> {
    fs::create_dir_all(FILES)?;
    overwrite(RESOLV_CONF, "")?;
    let hosts = format!(
        "127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost ip6-loopback\n"
    );
    overwrite(HOSTS, &hosts)
}

/// Writes in place: workloads have this very file mounted, so it must never be replaced by another.
fn overwrite(path: &str, text: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// resolv.conf(5) takes three name servers.
fn resolv_conf(leases: &[&Lease]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(domain) = leases.iter().find_map(|lease| lease.domain.as_ref()) {
        let _ = writeln!(text, "search {domain}");
    }
    for server in leases.iter().flat_map(|lease| &lease.dns).take(3) {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn resolv_conf_has_three_servers_at_most() {
        let lease = Lease {
            device: "eth0".to_owned(),
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: None,
            dns: (1..=2).map(|last| Ipv4Addr::new(10, 0, 2, last)).collect(),
            domain: Some("example.org".to_owned()),
            seconds: 60,
        };
        let text = resolv_conf(&[&lease, &lease]);
        let servers = "nameserver 10.0.2.1\nnameserver 10.0.2.2\nnameserver 10.0.2.1\n";
        assert_eq!(text, format!("search example.org\n{servers}"));
        assert_eq!(resolv_conf(&[]), "");
    }

    #[test]
    fn a_file_is_overwritten_in_place() {
        use std::os::unix::fs::MetadataExt;
        let path =
            std::env::temp_dir().join(format!("coracle-init-overwrite-{}", std::process::id()));
        let path = path.to_str().unwrap();
        overwrite(path, "a longer text").unwrap();
        let inode = fs::metadata(path).unwrap().ino();
        overwrite(path, "short").unwrap();
        assert_eq!(
            (
                fs::metadata(path).unwrap().ino(),
                fs::read_to_string(path).unwrap()
            ),
            (inode, "short".into())
        );
        fs::remove_file(path).unwrap();
    }
}
