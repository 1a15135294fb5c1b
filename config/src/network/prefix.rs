//! Address prefixes (CIDR, RFC 4632 and RFC 4291 §2.3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::manifest::Text;
use crate::value::{Parsed, wrong};

/// A prefix: an address whose bits behind the length are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// How many bits count, at most 32 or 128.
    pub length: u8,
}

impl Prefix {
    /// The prefix of that length that the address is in.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let keep = |bits: u128, width: u32| {
            let host = width.saturating_sub(length.into());
            bits.checked_shr(host)
                .unwrap_or(0)
                .checked_shl(host)
                .unwrap_or(0)
        };
        let address = match address {
            IpAddr::V4(v4) => {
                let bits = keep(u32::from(v4).into(), 32);
                Ipv4Addr::from(u32::try_from(bits).expect("32 bits stay 32 bits")).into()
            }
            IpAddr::V6(v6) => Ipv6Addr::from(keep(v6.into(), 128)).into(),
        };
        Self { address, length }
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self::of(address, self.length).address == self.address
    }

    /// Whether all of the other's addresses are in it.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A prefix such as `10.0.0.0/8` or `fd12::/64`; an address alone is the prefix that holds just it.
///
/// # Errors
/// Anything else, and bits behind the length that are set.
pub fn prefix(text: &Text) -> Parsed<Prefix> {
    let whole = text.get_ref().as_str();
    let (address, length) = match whole.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (whole, None),
    };
    let refuse = || {
        wrong(
            text,
            "is no address prefix",
            "as in \"10.0.0.0/8\" or \"fd12:3456:789a::/64\"",
        )
    };
    let address: IpAddr = address.parse().map_err(|_| refuse())?;
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(text) => plain_number(text)
            .filter(|n| *n <= most)
            .ok_or_else(refuse)?,
    };
    let prefix = Prefix::of(address, length);
    if prefix.address != address {
        return Err(wrong(
            text,
            "has bits set behind its length",
            format!("did you mean \"{prefix}\"?"),
        ));
    }
    Ok(prefix)
}

fn plain_number(text: &str) -> Option<u8> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Parsed<Prefix> {
        prefix(&Text::new(0..value.len(), value.to_owned()))
    }

    #[test]
    fn prefixes_are_read_and_told() {
        for (value, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("fd00::/64", "fd00::/64"),
        ] {
            assert_eq!(parse(value).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/08",
            "10.0.0.0/",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let mistake = parse("10.1.2.3/8").unwrap_err();
        assert_eq!(mistake.hint.unwrap(), "did you mean \"10.0.0.0/8\"?");
    }

    #[test]
    fn prefixes_meet_where_one_is_in_the_other() {
        let p = |value| parse(value).unwrap();
        assert!(p("10.0.0.0/8").meets(&p("10.213.0.0/16")));
        assert!(p("10.213.0.0/16").meets(&p("10.0.0.0/8")));
        assert!(!p("10.213.0.0/16").meets(&p("10.214.0.0/16")));
        assert!(!p("0.0.0.0/0").meets(&p("::/0")));
        assert!(p("10.0.0.0/8").holds(&p("10.213.0.0/16")));
        assert!(!p("10.213.0.0/16").holds(&p("10.212.0.0/15")));
        assert!(p("fd00::/64").contains("fd00::1".parse().unwrap()));
    }
}
