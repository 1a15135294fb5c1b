//! One request, one answer, over HTTP/1.1 and TLS. It follows no redirect, tries nothing again and reads no body:
//! those are the client's to do. One agent a server, since each may have certificates and a proxy of its own.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::address::Address;
use super::error::RegistryError;
use super::timing::{Pace, Timing};

/// The most bytes of an answer's header.
const HEADER_CAP: usize = 64 << 10;

/// What may be known of a registry beside its name.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Certificates that vouch for it, in PEM.
    pub ca: Option<PathBuf>,
    /// It is spoken to in plain HTTP.
    pub insecure: bool,
}

/// HTTP with the settings of a build.
#[derive(Debug)]
pub(super) struct Web {
    timing: Timing,
    hosts: HashMap<String, Host>,
    agents: Mutex<HashMap<String, Agent>>,
    /// The certificates of this host, read when the first one is needed.
    system: OnceLock<Result<Vec<Certificate<'static>>, String>>,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(super) struct Answer {
    /// The server that gave it.
    pub(super) host: String,
    /// The status.
    pub(super) status: u16,
    response: Response<Body>,
    timing: Timing,
}

impl Web {
    pub(super) fn new(timing: Timing, hosts: HashMap<String, Host>) -> Self {
        Self {
            timing,
            hosts,
            agents: Mutex::default(),
            system: OnceLock::new(),
        }
    }

    /// Whether a server may be spoken to in plain HTTP: on this computer, or as the file says.
    pub(super) fn may_be_plain(&self, host: &str) -> bool {
        let said = self.hosts.get(host).is_some_and(|known| known.insecure);
        said || (config::registry::is_loopback(host) && !self.has_ca(host))
    }

    /// The file gives it certificates, so it speaks TLS wherever it is.
    pub(super) fn has_ca(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|known| known.ca.is_some())
    }

    /// Asks for a document; with a `form` it is posted.
    ///
    /// # Errors
    /// No answer.
    pub(super) fn ask(
        &self,
        address: &Address,
        headers: &[(&str, &str)],
        form: Option<&str>,
    ) -> Result<Answer, RegistryError> {
        let agent = self.agent(address)?;
        let mut request = Request::builder().uri(address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let unfit = |error: ureq::http::Error| self.failed(address, ureq::Error::Http(error));
        let response = match form {
            None => agent.run(request.body(()).map_err(unfit)?),
            Some(form) => {
                let request = request
                    .method("POST")
                    .header("Content-Type", "application/x-www-form-urlencoded");
                agent.run(request.body(form.to_owned()).map_err(unfit)?)
            }
        }
        .map_err(|error| self.failed(address, error))?;
        Ok(Answer {
            host: address.host.clone(),
            status: response.status().as_u16(),
            response,
            timing: self.timing,
        })
    }

    fn agent(&self, address: &Address) -> Result<Agent, RegistryError> {
        let key = Address {
            path: String::new(),
            ..address.clone()
        }
        .to_string();
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.new_agent(address)?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn new_agent(&self, address: &Address) -> Result<Agent, RegistryError> {
        let variable = |name: &str| std::env::var(name).ok();
        let proxy = match address.proxy(variable) {
            // The address of a proxy may have a login in it, so it is not told.
            Some(text) => Some(Proxy::new(&text).map_err(|_| RegistryError::Connection {
                host: address.host.clone(),
                reason: "the proxy that the environment names has no valid address".to_owned(),
            })?),
            None => None,
        };
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            // A layer that a server packs once more would have another digest.
            .accept_encoding("identity")
            .max_response_header_size(HEADER_CAP)
            .timeout_connect(Some(self.timing.connect))
            .timeout_recv_response(Some(self.timing.stall))
            .timeout_per_read(Some(self.timing.stall));
        if address.tls {
            builder = builder.tls_config(
                TlsConfig::builder()
                    .root_certs(self.roots(&address.host)?)
                    .unversioned_rustls_crypto_provider(Arc::new(
                        rustls::crypto::ring::default_provider(),
                    ))
                    .build(),
            );
        }
        Ok(builder.build().new_agent())
    }

    /// Who may vouch for a server: the authorities that this host trusts, and the file's own.
    fn roots(&self, host: &str) -> Result<RootCerts, RegistryError> {
        let unusable = |reason: String| RegistryError::Certificates {
            host: host.to_owned(),
            reason,
        };
        let system = self.system.get_or_init(system_certificates);
        let own = self.hosts.get(host).and_then(|known| known.ca.as_ref());
        let mut all = match (system, own) {
            (Ok(all), _) => all.clone(),
            (Err(_), Some(_)) => Vec::new(),
            (Err(reason), None) => return Err(unusable(reason.clone())),
        };
        if let Some(file) = own {
            let pem = std::fs::read(file)
                .map_err(|error| unusable(format!("cannot read {}: {error}", file.display())))?;
            let before = all.len();
            for item in parse_pem(&pem) {
                if let PemItem::Certificate(certificate) =
                    item.map_err(|error| unusable(format!("{}: {error}", file.display())))?
                {
                    all.push(certificate);
                }
            }
            if all.len() == before {
                return Err(unusable(format!("{} has none", file.display())));
            }
        }
        Ok(RootCerts::from(all))
    }

    fn failed(&self, address: &Address, error: ureq::Error) -> RegistryError {
        failure(&address.host, error, &self.timing)
    }
}

/// `SSL_CERT_FILE` and `SSL_CERT_DIR`, else where this host's distribution keeps them.
fn system_certificates() -> Result<Vec<Certificate<'static>>, String> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let why = loaded.errors.first().map(ToString::to_string);
        return Err(format!(
            "this host has none ({}): install ca-certificates or set SSL_CERT_FILE",
            why.unwrap_or_else(|| "no file was found".to_owned())
        ));
    }
    let owned = |der: &rustls::pki_types::CertificateDer<'_>| Certificate::from_der(der).to_owned();
    Ok(loaded.certs.iter().map(owned).collect())
}

