//! One GET over HTTP/1.1, and whether its answer is a success.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::connect;

/// What is read of an answer at most.
const ANSWER_LIMIT: usize = 64 * 1024;

/// One request; it and its answer may take `timeout` together.
pub(super) fn get(port: u16, path: &str, host: &str, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut stream = connect(port, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
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
    use std::net::{Ipv4Addr, TcpListener};

    const LIMIT: Duration = Duration::from_secs(5);

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
        assert!(get(good, "/", "localhost", LIMIT).is_ok());
        let bad = serve(b"HTTP/1.1 503 Busy\r\n\r\n");
        assert!(get(bad, "/", "localhost", LIMIT).is_err());
        let silent = serve(b"");
        assert!(get(silent, "/", "localhost", LIMIT).is_err());
    }
}
