//! Readiness and health probes: `coracle-init probe until|once tcp PORT` or `… http PORT PATH HOST`.
//!
//! A process of its own for each, so that nothing a workload answers, or does not, can hold PID 1. Exit status
//! 0: it answered; 1: it did not; 2: the command line is wrong. `until` goes on until it answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use config::boot::Readiness;

use crate::supervise::event::ProbeKind;

/// How long one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// The first pause between two tries; it doubles to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// What is read of an answer at most.
const ANSWER_LIMIT: usize = 64 * 1024;

/// The arguments for a probe process; `None` for a workload that is ready once it runs.
#[must_use]
pub fn arguments(kind: ProbeKind, readiness: &Readiness) -> Option<Vec<String>> {
    let kind = match kind {
        ProbeKind::UntilReady => "until",
        ProbeKind::Once => "once",
    };
    let target = match readiness {
        Readiness::Started => return None,
        Readiness::Tcp { port } => vec!["tcp".to_owned(), port.to_string()],
        Readiness::Http { port, path, host } => {
            vec![
                "http".to_owned(),
                port.to_string(),
                path.clone(),
                host.clone(),
            ]
        }
    };
    Some(
        ["probe", kind]
            .map(str::to_owned)
            .into_iter()
            .chain(target)
            .collect(),
    )
}

/// Runs the probe that the arguments after `probe` describe; returns the exit status.
#[must_use]
pub fn run(arguments: &[String]) -> i32 {
    let Some((kind, readiness)) = parse(arguments) else {
        return 2;
    };
    let mut pause = FIRST_PAUSE;
    loop {
        if try_once(&readiness).is_ok() {
            return 0;
        }
        if kind == ProbeKind::Once {
            return 1;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn parse(arguments: &[String]) -> Option<(ProbeKind, Readiness)> {
    let (kind, target) = arguments.split_first()?;
    let kind = match kind.as_str() {
        "until" => ProbeKind::UntilReady,
        "once" => ProbeKind::Once,
        _ => return None,
    };
    let port = target.get(1)?.parse().ok().filter(|&port| port != 0)?;
    match target {
        [scheme, _] if scheme == "tcp" => Some((kind, Readiness::Tcp { port })),
        [scheme, _, path, host] if scheme == "http" => Some((
            kind,
            Readiness::Http {
                port,
                path: path.clone(),
                host: host.clone(),
            },
        )),
        _ => None,
    }
}

fn try_once(readiness: &Readiness) -> io::Result<()> {
    match readiness {
        Readiness::Started => Ok(()),
        Readiness::Tcp { port } => connect(*port).map(drop),
        Readiness::Http { port, path, host } => get(*port, path, host),
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TRY_LIMIT)
}

fn get(port: u16, path: &str, host: &str) -> io::Result<()> {
    let deadline = Instant::now() + TRY_LIMIT;
    let mut stream = connect(port)?;
    stream.set_write_timeout(Some(TRY_LIMIT))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coracle\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let answer = read_answer(&mut stream, deadline)?;
    if is_success(&answer) {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The beginning of the answer. The rest is read too, so that the server does not see a reset.
fn read_answer(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    let mut chunk = [0; 4096];
    let mut total = 0;
    while total < ANSWER_LIMIT {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let size = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A server may reset after its whole answer.
            Err(_) if start.len() >= 12 => break,
            Err(error) => return Err(error),
        };
        total += size;
        start.extend_from_slice(&chunk[..size.min(16_usize.saturating_sub(start.len()))]);
    }
    Ok(start)
}

/// `HTTP/1.x NNN`, with a status of 200 to 399 (RFC 9112 §4).
fn is_success(answer: &[u8]) -> bool {
    let version = answer
        .get(..9)
        .is_some_and(|start| start == b"HTTP/1.1 " || start == b"HTTP/1.0 ");
    let digits = answer
        .get(9..12)
        .filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let ends = answer
        .get(12)
        .is_none_or(|&byte| byte == b' ' || byte == b'\r');
    version && ends && digits.is_some_and(|digits| (b'2'..=b'3').contains(&digits[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn arguments_are_parsed_back() {
        let http = Readiness::Http {
            port: 80,
            path: "/".to_owned(),
            host: "localhost".to_owned(),
        };
        for (kind, readiness) in [
            (ProbeKind::UntilReady, Readiness::Tcp { port: 6379 }),
            (ProbeKind::Once, http),
        ] {
            let arguments = arguments(kind, &readiness).unwrap();
            assert_eq!(parse(&arguments[1..]), Some((kind, readiness)));
        }
        assert_eq!(arguments(ProbeKind::Once, &Readiness::Started), None);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for bad in [
            "",
            "until",
            "until tcp",
            "until tcp 0",
            "until tcp x",
            "ever tcp 1",
            "once udp 1",
            "once http 80 /",
        ] {
            let arguments: Vec<String> = bad.split_whitespace().map(str::to_owned).collect();
            assert_eq!(run(&arguments), 2, "{bad}");
        }
    }

    #[test]
    fn only_a_status_of_200_to_399_is_success() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 399", true),
            ("HTTP/1.1 404 Not Found", false),
            ("HTTP/1.1 2000 Odd", false),
            ("HTTP/1.1 2x0 Odd", false),
            ("HTTP/2 200", false),
            ("SSH-2.0-OpenSSH", false),
            ("", false),
        ] {
            assert_eq!(is_success(answer.as_bytes()), good, "{answer}");
        }
    }

    fn serve(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        });
        port
    }

    #[test]
    fn an_http_probe_asks_and_judges() {
        let good = serve(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert!(get(good, "/", "localhost").is_ok());
        let bad = serve(b"HTTP/1.1 503 Busy\r\n\r\n");
        assert!(get(bad, "/", "localhost").is_err());
        let silent = serve(b"");
        assert!(get(silent, "/", "localhost").is_err());
    }

    #[test]
    fn a_closed_port_fails_at_once() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert!(try_once(&Readiness::Tcp { port }).is_err());
    }
}
