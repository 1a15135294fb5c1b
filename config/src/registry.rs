//! Images in registries: their references, and what `[registry.HOST]` says of a registry.
//!
//! A reference names its registry in full (`registry.example.org/team/app:1.2`): a short name means another image to
//! each tool. The grammar is that of the distribution specification 1.1 ("Pulling manifests") and of its reference
//! implementation; nothing is guessed but the tag `latest`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{Parsed, wrong};

/// The tag of a reference that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The most characters of a repository's name with its registry (the reference implementation's bound).
const LONGEST_NAME: usize = 255;
/// The most characters of a tag.
const LONGEST_TAG: usize = 128;
const EXAMPLE: &str =
    "as in \"registry.example.org/team/app:1.2\" or \"docker.io/library/redis:7\"";

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `HOST[:PORT]`, in small letters.
    pub registry: String,
    /// The name in the registry, such as `team/app`.
    pub repository: String,
    /// The tag; `None` only beside a digest.
    pub tag: Option<String>,
    /// `sha256:` and 64 hex digits.
    pub digest: Option<String>,
}

impl Reference {
    /// What the manifest is asked for by: the digest, else the tag.
    pub fn wanted(&self) -> &str {
        let tag = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        self.digest.as_deref().unwrap_or(tag)
    }

    /// The registry and the repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// What a file says of a registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// `HOST[:PORT]`, in lower case.
    pub host: String,
    /// A file of certificates in PEM that vouch for it, beside those of the host.
    pub ca: Option<Text>,
    /// It is spoken to without TLS.
    pub insecure: bool,
}

/// Whether a host needs no TLS: what is said to it does not leave this computer.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name == "::1" || {
        let address = name.parse::<std::net::Ipv4Addr>();
        address.is_ok_and(|address| address.is_loopback())
    }
}

/// A reference `HOST[:PORT]/NAME[:TAG][@sha256:HEX]`.
///
/// # Errors
/// No registry, capitals in the name, a bad tag or digest.
pub fn reference(text: &Text) -> Parsed<Reference> {
    parse(text.get_ref()).map_err(|(what, hint)| wrong(text, what, hint))
}

fn parse(whole: &str) -> Result<Reference, (String, String)> {
    let bad = |what: &str, hint: &str| Err((what.to_owned(), hint.to_owned()));
    if let Some((scheme, rest)) = whole.split_once("://") {
        let hint = format!("leave `{scheme}://` out: \"{rest}\"");
        return Err(("is no image reference".to_owned(), hint));
    }
    let (name, digest) = match whole.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (whole, None),
    };
    let Some((registry, rest)) = name.split_once('/').filter(|(host, _)| is_host(host)) else {
        let hint = format!(
            "write the registry's name in front, as in \"docker.io/{}{whole}\"",
            if whole.contains('/') { "" } else { "library/" }
        );
        return Err(("names no registry".to_owned(), hint));
    };
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (rest, None),
    };
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        let hint = format!("names of images have no capitals: {}", name.to_lowercase());
        return Err(("is no image reference".to_owned(), hint));
    }
    if !repository.split('/').all(is_component) || name.len() > LONGEST_NAME {
        return bad("is no image reference", EXAMPLE);
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return bad(
            "has a tag that is none",
            "a tag has 1 to 128 letters, digits, dots, hyphens and underscores",
        );
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return bad(
            "has a digest that is none",
            "a digest is `sha256:` and 64 digits of 0 to 9 and a to f, as `coracle.lock` has it",
        );
    }
    let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG));
    // One image has one name, by which policies and pins find it.
    if registry.bytes().any(|b| b.is_ascii_uppercase()) {
        let hint = format!("write {} in small letters", registry.to_ascii_lowercase());
        return Err(("is no image reference".to_owned(), hint));
    }
    let other = match registry {
        "index.docker.io" | "registry-1.docker.io" => Some("docker.io"),
        // Without a port this computer itself is asked at port 80.
        _ if is_loopback(registry) => None,
        _ => registry.strip_suffix(":443").filter(|host| is_host(host)),
    };
    if let Some(other) = other {
        let hint = format!("write \"{other}{}\"", &whole[registry.len()..]);
        return Err((format!("has another name for {other}"), hint));
    }
    if registry == "docker.io" && !repository.contains('/') {
        let hint = format!("write \"docker.io/library/{}", &whole["docker.io/".len()..]);
        return Err(("is a name for short".to_owned(), format!("{hint}\"")));
    }
    Ok(Reference {
        repository: repository.to_owned(),
        registry: registry.to_owned(),
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// A name with a dot, a port, or `localhost`: nothing else is a registry.
fn is_host(text: &str) -> bool {
    let (name, port) = match (text.strip_prefix('['), text.rsplit_once(':')) {
        (Some(rest), _) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        (None, Some((name, port))) => (name, Some(port)),
        (None, None) => (text, None),
    };
    let is_label = |label: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && label.bytes().all(known) && !label.starts_with('-')
    };
    (name.contains('.') || port.is_some() || name == "localhost")
        && name.split('.').all(is_label)
        && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain && text.parse::<u16>().is_ok()
}

/// Letters and digits with single separators between them: `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(alphanumeric).filter(|part| !part.is_empty());
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && separators.into_iter().all(|separator| {
            [".", "_", "__"].contains(&separator) || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=LONGEST_TAG).contains(&text.len())
        && text.bytes().all(known)
        && !text.starts_with(['.', '-'])
}

fn is_digest(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let hex = text.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(digit))
}

