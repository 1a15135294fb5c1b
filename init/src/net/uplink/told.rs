//! What the interfaces know, put together: facts for other children, `resolv.conf`, and the line of one interface.
//! Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use config::boot::BootAddress;

use crate::net::facts::Facts;

/// resolv.conf(5) takes three name servers.
const RESOLV_CONF_SERVERS: usize = 3;
/// `__NEW_UTS_LEN`.
const LONGEST_NAME: usize = 64;
/// The most of each kind over all interfaces.
const MOST: usize = 16;

/// What one interface has and was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The link's name.
    pub device: String,
    /// Its addresses beyond the link.
    pub addresses: Vec<BootAddress>,
    /// Routers of its default routes, as far as they are known here.
    pub gateways: Vec<IpAddr>,
    /// Name servers, best first.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Time servers.
    pub ntp: Vec<IpAddr>,
    /// The name that the machine shall have.
    pub hostname: Option<String>,
}

impl Told {
    /// For people: `eth0 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.device.clone();
        for address in &self.addresses {
            let _ = write!(text, " {address}");
        }
        for gateway in &self.gateways {
            let _ = write!(text, " gateway {gateway}");
        }
        for server in &self.dns {
            let _ = write!(text, " dns {server}");
        }
        text
    }
}

/// What the machine's file says in place of what is told; `None`: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed {
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// Search domains.
    pub search: Option<Vec<String>>,
    /// Time servers.
    pub ntp: Option<Vec<String>>,
    /// The machine has its name from the file.
    pub hostname: bool,
}

/// Everything that is known now, in the order of the interfaces.
#[must_use]
pub fn facts(told: &[&Told], fixed: &Fixed) -> Facts {
    let dns = told.iter().flat_map(|told| {
        let shown = told.dns.iter().map(|server| scoped(*server, &told.device));
        shown.collect::<Vec<_>>()
    });
    let search = told.iter().flat_map(|told| told.search.iter().cloned());
    let ntp = told
        .iter()
        .flat_map(|told| told.ntp.iter().map(ToString::to_string));
    let hostname = told
        .iter()
        .find_map(|told| own_name(told.hostname.as_deref()?));
    Facts {
        dns: fixed.dns.clone().unwrap_or_else(|| once_each(dns)),
        search: fixed.search.clone().unwrap_or_else(|| once_each(search)),
        ntp: fixed.ntp.clone().unwrap_or_else(|| once_each(ntp)),
        hostname: hostname.filter(|_| !fixed.hostname),
    }
}

/// A name that the kernel takes: of a longer one the first label. `localhost` is everybody's.
fn own_name(told: &str) -> Option<String> {
    let name = if told.len() <= LONGEST_NAME {
        told
    } else {
        told.split('.').next()?
    };
    (!name.eq_ignore_ascii_case("localhost")).then(|| name.to_owned())
}

fn once_each(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    for one in all {
        if kept.len() < MOST && !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

/// A link-local address holds on its link only (RFC 4007 §11).
fn scoped(address: IpAddr, device: &str) -> String {
    match address {
        IpAddr::V6(inner) if inner.is_unicast_link_local() => format!("{address}%{device}"),
        _ => address.to_string(),
    }
}

/// `resolv.conf` for who has the machine's network.
#[must_use]
pub fn resolv_conf(facts: &Facts) -> String {
    let mut text = String::new();
    if !facts.search.is_empty() {
        let _ = writeln!(text, "search {}", facts.search.join(" "));
    }
    for server in facts.dns.iter().take(RESOLV_CONF_SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(device: &str, dns: &[&str]) -> Told {
        Told {
            device: device.to_owned(),
            addresses: vec![BootAddress::parse("10.0.2.15/24").unwrap()],
            gateways: vec!["10.0.2.2".parse().unwrap()],
            dns: dns.iter().map(|server| server.parse().unwrap()).collect(),
            search: vec!["lan".to_owned(), "example.org".to_owned()],
            hostname: Some(format!("by-{device}")),
            ..Told::default()
        }
    }

    #[test]
    fn an_interface_is_told_in_one_line() {
        assert_eq!(
            told("eth0", &["10.0.2.3"]).describe(),
            "eth0 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3"
        );
    }

    #[test]
    fn servers_stand_once_in_the_order_of_the_interfaces_and_three_in_resolv_conf() {
        let first = told("eth0", &["10.0.2.3", "fe80::1"]);
        let second = told("eth1", &["10.0.2.3", "1.1.1.1", "9.9.9.9"]);
        let facts = facts(&[&first, &second], &Fixed::default());
        assert_eq!(
            facts.dns,
            ["10.0.2.3", "fe80::1%eth0", "1.1.1.1", "9.9.9.9"]
        );
        assert_eq!(facts.hostname.as_deref(), Some("by-eth0"));
        assert_eq!(
            resolv_conf(&facts),
            "search lan example.org\nnameserver 10.0.2.3\nnameserver fe80::1%eth0\nnameserver 1.1.1.1\n"
        );
        assert_eq!(resolv_conf(&Facts::default()), "");
    }

    #[test]
    fn what_the_file_says_stands_in_place_of_what_is_told() {
        let fixed = Fixed {
            dns: Some(vec!["192.0.2.53".to_owned()]),
            ntp: Some(Vec::new()),
            hostname: true,
            ..Fixed::default()
        };
        let facts = facts(&[&told("eth0", &["10.0.2.3"])], &fixed);
        assert_eq!(facts.dns, ["192.0.2.53"]);
        assert_eq!(facts.search, ["lan", "example.org"]);
        assert_eq!((facts.ntp.len(), facts.hostname), (0, None));
    }

    #[test]
    fn a_network_gives_a_name_that_can_be_one() {
        let long = format!("web.{}", "x.".repeat(40));
        for (told, name) in [
            ("web", Some("web")),
            ("web.example.org", Some("web.example.org")),
            (long.as_str(), Some("web")),
            ("LocalHost", None),
        ] {
            let told = Told {
                hostname: Some(told.to_owned()),
                ..Told::default()
            };
            let facts = facts(&[&told], &Fixed::default());
            assert_eq!(facts.hostname.as_deref(), name);
        }
    }
}
