//! One GET by HTTP/1.0, as little of HTTP as proves that a server answers.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// GETs `path`, again until there is an answer or `patience` is over.
///
/// # Errors
/// The last try's.
pub fn get(address: SocketAddrV4, path: &str, patience: Duration) -> Result<Response> {
    let deadline = Instant::now() + patience;
    loop {
        match get_once(address, path) {
            Ok(response) => return Ok(response),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn get_once(address: SocketAddrV4, path: &str) -> Result<Response> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).context("send")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("receive")?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Result<Response> {
    ensure!(answer.starts_with("HTTP/1."), "no HTTP answer: {answer:?}");
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the head has no end")?;
    let status = head.split(' ').nth(1).context("no status code")?;
    Ok(Response {
        status: status.parse().context("the status code is no number")?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read_and_anything_else_is_refused() {
        let response = parse("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nnone\r\n\r\nhere").unwrap();
        assert_eq!(
            (response.status, response.body.as_str()),
            (404, "none\r\n\r\nhere")
        );
        for bad in [
            "",
            "HTTP/1.1 200 OK",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
