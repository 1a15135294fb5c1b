//! What makes a workload ready, and how it is watched from then on.

use std::time::Duration;

use toml::Spanned;

use super::command;
use crate::boot::{Check, Kind, Protocol, Readiness};
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::network::Port;
use crate::value::{self, Parsed};

/// How often a health check runs if the file does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// How long a check may take if the file does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// So many failures in a row make a workload unhealthy if the file does not say.
const DEFAULT_RETRIES: u32 = 3;
/// The most failures that may be waited for.
const MOST_RETRIES: i64 = 1000;

/// A health check that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// The time between two checks.
    pub every: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
    /// Failures within this time of the start do not count; zero if the file does not say.
    pub grace: Duration,
}

/// `ready`, `health` and `watchdog`, which depend on each other.
pub(super) struct Watching {
    pub(super) readiness: Readiness,
    pub(super) health: Option<Health>,
    pub(super) watchdog: Option<Duration>,
}

impl Watching {
    pub(super) fn new(
        from: &manifest::Workload,
        kind: Kind,
        ports: &[Port],
        mistakes: &mut Mistakes,
    ) -> Self {
        if kind == Kind::Job {
            refuse_for_job(from, mistakes);
            return Self {
                readiness: Readiness::Started,
                health: None,
                watchdog: None,
            };
        }
        let port = ports
            .iter()
            .find(|port| port.protocol == Protocol::Tcp)
            .map(|port| port.target);
        let readiness = readiness(from, port, mistakes);
        let given = from.health.as_ref();
        let by_port = || match readiness {
            Readiness::Started => None,
            _ => port.map(|port| Health::plain(Check::Tcp { port })),
        };
        Self {
            readiness,
            health: match given {
                Some(health) => health_check(health, mistakes),
                None => by_port(),
            },
            watchdog: watchdog(from, readiness, mistakes),
        }
    }
}

impl Health {
    const fn plain(check: Check) -> Self {
        Self {
            check,
            every: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            retries: DEFAULT_RETRIES,
            grace: Duration::ZERO,
        }
    }
}

/// A job is done when it exits, and nothing waits for it before.
fn refuse_for_job(from: &manifest::Workload, mistakes: &mut Mistakes) {
    let places = [
        ("ready", from.ready.as_ref().map(Spanned::span)),
        ("health", from.health.as_ref().map(Spanned::span)),
        ("watchdog", from.watchdog.as_ref().map(Spanned::span)),
        ("sockets", from.sockets.first().map(Spanned::span)),
    ];
    for (key, span) in places {
        if let Some(span) = span {
            mistakes.push(
                Diagnostic::at(span, format!("a job has no `{key}`")).hint(
                    "it is done when it exits with status 0: remove the key, or kind = \"job\"",
                ),
            );
        }
    }
}

fn readiness(from: &manifest::Workload, port: Option<u16>, mistakes: &mut Mistakes) -> Readiness {
    let default = match (&from.health, port) {
        (Some(_), _) => Readiness::Health,
        (None, Some(port)) => Readiness::Port { port },
        (None, None) => Readiness::Started,
    };
    let parse = |text: &Text| match (text.get_ref().as_str(), port) {
        ("started", _) => Ok(Readiness::Started),
        ("notify", _) => Ok(Readiness::Notify),
        ("port", Some(port)) => Ok(Readiness::Port { port }),
        ("port", None) => Err(Diagnostic::at(
            text.span(),
            "ready = \"port\", and no TCP port is published",
        )
        .hint("add ports = [\"8080:80\"], or another way to be ready")),
        ("health", _) if from.health.is_some() => Ok(Readiness::Health),
        ("health", _) => Err(Diagnostic::at(
            text.span(),
            "ready = \"health\", and there is no health check",
        )
        .hint("add health = { http = \"http://:80/\" }, for one")),
        (other, _) => Err(
            Diagnostic::at(text.span(), format!("`{other}` is no way to be ready"))
                .hint(suggest(other, ["started", "port", "health", "notify"])),
        ),
    };
    mistakes
        .take_some(from.ready.as_ref(), parse)
        .unwrap_or(default)
}

fn health_check(health: &Spanned<manifest::Health>, mistakes: &mut Mistakes) -> Option<Health> {
    let from = health.get_ref();
    let every = mistakes.take_some(from.every.as_ref(), value::duration);
    let timeout = mistakes.take_some(from.timeout.as_ref(), value::duration);
    let retries = from
        .retries
        .as_ref()
        .and_then(|count| mistakes.take(retries(count)));
    let grace = mistakes.take_some(from.grace.as_ref(), grace);
    Some(Health {
        check: check(health, mistakes)?,
        every: every.unwrap_or(DEFAULT_INTERVAL),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        retries: retries.unwrap_or(DEFAULT_RETRIES),
        grace: grace.unwrap_or_default(),
    })
}

fn check(health: &Spanned<manifest::Health>, mistakes: &mut Mistakes) -> Option<Check> {
    let from = health.get_ref();
    match (&from.http, &from.tcp, &from.exec) {
        (Some(url), None, None) => {
            mistakes
                .take(value::http_target(url))
                .map(|target| Check::Http {
                    port: target.port,
                    path: target.path,
                    host: target.host,
                })
        }
        (None, Some(target), None) => mistakes
            .take(value::tcp_target(target))
            .map(|port| Check::Tcp { port }),
        (None, None, Some(words)) => exec(words, mistakes),
        _ => {
            mistakes.push(
                Diagnostic::at(
                    health.span(),
                    "`health` needs one of `http`, `tcp` and `exec`",
                )
                .hint("as in health = { http = \"http://:80/\", every = \"10s\" }"),
            );
            None
        }
    }
}

fn exec(words: &Spanned<Vec<Text>>, mistakes: &mut Mistakes) -> Option<Check> {
    let command = mistakes.take_all(words.get_ref(), command::without_nul);
    if command.first().is_none_or(String::is_empty) {
        mistakes.push(
            Diagnostic::at(words.span(), "`exec` names no program")
                .hint("as in exec = [\"redis-cli\", \"ping\"]"),
        );
        return None;
    }
    Some(Check::Exec { command })
}

fn retries(count: &Spanned<i64>) -> Parsed<u32> {
    u32::try_from(*count.get_ref())
        .ok()
        .filter(|_| (1..=MOST_RETRIES).contains(count.get_ref()))
        .ok_or_else(|| {
            Diagnostic::at(
                count.span(),
                format!("`{}` retries are out of range", count.get_ref()),
            )
            .hint("from 1 to 1000")
        })
}

/// A duration, or `0s` for none.
fn grace(text: &Text) -> Parsed<Duration> {
    if text.get_ref() == "0s" {
        return Ok(Duration::ZERO);
    }
    value::duration(text)
}

fn watchdog(
    from: &manifest::Workload,
    readiness: Readiness,
    mistakes: &mut Mistakes,
) -> Option<Duration> {
    let text = from.watchdog.as_ref()?;
    if readiness != Readiness::Notify {
        mistakes.push(
            Diagnostic::at(text.span(), "`watchdog` without ready = \"notify\"").hint(
                "it waits for WATCHDOG=1 by sd_notify: add ready = \"notify\", or use `health`",
            ),
        );
    }
    mistakes.take(value::duration(text))
}
