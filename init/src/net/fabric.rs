//! The child `fabric`: the firewall and the machine's side of the workloads' network, once at boot.
//!
//! Nothing is forwarded before the firewall holds, and workloads with a network wait until this is done: whatever fails
//! is told, and PID 1 has it tried again.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use config::boot::{BOOT_SPEC_PATH, BootFabric};
use serde::Deserialize;

use super::endpoints::{self, ENDPOINTS};
use super::firewall;
use super::message::note;
use super::netlink::address::{Address, NO_DUPLICATE_CHECK};
use super::netlink::message::Request;
use super::netlink::{LOOPBACK_INDEX, Socket, has_ipv6, link, route};
use super::relief;
use super::resolver::run::RESOLV_CONF;
use super::resolver::settings;
use crate::describe;
use crate::modules;

/// Every other name is the resolver's to know.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

const SETTINGS: &str = "/proc/sys/net";

/// What is set in this order, below [`SETTINGS`]. A router does not listen to routers unless it is told to, so the
/// interfaces to the outside are told before (by `uplink`, for each one whose file says so, and here for those that are
/// there); no other link ever listens, as the workloads' do not.
const FORWARDING: [(&str, &str); 4] = [
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
];

/// What is needed of the boot specification; the rest is skipped.
#[derive(Deserialize)]
struct Part {
    fabric: Option<BootFabric>,
}

/// Does it; returns the exit status.
#[must_use]
pub fn run() -> i32 {
    match read_fabric().and_then(|fabric| fabric.map_or(Ok(()), |fabric| set_up(&fabric))) {
        Ok(()) => 0,
        Err(reason) => {
            note(reason);
            1
        }
    }
}

/// What the machine's file says of it; `None`: it has no firewall.
///
/// # Errors
/// In words.
pub(super) fn read_fabric() -> Result<Option<BootFabric>, String> {
    let explain = |error: io::Error| format!("cannot read {BOOT_SPEC_PATH}: {error}");
    let bytes = fs::read(BOOT_SPEC_PATH).map_err(explain)?;
    let part: Part = serde_json::from_slice(&bytes).map_err(|error| explain(error.into()))?;
    Ok(part.fabric)
}

fn set_up(fabric: &BootFabric) -> Result<(), String> {
    for path in &fabric.modules {
        // What the kernel has already is no error; what it misses is one of the firewall's.
        if let Err(error) = modules::load(path) {
            note(describe(&error));
        }
    }
    let path = &fabric.firewall;
    let messages = fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    firewall::load(messages).map_err(|error| format!("the firewall: {error}"))?;
    if fabric.endpoints.is_empty() {
        return Ok(());
    }
    if let Err(error) = relief::set_limits() {
        note(format_args!(
            "the table of connections stays as it is: {error}"
        ));
    }
    forward()?;
    set_gateways(fabric).map_err(|error| format!("the workloads' router: {error}"))?;
    prepare_names(fabric).map_err(|error| format!("cannot write {RESOLV_CONF}: {error}"))?;
    endpoints::write(fabric, Path::new(ENDPOINTS))
        .map_err(|error| format!("cannot write {ENDPOINTS}: {error}"))
}

fn forward() -> Result<(), String> {
    keep_listening_to_routers(Path::new(SETTINGS));
    for (name, value) in FORWARDING {
        let path = format!("{SETTINGS}/{name}");
        match fs::write(&path, value) {
            // Without IPv6 there is nothing of it to be set.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6") => {}
            result => result.map_err(|error| format!("cannot write {path}: {error}"))?,
        }
    }
    Ok(())
}

/// Interfaces that listen to routers go on when the machine is one itself: 2 instead of 1 (ip-sysctl, `accept_ra`).
fn keep_listening_to_routers(settings: &Path) {
    let interfaces = fs::read_dir(settings.join("ipv6/conf"))
        .into_iter()
        .flatten();
    for interface in interfaces.flatten() {
        let name = interface.file_name();
        let file = interface.path().join("accept_ra");
        let listens = fs::read_to_string(&file).is_ok_and(|value| value.trim() == "1");
        if listens && !["all", "default", "lo"].map(Into::into).contains(&name) {
            let _ = fs::write(file, "2");
        }
    }
}

fn set_gateways(fabric: &BootFabric) -> io::Result<()> {
    let address = |address: IpAddr, prefix| {
        let address = Address {
            flags: NO_DUPLICATE_CHECK,
            ..Address::new(LOOPBACK_INDEX, address, prefix)
        };
        address.set()
    };
    let mut requests = vec![
        link::bring_up(LOOPBACK_INDEX),
        address(fabric.gateway.into(), prefix_of(Ipv4Addr::BITS)),
        nowhere_else(fabric.pool),
    ];
    if has_ipv6() {
        requests.push(address(fabric.gateway6.into(), prefix_of(Ipv6Addr::BITS)));
        requests.push(nowhere_else(fabric.pool6));
    }
    Ok(Socket::open()?.request_all(&requests)?)
}

/// A workload that is not running has no route: without this one, what is for it went to the router outside, who might
/// answer in its name.
fn nowhere_else((network, length): (impl Into<IpAddr>, u8)) -> Request {
    route::set_unreachable(network.into(), length)
}

/// What workloads mount as `/etc/resolv.conf` and `/etc/hosts`: it must be there before they are. The first is the
/// resolver's then, and is not written again.
fn prepare_names(fabric: &BootFabric) -> io::Result<()> {
    let path = Path::new(RESOLV_CONF);
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    fs::write(folder.join("hosts"), HOSTS)?;
    let gateways = (fabric.gateway, fabric.gateway6);
    fs::write(path, settings::resolv_conf(gateways, &[]))
}

fn prefix_of(bits: u32) -> u8 {
    u8::try_from(bits).expect("an address has 128 bits at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interfaces_that_listen_to_routers_go_on() {
        let settings = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            settings
                .path()
                .join("ipv6/conf")
                .join(name)
                .join("accept_ra")
        };
        for (name, before) in [
            ("all", "1\n"),
            ("default", "1\n"),
            ("eth0", "1\n"),
            ("eth1", "0\n"),
        ] {
            fs::create_dir_all(file(name).parent().unwrap()).unwrap();
            fs::write(file(name), before).unwrap();
        }
        keep_listening_to_routers(settings.path());
        for (name, after) in [("all", "1"), ("default", "1"), ("eth0", "2"), ("eth1", "0")] {
            assert_eq!(
                fs::read_to_string(file(name)).unwrap().trim(),
                after,
                "{name}"
            );
        }
        keep_listening_to_routers(Path::new("/no/such/folder"));
    }
}
