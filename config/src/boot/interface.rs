//! The machine's interfaces as init finds or makes them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::network::Prefix;

/// The interface group (`IFLA_GROUP`) of the first interface of the file; the next one has the next number.
pub const FIRST_GROUP: u32 = 16;

/// One network interface of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootInterface {
    /// The name in the file, e.g. `uplink`; used in messages, and the name of a link that is made.
    pub label: String,
    /// Its interface group: [`FIRST_GROUP`] and its place in the file.
    pub group: u32,
    /// Which link it is.
    pub link: BootLink,
    /// The label of the bond or bridge that it is part of; it has no addresses then.
    pub master: Option<String>,
    /// Configure by DHCPv4 (RFC 2131).
    pub dhcp: bool,
    /// What happens with IPv6.
    pub ipv6: Ipv6,
    /// Addresses that it always has.
    pub addresses: Vec<BootAddress>,
    /// Routers of default routes that it always has.
    pub gateways: Vec<IpAddr>,
    /// Further routes that it always has.
    pub routes: Vec<BootRoute>,
    /// The largest packet in bytes; `None`: the driver's, or what DHCP or a router says.
    pub mtu: Option<u32>,
    /// Of its routes: the lower one is taken.
    pub metric: u32,
}

/// Which link an interface is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum BootLink {
    /// One that the kernel has a driver for: the first, by index, that has all of these.
    Found(BootMatch),
    /// A VLAN (IEEE 802.1Q).
    Vlan {
        /// Its number, 1 to 4094.
        id: u16,
        /// The label of the interface below.
        of: String,
    },
    /// Several links as one.
    Bond {
        /// Their labels.
        of: Vec<String>,
        /// How they share the work.
        mode: BondMode,
    },
    /// A switch.
    Bridge {
        /// The labels of its ports.
        of: Vec<String>,
        /// It speaks the spanning tree protocol.
        stp: bool,
    },
    /// A tunnel.
    WireGuard(BootWireGuard),
}

/// What a link has; all `None`: it is any Ethernet link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootMatch {
    /// The kernel's name.
    pub device: Option<String>,
    /// The Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The name of the driver.
    pub driver: Option<String>,
    /// The device's place on its bus, as the last part of `/sys/class/net/NAME/device`.
    pub path: Option<String>,
}

/// How the links of a bond share the work; the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum BondMode {
    /// In turn.
    BalanceRr = 0,
    /// One works, the others wait.
    ActiveBackup = 1,
    /// By addresses.
    BalanceXor = 2,
    /// All send all.
    Broadcast = 3,
    /// LACP (IEEE 802.3ad).
    #[serde(rename = "802.3ad")]
    Lacp = 4,
    /// By load, of what is sent.
    BalanceTlb = 5,
    /// By load.
    BalanceAlb = 6,
}

/// What happens with IPv6 on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6 {
    /// Router advertisements are followed (RFC 4861, RFC 4862), and DHCPv6 when they ask for it.
    Auto,
    /// Only the link-local address and what the file says.
    Static,
    /// None.
    Off,
}

/// An address with the network that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootAddress {
    /// The address; of a network, its first one.
    pub address: IpAddr,
    /// The length of the prefix, 0 to 32 or 128.
    pub prefix: u8,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootRoute {
    /// Where to.
    pub to: BootAddress,
    /// The router; `None`: on the link itself.
    pub via: Option<IpAddr>,
    /// `None`: the interface's.
    pub metric: Option<u32>,
}

/// A WireGuard interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootWireGuard {
    /// The name of the secret that is the private key.
    pub key: String,
    /// The UDP port; `None`: any.
    pub listen: Option<u16>,
    /// The other ends.
    pub peers: Vec<BootPeer>,
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootPeer {
    /// Its public key.
    pub public_key: [u8; 32],
    /// The name of the secret that is the preshared key.
    pub preshared_key: Option<String>,
    /// Its host, an address or a name, and port; `None`: it is known once it speaks.
    pub endpoint: Option<(String, u16)>,
    /// The networks behind it.
    pub allowed: Vec<BootAddress>,
    /// Seconds between two packets that keep the way open.
    pub keepalive: Option<u16>,
}

impl BootInterface {
    /// By DHCPv4 and router advertisements, on the first Ethernet link: what a machine has whose file names no
    /// interface.
    #[must_use]
    pub fn automatic(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            group: FIRST_GROUP,
            link: BootLink::Found(BootMatch::default()),
            master: None,
            dhcp: true,
            ipv6: Ipv6::Auto,
            addresses: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            mtu: None,
            metric: 100,
        }
    }
}

impl BootLink {
    /// The labels of the interfaces that it is made of.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        match self {
            Self::Vlan { of, .. } => std::slice::from_ref(of),
            Self::Bond { of, .. } | Self::Bridge { of, .. } => of,
            Self::Found(_) | Self::WireGuard(_) => &[],
        }
    }

    /// The names of the secrets that it needs.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let tunnel = match self {
            Self::WireGuard(tunnel) => Some(tunnel),
            _ => None,
        };
        tunnel.into_iter().flat_map(|tunnel| {
            let peers = tunnel.peers.iter();
            std::iter::once(tunnel.key.as_str())
                .chain(peers.filter_map(|peer| peer.preshared_key.as_deref()))
        })
    }

    /// The kernel's module that makes it; `None` for links that are there.
    #[must_use]
    pub fn module(&self) -> Option<&'static str> {
        match self {
            Self::Found(_) => None,
            Self::Vlan { .. } => Some("8021q"),
            Self::Bond { .. } => Some("bonding"),
            Self::Bridge { .. } => Some("bridge"),
            Self::WireGuard(_) => Some("wireguard"),
        }
    }
}

impl BootAddress {
    /// Reads `ADDRESS/PREFIX`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// The network that the address is in: the same with zeros behind the prefix.
    #[must_use]
    pub fn network(&self) -> Self {
        Self {
            address: self.whole().address,
            prefix: self.prefix,
        }
    }

    fn whole(&self) -> Prefix {
        Prefix::of(self.address, self.prefix)
    }

    /// Whether an address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.whole().contains(address)
    }

    /// Whether an address is in both networks.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.whole().meets(&other.whole())
    }
}

impl std::fmt::Display for BootAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A key of WireGuard's: 32 bytes in base64 (RFC 4648 §4), 44 characters with one `=` at the end.
#[must_use]
pub fn wireguard_key(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_suffix('=').filter(|digits| digits.len() == 43)?;
    let mut key = [0_u8; 32];
    let mut at = 0;
    let (mut bits, mut held) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            // The mask leaves eight bits.
            key[at] = u8::try_from(bits >> held & 0xff).ok()?;
            at += 1;
        }
    }
    // 43 digits are 258 bits: the last two must be zero.
    (at == 32 && bits & 0b11 == 0).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_strictly() {
        let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let expected: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(wireguard_key(text), Some(expected));
        for bad in [
            "",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-=",
        ] {
            assert_eq!(wireguard_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn networks_have_zeros_behind_the_prefix() {
        for (text, network) in [
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("192.0.2.7/0", "0.0.0.0/0"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("2001:db8::7/64", "2001:db8::/64"),
            ("2001:db8::7/0", "::/0"),
        ] {
            let address = BootAddress::parse(text).unwrap();
            assert_eq!(address.network().to_string(), network);
            assert!(address.network().contains(address.address));
        }
        for bad in [
            "",
            "1.2.3.4",
            "1.2.3.4/33",
            "::/129",
            "1.2.3.4/+1",
            "1.2.3/8",
        ] {
            assert_eq!(BootAddress::parse(bad), None, "{bad}");
        }
    }
}
