//! Logins for registries, from where container tools keep them.
//!
//! In this order, the first that knows the registry: `$REGISTRY_AUTH_FILE`; `config.json` in `$DOCKER_CONFIG` or
//! `~/.docker`; `containers/auth.json` in `$XDG_RUNTIME_DIR` and `~/.config`. In a file a helper for the registry
//! (`credHelpers`) goes before an entry (`auths`, the longest that the name begins with), an entry before the helper
//! for all (`credsStore`). A login is never shown: not in messages, not by `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The name that a helper gives where the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// docker.io goes by several names in such files.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A login.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// A name and a password, as `Basic` sends them.
    Basic(String, String),
    /// A token that other tokens are got with (OAuth 2, RFC 6749, section 6).
    Identity(String),
    /// A token that is sent as it is.
    Bearer(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Login {
    /// The header that sends a name and a password.
    pub(super) fn basic_header(name: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
    }
}

/// Where logins are looked for, in this order.
#[derive(Debug, Clone, Default)]
pub struct LoginFiles(Vec<PathBuf>);

impl LoginFiles {
    /// The usual places.
    pub fn of_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// These files only.
    pub fn these(files: Vec<PathBuf>) -> Self {
        Self(files)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
        let home = set("HOME");
        let in_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let docker = match set("DOCKER_CONFIG") {
            Some(folder) => Some(folder.join("config.json")),
            None => in_home(".docker/config.json"),
        };
        let all = [
            set("REGISTRY_AUTH_FILE"),
            docker,
            set("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
            in_home(".config/containers/auth.json"),
        ];
        Self(all.into_iter().flatten().collect())
    }

    /// The files as messages name them.
    pub(super) fn told(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|file| file.display().to_string())
            .collect()
    }

    /// The login for an image `registry/repository`.
    ///
    /// # Errors
    /// A file that is there and cannot be used, a helper that fails: the reason, without the login.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Option<Login>, String> {
        for file in &self.0 {
            let text = match std::fs::read(file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
            };
            // serde's message may quote the file; the place alone is safe to tell.
            let document: Document = serde_json::from_slice(&text).map_err(|error| {
                format!(
                    "{}:{}: it is no such JSON as `docker login` writes",
                    file.display(),
                    error.line()
                )
            })?;
            if let Some(login) = document.find(registry, repository, file)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Document {
    fn find(&self, registry: &str, repository: &str, file: &Path) -> Result<Option<Login>, String> {
        let helper = self
            .cred_helpers
            .iter()
            .find(|(key, _)| is_host(key, registry));
        if let Some((key, helper)) = helper {
            return ask_helper(helper, key, file);
        }
        let mut entries = self.auths.iter();
        let whole = format!("{registry}/{repository}");
        let best = entries
            .clone()
            .filter(|(key, _)| {
                whole
                    .strip_prefix(key.as_str())
                    .is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
            })
            .max_by_key(|(key, _)| key.len())
            .or_else(|| entries.find(|(key, _)| is_host(key, registry)));
        if let Some(login) = best.and_then(|(_, entry)| entry.login().transpose()) {
            return login.map(Some).map_err(|reason| {
                format!("{}: the entry for {registry} {reason}", file.display())
            });
        }
        match (&self.creds_store, best) {
            (Some(helper), Some((key, _))) => ask_helper(helper, key, file),
            (Some(helper), None) => ask_helper(helper, server_name(registry), file),
            (None, _) => Ok(None),
        }
    }
}

impl Entry {
    fn login(&self) -> Result<Option<Login>, &'static str> {
        let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        if let Some(token) = text(&self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(token) = text(&self.registrytoken) {
            return Ok(Some(Login::Bearer(token)));
        }
        if let Some(auth) = text(&self.auth) {
            let decoded = STANDARD.decode(auth.trim()).ok();
            let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            return match pair.as_deref().and_then(|pair| pair.split_once(':')) {
                Some((name, password)) => Ok(Some(Login::Basic(
                    name.to_owned(),
                    password.trim_end_matches('\0').to_owned(),
                ))),
                None => Err("has an `auth` that is no NAME:PASSWORD in base64"),
            };
        }
        Ok(match (text(&self.username), text(&self.password)) {
            (Some(name), Some(password)) => Some(Login::Basic(name, password)),
            _ => None,
        })
    }
}

/// Whether an entry's key (a host, or an address of one) is of this registry.
fn is_host(key: &str, registry: &str) -> bool {
    let bare = key
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    let hub = |name: &str| DOCKER_HUB.contains(&name);
    // `host/namespace` without a scheme is for that namespace alone.
    let whole = bare.len() == host.len()
        || key.contains("://")
        || matches!(&bare[host.len()..], "/" | "/v1/" | "/v2/");
    whole && (host.eq_ignore_ascii_case(registry) || (hub(host) && hub(registry)))
}

/// What a helper for all registries knows a registry by.
fn server_name(registry: &str) -> &str {
    match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}

/// Runs `docker-credential-HELPER get` (the protocol of docker-credential-helpers).
fn ask_helper(helper: &str, server: &str, file: &Path) -> Result<Option<Login>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if helper.is_empty() || !helper.bytes().all(plain) {
        return Err(format!(
            "{}: {helper:?} is no name of a helper",
            file.display()
        ));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| format!("{program}, which {} names, {reason}", file.display());
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read says so by its end.
        let _ = stdin.write_all(server.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(format!("gave no answer: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(format!("failed: {}", output.status))),
        };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed("gave an answer that is no login".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Login::Identity(answer.secret),
        _ => Login::Basic(answer.username, answer.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, registry: &str, repository: &str) -> Result<Option<Login>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, json).unwrap();
        LoginFiles::these(vec![folder.path().join("none.json"), file]).find(registry, repository)
    }

    fn basic(name: &str, password: &str) -> Option<Login> {
        Some(Login::Basic(name.into(), password.into()))
    }

    #[test]
    fn places_follow_the_environment_in_order() {
        let files = LoginFiles::from_variables(|name| match name {
            "HOME" => Some("/h".into()),
            "XDG_RUNTIME_DIR" => Some("/r".into()),
            _ => None,
        });
        let want = [
            "/h/.docker/config.json",
            "/r/containers/auth.json",
            "/h/.config/containers/auth.json",
        ];
        assert_eq!(files.told(), want);
        let files =
            LoginFiles::from_variables(|name| (name == "DOCKER_CONFIG").then(|| "/d".into()));
        assert_eq!(files.told(), ["/d/config.json"]);
    }

    #[test]
    fn entries_are_found_by_host_and_by_namespace() {
        let json = r#"{"auths": {
            "a.org": {"auth": "dTpwOnc="},
            "a.org/team": {"username": "t", "password": "x"},
            "https://b.org/v1/": {"auth": "YjpiAA=="},
            "https://index.docker.io/v1/": {"auth": "aDpo"},
            "c.org": {"identitytoken": "tok"},
            "e.org": {}
        }}"#;
        for (registry, repository, want) in [
            ("a.org", "x", basic("u", "p:w")),
            ("a.org", "team/app", basic("t", "x")),
            ("a.org", "teams", basic("u", "p:w")),
            ("b.org", "x", basic("b", "b")),
            ("docker.io", "library/redis", basic("h", "h")),
            ("c.org", "x", Some(Login::Identity("tok".into()))),
            ("d.org", "x", None),
            ("e.org", "x", None),
        ] {
            assert_eq!(
                find(json, registry, repository),
                Ok(want),
                "{registry}/{repository}"
            );
        }
    }

    #[test]
    fn broken_files_are_told_without_their_secrets() {
        for json in [
            r#"{"auths": {"a.org": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"a.org": {"auth": ["c2VjcmV0"]}}}"#,
            r#"{"auths": {"a.org": "c2VjcmV0"}}"#,
            r#"{"credHelpers": {"a.org": "../../bin/sh"}}"#,
            r#"{"credsStore": "no-such-helper"}"#,
        ] {
            let reason = find(json, "a.org", "b").unwrap_err();
            assert!(
                !reason.contains("c2VjcmV0") && reason.contains("config.json"),
                "{reason}"
            );
        }
        assert!(!format!("{:?}", basic("user", "password")).contains("password"));
    }
}
