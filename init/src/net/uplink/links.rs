//! The kernel's side of the interfaces: which links are there, what makes them, and how they are set up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use config::boot::{BootInterface, BootLink, Ipv6};

use super::matching::Seen;
use crate::net::netlink::link::{self, Kind, Link, Wishes};
use crate::net::netlink::{Refused, Socket};

const BOND_MODE: u16 = 1;
const BOND_MONITOR: u16 = 3;
/// How often a bond looks at the carriers of its parts, in milliseconds.
const BOND_MONITOR_MS: u32 = 100;
const BRIDGE_SPANNING_TREE: u16 = 5;

/// All links of the machine.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<u32, Entry>);

#[derive(Debug)]
struct Entry {
    link: Link,
    seen: Seen,
}

impl Links {
    /// Looks at what is there now.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn list(&mut self, netlink: &mut Socket) -> Result<(), Refused> {
        let links = netlink.list(&link::list(), Link::read)?;
        self.0.clear();
        for link in links {
            self.update(link);
        }
        Ok(())
    }

    /// Takes what was told of a link; news of IPv6 leave out much of it.
    pub fn update(&mut self, news: Link) {
        let Some(entry) = self.0.get_mut(&news.index) else {
            let seen = look(&news);
            self.0.insert(news.index, Entry { link: news, seen });
            return;
        };
        let link = &mut entry.link;
        if news.name != link.name && !news.name.is_empty() {
            entry.seen.name.clone_from(&news.name);
            link.name = news.name;
        }
        link.flags = news.flags;
        link.mtu = news.mtu;
        link.hardware_address = news.hardware_address.or(link.hardware_address);
        link.router_flags = news.router_flags.or(link.router_flags);
        // A part that left is told by what is not there any more.
        let former = link.master.filter(|_| !news.is_whole);
        link.master = news.master.or(former);
        link.kind = news.kind.or(link.kind.take());
        if news.group != 0 {
            link.group = news.group;
        }
        entry.seen.flags = link.flags;
        entry.seen.address = link.hardware_address;
        entry.seen.kind.clone_from(&link.kind);
        entry.seen.group = link.group;
    }

    /// A link is gone.
    pub fn remove(&mut self, index: u32) {
        self.0.remove(&index);
    }

    /// A link by its index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.0.get(&index).map(|entry| &entry.link)
    }

    /// What they can be found by.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.0.values().map(|entry| entry.seen.clone()).collect()
    }

    fn by_name(&self, name: &str) -> Option<&Link> {
        self.0
            .values()
            .map(|entry| &entry.link)
            .find(|link| link.name == name)
    }

    /// Makes the link of an interface if it is to be made and is not there, and what it is made of is; whether it did.
    ///
    /// # Errors
    /// What the kernel answers, or a link of that name that is something else.
    pub fn make(
        &self,
        interface: &BootInterface,
        lower: impl Fn(&str) -> Option<u32>,
        netlink: &mut Socket,
    ) -> Result<bool, String> {
        let Some(sort) = sort(&interface.link) else {
            return Ok(false);
        };
        if let Some(link) = self.by_name(&interface.label) {
            let is_it = link.kind.as_deref() == Some(sort);
            // Loading the bonding driver makes a bond0, for one.
            return if is_it {
                Ok(false)
            } else {
                Err(format!("there is another link {}", link.name))
            };
        }
        let values = values(&interface.link);
        let kind = match &interface.link {
            BootLink::Vlan { id, of } => match lower(of) {
                Some(of) => Kind::Vlan { id: *id, of },
                None => return Ok(false),
            },
            _ => Kind::Other(sort, &values),
        };
        let wishes = Wishes {
            group: Some(interface.group),
            ..Wishes::default()
        };
        let request = link::create(&interface.label, 0, &kind, &wishes);
        match netlink.request(&request) {
            Ok(()) => Ok(true),
            Err(refused) => Err(format!("cannot make a {sort}: {refused}")),
        }
    }
}

/// The kernel's name for what is made.
const fn sort(link: &BootLink) -> Option<&'static str> {
    match link {
        BootLink::Found(_) => None,
        BootLink::Vlan { .. } => Some("vlan"),
        BootLink::Bond { .. } => Some("bond"),
        BootLink::Bridge { .. } => Some("bridge"),
        BootLink::WireGuard(_) => Some("wireguard"),
    }
}

fn values(link: &BootLink) -> Vec<(u16, Vec<u8>)> {
    match link {
        BootLink::Bond { mode, .. } => {
            let monitor = BOND_MONITOR_MS.to_ne_bytes().to_vec();
            vec![(BOND_MODE, vec![*mode as u8]), (BOND_MONITOR, monitor)]
        }
        BootLink::Bridge { stp, .. } => {
            vec![(BRIDGE_SPANNING_TREE, u32::from(*stp).to_ne_bytes().to_vec())]
        }
        BootLink::Found(_) | BootLink::Vlan { .. } | BootLink::WireGuard(_) => Vec::new(),
    }
}

