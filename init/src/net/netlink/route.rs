//! Routes and neighbours of both families (rtnetlink(7), `struct rtmsg` and `struct ndmsg`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::HardwareAddress;
use super::message::{Answer, CREATE, REPLACE, Request, address, attributes, number};

pub(super) const NEW_ROUTE: u16 = 24;
pub(super) const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;

/// Bytes of `struct rtmsg`.
const FIXED_SIZE: usize = 12;
const DESTINATION: u16 = 1;
const OUT: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const SOURCE: u16 = 7;
const TABLE: u16 = 15;

/// `RT_TABLE_MAIN`.
pub const MAIN: u32 = 254;
const UNSPECIFIED_TABLE: u8 = 0;
const UNICAST: u8 = 1;
const UNREACHABLE: u8 = 7;
/// `RT_SCOPE_LINK` and `RT_SCOPE_UNIVERSE`.
const ON_LINK_SCOPE: u8 = 253;
const UNIVERSE: u8 = 0;
/// `RTNH_F_ONLINK`.
const ON_LINK: u32 = 4;

/// Who made a route (`rtm_protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The kernel itself.
    Kernel = 2,
    /// What the machine is at boot.
    Boot = 3,
    /// The machine's file.
    Static = 4,
    /// A router's advertisement.
    Router = 9,
    /// DHCP.
    Dhcp = 16,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The link.
    pub index: u32,
    /// The network; unspecified with prefix 0 is the default route.
    pub destination: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// The router; `None`: the network is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The address that packets of the machine's own get.
    pub source: Option<IpAddr>,
    /// The router is on the link, although no address's own network holds it.
    pub on_link: bool,
    /// The lower, the better; `None`: the kernel's.
    pub metric: Option<u32>,
    /// `rtm_protocol`, see [`Origin`].
    pub origin: u8,
}

impl Route {
    /// To a network on the link itself.
    #[must_use]
    pub const fn new(index: u32, destination: IpAddr, prefix: u8, origin: Origin) -> Self {
        Self {
            index,
            destination,
            prefix,
            gateway: None,
            source: None,
            on_link: false,
            metric: None,
            origin: origin as u8,
        }
    }

