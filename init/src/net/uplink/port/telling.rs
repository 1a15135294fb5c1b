//! What an interface has, and what it waits for.

use std::net::IpAddr;
use std::time::Duration;

use config::boot::BootAddress;

use super::Port;
use crate::net::message::note;
use crate::net::uplink::dhcp4::{self, Dhcp4};
use crate::net::uplink::dhcp6::Dhcp6;
use crate::net::uplink::told::Told;

impl Port {
    pub(super) fn complain(&mut self, now: Duration) {
        if self.complain_at.is_none_or(|at| at > now) {
            return;
        }
        self.complain_at = None;
        let label = &self.spec.label;
        match &self.link {
            None => note(format_args!("{label}: waiting for its link")),
            Some(link) if !link.running => {
                note(format_args!(
                    "{label}: waiting for the carrier of {}",
                    link.device
                ));
            }
            Some(_) => {}
        }
    }

    /// What it has and knows; `None`: it has no carrier or no address.
    #[must_use]
    pub fn told(&self) -> Option<Told> {
        let link = self.link.as_ref().filter(|link| link.running)?;
        let lease = self.dhcp4.as_ref().and_then(Dhcp4::bound);
        let told6 = self.dhcp6.as_ref().and_then(Dhcp6::told);
        let mut told = Told {
            device: link.device.clone(),
            ..Told::default()
        };
        if let Some(lease) = lease {
            told.addresses.push(BootAddress {
                address: lease.address.into(),
                prefix: lease.prefix,
            });
            told.gateways
                .extend(dhcp4::gateway(lease).map(IpAddr::from));
            told.dns.extend(lease.dns.iter().copied().map(IpAddr::from));
            told.search
                .extend(lease.search.iter().chain(&lease.domain).cloned());
            told.ntp.extend(lease.ntp.iter().copied().map(IpAddr::from));
            told.hostname.clone_from(&lease.hostname);
        }
        for own in self.spec.addresses.iter().chain(&self.addresses6) {
            if !told.addresses.contains(own) {
                told.addresses.push(*own);
            }
        }
        told.gateways.extend(&self.spec.gateways);
        told.dns.extend(self.advice.dns().map(IpAddr::from));
        told.search.extend(self.advice.search().map(str::to_owned));
        if let Some(told6) = told6 {
            // Most networks tell the same ones in both ways.
            let servers = told6.dns.iter().copied().map(IpAddr::from);
            for server in servers {
                if !told.dns.contains(&server) {
                    told.dns.push(server);
                }
            }
            told.search.extend(told6.search.iter().cloned());
            told.ntp.extend(told6.ntp.iter().copied().map(IpAddr::from));
        }
        (!told.addresses.is_empty()).then_some(told)
    }
}
