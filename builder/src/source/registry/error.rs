//! Why an image of a registry cannot be had, and what to do about it. No credential is ever part of a message, and
//! what a registry says of itself is cut and cleaned before it is told.

use std::time::Duration;

use super::super::cache::CacheError;
use super::super::error::FileError;
use super::super::oci::OciError;

/// The longest text of a registry's own in a message, in characters.
const LONGEST_SAYING: usize = 200;

/// Why an image of a registry cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name of the host has no address.
    #[error("no host {host} is known")]
    UnknownHost {
        /// The host.
        host: String,
    },
    /// No connection, or it broke.
    #[error("cannot talk to {host}: {reason}")]
    Connection {
        /// The host.
        host: String,
        /// The system's reason.
        reason: String,
    },
    /// The host is not who it should be, or speaks no TLS.
    #[error("no TLS connection to {host}: {reason}")]
    Tls {
        /// The host.
        host: String,
        /// rustls' reason.
        reason: String,
        /// It answered in plain HTTP.
        plain: bool,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing, or next to nothing, for {seconds} s")]
    Stalled {
        /// The host.
        host: String,
        /// How long.
        seconds: u64,
    },
    /// 401.
    #[error("{host} wants a login{}", if *had_login { ", and does not take the one it was given" } else { "" })]
    Unauthorized {
        /// The host.
        host: String,
        /// A login was sent.
        had_login: bool,
        /// Where a login was looked for.
        looked: Vec<String>,
    },
    /// 403.
    #[error("{host} does not let this login read {name}{}", saying(said))]
    Denied {
        /// The host.
        host: String,
        /// The image's name.
        name: String,
        /// What the registry says.
        said: String,
    },
    /// 404 for a manifest.
    #[error("{}{}", not_found(name, wanted, *no_repository), saying(said))]
    NotFound {
        /// The registry and the repository.
        name: String,
        /// Tag or digest.
        wanted: String,
        /// It is the repository that is not there.
        no_repository: bool,
        /// What the registry says.
        said: String,
    },
    /// 429, more often than is tried or for longer than is waited.
    #[error("{host} limits how much is fetched (429){}", asked_wait(*retry_after))]
    RateLimited {
        /// The host.
        host: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Another status.
    #[error("{host} answered {status} for {what}{}", saying(said))]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What the registry says.
        said: String,
    },
    /// The answer ended early, again and again.
    #[error("{host} sent {found} of {expected} bytes of {what}")]
    Truncated {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The bytes that came.
        found: u64,
        /// The bytes that should come.
        expected: u64,
    },
    /// What came is something else.
    #[error("{host} sent something else for {what}: its SHA-256 is {found}")]
    WrongDigest {
        /// The host.
        host: String,
        /// The digest that was asked for.
        what: String,
        /// The digest of what came.
        found: String,
    },
    /// More came than there should be.
    #[error("{host} sent more than {cap} bytes for {what}")]
    TooLong {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The most that is taken.
        cap: u64,
    },
    /// A redirect that is not followed.
    #[error("{host} leads to {to}: {reason}")]
    Redirect {
        /// The host.
        host: String,
        /// Where it leads.
        to: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// A document is not as the specification has it.
    #[error("{host} sent {what} that is not as the image specification has it: {reason}")]
    Document {
        /// The host.
        host: String,
        /// What it is.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// No image for our platform.
    #[error("it has no image for linux/amd64, only for {}", platforms.join(", "))]
    Platform {
        /// What it has.
        platforms: Vec<String>,
    },
    /// The network is not to be used, and the cache does not have it.
    #[error("{what} is not in the cache, and --offline fetches nothing")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// A file with logins cannot be used.
    #[error("the login for {host}: {reason}")]
    Credentials {
        /// The registry.
        host: String,
        /// What is wrong, without the login.
        reason: String,
    },
    /// A file of certificates cannot be used.
    #[error("the certificates for {host}: {reason}")]
    Certificates {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The image is broken or refused.
    #[error(transparent)]
    Image(#[from] Box<OciError>),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RegistryError {
    /// What the user may do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownHost { host } => format!(
                "see whether the name {host} is right and this host's name server answers; where a proxy leads out, set HTTPS_PROXY"
            ),
            Self::Connection { .. } | Self::Stalled { .. } | Self::Truncated { .. } => {
                "try again later: what has come is kept, and the next build goes on from there"
                    .to_owned()
            }
            Self::Tls {
                host, plain: true, ..
            } => format!(
                "it speaks plain HTTP: if it may, write [registry.\"{host}\"] insecure = true"
            ),
            Self::Tls { host, .. } => format!(
                "if its certificate is of your own making, write [registry.\"{host}\"] ca = \"FILE.pem\", or set SSL_CERT_FILE"
            ),
            Self::Unauthorized { host, looked, .. } => format!(
                "log in with `skopeo login {host}`, `podman login` or `docker login`; a login was looked for in {}",
                looked.join(", ")
            ),
            Self::NotFound {
                no_repository: true,
                ..
            } => {
                "see whether the name is right; many registries say the same of what needs a login"
                    .to_owned()
            }
            Self::NotFound { name, .. } => {
                format!("see whether the tag is right, as with `skopeo list-tags docker://{name}`")
            }
            Self::RateLimited { .. } => {
                "build again later, or log in: what has come is kept".to_owned()
            }
            Self::WrongDigest { .. } => {
                "the registry or something on the way to it changes what it stores: do not use it"
                    .to_owned()
            }
            Self::Offline { .. } => "build once without --offline".to_owned(),
            _ => return None,
        })
    }

    /// Whether the same may go well a moment later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connection { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 408,
            _ => false,
        }
    }

    /// How long the registry asks to wait.
    pub(super) fn asked_wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn not_found(name: &str, wanted: &str, no_repository: bool) -> String {
    let what = if wanted.starts_with("sha256:") {
        "digest"
    } else {
        "tag"
    };
    match no_repository {
        true => format!("there is no image {name}"),
        false => format!("{name} has no {what} {wanted}"),
    }
}

fn asked_wait(asked: Option<Duration>) -> String {
    asked.map_or(String::new(), |wait| {
        format!(" and asks to wait {} s", wait.as_secs())
    })
}

fn saying(said: &str) -> String {
    match said {
        "" => String::new(),
        said => format!(" (it says: {said})"),
    }
}

/// What a registry says, fit for a terminal: one line, no control characters, no more than is read with pleasure.
pub(super) fn cleaned(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain
        .take(LONGEST_SAYING)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_cannot_reach_the_terminal_raw() {
        assert_eq!(cleaned("a\x1b[31m\nb"), "a [31m b");
        assert_eq!(cleaned(&"x".repeat(5000)).len(), LONGEST_SAYING);
    }

    #[test]
    fn tag_and_repository_are_told_apart() {
        let error = |no_repository| RegistryError::NotFound {
            name: "a.org/b".into(),
            wanted: "1".into(),
            no_repository,
            said: String::new(),
        };
        assert_eq!(error(false).to_string(), "a.org/b has no tag 1");
        assert_eq!(error(true).to_string(), "there is no image a.org/b");
        assert!(
            error(false)
                .hint()
                .unwrap()
                .contains("list-tags docker://a.org/b")
        );
    }
}