    /// To everywhere, by a router.
    #[must_use]
    pub const fn default_by(index: u32, gateway: IpAddr, origin: Origin) -> Self {
        let everywhere = match gateway {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self {
            gateway: Some(gateway),
            ..Self::new(index, everywhere, 0, origin)
        }
    }

    /// Adds it or replaces the one with the same network and metric.
    #[must_use]
    pub fn set(&self) -> Request {
        self.request(NEW_ROUTE, CREATE | REPLACE)
    }

    /// Removes it.
    #[must_use]
    pub fn remove(&self) -> Request {
        self.request(DELETE_ROUTE, 0)
    }

    fn request(&self, kind: u16, flags: u16) -> Request {
        let family = super::family_of(self.destination);
        // IPv6 knows no scopes of routes.
        let scope = match (self.gateway, self.destination) {
            (None, IpAddr::V4(_)) => ON_LINK_SCOPE,
            _ => UNIVERSE,
        };
        let table = u8::try_from(MAIN).unwrap_or(UNSPECIFIED_TABLE);
        let mut fixed = vec![
            family,
            self.prefix,
            0,
            0,
            table,
            self.origin,
            scope,
            UNICAST,
        ];
        fixed.extend(if self.on_link { ON_LINK } else { 0 }.to_ne_bytes());
        let mut request = Request::new(kind, flags, &fixed);
        if self.prefix > 0 {
            request.put_address(DESTINATION, self.destination);
        }
        request.put_u32(OUT, self.index);
        if let Some(gateway) = self.gateway {
            request.put_address(GATEWAY, gateway);
        }
        if let Some(source) = self.source {
            request.put_address(SOURCE, source);
        }
        if let Some(metric) = self.metric {
            request.put_u32(PRIORITY, metric);
        }
        request
    }

    /// Reads `RTM_NEWROUTE` and `RTM_DELROUTE` of the main table; `None`: it is something else, or torn.
    #[must_use]
    pub fn read(answer: &Answer<'_>) -> Option<Self> {
        let body = answer.body;
        let is_route = matches!(answer.kind, NEW_ROUTE | DELETE_ROUTE);
        let rest = body.get(FIXED_SIZE..).filter(|_| is_route)?;
        let everywhere = match body[0] {
            super::INET => Ipv4Addr::UNSPECIFIED.into(),
            super::INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Self::new(0, everywhere, body[1], Origin::Boot);
        route.origin = body[5];
        route.on_link = number(body, 8)? & ON_LINK != 0;
        let mut table = u32::from(body[4]);
        for (kind, value) in attributes(rest) {
            match kind {
                DESTINATION => route.destination = address(value)?,
                OUT => route.index = number(value, 0)?,
                GATEWAY => route.gateway = address(value),
                SOURCE => route.source = address(value),
                PRIORITY => route.metric = number(value, 0),
                TABLE => table = number(value, 0)?,
                _ => {}
            }
        }
        (table == MAIN).then_some(route)
    }
}

/// To a network that nobody is to be asked for: what is sent there, and no better route leads to, comes back as
/// unreachable.
#[must_use]
pub fn set_unreachable(destination: IpAddr, prefix: u8) -> Request {
    let family = super::family_of(destination);
    let table = u8::try_from(MAIN).unwrap_or(UNSPECIFIED_TABLE);
    let origin = Origin::Boot as u8;
    let mut fixed = vec![family, prefix, 0, 0, table, origin, UNIVERSE, UNREACHABLE];
    fixed.extend([0; 4]);
    let mut request = Request::new(NEW_ROUTE, CREATE | REPLACE, &fixed);
    request.put_address(DESTINATION, destination);
    request.put_u32(PRIORITY, u32::MAX);
    request
}

/// Asks for all routes: for [`super::Socket::list`] and [`Route::read`].
#[must_use]
pub fn list() -> Request {
    Request::new(GET_ROUTE, 0, &[0; FIXED_SIZE])
}

/// Tells the kernel for ever which hardware address a neighbour has, so that nobody has to ask for it.
#[must_use]
pub fn set_neighbour(index: u32, address: IpAddr, hardware: HardwareAddress) -> Request {
    const PERMANENT: u16 = 0x80;
    const NEIGHBOUR: u16 = 1;
    const HARDWARE: u16 = 2;
    let mut fixed = vec![super::family_of(address), 0, 0, 0];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(PERMANENT.to_ne_bytes());
    fixed.extend([0, UNICAST]);
    let mut request = Request::new(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed);
    request.put_address(NEIGHBOUR, address);
    request.put(HARDWARE, &hardware);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::message::answers;

    #[test]
    fn routes_of_both_families_are_read_back() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let far = Route {
            source: Some(parse("10.0.2.15")),
            on_link: true,
            metric: Some(100),
            ..Route::default_by(2, parse("10.9.9.9"), Origin::Dhcp)
        };
        for route in [
            far,
            Route::new(2, parse("10.7.0.0"), 16, Origin::Static),
            Route::default_by(2, parse("fe80::1"), Origin::Router),
            Route::new(2, parse("fd00::"), 64, Origin::Static),
        ] {
            let mut bytes = Vec::new();
            route.set().finish(0, 0, &mut bytes);
            assert_eq!(Route::read(&answers(&bytes).next().unwrap()), Some(route));
        }
    }

    #[test]
    fn a_default_route_names_no_destination() {
        let gateway = "10.0.2.2".parse().unwrap();
        let mut bytes = Vec::new();
        let request = Route::default_by(2, gateway, Origin::Dhcp).set();
        request.finish(0, 0, &mut bytes);
        assert_eq!(bytes[16..28], [2, 0, 0, 0, 254, 16, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[28..36], [8, 0, 4, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[36..], [8, 0, 5, 0, 10, 0, 2, 2]);
    }
}
