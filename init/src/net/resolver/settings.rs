//! What a resolver goes by: the verified root's word on who there is, and the network's facts.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use config::boot::{BootFabric, BootState};
use serde::Deserialize;

use super::PORT;
use crate::net::facts::Facts;

/// So many name servers are asked at most.
const MOST_SERVERS: usize = 8;
/// resolv.conf(5) took so many search domains for long, and programs still do.
const MOST_DOMAINS: usize = 6;

/// What a resolver and a keeper of the clock need of the `BootSpec`; the rest is skipped.
#[derive(Debug, Clone, Deserialize)]
pub struct Spec {
    /// When the image was made, in seconds since 1970.
    pub epoch: i64,
    /// The machine's name, as long as no network tells another.
    pub hostname: String,
    /// What networks tell does not count.
    pub hostname_fixed: bool,
    /// Name servers in place of those that networks tell.
    pub dns: Vec<IpAddr>,
    /// Search domains in place of those that networks tell.
    pub search: Vec<String>,
    /// Time servers in place of those that networks tell.
    pub ntp: Option<Vec<String>>,
    /// The workloads' side.
    pub fabric: Option<BootFabric>,
    /// The state partition.
    pub state: Option<BootState>,
}

impl Spec {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or is another.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// What holds of these facts: also before the network's first ones the machine's file does.
    #[must_use]
    pub fn fix(&self, mut facts: Facts) -> Facts {
        if !self.dns.is_empty() {
            facts.dns = self.dns.iter().map(IpAddr::to_string).collect();
        }
        if !self.search.is_empty() {
            facts.search.clone_from(&self.search);
        }
        if let Some(ntp) = &self.ntp {
            facts.ntp.clone_from(ntp);
        }
        if self.hostname_fixed || facts.hostname.is_none() {
            facts.hostname = Some(self.hostname.clone());
        }
        facts
    }
}

/// The name servers that the facts tell. What is no address, holds on a link that is not there, or is this resolver
/// itself (`own`) is left out.
#[must_use]
pub fn servers(
    facts: &Facts,
    own: &[IpAddr],
    link: impl Fn(&str) -> io::Result<u32>,
) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for text in &facts.dns {
        let Some(server) = server(text, &link) else {
            continue;
        };
        if !own.contains(&server.ip()) && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers.truncate(MOST_SERVERS);
    servers
}

fn server(text: &str, link: impl Fn(&str) -> io::Result<u32>) -> Option<SocketAddr> {
    let (address, scope) = match text.split_once('%') {
        Some((address, name)) => (address, Some(name)),
        None => (text, None),
    };
    match (address.parse().ok()?, scope) {
        (IpAddr::V6(address), Some(name)) => {
            Some(SocketAddrV6::new(address, PORT, 0, link(name).ok()?).into())
        }
        (_, Some(_)) => None,
        (address, None) if address.is_unspecified() => None,
        (address, None) => Some((address, PORT).into()),
    }
}

/// The number of a network interface, by a socket: also where there is no file of its.
///
/// # Errors
/// `ENODEV` when there is none.
pub fn link_index(name: &str) -> io::Result<u32> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok(rustix::net::netdevice::name_to_index(socket, name)?)
}

/// `resolv.conf` of workloads with networks of their own. A name of one label is asked for as it is before a search domain
/// is added: it may be another workload's, and is nobody else's business.
#[must_use]
pub fn resolv_conf(gateway: (Ipv4Addr, Ipv6Addr), search: &[String]) -> String {
    let is_domain = |domain: &&String| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !domain.is_empty() && domain.len() <= 253 && domain.bytes().all(is_letter)
    };
    let domains: Vec<&str> = search
        .iter()
        .filter(is_domain)
        .take(MOST_DOMAINS)
        .map(String::as_str)
        .collect();
    let (four, six) = gateway;
    let mut text = format!("nameserver {four}\nnameserver {six}\noptions ndots:0\n");
    if !domains.is_empty() {
        text.push_str(&format!("search {}\n", domains.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_says_holds_in_place_of_what_networks_tell() {
        let told = Facts {
            dns: vec!["192.0.2.53".to_owned()],
            search: vec!["lan".to_owned()],
            ntp: vec!["192.0.2.123".to_owned()],
            hostname: Some("told".to_owned()),
        };
        let mut spec = Spec {
            epoch: 0,
            hostname: "machine".to_owned(),
            hostname_fixed: false,
            dns: Vec::new(),
            search: Vec::new(),
            ntp: None,
            fabric: None,
            state: None,
        };
        assert_eq!(spec.fix(told.clone()), told);
        let unknown = spec.fix(Facts::default()).hostname;
        assert_eq!(unknown.as_deref(), Some("machine"));
        spec.hostname_fixed = true;
        spec.dns = vec!["2001:db8::53".parse().unwrap()];
        spec.search = vec!["example.org".to_owned()];
        spec.ntp = Some(Vec::new());
        let fixed = Facts {
            dns: vec!["2001:db8::53".to_owned()],
            search: vec!["example.org".to_owned()],
            ntp: Vec::new(),
            hostname: Some("machine".to_owned()),
        };
        assert_eq!(spec.fix(told), fixed);
    }

    #[test]
    fn name_servers_are_those_that_can_be_asked() {
        let dns = [
            "192.0.2.53",
            "2001:db8::53",
            "fe80::1%eth0",
            "fe80::1%eth9",
            "192.0.2.53%eth0",
            "192.0.2.53",
            "10.213.0.1",
            "0.0.0.0",
            "dns.example",
        ];
        let facts = Facts {
            dns: dns.iter().map(|&text| text.to_owned()).collect(),
            ..Facts::default()
        };
        let link = |name: &str| match name {
            "eth0" => Ok(3),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let own = ["10.213.0.1".parse().unwrap()];
        let servers: Vec<String> = servers(&facts, &own, link)
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        assert_eq!(
            servers,
            ["192.0.2.53:53", "[2001:db8::53]:53", "[fe80::1%3]:53"]
        );
    }

    #[test]
    fn resolv_conf_names_the_machine_and_well_formed_domains() {
        let gateway = (Ipv4Addr::new(10, 213, 0, 1), "fd00::1".parse().unwrap());
        let fixed = "nameserver 10.213.0.1\nnameserver fd00::1\noptions ndots:0\n";
        assert_eq!(resolv_conf(gateway, &[]), fixed);
        let search = [
            "example.org",
            "",
            "bad domain",
            "x\nnameserver 192.0.2.1",
            "lan",
        ];
        let search: Vec<String> = search.iter().map(|&text| text.to_owned()).collect();
        let text = resolv_conf(gateway, &search);
        assert_eq!(text, format!("{fixed}search example.org lan\n"));
    }
}
