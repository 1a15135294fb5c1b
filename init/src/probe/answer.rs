//! What a server says to a GET over HTTP/1.1, and whether it is a success. Pure.
//!
//! Of an answer nothing is kept but its first bytes, however long it is.

/// What is read of an answer at most; what is longer is judged without its rest.
const LIMIT: usize = 64 << 10;
/// `HTTP/1.x NNN ` and some more.
const START: usize = 16;

/// The request for a path.
#[must_use]
pub(super) fn request(path: &str, host: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coracle\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// An answer as it comes.
#[derive(Debug, Default)]
pub(super) struct Answer {
    start: Vec<u8>,
    length: usize,
}

impl Answer {
    /// Takes the next bytes; whether more are wanted. The end is read, too, so that the server does not see a reset.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let room = START - self.start.len();
        self.start
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.length = self.length.saturating_add(bytes.len());
        self.length < LIMIT
    }

    /// Whether it has a status: then a server may reset the connection as it likes.
    pub(super) fn has_status(&self) -> bool {
        self.start.len() >= 12
    }

    /// `HTTP/1.x NNN`, with a status of 200 to 399 (RFC 9112 §4).
    pub(super) fn is_success(&self) -> bool {
        let answer = &self.start;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_of_200_to_399_is_success() {
        for (text, good) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 399", true),
            ("HTTP/1.1 404 Not Found", false),
            ("HTTP/1.1 2000 Odd", false),
            ("HTTP/1.1 2x0 Odd", false),
            ("HTTP/2 200", false),
            ("SSH-2.0-OpenSSH", false),
            ("", false),
        ] {
            let mut answer = Answer::default();
            // Byte by byte, as the slowest server sends it.
            assert!(text.bytes().all(|byte| answer.push(&[byte])));
            assert_eq!(answer.is_success(), good, "{text}");
            assert_eq!(answer.has_status(), text.len() >= 12, "{text}");
        }
    }

    #[test]
    fn an_endless_answer_is_read_to_a_limit_and_not_kept() {
        let mut answer = Answer::default();
        let mut pieces = 0;
        while answer.push(&[b'x'; 4096]) {
            pieces += 1;
        }
        assert_eq!((pieces + 1) * 4096, LIMIT);
        assert!(answer.start.capacity() < 64 && !answer.is_success());
    }
}
