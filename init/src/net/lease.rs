//! What a DHCP child tells PID 1: one line a message, parsed strictly on the other end.

use std::fmt;
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

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// An address is bound, or what came with it changed.
    Bound(Lease),
    /// The lease ended and the address is removed.
    Lost,
    /// Something to show.
    Note(String),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(lease) => {
                let gateway = lease
                    .gateway
                    .map_or_else(|| "-".to_owned(), |gateway| gateway.to_string());
                let dns: Vec<String> = lease.dns.iter().map(Ipv4Addr::to_string).collect();
                let dns = if dns.is_empty() {
                    "-".to_owned()
                } else {
                    dns.join(",")
                };
                let domain = lease.domain.as_deref().unwrap_or("-");
                let Lease {
                    device,
                    address,
                    prefix,
                    seconds,
                    ..
                } = lease;
                write!(
                    f,
                    "bound {device} {address} {prefix} {gateway} {dns} {domain} {seconds}"
                )
            }
            Self::Lost => write!(f, "lost"),
            Self::Note(text) => write!(f, "note {text}"),
        }
    }
}

impl Message {
    /// `None` for anything but a well-formed line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "bound" => parse_lease(rest).map(Self::Bound),
            "lost" => Some(Self::Lost),
            "note" => Some(Self::Note(rest.to_owned())),
            _ => None,
        }
    }
}

fn parse_lease(text: &str) -> Option<Lease> {
    let fields: Vec<&str> = text.split(' ').collect();
    let [device, address, prefix, gateway, dns, domain, seconds] = fields[..] else {
        return None;
    };
    let set = |field: &'static str| move |text: &&str| *text != field;
    let gateway = Some(gateway)
        .filter(set("-"))
        .map(str::parse)
        .transpose()
        .ok()?;
    let servers = Some(dns)
        .filter(set("-"))
        .map_or_else(Vec::new, |dns| dns.split(',').map(str::parse).collect());
    Some(Lease {
        device: device.to_owned(),
        address: address.parse().ok()?,
        prefix: prefix.parse().ok().filter(|&prefix| prefix <= 32)?,
        gateway,
        dns: servers.into_iter().collect::<Result<_, _>>().ok()?,
        domain: Some(domain).filter(set("-")).map(str::to_owned),
        seconds: seconds.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_parsed_back() {
        let lease = Lease {
            device: "eth0".to_owned(),
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)],
            domain: Some("example.org".to_owned()),
            seconds: 86_400,
        };
        let bare = Lease {
            gateway: None,
            dns: Vec::new(),
            domain: None,
            ..lease.clone()
        };
        assert_eq!(
            lease.describe(),
            "eth0 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3 dns 1.1.1.1"
        );
        for message in [
            Message::Bound(lease),
            Message::Bound(bare),
            Message::Lost,
            Message::Note("no carrier".to_owned()),
        ] {
            assert_eq!(Message::parse(&message.to_string()), Some(message));
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "",
            "bound",
            "bound eth0 10.0.2.15 33 - - - 60",
            "bound eth0 10.0.2 24 - - - 60",
            "bound eth0 10.0.2.15 24 - 10.0.2.3, - 60",
            "bound eth0 10.0.2.15 24 - - - 60 more",
            "boundless",
        ] {
            assert_eq!(Message::parse(line), None, "{line}");
        }
    }
}
