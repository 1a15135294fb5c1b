//! Addresses of links, of both families (rtnetlink(7), `struct ifaddrmsg`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Answer, CREATE, REPLACE, Request, address, attributes, number};

pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;

/// Bytes of `struct ifaddrmsg`.
const FIXED_SIZE: usize = 8;
const REMOTE: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const CACHE: u16 = 6;
const FLAGS: u16 = 8;
const PRIORITY: u16 = 9;

/// `IFA_F_NODAD`: used at once, without asking whether somebody else has it.
pub const NO_DUPLICATE_CHECK: u32 = 0x02;
/// `IFA_F_DADFAILED`: somebody else has it.
pub const DUPLICATE: u32 = 0x08;
/// `IFA_F_TENTATIVE`: not known yet whether somebody else has it.
pub const TENTATIVE: u32 = 0x40;
/// `IFA_F_PERMANENT`: not by a router's word.
pub const PERMANENT: u32 = 0x80;
/// `IFA_F_NOPREFIXROUTE`: without a route to its network.
pub const NO_PREFIX_ROUTE: u32 = 0x200;

/// For ever, as a time in seconds.
pub const FOR_EVER: u32 = u32::MAX;

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Its network's prefix length.
    pub prefix: u8,
    /// `IFA_F_*`.
    pub flags: u32,
    /// For how many seconds it is there; [`FOR_EVER`].
    pub valid: u32,
    /// For how many seconds it is used for new connections.
    pub preferred: u32,
    /// The metric of the route to its network (`IFA_RT_PRIORITY`).
    pub metric: Option<u32>,
}

impl Address {
    /// One that stays.
    #[must_use]
    pub const fn new(index: u32, address: IpAddr, prefix: u8) -> Self {
        Self {
            index,
            address,
            prefix,
            flags: 0,
            valid: FOR_EVER,
            preferred: FOR_EVER,
            metric: None,
        }
    }

    /// Adds it or renews it.
    #[must_use]
    pub fn set(&self) -> Request {
        let mut request = self.request(NEW_ADDRESS, CREATE | REPLACE);
        if let IpAddr::V4(address) = self.address
            && self.prefix < 31
        {
            request.put(BROADCAST, &broadcast_of(address, self.prefix).octets());
        }
        let mut cache = [0; 16];
        cache[..4].copy_from_slice(&self.preferred.to_ne_bytes());
        cache[4..8].copy_from_slice(&self.valid.to_ne_bytes());
        request.put(CACHE, &cache);
        if self.flags != 0 {
            request.put_u32(FLAGS, self.flags);
        }
        if let Some(metric) = self.metric {
            request.put_u32(PRIORITY, metric);
        }
        request
    }

    /// Removes it, and with it the routes that have it as their source.
    #[must_use]
    pub fn remove(&self) -> Request {
        self.request(DELETE_ADDRESS, 0)
    }

    fn request(&self, kind: u16, flags: u16) -> Request {
        let family = super::family_of(self.address);
        let index = self.index.to_ne_bytes();
        let fixed = [[family, self.prefix, 0, 0], index].concat();
        let mut request = Request::new(kind, flags, &fixed);
        request.put_address(LOCAL, self.address);
        request.put_address(REMOTE, self.address);
        request
    }

    /// Reads `RTM_NEWADDR` and `RTM_DELADDR`; `None`: it is something else, or torn.
    #[must_use]
    pub fn read(answer: &Answer<'_>) -> Option<Self> {
        let body = answer.body;
        let is_address = matches!(answer.kind, NEW_ADDRESS | DELETE_ADDRESS);
        let rest = body.get(FIXED_SIZE..).filter(|_| is_address)?;
        let mut found = Self::new(number(body, 4)?, Ipv6Addr::UNSPECIFIED.into(), body[1]);
        found.flags = body[2].into();
        let (mut local, mut remote) = (None, None);
        for (kind, value) in attributes(rest) {
            match kind {
                LOCAL => local = address(value),
                REMOTE => remote = address(value),
                FLAGS => found.flags = number(value, 0)?,
                PRIORITY => found.metric = number(value, 0),
                CACHE => {
                    found.preferred = number(value, 0)?;
                    found.valid = number(value, 4)?;
                }
                _ => {}
            }
        }
        found.address = local.or(remote)?;
        Some(found)
    }
}

/// Asks for all addresses: for [`super::Socket::list`] and [`Address::read`].
#[must_use]
pub fn list() -> Request {
    Request::new(GET_ADDRESS, 0, &[0; FIXED_SIZE])
}

fn broadcast_of(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) | host_bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::message::answers;

    #[test]
    fn addresses_of_both_families_are_read_back() {
        for (text, prefix) in [("10.0.2.15", 24), ("fd00::5", 64), ("10.213.0.2", 32)] {
            let address = Address {
                flags: NO_DUPLICATE_CHECK | NO_PREFIX_ROUTE,
                valid: 60,
                preferred: 30,
                metric: Some(5),
                ..Address::new(3, text.parse().unwrap(), prefix)
            };
            let mut bytes = Vec::new();
            address.set().finish(0, 0, &mut bytes);
            assert_eq!(
                Address::read(&answers(&bytes).next().unwrap()),
                Some(address)
            );
        }
    }

    #[test]
    fn broadcast_addresses_fill_the_host_bits() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        for (prefix, last) in [
            (24, [10, 1, 2, 255]),
            (0, [255; 4]),
            (32, [10, 1, 2, 3]),
            (20, [10, 1, 15, 255]),
        ] {
            assert_eq!(broadcast_of(address, prefix), Ipv4Addr::from(last));
        }
    }
}
