//! What the file says of an interface: addresses, routers, routes, a tunnel's keys.

use std::time::Duration;

use config::boot::BootRoute;

use super::{PATIENCE, Port};
use crate::net::netlink::Socket;
use crate::net::netlink::address::Address;
use crate::net::netlink::route::{Origin, Route};
use crate::net::uplink::tunnels::Tunnel;

impl Port {
    /// Puts it on the link; what is refused, or lacks its secret, is tried again later.
    pub(super) fn put(&mut self, netlink: &mut Socket, now: Duration) {
        self.put_again_at = None;
        let Some(index) = self.index() else { return };
        let tunnel = self.tunnel.as_mut().filter(|tunnel| !tunnel.is_set());
        let keys = tunnel.map_or(Ok(()), |tunnel| tunnel.set(index, now));
        let results = [keys, self.set_static(index, netlink)];
        if results.iter().any(Result::is_err) {
            self.put_again_at = Some(now + PATIENCE);
        }
        results.into_iter().for_each(|result| self.check(result));
    }

    fn set_static(&self, index: u32, netlink: &mut Socket) -> Result<(), String> {
        let metric = Some(self.spec.metric);
        let addresses = self.spec.addresses.iter().map(|own| {
            let mut address = Address::new(index, own.address, own.prefix);
            address.metric = metric;
            address.set()
        });
        let gateways = self.spec.gateways.iter().map(|gateway| {
            let mut route = Route::default_by(index, *gateway, Origin::Static);
            route.metric = metric;
            route.set()
        });
        let routes = self.spec.routes.iter();
        let routes = routes.map(|route| self.route(index, route).set());
        let tunnel = self.tunnel.iter().flat_map(Tunnel::networks);
        let tunnel = tunnel.map(|network| {
            let mut route = Route::new(index, network.address, network.prefix, Origin::Static);
            route.metric = metric;
            route.set()
        });
        let requests: Vec<_> = addresses
            .chain(tunnel)
            .chain(routes)
            .chain(gateways)
            .collect();
        netlink
            .request_all(&requests)
            .map_err(|refused| refused.to_string())
    }

    fn route(&self, index: u32, from: &BootRoute) -> Route {
        Route {
            gateway: from.via,
            metric: from.metric.or(Some(self.spec.metric)),
            ..Route::new(index, from.to.address, from.to.prefix, Origin::Static)
        }
    }
}
