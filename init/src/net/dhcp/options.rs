//! The options of an answer (RFC 2132, RFC 3396, RFC 3442), and the grant that they make.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::message::{FIXED_SIZE, Grant};
use crate::net::domain_name as domain;

pub(super) const PAD: u8 = 0;
pub(super) const SUBNET_MASK: u8 = 1;
pub(super) const ROUTER: u8 = 3;
pub(super) const NAME_SERVERS: u8 = 6;
pub(super) const HOST_NAME: u8 = 12;
pub(super) const DOMAIN: u8 = 15;
pub(super) const MTU: u8 = 26;
pub(super) const TIME_SERVERS: u8 = 42;
pub(super) const REQUESTED_ADDRESS: u8 = 50;
pub(super) const LEASE_TIME: u8 = 51;
pub(super) const OVERLOAD: u8 = 52;
pub(super) const MESSAGE_TYPE: u8 = 53;
pub(super) const SERVER: u8 = 54;
pub(super) const PARAMETERS: u8 = 55;
pub(super) const MAXIMUM_SIZE: u8 = 57;
pub(super) const RENEWAL_TIME: u8 = 58;
pub(super) const REBINDING_TIME: u8 = 59;
pub(super) const SEARCH: u8 = 119;
pub(super) const CLASSLESS_ROUTES: u8 = 121;
pub(super) const END: u8 = 255;

/// The most of each kind that is taken of an answer.
pub(super) const MOST: usize = 8;
/// The most routes that are taken of an answer.
pub(super) const MOST_ROUTES: usize = 64;

/// Options by their code. Repeated ones are joined (RFC 3396).
pub(super) struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let mut options = Self(BTreeMap::new());
        options.read_field(packet.get(FIXED_SIZE + 4..)?)?;
        let overload = options
            .get(OVERLOAD)
            .and_then(|value| value.first().copied())
            .unwrap_or(0);
        if overload & 1 != 0 {
            options.read_field(&packet[108..236])?;
        }
        if overload & 2 != 0 {
            options.read_field(&packet[44..108])?;
        }
        Some(options)
    }

    /// `None` when an option reaches beyond the field. A field without an end is taken as it is.
    fn read_field(&mut self, mut field: &[u8]) -> Option<()> {
        while let Some((&code, rest)) = field.split_first() {
            match code {
                PAD => field = rest,
                END => break,
                _ => {
                    let (&length, rest) = rest.split_first()?;
                    let value = rest.get(..usize::from(length))?;
                    self.0.entry(code).or_default().extend(value);
                    field = &rest[usize::from(length)..];
                }
            }
        }
        Some(())
    }

    pub(super) fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(code)?.try_into().ok()?))
    }

    fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let bytes = self.get(code).unwrap_or_default();
        let addresses = bytes
            .chunks_exact(4)
            .filter_map(|bytes| address_at(bytes, 0));
        addresses
            .filter(|address| !address.is_unspecified())
            .take(MOST)
            .collect()
    }

    pub(super) fn grant(&self, address: Ipv4Addr) -> Option<Grant> {
        let usable = !(address.is_unspecified()
            || address.is_broadcast()
            || address.is_multicast()
            || address.is_loopback());
        let seconds = self.number(LEASE_TIME).filter(|&seconds| seconds > 0)?;
        usable.then_some(())?;
        Some(Grant {
            address,
            server: self.addresses(SERVER).first().copied()?,
            prefix: self.prefix(address)?,
            routes: self.routes()?,
            dns: self.addresses(NAME_SERVERS),
            domain: self.name(DOMAIN),
            search: self
                .get(SEARCH)
                .map(domain::read_compressed)
                .unwrap_or_default(),
            ntp: self.addresses(TIME_SERVERS),
            hostname: self.name(HOST_NAME),
            mtu: self.mtu(),
            seconds,
            renewal: self.number(RENEWAL_TIME),
            rebinding: self.number(REBINDING_TIME),
        })
    }

    /// Without a mask, that of the address's class. `None` for a mask with holes.
    fn prefix(&self, address: Ipv4Addr) -> Option<u8> {
        let Some(mask) = self.number(SUBNET_MASK) else {
            return Some(match address.octets()[0] {
                0..128 => 8,
                128..192 => 16,
                _ => 24,
            });
        };
        (mask.leading_ones() == mask.count_ones())
            .then(|| u8::try_from(mask.count_ones()).unwrap_or(32))
    }

    /// Classless routes where there are any, else a default route over the first router.
    fn routes(&self) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
        match self.get(CLASSLESS_ROUTES) {
            Some(bytes) => parse_classless_routes(bytes),
            None => {
                let router = self.addresses(ROUTER).into_iter().take(1);
                Some(
                    router
                        .map(|router| (Ipv4Addr::UNSPECIFIED, 0, router))
                        .collect(),
                )
            }
        }
    }

    fn name(&self, code: u8) -> Option<String> {
        let text = std::str::from_utf8(self.get(code)?).ok()?;
        domain::checked(text.trim_end_matches('\0'))
    }

    /// Less than 576 bytes is no network that this machine could use (RFC 791).
    fn mtu(&self) -> Option<u16> {
        let bytes = self.get(MTU)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes)).filter(|&mtu| mtu >= 576)
    }
}

/// Prefix length, the destination's significant bytes, the router (RFC 3442).
fn parse_classless_routes(mut bytes: &[u8]) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = bytes.split_first() {
        let significant = usize::from(prefix.div_ceil(8));
        if prefix > 32 || rest.len() < significant + 4 {
            return None;
        }
        let mut destination = [0; 4];
        destination[..significant].copy_from_slice(&rest[..significant]);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let destination = Ipv4Addr::from(u32::from_be_bytes(destination) & mask);
        let router = address_at(rest, significant)?;
        if routes.len() < MOST_ROUTES {
            routes.push((destination, prefix, router));
        }
        bytes = &rest[significant + 4..];
    }
    Some(routes)
}

pub(super) fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}
