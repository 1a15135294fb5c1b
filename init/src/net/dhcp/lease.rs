//! What the DHCP client has of a server, and what it tells.

use std::net::Ipv4Addr;

/// A bound address with what came along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The kernel's interface name.
    pub device: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Its prefix length, 0 to 32.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// The domain to search names in.
    pub domain: Option<String>,
    /// For how long; `u32::MAX` is for ever (RFC 2131 §3.3).
    pub seconds: u32,
}

impl Lease {
    /// For people: `eth0 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{} {}/{}", self.device, self.address, self.prefix);
        if let Some(gateway) = self.gateway {
            text.push_str(&format!(" gateway {gateway}"));
        }
        for server in &self.dns {
            text.push_str(&format!(" dns {server}"));
        }
        text
    }
}

/// What it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An address is bound, or what came with it changed.
    Bound(Lease),
    /// The lease ended and the address is removed.
    Lost,
    /// Something to show.
    Note(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_described_with_all_that_came_along() {
        let lease = Lease {
            device: "eth0".to_owned(),
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)],
            domain: Some("example.org".to_owned()),
            seconds: 86_400,
        };
        assert_eq!(
            lease.describe(),
            "eth0 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3 dns 1.1.1.1"
        );
    }
}
