//! The child `uplink`: the machine's interfaces, each with a DHCP client, and what they tell together.
//!
//! It ends when one of them fails, and PID 1 starts it again. The addresses stay meanwhile.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use config::boot::{BootInterface, BootLink};

use super::dhcp::lease::{Lease, Told};
use super::dhcp::run::serve;
use super::facts::{FACTS, Facts};
use super::message::{Message, note};
use super::{RESOLV_CONF, overwrite};
use crate::system;

/// The leases, beside their interfaces.
type Leases = Mutex<Vec<Option<Lease>>>;

/// Runs until an interface's client fails; returns the exit status.
#[must_use]
pub fn run() -> i32 {
    let spec = match system::read_spec() {
        Ok(spec) => spec,
        Err(reason) => {
            note(reason);
            return 1;
        }
    };
    let leases = Leases::new(vec![None; spec.interfaces.len()]);
    thread::scope(|scope| {
        for (index, interface) in spec.interfaces.iter().enumerate() {
            if interface.dhcp {
                let leases = &leases;
                scope.spawn(move || keep(interface, index, leases));
            }
        }
    });
    // Without an interface to keep there is nothing to do but to be there.
    loop {
        thread::park();
    }
}

fn keep(interface: &BootInterface, index: usize, leases: &Leases) {
    let label = &interface.label;
    let tell = |told| match told {
        Told::Note(text) => note(format_args!("{label}: {text}")),
        Told::Bound(lease) => {
            let text = lease.describe();
            publish(leases, index, Some(lease));
            let label = label.clone();
            Message::Bound { label, text }.tell();
        }
        Told::Lost => {
            publish(leases, index, None);
            let label = label.clone();
            Message::Lost { label }.tell();
        }
    };
    let device = match &interface.link {
        BootLink::Found(found) => found.device.as_ref(),
        _ => Some(label),
    };
    let Err(error) = serve(device.map(String::as_str), &tell);
    note(format_args!("{label}: DHCP failed: {error}"));
    std::process::exit(1);
}

fn publish(leases: &Leases, index: usize, lease: Option<Lease>) {
    let mut leases = leases.lock().unwrap_or_else(PoisonError::into_inner);
    leases[index] = lease;
    let leases: Vec<&Lease> = leases.iter().flatten().collect();
    if let Err(error) = overwrite(RESOLV_CONF, &resolv_conf(&leases)) {
        note(format_args!("cannot write {RESOLV_CONF}: {error}"));
    }
    match facts(&leases).write(Path::new(FACTS)) {
        Ok(()) => Message::Changed.tell(),
        Err(error) => note(format_args!("cannot write {FACTS}: {error}")),
    }
}

fn facts(leases: &[&Lease]) -> Facts {
    let servers = leases.iter().flat_map(|lease| &lease.dns);
    Facts {
        dns: servers.map(ToString::to_string).collect(),
        search: leases
            .iter()
            .filter_map(|lease| lease.domain.clone())
            .collect(),
        ..Facts::default()
    }
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
}
