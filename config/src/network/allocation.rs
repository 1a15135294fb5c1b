//! Who has which address: it follows from the name, so that a workload keeps its own when others come and go.
//!
//! A name's hash says where in the pool its search begins; in the order of the names each takes the first place from there
//! that is free. Another workload changes an address only if both want one place, which in 65,533 places is rare.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Endpoint, Prefix};
use crate::diagnostic::Diagnostic;
use crate::manifest::{Manifest, Text};
use crate::mistakes::Mistakes;
use crate::network::prefix;
use crate::value::{Parsed, wrong};

/// The pool if the file names none.
const DEFAULT_POOL: Prefix = Prefix {
    address: IpAddr::V4(Ipv4Addr::new(10, 213, 0, 0)),
    length: 16,
};
/// The place of the machine's own address in the pool.
const GATEWAY: u32 = 1;
/// The lengths of pools: at least a handful of addresses, and one place in both families.
const LENGTHS: std::ops::RangeInclusive<u8> = 8..=29;
const LENGTHS6: std::ops::RangeInclusive<u8> = 16..=96;

/// The bytes of a link's name (`IFNAMSIZ` without the NUL).
const MOST_OF_LINK: usize = 15;
/// No DNS label has an underscore, so no interface's label is a workload's link.
const LINK_PREFIX: &str = "w_";
/// So much of a long name is in its link's name, with six digits of its hash behind.
const LINK_LEAD: usize = 6;

/// The addresses of the machine's workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) v4: Prefix,
    pub(super) v6: Prefix,
}

impl Pool {
    /// What the file says, else the default one and a unique local prefix out of the machine's name.
    pub(super) fn new(manifest: &Manifest, mistakes: &mut Mistakes) -> Self {
        let (mut v4, mut v6) = (None, None);
        for text in &manifest.network.addresses {
            let Some(pool) = mistakes.take(pool(text)) else {
                continue;
            };
            let place = if pool.address.is_ipv4() {
                &mut v4
            } else {
                &mut v6
            };
            if place.replace(pool).is_some() {
                let what = "is a second pool of its kind";
                let hint = "write at most one prefix of IPv4 and one of IPv6";
                mistakes.push(wrong(text, what, hint));
            }
        }
        Self {
            v4: v4.unwrap_or(DEFAULT_POOL),
            v6: v6.unwrap_or_else(|| unique_local(manifest.name.get_ref())),
        }
    }

    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.address(GATEWAY)
    }

    pub(super) fn gateway6(&self) -> Ipv6Addr {
        self.address6(GATEWAY)
    }

    fn address(&self, place: u32) -> Ipv4Addr {
        match self.v4.address {
            IpAddr::V4(base) => (u32::from(base) + place).into(),
            IpAddr::V6(_) => unreachable!("the pool of IPv4 is one of IPv4"),
        }
    }

    fn address6(&self, place: u32) -> Ipv6Addr {
        match self.v6.address {
            IpAddr::V6(base) => (u128::from(base) + u128::from(place)).into(),
            IpAddr::V4(_) => unreachable!("the pool of IPv6 is one of IPv6"),
        }
    }

    /// The one of its prefixes of which that holds. A network that is none is told elsewhere.
    fn find(&self, network: &Text, holds: impl Fn(&Prefix, &Prefix) -> bool) -> Option<Prefix> {
        let (address, length) = network.get_ref().split_once('/')?;
        let network = Prefix::of(address.parse().ok()?, length.parse().ok()?);
        [self.v4, self.v6]
            .into_iter()
            .find(|pool| holds(pool, &network))
    }

    /// How many places it has, without the network's own address, the gateway and the broadcast address.
    fn places(&self) -> u32 {
        (1 << (32 - u32::from(self.v4.length))) - 3
    }
}

fn pool(text: &Text) -> Parsed<Prefix> {
    let prefix = prefix(text)?;
    let (lengths, range) = if prefix.address.is_ipv4() {
        (LENGTHS, "from /8 to /29 by IPv4")
    } else {
        (LENGTHS6, "from /16 to /96 by IPv6")
    };
    if !lengths.contains(&prefix.length) {
        let hint = format!("{range}, as in \"10.213.0.0/16\" or \"fd12:3456:789a::/64\"");
        return Err(wrong(text, "has no length for a pool", hint));
    }
    let is_usable = match prefix.address {
        IpAddr::V4(v4) => {
            !v4.is_loopback() && !v4.is_link_local() && v4.octets()[0] < 224 && v4.octets()[0] != 0
        }
        IpAddr::V6(v6) => {
            !v6.is_unicast_link_local()
                && !v6.is_multicast()
                && !v6.is_loopback()
                && !v6.is_unspecified()
                // What is 0 in the first bits is IPv4 in another form, or nobody's (RFC 4291 §2.5.5).
                && v6.segments()[0] != 0
        }
    };
    if !is_usable {
        let hint = "private addresses are best, as in \"10.213.0.0/16\" or \"fd12:3456:789a::/64\"";
        return Err(wrong(text, "is nothing that workloads can have", hint));
    }
    Ok(prefix)
}

/// A /64 of the form of RFC 4193 §3.1: `fd`, 40 bits that follow from the name, subnet 0.
fn unique_local(machine: &str) -> Prefix {
    let global_id = u128::from(hash(machine) >> 24);
    Prefix {
        address: Ipv6Addr::from((0xfd << 120) | (global_id << 80)).into(),
        length: 64,
    }
}

