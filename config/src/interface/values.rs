//! The values of an interface: names, addresses, networks, numbers, keys.

use std::net::IpAddr;

use toml::Spanned;

use crate::boot::{BootAddress, wireguard_key};
use crate::diagnostic::Diagnostic;
use crate::manifest::Text;
use crate::value::{Parsed, wrong};

/// A kernel interface name: 1 to 15 bytes (IFNAMSIZ) without `/`, `:` and blanks.
pub(super) fn device_name(text: &Text) -> Parsed<String> {
    let name = text.get_ref();
    let valid = (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/:".contains(&b))
        && name != "."
        && name != "..";
    if valid {
        return Ok(name.clone());
    }
    Err(wrong(
        text,
        "is no interface name",
        "1 to 15 characters, as in \"eth0\"",
    ))
}

/// An Ethernet address of one station.
pub(super) fn mac(text: &Text) -> Parsed<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .get_ref()
        .split(':')
        .map(|byte| {
            u8::from_str_radix(byte, 16)
                .ok()
                .filter(|_| byte.len() == 2 && !byte.starts_with('+'))
        })
        .collect();
    bytes
        .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
        .filter(|address| address[0] & 1 == 0 && *address != [0; 6])
        .ok_or_else(|| {
            wrong(
                text,
                "is no Ethernet address of an interface",
                "six pairs of hexadecimal digits, as in \"52:54:00:12:34:56\"",
            )
        })
}

/// The name of a driver or of a device on its bus.
pub(super) fn sysfs_name(text: &Text) -> Parsed<String> {
    let name = text.get_ref();
    let valid = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        && !name.starts_with('.');
    if valid {
        return Ok(name.clone());
    }
    Err(wrong(
        text,
        "is no name of a driver or device",
        "as the kernel shows it: driver = \"virtio_net\", path = \"0000:00:03.0\"",
    ))
}

/// An address that one host can have.
pub(super) fn host(text: &Text) -> Parsed<IpAddr> {
    let hint = "an address of a host, as in \"192.0.2.1\" or \"2001:db8::1\"";
    text.get_ref()
        .parse()
        .ok()
        .filter(is_host)
        .ok_or_else(|| wrong(text, "is no address of a host", hint))
}

fn is_host(address: &IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || is_broadcast)
}

/// An address of the machine with the length of its network's prefix.
pub(super) fn own_address(text: &Text) -> Parsed<BootAddress> {
    let hint = "an address and the length of its network's prefix, as in \"192.0.2.7/24\" or \"2001:db8::7/64\"";
    let refuse = |what: &str| wrong(text, what, hint);
    let address = BootAddress::parse(text.get_ref())
        .filter(|address| is_host(&address.address) && address.prefix > 0)
        .ok_or_else(|| refuse("is no address with a prefix"))?;
    let is_network = address.address.is_ipv4()
        && address.prefix < 31
        && address.network().address == address.address;
    if is_network {
        return Err(refuse("is the network itself, no address in it"));
    }
    Ok(address)
}

/// A network: an address and a prefix with nothing behind it.
pub(super) fn network(text: &Text) -> Parsed<BootAddress> {
    let network = BootAddress::parse(text.get_ref()).ok_or_else(|| {
        let hint =
            "an address and the length of the prefix, as in \"10.0.0.0/8\" or \"2001:db8::/32\"";
        wrong(text, "is no network", hint)
    })?;
    if network.network() != network {
        return Err(wrong(
            text,
            "has an address behind its prefix",
            format!("did you mean \"{}\"?", network.network()),
        ));
    }
    Ok(network)
}

/// A whole number in a range.
pub(super) fn number(
    number: &Spanned<i64>,
    what: &str,
    range: std::ops::RangeInclusive<u32>,
) -> Parsed<u32> {
    u32::try_from(*number.get_ref())
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| {
            Diagnostic::at(
                number.span(),
                format!("`{}` is no {what}", number.get_ref()),
            )
            .hint(format!("from {} to {}", range.start(), range.end()))
        })
}

/// A port of UDP, never 0.
pub(super) fn port(of: &Spanned<i64>) -> Parsed<u16> {
    let port = number(of, "port", 1..=65_535)?;
    Ok(u16::try_from(port).expect("the range ends at 65535"))
}

/// `HOST:PORT`: a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn endpoint(text: &Text) -> Parsed<(String, u16)> {
    let hint = "write \"HOST:PORT\", as in \"vpn.example.org:51820\" or \"[2001:db8::1]:51820\"";
    let refuse = || wrong(text, "is no host and port", hint);
    let (host, port) = text.get_ref().rsplit_once(':').ok_or_else(refuse)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port
        .parse()
        .ok()
        .filter(|port| digits && *port > 0)
        .ok_or_else(refuse)?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(address) = bare {
        let address: std::net::Ipv6Addr = address.parse().map_err(|_| refuse())?;
        return Ok((address.to_string(), port));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let valid = host.len() <= 253 && host.split('.').all(is_label);
    // A name of numbers alone is an address, or a slip.
    let numeric = host.split('.').all(|label| label.parse::<u64>().is_ok());
    if !valid || numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(refuse());
    }
    Ok((host.to_owned(), port))
}

/// A public key of WireGuard's.
pub(super) fn public_key(text: &Text) -> Parsed<[u8; 32]> {
    wireguard_key(text.get_ref()).ok_or_else(|| {
        let hint = "44 characters as `wg pubkey` prints them";
        wrong(text, "is no public key", hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Text {
        Text::new(0..value.len(), value.to_owned())
    }

    #[test]
    fn values_are_read_strictly() {
        for good in [
            "192.0.2.7/24",
            "10.0.0.0/31",
            "2001:db8::/64",
            "192.0.2.7/32",
        ] {
            assert!(own_address(&text(good)).is_ok(), "{good}");
        }
        for bad in [
            "192.0.2.0/24",
            "192.0.2.7",
            "0.0.0.0/8",
            "224.0.0.1/4",
            "::/64",
            "127.0.0.2/8",
            "1.2.3.4/0",
        ] {
            assert!(own_address(&text(bad)).is_err(), "{bad}");
        }
        for good in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "10.0.0.1/32"] {
            assert!(network(&text(good)).is_ok(), "{good}");
        }
        let near = network(&text("10.0.0.1/8")).unwrap_err();
        assert_eq!(near.hint.unwrap(), "did you mean \"10.0.0.0/8\"?");
        for bad in [
            "01:00:5e:00:00:01",
            "52:54:00:12:34",
            "0:1:2:3:4:5",
            "00:00:00:00:00:00",
            "+1:54:00:12:34:56",
        ] {
            assert!(mac(&text(bad)).is_err(), "{bad}");
        }
        assert_eq!(mac(&text("52:54:00:12:34:5F")).unwrap()[5], 0x5f);
    }

    #[test]
    fn endpoints_are_a_host_and_a_port() {
        for (good, host) in [
            ("vpn.example.org:51820", "vpn.example.org"),
            ("192.0.2.1:1", "192.0.2.1"),
            ("[2001:DB8::1]:5", "2001:db8::1"),
        ] {
            assert_eq!(endpoint(&text(good)).unwrap().0, host);
        }
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            "host:65536",
            ":5",
            "a b:5",
            "[::1:5",
            "1.2.3:5",
            "::1:5",
            "host:+5",
        ] {
            assert!(endpoint(&text(bad)).is_err(), "{bad}");
        }
    }
}
