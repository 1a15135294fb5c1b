//! What `attach` has to know of the workloads' links: a file that `fabric` writes once, a line an endpoint, so that no
//! start of a workload reads the whole boot specification again.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use config::boot::BootFabric;

use super::netlink::link::HardwareAddress;
use crate::replace::replace;

/// Where the file is.
pub const ENDPOINTS: &str = "/run/coracle/net/endpoints";

/// The index of the first endpoint's link on the machine's side. The kernel numbers its own links from 1 on.
const FIRST_INDEX: u32 = 0x1_0000;

/// A link between the machine and a workload or pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The name of the machine's side.
    pub link: String,
    /// The index of the machine's side.
    pub index: u32,
    /// The workload's address.
    pub address: Ipv4Addr,
    /// The same by IPv6.
    pub address6: Ipv6Addr,
    /// The machine's address.
    pub gateway: Ipv4Addr,
    /// The same by IPv6.
    pub gateway6: Ipv6Addr,
}

impl Endpoint {
    /// The hardware address of the machine's side: locally administered, and another one for each endpoint.
    #[must_use]
    pub fn host_hardware(&self) -> HardwareAddress {
        hardware(0x02, self.address)
    }

    /// The hardware address of the workload's side.
    #[must_use]
    pub fn peer_hardware(&self) -> HardwareAddress {
        hardware(0x06, self.address)
    }
}

fn hardware(first: u8, address: Ipv4Addr) -> HardwareAddress {
    let [a, b, c, d] = address.octets();
    [first, 0, a, b, c, d]
}

/// The file's text: the gateways, then a line an endpoint.
#[must_use]
pub fn encode(fabric: &BootFabric) -> String {
    let mut text = format!("{} {}\n", fabric.gateway, fabric.gateway6);
    for (index, endpoint) in (FIRST_INDEX..).zip(&fabric.endpoints) {
        let fields = (&endpoint.name, &endpoint.link);
        let addresses = (endpoint.address, endpoint.address6);
        text.push_str(&format!(
            "{} {} {index} {} {}\n",
            fields.0, fields.1, addresses.0, addresses.1
        ));
    }
    text
}

/// The endpoint of a workload or pod; `None`: the text has none, or is not such a file.
#[must_use]
pub fn find(text: &str, name: &str) -> Option<Endpoint> {
    let (gateways, rest) = text.split_once('\n')?;
    let (gateway, gateway6) = gateways.split_once(' ')?;
    let line = rest.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.strip_prefix(' ')
    })?;
    let fields: Vec<&str> = line.split(' ').collect();
    let [link, index, address, address6] = fields[..] else {
        return None;
    };
    Some(Endpoint {
        link: link.to_owned(),
        index: index.parse().ok()?,
        address: address.parse().ok()?,
        address6: address6.parse().ok()?,
        gateway: gateway.parse().ok()?,
        gateway6: gateway6.parse().ok()?,
    })
}

/// Writes the file: whoever reads it meanwhile has the old one or the new one.
///
/// # Errors
/// When it cannot be written.
pub fn write(fabric: &BootFabric, path: &Path) -> io::Result<()> {
    replace(path, encode(fabric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::boot::BootEndpoint;

    fn endpoint(name: &str, last: u8) -> BootEndpoint {
        BootEndpoint {
            name: name.to_owned(),
            link: format!("w-{name}"),
            address: Ipv4Addr::new(10, 213, 0, last),
            address6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()),
            names: Vec::new(),
            networks: Vec::new(),
            outside: true,
        }
    }

    #[test]
    fn endpoints_are_found_by_their_whole_names() {
        let fabric = BootFabric {
            gateway: Ipv4Addr::new(10, 213, 0, 1),
            gateway6: "fd00::1".parse().unwrap(),
            pool: (Ipv4Addr::new(10, 213, 0, 0), 16),
            pool6: ("fd00::".parse().unwrap(), 64),
            firewall: String::new(),
            modules: Vec::new(),
            spare_modules: Vec::new(),
            endpoints: vec![endpoint("web-1", 9), endpoint("web", 7)],
            resolver: true,
        };
        let text = encode(&fabric);
        let found = find(&text, "web").unwrap();
        let expected = Endpoint {
            link: "w-web".to_owned(),
            index: FIRST_INDEX + 1,
            address: Ipv4Addr::new(10, 213, 0, 7),
            address6: "fd00::7".parse().unwrap(),
            gateway: fabric.gateway,
            gateway6: fabric.gateway6,
        };
        assert_eq!(found, expected);
        assert_ne!(found.host_hardware(), found.peer_hardware());
        assert_eq!(find(&text, "we"), None);
        assert_eq!(find("", "web"), None);
        assert_eq!(find("10.0.0.1 fd00::1\nweb l x 1.2.3.4 ::", "web"), None);
    }
}
