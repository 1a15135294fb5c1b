//! The proof that a workload answers: one GET through its forwarded port, as a client of the host would send it.
//!
//! A small HTTP/1.1 client (RFC 9112) for one request a connection. It reads a bounded answer within a deadline and
//! follows no redirect.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use super::console::sanitize;

/// An answer's body is read up to here.
const LONGEST_BODY: u64 = 16 << 20;
/// Status line and headers together are read up to here.
const LONGEST_HEAD: u64 = 64 << 10;
/// More of the body's first line than this is not shown.
const LONGEST_SHOWN: usize = 100;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// What to ask, and of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// The workload's name.
    pub(crate) workload: String,
    /// The host's side of the forward.
    pub(crate) address: SocketAddrV4,
    /// The path with its query, beginning with `/`.
    pub(crate) path: String,
    /// The `Host` header.
    pub(crate) host: String,
}

impl Question {
    /// The address a client on the host connects to: the wildcard address is all of the host's.
    fn target(&self) -> SocketAddrV4 {
        match *self.address.ip() {
            Ipv4Addr::UNSPECIFIED => SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.address.port()),
            _ => self.address,
        }
    }

    /// What a browser of the host would be given.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.target(), self.path)
    }

    /// Asks until there is an answer or `patience` is over.
    ///
    /// QEMU accepts a connection before the guest does and closes it when the guest refuses, so a connection that
    /// ends without an answer is tried again.
    ///
    /// # Errors
    /// The last try's error.
    pub(crate) fn ask(&self, patience: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ask_once(deadline) {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() + PAUSE >= deadline => return Err(error),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn ask_once(&self, deadline: Instant) -> io::Result<Answer> {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(PAUSE);
        let mut stream = TcpStream::connect_timeout(&self.target().into(), left)?;
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        let (path, host) = (&self.path, &self.host);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coracle\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let (status, body) = read_response(BufReader::new(stream))?;
        Ok(Answer::new(self, status, &body))
    }
}

/// What a workload answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The workload's name.
    pub workload: String,
    /// Where it answered.
    pub url: String,
    /// The status line, safe to print.
    pub status: String,
    /// The body's length in bytes, decoded.
    pub length: usize,
    /// The body's first line that is not empty, safe to print and cut to a readable length.
    pub first_line: String,
}

impl Answer {
    fn new(question: &Question, status: String, body: &[u8]) -> Self {
        let mut lines = body.split(|byte| *byte == b'\n').map(sanitize);
        let first = lines.find(|line| !line.trim().is_empty());
        Self {
            workload: question.workload.clone(),
            url: question.url(),
            status,
            length: body.len(),
            first_line: first
                .unwrap_or_default()
                .chars()
                .take(LONGEST_SHOWN)
                .collect(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (workload, url) = (&self.workload, &self.url);
        let (status, length) = (&self.status, self.length);
        write!(f, "{workload} answers on {url}: {status}, {length} bytes")?;
        if !self.first_line.is_empty() {
            write!(f, "\n    {}", self.first_line)?;
        }
        Ok(())
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The status line and the decoded body of one response.
fn read_response(mut stream: impl BufRead) -> io::Result<(String, Vec<u8>)> {
    let mut head = (&mut stream).take(LONGEST_HEAD);
    let status = read_line(&mut head)?;
    if !status.starts_with("HTTP/1.") {
        return Err(malformed("the answer is not HTTP"));
    }
    let headers = read_headers(&mut head)?;
    let header = |name: &str| {
        let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    let body = match (header("transfer-encoding"), header("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => read_chunks(stream)?,
        (_, Some(length)) => {
            let length = length
                .parse()
                .map_err(|_| malformed("Content-Length is no number"))?;
            read_exactly(&mut stream, length)?
        }
        _ => {
            let mut body = Vec::new();
            stream.take(LONGEST_BODY).read_to_end(&mut body)?;
            body
        }
    };
    Ok((status, body))
}

fn read_headers(head: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(head)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| malformed("a header has no colon"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A line that ends, without its end and safe to print.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection closed before the answer was complete",
        ));
    }
    Ok(sanitize(&line))
}

fn read_exactly(stream: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    if length > LONGEST_BODY {
        return Err(malformed("the body is too long"));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// RFC 9112 section 7.1; extensions and trailers are passed over.
fn read_chunks(mut stream: impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(&mut (&mut stream).take(LONGEST_HEAD))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk has no size"))?;
        if size == 0 {
            return Ok(body);
        }
        if size.saturating_add(body.len() as u64) > LONGEST_BODY {
            return Err(malformed("the body is too long"));
        }
        body.extend(read_exactly(&mut stream, size)?);
        read_line(&mut (&mut stream).take(LONGEST_HEAD))?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn body(response: &str) -> io::Result<Vec<u8>> {
        read_response(response.as_bytes()).map(|(_, body)| body)
    }

    #[test]
    fn bodies_of_each_framing_are_read() {
        let cases = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and no more",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello",
        ];
        for response in cases {
            assert_eq!(body(response).unwrap(), b"hello", "{response}");
        }
    }

    #[test]
    fn answers_that_are_none_are_refused() {
        let cases = [
            "",
            "HTTP/1.1 200 OK",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ];
        for response in cases {
            assert!(body(response).is_err(), "{response}");
        }
    }

    #[test]
    fn connections_closed_without_an_answer_are_tried_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n\n<b>\x1b[2Jhi</b>\n")
                .unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let question = Question {
            workload: "web".into(),
            address: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port),
            path: "/x?y=1".into(),
            host: "localhost".into(),
        };
        let answer = question.ask(Duration::from_secs(10)).unwrap();
        let expected = format!(
            "web answers on http://127.0.0.1:{port}/x?y=1: HTTP/1.1 200 OK, 14 bytes\n    <b>hi</b>"
        );
        assert_eq!(answer.to_string(), expected);
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /x?y=1 HTTP/1.1\r\nHost: localhost\r\n"));
    }
}
