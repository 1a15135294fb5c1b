//! Addresses of HTTP: taken apart, led on by redirects, and which proxy leads to them. Pure.

use std::fmt;

/// The address of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// With TLS.
    pub(super) tls: bool,
    /// `HOST[:PORT]`.
    pub(super) host: String,
    /// From the first `/` on, the query included.
    pub(super) path: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host, self.path)
    }
}

impl Address {
    /// Takes an absolute address apart; `None` for another scheme, or one with a login in it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match (
            strip_scheme(text, "https://"),
            strip_scheme(text, "http://"),
        ) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let printable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !printable(text) {
            return None;
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Self {
            tls,
            host: host.to_ascii_lowercase(),
            path: format!("{slash}{path}"),
        })
    }

    /// Where a `Location` of this document leads (RFC 9110, section 10.2.2).
    pub(super) fn led_to(&self, location: &str) -> Option<Self> {
        match location.strip_prefix("//") {
            Some(rest) => Self::parse(&format!("http{}://{rest}", if self.tls { "s" } else { "" })),
            None if location.starts_with('/') => Self::parse(&format!(
                "{}{location}",
                Self {
                    path: String::new(),
                    ..self.clone()
                }
            )),
            None => Self::parse(location),
        }
    }

    /// Whether it is the same server, which may see what the other one may see.
    pub(super) fn same_server(&self, other: &Self) -> bool {
        self.tls == other.tls && self.host == other.host
    }

    /// The host without its port.
    pub(super) fn host_name(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        }
    }

    /// The proxy that leads there, as the environment has it: `HTTPS_PROXY` or `HTTP_PROXY`, then `ALL_PROXY`, in
    /// capitals or not; none for this computer itself and for what `NO_PROXY` lists.
    pub(super) fn proxy(&self, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let either = |name: &str| {
            let set = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            set.filter(|value| !value.is_empty())
        };
        if config::registry::is_loopback(&self.host) {
            return None;
        }
        let host = self.host_name();
        let none = either("NO_PROXY").unwrap_or_default();
        let excepted = none.split(',').map(str::trim).any(|entry| {
            let name = entry
                .trim_start_matches('*')
                .trim_start_matches('.')
                .to_ascii_lowercase();
            let inside = host
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.ends_with('.'));
            entry == "*" || (!name.is_empty() && (host == name || self.host == name || inside))
        });
        let scheme = if self.tls {
            "HTTPS_PROXY"
        } else {
            "HTTP_PROXY"
        };
        either(scheme)
            .or_else(|| either("ALL_PROXY"))
            .filter(|_| !excepted)
    }
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let begin = text.get(..scheme.len())?;
    begin
        .eq_ignore_ascii_case(scheme)
        .then(|| &text[scheme.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from = Address::parse("https://a.org:5000/v2/x?y").unwrap();
        for (location, want) in [
            ("/z?q", Some("https://a.org:5000/z?q")),
            ("https://B.org/c#d", Some("https://b.org/c")),
            ("//b.org", Some("https://b.org/")),
            ("http://a.org:5000/", Some("http://a.org:5000/")),
            ("HTTP://a.org?x", Some("http://a.org/?x")),
            ("ftp://a.org/", None),
            ("file:///etc/passwd", None),
            ("https://user@a.org/", None),
            ("https://a.org/ b", None),
            ("https://a.org/\r\nX: y", None),
            ("https:///", None),
            ("z", None),
        ] {
            let to = from.led_to(location).map(|to| to.to_string());
            assert_eq!(to.as_deref(), want, "{location}");
        }
        let same = |text: &str| from.same_server(&Address::parse(text).unwrap());
        assert!(same("https://a.org:5000/other"));
        assert!(
            !same("http://a.org:5000/") && !same("https://a.org/") && !same("https://b.org:5000/")
        );
    }

    #[test]
    fn proxies_are_those_of_the_environment() {
        let proxy = |address: &str, variables: &[(&str, &str)]| {
            let find = |name: &str| {
                let found = variables.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Address::parse(address).unwrap().proxy(find)
        };
        let all = [
            ("https_proxy", "http://p:1"),
            ("ALL_PROXY", "http://q:1"),
            ("NO_PROXY", "b.org, .c.org,d.org:5000"),
        ];
        for (address, want) in [
            ("https://a.org/", Some("http://p:1")),
            ("http://a.org/", Some("http://q:1")),
            ("https://b.org:5000/", None),
            ("https://x.b.org/", None),
            ("https://xb.org/", Some("http://p:1")),
            ("https://x.c.org/", None),
            ("https://d.org:5000/", None),
            ("https://d.org/", Some("http://p:1")),
            ("https://localhost:5000/", None),
            ("https://127.0.0.1/", None),
        ] {
            assert_eq!(proxy(address, &all).as_deref(), want, "{address}");
        }
        assert_eq!(
            proxy("https://a.org/", &[("HTTPS_PROXY", "x"), ("NO_PROXY", "*")]),
            None
        );
        assert_eq!(proxy("https://a.org/", &[]), None);
    }
}