impl Answer {
    /// A header of the answer.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All headers of a name, joined.
    pub(super) fn headers(&self, name: &str) -> String {
        let all = self.response.headers().get_all(name).iter();
        let texts: Vec<&str> = all.filter_map(|value| value.to_str().ok()).collect();
        texts.join(", ")
    }

    /// The length of the body, if the server tells it.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("Content-Length")?.trim().parse().ok()
    }

    /// The body as it comes.
    pub(super) fn body(self) -> Incoming {
        Incoming {
            host: self.host,
            reader: self.response.into_body().into_reader(),
            pace: Pace::new(&self.timing),
            timing: self.timing,
            begun: Instant::now(),
        }
    }

    /// The whole body of a small document.
    ///
    /// # Errors
    /// It is longer than `cap`, shorter than the server says, or does not come.
    pub(super) fn read(self, what: &str, cap: u64) -> Result<Vec<u8>, RegistryError> {
        let (host, expected) = (self.host.clone(), self.length());
        let too_long = || RegistryError::TooLong {
            host: host.clone(),
            what: what.to_owned(),
            cap,
        };
        if expected.is_some_and(|length| length > cap) {
            return Err(too_long());
        }
        let mut body = self.body();
        let mut bytes = Vec::new();
        let mut buffer = [0; 1 << 14];
        loop {
            match body.next(&mut buffer)? {
                0 => break,
                len => bytes.extend_from_slice(&buffer[..len]),
            }
            if bytes.len() as u64 > cap {
                return Err(too_long());
            }
        }
        match expected {
            Some(expected) if expected != bytes.len() as u64 => Err(RegistryError::Truncated {
                host,
                what: what.to_owned(),
                found: bytes.len() as u64,
                expected,
            }),
            _ => Ok(bytes),
        }
    }
}

/// A body that is being received.
pub(super) struct Incoming {
    host: String,
    reader: ureq::BodyReader<'static>,
    pace: Pace,
    timing: Timing,
    begun: Instant,
}

impl Incoming {
    /// The next bytes; 0 at the end.
    ///
    /// # Errors
    /// The connection broke, or it trickles.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        let len = loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(failure(&self.host, ureq::Error::from(error), &self.timing));
                }
                Ok(len) => break len,
            }
        };
        if self.pace.note(self.begun.elapsed(), len as u64) || len == 0 {
            return Ok(len);
        }
        Err(stalled(&self.host, self.timing.stall))
    }
}

fn stalled(host: &str, window: Duration) -> RegistryError {
    RegistryError::Stalled {
        host: host.to_owned(),
        seconds: window.as_secs(),
    }
}

/// What an error of the transport means.
fn failure(host: &str, error: ureq::Error, timing: &Timing) -> RegistryError {
    let connection = |reason: String| RegistryError::Connection {
        host: host.to_owned(),
        reason,
    };
    match error {
        ureq::Error::HostNotFound => RegistryError::UnknownHost {
            host: host.to_owned(),
        },
        ureq::Error::Timeout(ureq::Timeout::Connect) => connection(format!(
            "no connection within {} s",
            timing.connect.as_secs()
        )),
        ureq::Error::Timeout(_) => stalled(host, timing.stall),
        ureq::Error::Rustls(error) => tls(host, &error),
        ureq::Error::Io(error) => {
            let of_rustls = error.get_ref().and_then(|inner| inner.downcast_ref());
            match of_rustls {
                Some(error) => tls(host, error),
                None if error.kind() == io::ErrorKind::TimedOut => stalled(host, timing.stall),
                None => connection(error.to_string()),
            }
        }
        other => connection(other.to_string()),
    }
}

fn tls(host: &str, error: &rustls::Error) -> RegistryError {
    use rustls::{CertificateError, Error};
    let reason = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "nobody that this host trusts vouches for its certificate".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired".to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name".to_owned(),
        other => other.to_string(),
    };
    RegistryError::Tls {
        host: host.to_owned(),
        reason,
        plain: matches!(error, Error::InvalidMessage(_)),
    }
}
