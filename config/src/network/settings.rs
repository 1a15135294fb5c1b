//! What `[network]` fixes that DHCP and router advertisements tell otherwise: name servers, search domains, time servers.

use std::net::IpAddr;

use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed, wrong};

/// What the file fixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Name servers; none: those that the networks tell.
    pub dns: Vec<IpAddr>,
    /// Search domains; none: those that the networks tell.
    pub search: Vec<String>,
    /// Time servers by name or address; `None`: those that the networks tell, else the world's.
    pub ntp: Option<Vec<String>>,
}

impl Settings {
    pub(crate) fn new(from: &manifest::Network, mistakes: &mut Mistakes) -> Self {
        for (key, list) in [("dns", &from.dns), ("search", &from.search)] {
            if let Some(list) = list.as_ref().filter(|list| list.get_ref().is_empty()) {
                mistakes.push(
                    Diagnostic::at(list.span(), format!("`{key}` is empty"))
                        .hint("leave it out: then it is what the networks tell"),
                );
            }
        }
        let mut list = |list: &Option<toml::Spanned<Vec<Text>>>,
                        parse: fn(&Text) -> Parsed<String>| {
            let list = list.as_ref()?;
            Some(mistakes.take_all(list.get_ref(), parse))
        };
        let search = list(&from.search, domain).unwrap_or_default();
        let ntp = list(&from.ntp, time_server);
        let dns = from.dns.as_ref();
        Self {
            dns: dns.map_or(Vec::new(), |list| {
                mistakes.take_all(list.get_ref(), name_server)
            }),
            search,
            ntp,
        }
    }
}

fn name_server(text: &Text) -> Parsed<IpAddr> {
    text.get_ref().parse().map_err(|_| {
        wrong(
            text,
            "is no address of a name server",
            "as in \"192.0.2.53\" or \"2001:db8::53\"",
        )
    })
}

/// A domain, at most 253 bytes (RFC 1035 §2.3.4).
fn domain(text: &Text) -> Parsed<String> {
    for part in text.get_ref().split('.') {
        value::dns_label(&Text::new(text.span(), part.to_owned()), "part of a domain")?;
    }
    if text.get_ref().len() > 253 {
        return Err(wrong(text, "is too long", "a domain has 253 bytes at most"));
    }
    Ok(text.get_ref().clone())
}

fn time_server(text: &Text) -> Parsed<String> {
    match text.get_ref().parse::<IpAddr>() {
        Ok(_) => Ok(text.get_ref().clone()),
        Err(_) => domain(text),
    }
}