/// Sets a link up as its interface says, and brings it up. `master`: the link that it is to be part of, with
/// whether that one takes only parts that are down.
///
/// # Errors
/// What the kernel answers.
pub fn set_up(
    link: &Link,
    interface: &BootInterface,
    master: Option<(u32, bool)>,
    netlink: &mut Socket,
) -> Result<(), Refused> {
    set_sysctls(&link.name, interface);
    let mut requests = Vec::new();
    let plain = Wishes {
        group: Some(interface.group),
        mtu: interface.mtu.filter(|&mtu| mtu != link.mtu),
        ..Wishes::default()
    };
    requests.push(link::change(link.index, &plain));
    if let Some((index, wants_down)) = master.filter(|(index, _)| link.master != Some(*index)) {
        if wants_down {
            let down = Wishes {
                up: Some(false),
                ..Wishes::default()
            };
            requests.push(link::change(link.index, &down));
        }
        let join = Wishes {
            master: Some(index),
            ..Wishes::default()
        };
        requests.push(link::change(link.index, &join));
    }
    requests.push(link::bring_up(link.index));
    netlink.request_all(&requests)
}

/// A bond takes only parts that are down.
#[must_use]
pub const fn wants_parts_down(link: &BootLink) -> bool {
    matches!(link, BootLink::Bond { .. })
}

/// Kernels differ in what they have; what is not there is not needed.
fn set_sysctls(device: &str, interface: &BootInterface) {
    let set = |family: &str, key: &str, value: &str| {
        let _ = write_sysctl(family, device, key, value);
    };
    // Of two links to one network each answers for its own addresses only: by default the kernel answers at both for
    // all that it has, and the one would be taken for somebody else who has the other's address.
    set("ipv4", "arp_ignore", "1");
    set("ipv4", "arp_announce", "2");
    // Of two ways to the outside the one without a carrier is none.
    set("ipv4", "ignore_routes_with_linkdown", "1");
    set("ipv6", "ignore_routes_with_linkdown", "1");
    let auto = match interface.ipv6 {
        Ipv6::Auto => "1",
        Ipv6::Static => "0",
        Ipv6::Off => {
            set("ipv6", "disable_ipv6", "1");
            return;
        }
    };
    // 2: also on a machine that forwards.
    set("ipv6", "accept_ra", if auto == "1" { "2" } else { "0" });
    set("ipv6", "autoconf", auto);
    set("ipv6", "accept_ra_rt_info_max_plen", "64");
    set("ipv6", "ra_defrtr_metric", &interface.metric.to_string());
    // Routers are asked at once, and addresses are used while it is asked whether somebody else has them (RFC 4429):
    // as with IPv4, no boot waits for that.
    set("ipv6", "router_solicitation_delay", "0");
    set("ipv6", "optimistic_dad", "1");
    set("ipv6", "use_optimistic", "1");
    set("ipv6", "disable_ipv6", "0");
}

/// Writes a setting of one link.
///
/// # Errors
/// When the kernel has none of that name, or does not take the value.
pub fn write_sysctl(family: &str, device: &str, key: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(family).join("conf");
    fs::write(path.join(device).join(key), value)
}

/// What sysfs shows of a link.
fn look(link: &Link) -> Seen {
    // Only devices have a driver and a place; of the workloads' links there may be hundreds.
    let folder = link
        .kind
        .is_none()
        .then(|| Path::new("/sys/class/net").join(&link.name));
    let resolve = |name: &str| fs::canonicalize(folder.as_ref()?.join(name)).ok();
    let last = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let (device, driver) = (resolve("device"), resolve("device/driver"));
    let places = device.iter().flat_map(|device| device.ancestors().take(2));
    Seen {
        index: link.index,
        name: link.name.clone(),
        flags: link.flags,
        hardware: link.hardware,
        address: link.hardware_address,
        // Parts of a bond have the bond's address.
        permanent: link.permanent_address,
        kind: link.kind.clone(),
        group: link.group,
        driver: driver.as_deref().and_then(last),
        paths: places.filter_map(last).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_left_is_known_by_what_is_told_of_the_whole_link() {
        let mut links = Links::default();
        let news = |is_whole, master| Link {
            index: 7,
            is_whole,
            master,
            ..Link::default()
        };
        for (is_whole, told, master) in [
            (true, Some(3), Some(3)),
            (false, None, Some(3)),
            (true, None, None),
            (false, Some(4), Some(4)),
        ] {
            links.update(news(is_whole, told));
            assert_eq!(links.get(7).unwrap().master, master);
        }
    }
}