/// Gives each endpoint its addresses and its link's name.
pub(super) fn assign(
    pool: &Pool,
    endpoints: &mut [Endpoint],
    manifest: &Manifest,
    mistakes: &mut Mistakes,
) {
    if !endpoints.is_empty() {
        check_apart(pool, manifest, mistakes);
    }
    let places = pool.places();
    if endpoints.len() > usize::try_from(places).unwrap_or(usize::MAX) {
        mistakes.push(too_small(pool, endpoints.len(), manifest));
        return;
    }
    let (mut taken, mut links) = (BTreeSet::new(), BTreeSet::new());
    let mut by_name: Vec<&mut Endpoint> = endpoints.iter_mut().collect();
    by_name.sort_by(|a, b| a.name.cmp(&b.name));
    for endpoint in by_name {
        let hash = hash(&endpoint.name);
        let wanted = u32::try_from(hash % u64::from(places)).expect("less than the places");
        let free = (0..places).map(|step| (wanted + step) % places);
        let place = free.into_iter().find(|place| taken.insert(*place));
        let place = place.expect("there are no more endpoints than places") + GATEWAY + 1;
        endpoint.address = pool.address(place);
        endpoint.address6 = pool.address6(place);
        let short = format!("{LINK_PREFIX}{}", endpoint.name);
        let short = Some(short).filter(|link| link.len() <= MOST_OF_LINK);
        let long = (0..).map(|step| long_link(&endpoint.name, hash.wrapping_add(step)));
        endpoint.link = short
            .into_iter()
            .chain(long)
            .find(|link| links.insert(link.clone()))
            .expect("there are more names than endpoints");
    }
}

/// The machine could not tell a neighbour from a workload whose addresses are of one network.
fn check_apart(pool: &Pool, manifest: &Manifest, mistakes: &mut Mistakes) {
    const HINT: &str = "choose another pool in [network], as in addresses = [\"10.214.0.0/16\"]";
    for interface in manifest.network.interface.values() {
        for text in &interface.addresses {
            if let Some(pool) = pool.find(text, Prefix::meets) {
                let what = format!("meets the pool of the workloads' addresses, {pool}");
                mistakes.push(wrong(text, what, HINT));
            }
        }
        // A route to a wider network leaves the pool to the machine.
        let tunnel = interface.wireguard.iter().flat_map(|t| &t.get_ref().peers);
        let routes = interface.routes.iter().map(|route| &route.to);
        for text in routes.chain(tunnel.flat_map(|peer| &peer.allowed)) {
            if let Some(pool) = pool.find(text, Prefix::holds) {
                let what = format!("is in the pool of the workloads' addresses, {pool}");
                mistakes.push(wrong(text, what, HINT));
            }
        }
    }
}

fn too_small(pool: &Pool, endpoints: usize, manifest: &Manifest) -> Diagnostic {
    let mut said = manifest.network.addresses.iter();
    let span = said
        .find(|text| text.get_ref().contains('.'))
        .map(Text::span);
    Diagnostic {
        span,
        message: format!(
            "the pool {} has {} addresses for workloads, and {endpoints} want one",
            pool.v4,
            pool.places()
        ),
        hint: Some("write a shorter prefix, as in \"10.213.0.0/16\"".to_owned()),
    }
}

fn long_link(name: &str, hash: u64) -> String {
    let lead: String = name.chars().take(LINK_LEAD).collect();
    format!("{LINK_PREFIX}{lead}_{:06x}", hash & 0xff_ffff)
}

/// FNV-1a of 64 bits, with its bits mixed well by the last step of SplitMix64. It is part of what a machine is: another
/// function would give every workload another address.
fn hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Fabric;

    fn fabric(names: &[String], network: &str) -> Fabric {
        let workloads: String = names
            .iter()
            .map(|name| format!("[workload.{name}]\nimage = \"dir:x\"\nnetwork = \"own\"\n"))
            .collect();
        crate::parse(&format!("name = \"m\"\n[network]\n{network}\n{workloads}"))
            .unwrap()
            .fabric
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("workload-{n}")).collect()
    }

    #[test]
    fn addresses_follow_from_names_and_stay_when_others_come() {
        let few = fabric(&["db".to_owned(), "web".to_owned()], "");
        // Machines out there have these: another function would change them all.
        let known: Vec<String> = few
            .endpoints
            .iter()
            .map(|e| format!("{} {} {}", e.link, e.address, e.address6))
            .collect();
        assert_eq!(known, KNOWN);
        let mut more = names(200);
        more.extend(["web".to_owned(), "db".to_owned()]);
        let many = fabric(&more, "");
        for endpoint in &few.endpoints {
            let same = many.endpoint(&endpoint.name).unwrap();
            assert_eq!(
                (same.address, same.address6),
                (endpoint.address, endpoint.address6)
            );
        }
    }

    const KNOWN: [&str; 2] = [
        "w_db 10.213.45.37 fdcf:6b2b:493a::2d25",
        "w_web 10.213.192.226 fdcf:6b2b:493a::c0e2",
    ];

    #[test]
    fn nobody_has_the_address_or_the_link_of_another_even_in_a_full_pool() {
        for (count, pool) in [
            (61, "addresses = [\"192.168.7.0/26\"]"),
            (2000, "addresses = [\"10.0.0.0/8\", \"fd00::/96\"]"),
        ] {
            let fabric = fabric(&names(count), pool);
            let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
            let mut links = BTreeSet::new();
            for endpoint in &fabric.endpoints {
                assert!(addresses.insert(endpoint.address.into()));
                assert!(addresses.insert(endpoint.address6.into()));
                assert!(links.insert(&endpoint.link) && endpoint.link.len() <= MOST_OF_LINK);
                assert!(fabric.pool.contains(endpoint.address.into()));
                assert!(fabric.pool6.contains(endpoint.address6.into()));
            }
            assert!(!addresses.contains(&fabric.gateway.into()));
            assert!(!addresses.contains(&fabric.gateway6.into()));
        }
    }
}
