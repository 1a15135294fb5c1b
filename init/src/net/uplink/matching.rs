//! Which link is which interface of the file: pure.

use config::boot::{BootInterface, BootLink, BootMatch};

use crate::net::netlink::link::{HardwareAddress, LOOPBACK};

/// The group of the workloads' links, which are nobody's interface.
const WORKLOADS: u32 = 8;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
/// Sorts of links that somebody made.
const MADE: [&str; 5] = ["vlan", "bond", "bridge", "wireguard", "dummy"];

/// A link with what it can be found by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `IFF_*`.
    pub flags: u32,
    /// `ARPHRD_*`.
    pub hardware: u16,
    /// Its address.
    pub address: Option<HardwareAddress>,
    /// The address that its hardware has, whatever it was given since.
    pub permanent: Option<HardwareAddress>,
    /// Its sort, if it is no device.
    pub kind: Option<String>,
    /// Its group.
    pub group: u32,
    /// Its driver.
    pub driver: Option<String>,
    /// Its device's places: on its own bus, and on the one that this is on.
    pub paths: Vec<String>,
}

impl Seen {
    fn is_device(&self) -> bool {
        let is_made = self
            .kind
            .as_deref()
            .is_some_and(|kind| MADE.contains(&kind));
        self.hardware == ETHERNET
            && self.flags & LOOPBACK == 0
            && self.group != WORKLOADS
            && !is_made
    }

    fn has(&self, wanted: &BootMatch) -> bool {
        let is = |wanted: &Option<String>, own: Option<&String>| {
            wanted.is_none() || wanted.as_ref() == own
        };
        let mac = wanted
            .mac
            .is_none_or(|mac| self.permanent.or(self.address) == Some(mac));
        let path = wanted.path.as_ref();
        is(&wanted.device, Some(&self.name))
            && is(&wanted.driver, self.driver.as_ref())
            && path.is_none_or(|path| self.paths.contains(path))
            && mac
    }
}

/// The index of each interface's link. What an interface has (`held`) it keeps; what is selected goes before "any".
#[must_use]
pub fn assign(
    interfaces: &[BootInterface],
    held: &[Option<u32>],
    links: &[Seen],
) -> Vec<Option<u32>> {
    let there = |index: u32| links.iter().any(|link| link.index == index);
    let mut taken: Vec<Option<u32>> = held
        .iter()
        .map(|index| index.filter(|&index| there(index)))
        .collect();
    for any in [false, true] {
        for (at, interface) in interfaces.iter().enumerate() {
            let BootLink::Found(wanted) = &interface.link else {
                continue;
            };
            if taken[at].is_some() || any != (*wanted == BootMatch::default()) {
                continue;
            }
            let fits = |link: &&Seen| {
                link.is_device() && link.has(wanted) && !taken.contains(&Some(link.index))
            };
            let first = links.iter().filter(fits).min_by_key(|link| link.index);
            taken[at] = first.map(|link| link.index);
        }
    }
    for (at, interface) in interfaces.iter().enumerate() {
        if interface.link.module().is_some() {
            let own = links.iter().find(|link| link.name == interface.label);
            taken[at] = own.map(|link| link.index);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(index: u32, name: &str) -> Seen {
        Seen {
            index,
            name: name.to_owned(),
            hardware: ETHERNET,
            address: Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            driver: Some("virtio_net".to_owned()),
            paths: vec![format!("virtio{index}"), format!("0000:00:0{index}.0")],
            ..Seen::default()
        }
    }

    fn found(wanted: BootMatch) -> BootInterface {
        BootInterface {
            link: BootLink::Found(wanted),
            ..BootInterface::automatic("x")
        }
    }

    #[test]
    fn a_link_is_found_by_all_that_is_said_of_it() {
        let links = [seen(2, "eth0"), seen(3, "eth1")];
        let text = |text: &str| Some(text.to_owned());
        let any = BootMatch::default;
        for (wanted, index) in [
            (any(), Some(2)),
            (
                BootMatch {
                    device: text("eth1"),
                    ..any()
                },
                Some(3),
            ),
            (
                BootMatch {
                    mac: Some([2, 0, 0, 0, 0, 3]),
                    ..any()
                },
                Some(3),
            ),
            (
                BootMatch {
                    path: text("0000:00:03.0"),
                    ..any()
                },
                Some(3),
            ),
            (
                BootMatch {
                    path: text("virtio3"),
                    ..any()
                },
                Some(3),
            ),
            (
                BootMatch {
                    driver: text("virtio_net"),
                    ..any()
                },
                Some(2),
            ),
            (
                BootMatch {
                    driver: text("virtio_net"),
                    device: text("eth1"),
                    ..any()
                },
                Some(3),
            ),
            (
                BootMatch {
                    driver: text("e1000"),
                    device: text("eth1"),
                    ..any()
                },
                None,
            ),
        ] {
            assert_eq!(
                assign(&[found(wanted.clone())], &[None], &links),
                [index],
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn any_takes_what_no_other_one_selects_and_keeps_it() {
        let links = [seen(2, "eth0"), seen(3, "eth1")];
        let first = BootMatch {
            device: Some("eth0".to_owned()),
            ..BootMatch::default()
        };
        let interfaces = [found(BootMatch::default()), found(first)];
        assert_eq!(
            assign(&interfaces, &[None, None], &links),
            [Some(3), Some(2)]
        );
        assert_eq!(assign(&interfaces[..1], &[Some(3)], &links), [Some(3)]);
        assert_eq!(assign(&interfaces[..1], &[Some(9)], &links), [Some(2)]);
    }

    #[test]
    fn loopback_workloads_links_and_made_links_are_nobodys() {
        let links = [
            Seen {
                flags: LOOPBACK,
                hardware: 772,
                ..seen(1, "lo")
            },
            Seen {
                group: WORKLOADS,
                kind: Some("veth".to_owned()),
                ..seen(4, "w1")
            },
            Seen {
                kind: Some("bond".to_owned()),
                ..seen(5, "bond0")
            },
        ];
        assert_eq!(
            assign(&[found(BootMatch::default())], &[None], &links),
            [None]
        );
    }

    #[test]
    fn a_made_link_is_the_one_of_its_name() {
        let bridge = BootInterface {
            label: "br0".to_owned(),
            link: BootLink::Bridge {
                of: Vec::new(),
                stp: false,
            },
            ..BootInterface::automatic("x")
        };
        let links = [Seen {
            kind: Some("bridge".to_owned()),
            ..seen(7, "br0")
        }];
        assert_eq!(
            assign(std::slice::from_ref(&bridge), &[None], &links),
            [Some(7)]
        );
        assert_eq!(assign(&[bridge], &[Some(3)], &[]), [None]);
    }
}
