//! A repository of a registry, asked as the distribution specification 1.1 has it: logins, redirects, tries.
//!
//! A login goes to the registry and to the server of tokens that the registry names, and to nobody else: where a
//! redirect leads to another server, it is left out. No redirect leads from TLS to plain HTTP.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::Registries;
use super::address::Address;
use super::challenge::{Challenge, challenges, encoded, token_query};
use super::credentials::Login;
use super::error::{RegistryError, cleaned};
use super::timing::{Backoff, retry_after};
use super::web::Answer;

/// How often a redirect is followed.
const REDIRECTS: usize = 5;
/// The most bytes of an error or of a token.
const SAYING_CAP: u64 = 256 << 10;

/// A repository of a registry.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    registries: &'a Registries<'a>,
    /// The registry as the reference names it.
    registry: String,
    /// The name in it.
    name: String,
    /// The `Authorization` that the registry took last.
    authorization: Mutex<Option<String>>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Behind `/v2/NAME/`: `manifests/TAG`, `blobs/DIGEST`.
    pub(super) path: &'a str,
    /// What the answer may be.
    pub(super) accept: &'a str,
    /// The first byte that is wanted.
    pub(super) from: u64,
}

impl<'a> Repository<'a> {
    pub(super) fn new(registries: &'a Registries<'a>, registry: &str, name: &str) -> Self {
        Self {
            registries,
            registry: registry.to_owned(),
            name: name.to_owned(),
            authorization: Mutex::new(None),
        }
    }