/// The registries that a file says something of.
pub(crate) fn registries(
    from: &BTreeMap<Text, manifest::Registry>,
    mistakes: &mut Mistakes,
) -> Vec<Registry> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (name, registry) in crate::spec::by_place(from) {
        let host = name.get_ref().to_ascii_lowercase();
        if !is_host(&host) {
            let hint = "as in [registry.\"registry.example.org\"] or [registry.\"10.0.0.5:5000\"]";
            mistakes.push(wrong(name, "is no name of a registry", hint));
        } else if !seen.insert(host.clone()) {
            mistakes.push(wrong(name, "is there already", "name each registry once"));
        }
        if let (Some(ca), true) = (&registry.ca, registry.insecure) {
            let message = "`ca` beside `insecure = true`";
            mistakes.push(
                Diagnostic::at(ca.span(), message)
                    .hint("certificates belong to TLS: remove one of the two keys"),
            );
        }
        all.push(Registry {
            host,
            ca: registry.ca.clone(),
            insecure: registry.insecure,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let hex = "0a".repeat(32);
        for (text, registry, repository, tag, digest) in [
            ("a.org/b", "a.org", "b", Some("latest"), false),
            ("a.org/b/c:1.2", "a.org", "b/c", Some("1.2"), false),
            ("localhost/b:x_y", "localhost", "b", Some("x_y"), false),
            ("h:5000/b", "h:5000", "b", Some("latest"), false),
            ("[::1]:5000/b:t", "[::1]:5000", "b", Some("t"), false),
            (
                "docker.io/library/redis:7",
                "docker.io",
                "library/redis",
                Some("7"),
                false,
            ),
            ("a.org/b@", "a.org", "b", None, true),
            ("a.org/b:t@", "a.org", "b", Some("t"), true),
        ] {
            let digest = digest.then(|| format!("sha256:{hex}"));
            let text = match &digest {
                Some(digest) => format!("{}{digest}", text),
                None => text.to_owned(),
            };
            let want = Reference {
                registry: registry.into(),
                repository: repository.into(),
                tag: tag.map(str::to_owned),
                digest,
            };
            assert_eq!(parse(&text).as_ref(), Ok(&want), "{text}");
            assert_eq!(parse(&want.to_string()), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_says_how_to_write_one() {
        for (text, want) in [
            ("redis:7", "docker.io/library/redis:7"),
            ("team/app", "docker.io/team/app"),
            ("docker://docker.io/redis", "leave `docker://` out"),
            ("a.org/Team/App", "a.org/team/app"),
            ("A.org/b", "write a.org in small letters"),
            (
                "index.docker.io/library/redis:7",
                "write \"docker.io/library/redis:7\"",
            ),
            ("registry-1.docker.io/a/b", "write \"docker.io/a/b\""),
            ("a.org:443/b:1", "write \"a.org/b:1\""),
            ("a.org:0443/b", "docker.io"),
            ("docker.io/redis:7", "write \"docker.io/library/redis:7\""),
            ("a.org/b:", "1 to 128"),
            ("a.org/b:.t", "1 to 128"),
            ("a.org/b@sha256:12", "64 digits"),
            ("a.org/b@md5:12", "64 digits"),
            ("a.org/", "as in"),
            ("a.org//b", "as in"),
            ("a.org/b..c", "as in"),
            ("a.org/../b", "as in"),
            ("a.org/b?x", "as in"),
            ("a.org:0/b", "docker.io"),
            ("a.org:x/b", "docker.io"),
            ("user@a.org/b", "docker.io"),
            ("[::x]/b", "docker.io"),
        ] {
            let (_, hint) = parse(text).unwrap_err();
            assert!(hint.contains(want), "{text}: {hint}");
        }
    }

    #[test]
    fn only_this_computer_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.org",
            "10.0.0.1",
            "127.0.0.1.example.org",
            "[::2]:5",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
