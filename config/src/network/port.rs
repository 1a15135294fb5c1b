//! Published ports: `"8080:80"`, `"127.0.0.1:53:53/udp"`, `"[::1]:443:443"`, `"8000-8010:9000-9010"`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::boot::Protocol;
use crate::diagnostic::suggest;
use crate::manifest::Text;
use crate::value::{Parsed, wrong};

/// A published port, or several in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The machine's address, maybe an unspecified one: all of that family; `None`: all addresses.
    pub address: Option<IpAddr>,
    /// The first port that the outside reaches, never 0.
    pub published: u16,
    /// The first port that the workload listens on, never 0.
    pub target: u16,
    /// How many ports in a row, at least 1.
    pub count: u16,
    /// Transport.
    pub protocol: Protocol,
}

impl Port {
    /// The last port that the outside reaches.
    #[must_use]
    pub const fn last_published(&self) -> u16 {
        self.published + (self.count - 1)
    }

    /// The last port that the workload listens on.
    #[must_use]
    pub const fn last_target(&self) -> u16 {
        self.target + (self.count - 1)
    }

    /// Only the machine itself reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.address.is_some_and(|address| address.is_loopback())
    }
}

/// The published side, as in `127.0.0.1:8000-8010/udp`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        write!(f, "{}", self.published)?;
        if self.count > 1 {
            write!(f, "-{}", self.last_published())?;
        }
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

/// A published port: the machine's (with an address or not), then the workload's own; each one port or a range.
///
/// # Errors
/// Other forms, ports out of 1 to 65535, ranges of different lengths, an unknown protocol.
pub(crate) fn port(text: &Text) -> Parsed<Port> {
    const FORM: &str = "write \"PUBLISHED:TARGET\" with ports from 1 to 65535, as in \"8080:80\", \"53:53/udp\", \
                        \"127.0.0.1:8080:80\" or \"8000-8010:9000-9010\"";
    let (place, protocol) = transport(text)?;
    let (address, ports) = address(place).ok_or_else(|| {
        wrong(
            text,
            "has no address in front of its ports",
            "as in \"127.0.0.1:8080:80\" or \"[::1]:8080:80\"",
        )
    })?;
    if let Some(what) = address.and_then(nobodys) {
        let hint = "write an address that the machine has, or none for all of them";
        return Err(wrong(text, what, hint));
    }
    let (published, target) = ports
        .split_once(':')
        .and_then(|(published, target)| Some((port_range(published)?, port_range(target)?)))
        .ok_or_else(|| wrong(text, "is no pair of ports", FORM))?;
    let count = |(first, last): (u16, u16)| last - first;
    if count(published) != count(target) {
        return Err(wrong(
            text,
            "has two ranges of different lengths",
            "each published port leads to one of the workload's: write both ranges with the same number of ports",
        ));
    }
    Ok(Port {
        address,
        published: published.0,
        target: target.0,
        // Ports begin with 1, so that even all of them are one less than 65,536.
        count: count(published) + 1,
        protocol,
    })
}

/// Why no machine is reached by the address.
fn nobodys(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => {
            Some("has the address of many in front of its ports")
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            Some("has the address of many in front of its ports")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("has an address of IPv4 in IPv6's form in front of its ports")
        }
        _ => None,
    }
}

/// What stands before `/tcp` or `/udp`.
fn transport(text: &Text) -> Parsed<(&str, Protocol)> {
    match text.get_ref().split_once('/') {
        None => Ok((text.get_ref(), Protocol::Tcp)),
        Some((place, "tcp")) => Ok((place, Protocol::Tcp)),
        Some((place, "udp")) => Ok((place, Protocol::Udp)),
        Some((_, other)) => Err(wrong(
            text,
            format!("has the unknown protocol `{other}`"),
            suggest(other, ["tcp", "udp"]),
        )),
    }
}

/// The address in front, if there is one, and the ports behind it.
fn address(place: &str) -> Option<(Option<IpAddr>, &str)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (address, ports) = rest.split_once("]:")?;
        let address: Ipv6Addr = address.parse().ok()?;
        return Some((Some(address.into()), ports));
    }
    match place.matches(':').count() {
        2 => {
            let (address, ports) = place.split_once(':')?;
            let address: Ipv4Addr = address.parse().ok()?;
            Some((Some(address.into()), ports))
        }
        // An IPv6 address without brackets.
        3.. => None,
        _ => Some((None, place)),
    }
}

/// `80` or `8000-8010`: the first and the last port.
pub(crate) fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port_number(first)?, port_number(last)?),
        None => (port_number(text)?, port_number(text)?),
    };
    (first <= last).then_some((first, last))
}

/// A port from 1 to 65535 in plain decimal digits.
pub(crate) fn port_number(text: &str) -> Option<u16> {
    let digits =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse::<u16>().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Parsed<Port> {
        port(&Text::new(0..value.len(), value.to_owned()))
    }

    #[test]
    fn ports_are_numbers_or_ranges_with_an_address_or_without() {
        let v4 = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (value, address, published, target, count, protocol) in [
            ("8080:80", None, 8080, 80, 1, Protocol::Tcp),
            ("53:53/udp", None, 53, 53, 1, Protocol::Udp),
            (
                "127.0.0.1:53:54/udp",
                v4("127.0.0.1"),
                53,
                54,
                1,
                Protocol::Udp,
            ),
            ("[::1]:443:80/tcp", v4("::1"), 443, 80, 1, Protocol::Tcp),
            ("0.0.0.0:1:65535", v4("0.0.0.0"), 1, 65535, 1, Protocol::Tcp),
            ("8000-8010:9000-9010", None, 8000, 9000, 11, Protocol::Tcp),
            ("[::]:1-65535:1-65535", v4("::"), 1, 1, 65535, Protocol::Tcp),
        ] {
            let expected = Port {
                address,
                published,
                target,
                count,
                protocol,
            };
            assert_eq!(parse(value).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_port_is_told_with_what_would_be() {
        for (value, message) in [
            ("0:80", "is no pair of ports"),
            ("080:80", "is no pair of ports"),
            ("80:65536", "is no pair of ports"),
            ("80:+80", "is no pair of ports"),
            ("", "is no pair of ports"),
            ("80", "is no pair of ports"),
            ("a:b", "is no pair of ports"),
            (" 1:2", "is no pair of ports"),
            ("10-9:10-9", "is no pair of ports"),
            ("1:2:3", "has no address"),
            ("localhost:1:2", "has no address"),
            ("::1:80:80", "has no address"),
            ("[::1:80:80", "has no address"),
            ("224.0.0.1:80:80", "address of many"),
            ("255.255.255.255:80:80", "address of many"),
            ("[ff02::1]:80:80", "address of many"),
            ("[::ffff:192.0.2.1]:80:80", "IPv4 in IPv6's form"),
            ("8000-8010:9000", "different lengths"),
            ("80:80/sctp", "unknown protocol `sctp`"),
        ] {
            let mistake = parse(value).unwrap_err();
            assert!(mistake.message.contains(message), "{value}: {mistake:?}");
            assert!(mistake.hint.is_some());
        }
    }

    #[test]
    fn a_port_is_told_as_the_outside_reaches_it() {
        for (value, shown) in [
            ("8080:80", "8080"),
            ("[::1]:53:53/udp", "[::1]:53/udp"),
            ("127.0.0.1:8000-8001:80-81", "127.0.0.1:8000-8001"),
        ] {
            assert_eq!(parse(value).unwrap().to_string(), shown);
        }
    }
}