    /// The server that is asked.
    pub(super) fn host(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// Tells that another build is at it.
    pub(super) fn note_waiting(&self, hex: &str) {
        let short = &hex[..12.min(hex.len())];
        self.registries
            .note(format!("waiting for another build that downloads {short}"));
    }

    /// Does something as often as it may help; what fails for good is told at once.
    pub(super) fn insist<T>(
        &self,
        mut attempt: impl FnMut(&mut Backoff) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut backoff = Backoff::new(self.registries.settings.timing);
        loop {
            let error = match attempt(&mut backoff) {
                Ok(value) => return Ok(value),
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => error,
            };
            let Some(wait) = backoff.next(error.asked_wait()) else {
                return Err(error);
            };
            if wait > Duration::from_secs(2) {
                let seconds = wait.as_secs();
                self.registries
                    .note(format!("note: {error}; trying again in {seconds} s"));
            }
            thread::sleep(wait);
        }
    }

    /// Asks once: logs in where that is wanted, follows redirects. The answer's status is 200 or 206.
    ///
    /// # Errors
    /// [`RegistryError`], by the status.
    pub(super) fn ask(&self, ask: Ask<'_>) -> Result<Answer, RegistryError> {
        if self.registries.cache.is_all_there_is() {
            let what = format!("{}/{} ({})", self.registry, self.name, ask.path);
            return Err(RegistryError::Offline { what });
        }
        let host = self.host().to_owned();
        let address = Address {
            tls: !self.registries.web.may_be_plain(&host),
            path: format!("/v2/{}/{}", self.name, ask.path),
            host,
        };
        let known = self.known_authorization();
        let answer = self.follow(&address, ask, known.as_deref())?;
        if answer.status != 401 {
            return self.judge(answer, ask);
        }
        let offered = challenges(&answer.headers("WWW-Authenticate"));
        // Another thread may have logged in meanwhile; a token that was taken before may have expired.
        let newer = self.known_authorization().filter(|_| known.is_none());
        let authorization = match newer {
            Some(authorization) => authorization,
            None => self.log_in(&offered)?,
        };
        let answer = self.follow(&address, ask, Some(&authorization))?;
        if answer.status == 401 {
            return Err(self.unauthorized());
        }
        *self.lock() = Some(authorization);
        self.judge(answer, ask)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn known_authorization(&self) -> Option<String> {
        self.lock().clone()
    }

    fn follow(
        &self,
        begin: &Address,
        ask: Ask<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, RegistryError> {
        let range = format!("bytes={}-", ask.from);
        let mut address = begin.clone();
        for _ in 0..=REDIRECTS {
            let mut headers = vec![("Accept", ask.accept)];
            if ask.from > 0 {
                headers.push(("Range", &range));
            }
            if let Some(value) = authorization.filter(|_| address.same_server(begin)) {
                headers.push(("Authorization", value));
            }
            let answer = self.registries.web.ask(&address, &headers, None)?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            address = self.led_to(&address, answer.header("Location").unwrap_or_default())?;
        }
        Err(redirect(begin, &address.host, "it leads on and on"))
    }

    fn led_to(&self, from: &Address, location: &str) -> Result<Address, RegistryError> {
        let Some(to) = from.led_to(location) else {
            let to = cleaned(location);
            return Err(redirect(from, &to, "this is no address of a document"));
        };
        if from.tls && !to.tls {
            return Err(redirect(from, &to.host, "this would leave TLS"));
        }
        if !to.tls && !self.registries.web.may_be_plain(&to.host) {
            return Err(redirect(from, &to.host, "this is plain HTTP"));
        }
        Ok(to)
    }

    /// An `Authorization` by what the registry offers.
    fn log_in(&self, offered: &[Challenge]) -> Result<String, RegistryError> {
        let files = &self.registries.settings.logins;
        let login = files.find(&self.registry, &self.name).map_err(|reason| {
            RegistryError::Credentials {
                host: self.registry.clone(),
                reason,
            }
        })?;
        if let Some(Login::Bearer(token)) = &login {
            return Ok(format!("Bearer {token}"));
        }
        let by = |scheme: &str| offered.iter().find(|challenge| challenge.scheme == scheme);
        match (by("bearer"), by("basic"), login) {
            (Some(bearer), _, login) => self.fetch_token(bearer, login.as_ref()),
            (None, Some(_), Some(Login::Basic(name, password))) => {
                Ok(Login::basic_header(&name, &password))
            }
            _ => Err(self.unauthorized()),
        }
    }

    /// The distribution project's token server, with GET, or with POST for an identity token.
    fn fetch_token(
        &self,
        challenge: &Challenge,
        login: Option<&Login>,
    ) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm = challenge.parameters.get("realm").map_or("", String::as_str);
        let own = Address {
            tls: !self.registries.web.may_be_plain(self.host()),
            host: self.host().to_owned(),
            path: "/".to_owned(),
        };
        let realm = self.led_to(&own, realm)?;
        let query = token_query(challenge, &self.name);
        let answer = match login {
            Some(Login::Identity(token)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=coracle&refresh_token={}&{query}",
                    encoded(token)
                );
                self.registries.web.ask(&realm, &[], Some(&form))?
            }
            login => {
                let separator = if realm.path.contains('?') { '&' } else { '?' };
                let path = format!("{}{separator}{query}", realm.path);
                let address = Address { path, ..realm };
                let header = match login {
                    Some(Login::Basic(name, password)) => Some(Login::basic_header(name, password)),
                    _ => None,
                };
                let headers = header.iter().map(|value| ("Authorization", value.as_str()));
                let headers: Vec<_> = headers.collect();
                self.registries.web.ask(&address, &headers, None)?
            }
        };
        if matches!(answer.status, 400 | 401 | 403) {
            return Err(self.unauthorized());
        }
        if answer.status != 200 {
            return Err(status(answer, "a token"));
        }
        let host = answer.host.clone();
        let token: Option<Token> =
            serde_json::from_slice(&answer.read("a token", SAYING_CAP)?).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        match token.filter(|token| token.bytes().all(|b| b.is_ascii_graphic())) {
            Some(token) => Ok(format!("Bearer {token}")),
            None => Err(RegistryError::Document {
                host,
                what: "a token".to_owned(),
                reason: "there is none in it".to_owned(),
            }),
        }
    }

    fn judge(&self, answer: Answer, ask: Ask<'_>) -> Result<Answer, RegistryError> {
        let name = format!("{}/{}", self.registry, self.name);
        match answer.status {
            200 | 206 => Ok(answer),
            401 => Err(self.unauthorized()),
            403 => Err(RegistryError::Denied {
                host: answer.host.clone(),
                name,
                said: sayings(answer).0,
            }),
            404 => {
                let (said, codes) = sayings(answer);
                Err(RegistryError::NotFound {
                    name,
                    wanted: ask.path.rsplit('/').next().unwrap_or_default().to_owned(),
                    no_repository: codes.iter().any(|code| code == "NAME_UNKNOWN"),
                    said,
                })
            }
            _ => Err(status(answer, ask.path)),
        }
    }

    fn unauthorized(&self) -> RegistryError {
        let files = &self.registries.settings.logins;
        RegistryError::Unauthorized {
            host: self.registry.clone(),
            had_login: matches!(files.find(&self.registry, &self.name), Ok(Some(_))),
            looked: files.told(),
        }
    }
}

fn redirect(from: &Address, to: &str, reason: &'static str) -> RegistryError {
    RegistryError::Redirect {
        host: from.host.clone(),
        to: to.to_owned(),
        reason,
    }
}

fn status(answer: Answer, what: &str) -> RegistryError {
    let host = answer.host.clone();
    if answer.status == 429 {
        return RegistryError::RateLimited {
            host,
            retry_after: answer.header("Retry-After").and_then(retry_after),
        };
    }
    RegistryError::Status {
        host,
        status: answer.status,
        what: what.to_owned(),
        said: sayings(answer).0,
    }
}

/// The messages and the codes of an error (distribution specification, "Error Codes").
fn sayings(answer: Answer) -> (String, Vec<String>) {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<OneError>,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct OneError {
        code: String,
        message: Option<String>,
    }
    let body = answer.read("an error", SAYING_CAP).unwrap_or_default();
    let errors = serde_json::from_slice::<Errors>(&body).map_or(Vec::new(), |e| e.errors);
    let messages: Vec<&str> = errors.iter().filter_map(|e| e.message.as_deref()).collect();
    let said = cleaned(&messages.join("; "));
    (said, errors.into_iter().map(|e| e.code).collect())
}
