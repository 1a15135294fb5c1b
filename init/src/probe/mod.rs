//! Readiness and health probes, each a process of its own, so that nothing a workload answers, or does not, can
//! hold PID 1: `coracle-init probe until|once MILLISECONDS PID TARGET`, where TARGET is `tcp PORT`, `http PORT PATH HOST`
//! or `exec RUNTIME ROOT NAME COMMAND …`. The first two are asked in the network namespace of the process PID.
//!
//! Exit status 0: it answered; 1: it did not; 2: the command line is wrong. `until` goes on until it answers. The
//! milliseconds are what one try may take.

mod exec;
mod http;
mod network;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use config::boot::Check;

use crate::supervise::event::ProbeKind;

/// The first pause between two tries; it doubles to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The same where each try is a process.
const FIRST_EXEC_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The runtime that knows the workload, as a child of PID 1 reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The program.
    pub program: String,
    /// Where it keeps its state.
    pub root: String,
    /// The container.
    pub container: String,
}

/// What one try is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Tcp(u16),
    Http {
        port: u16,
        path: String,
        host: String,
    },
    Exec(Runtime, Vec<String>),
}

/// The arguments for a probe process.
#[must_use]
pub fn arguments(
    kind: ProbeKind,
    check: &Check,
    timeout_ms: u64,
    pid: i32,
    runtime: &Runtime,
) -> Vec<String> {
    let kind = match kind {
        ProbeKind::UntilReady => "until",
        ProbeKind::Once => "once",
    };
    let mut words = ["probe", kind, &timeout_ms.to_string(), &pid.to_string()]
        .map(str::to_owned)
        .to_vec();
    match check {
        Check::Tcp { port } => words.extend(["tcp".to_owned(), port.to_string()]),
        Check::Http { port, path, host } => {
            words.extend(["http", &port.to_string(), path, host].map(str::to_owned));
        }
        Check::Exec { command } => {
            let Runtime {
                program,
                root,
                container,
            } = runtime;
            words.extend(["exec", program, root, container].map(str::to_owned));
            words.extend(command.iter().cloned());
        }
    }
    words
}

/// Runs the probe that the arguments after `probe` describe; returns the exit status.
#[must_use]
pub fn run(arguments: &[String]) -> i32 {
    let Some((kind, timeout, pid, target)) = parse(arguments) else {
        return 2;
    };
    // The runtime finds its way into the workload itself.
    if !matches!(target, Target::Exec(..)) && network::join(pid).is_err() {
        return 1;
    }
    let mut pause = match target {
        Target::Exec(..) => FIRST_EXEC_PAUSE,
        _ => FIRST_PAUSE,
    };
    loop {
        if target.try_once(timeout).is_ok() {
            return 0;
        }
        if kind == ProbeKind::Once {
            return 1;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn parse(arguments: &[String]) -> Option<(ProbeKind, Duration, i32, Target)> {
    let [kind, timeout, pid, target @ ..] = arguments else {
        return None;
    };
    let kind = match kind.as_str() {
        "until" => ProbeKind::UntilReady,
        "once" => ProbeKind::Once,
        _ => return None,
    };
    let timeout = timeout.parse().ok().filter(|&ms: &u64| ms > 0)?;
    let pid = pid.parse().ok().filter(|&pid: &i32| pid > 0)?;
    let timeout = Duration::from_millis(timeout);
    Some((kind, timeout, pid, parse_target(target)?))
}

fn parse_target(words: &[String]) -> Option<Target> {
    let (scheme, rest) = words.split_first()?;
    let port = |text: &String| text.parse().ok().filter(|&port: &u16| port != 0);
    match (scheme.as_str(), rest) {
        ("tcp", [number]) => Some(Target::Tcp(port(number)?)),
        ("http", [number, path, host]) => Some(Target::Http {
            port: port(number)?,
            path: path.clone(),
            host: host.clone(),
        }),
        ("exec", [program, root, container, command @ ..]) if !command.is_empty() => {
            let runtime = Runtime {
                program: program.clone(),
                root: root.clone(),
                container: container.clone(),
            };
            Some(Target::Exec(runtime, command.to_vec()))
        }
        _ => None,
    }
}

impl Target {
    fn try_once(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(port) => connect(*port, timeout).map(drop),
            Self::Http { port, path, host } => http::get(*port, path, host, timeout),
            Self::Exec(runtime, command) => exec::run(runtime, command, timeout),
        }
    }
}

fn connect(port: u16, timeout: Duration) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), timeout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn runtime() -> Runtime {
        Runtime {
            program: "/proc/1/fd/9".to_owned(),
            root: "/run/r".to_owned(),
            container: "web".to_owned(),
        }
    }

    #[test]
    fn arguments_are_parsed_back() {
        let http = Check::Http {
            port: 80,
            path: "/".to_owned(),
            host: "localhost".to_owned(),
        };
        let command = vec!["ok".to_owned(), "--all".to_owned()];
        for (kind, check) in [
            (ProbeKind::UntilReady, Check::Tcp { port: 6379 }),
            (ProbeKind::Once, http),
            (ProbeKind::Once, Check::Exec { command }),
        ] {
            let words = arguments(kind, &check, 1500, 77, &runtime());
            let (parsed, timeout, pid, target) = parse(&words[1..]).unwrap();
            assert_eq!((parsed, timeout), (kind, Duration::from_millis(1500)));
            assert_eq!(pid, 77);
            let same = match (&target, &check) {
                (Target::Tcp(a), Check::Tcp { port: b }) => a == b,
                (Target::Http { path: a, .. }, Check::Http { path: b, .. }) => a == b,
                (Target::Exec(to, a), Check::Exec { command: b }) => *to == runtime() && a == b,
                _ => false,
            };
            assert!(same, "{target:?} is not {check:?}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for bad in [
            "",
            "until",
            "until 9 5 tcp",
            "until 9 5 tcp 0",
            "until 0 5 tcp 1",
            "until 9 0 tcp 1",
            "until 9 tcp 1",
            "until 9 5 tcp x",
            "ever 9 5 tcp 1",
            "once 9 5 udp 1",
            "once 9 5 http 80 /",
            "once 9 5 exec /runtime /run web",
        ] {
            let arguments: Vec<String> = bad.split_whitespace().map(str::to_owned).collect();
            assert_eq!(run(&arguments), 2, "{bad}");
        }
    }

    #[test]
    fn a_closed_port_fails_at_once() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert!(Target::Tcp(port).try_once(Duration::from_secs(5)).is_err());
    }
}
