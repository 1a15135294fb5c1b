//! `[network.interface.LABEL]` as written.

use serde::Deserialize;
use toml::Spanned;

use super::Text;

/// `[network.interface.LABEL]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    pub device: Option<Text>,
    pub mac: Option<Text>,
    pub driver: Option<Text>,
    pub path: Option<Text>,
    pub dhcp: Option<Spanned<bool>>,
    pub ipv6: Option<Text>,
    #[serde(default)]
    pub addresses: Vec<Text>,
    #[serde(default)]
    pub gateways: Vec<Text>,
    #[serde(default)]
    pub routes: Vec<Route>,
    pub mtu: Option<Spanned<i64>>,
    pub metric: Option<Spanned<i64>>,
    pub vlan: Option<Spanned<Vlan>>,
    pub bond: Option<Spanned<Bond>>,
    pub bridge: Option<Spanned<Bridge>>,
    pub wireguard: Option<Spanned<WireGuard>>,
}

/// One of an interface's `routes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub to: Text,
    pub via: Option<Text>,
    pub metric: Option<Spanned<i64>>,
}

/// An interface's `vlan`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vlan {
    pub id: Spanned<i64>,
    pub of: Text,
}

/// An interface's `bond`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bond {
    pub of: Vec<Text>,
    pub mode: Option<Text>,
}

/// An interface's `bridge`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    pub of: Vec<Text>,
    #[serde(default)]
    pub stp: bool,
}

/// An interface's `wireguard`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireGuard {
    pub key: Text,
    pub listen: Option<Spanned<i64>>,
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// One of an interface's WireGuard peers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub public_key: Text,
    pub preshared_key: Option<Text>,
    pub endpoint: Option<Text>,
    #[serde(default)]
    pub allowed: Vec<Text>,
    pub keepalive: Option<Text>,
}
