//! A client's TCP connection (RFC 7766): questions one behind another, answers in any order, both bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use super::frames::{Frames, frame};

/// A question is this long at most.
const MOST_QUESTION: usize = 4096;
/// So many questions of a connection are answered at once, and so many bytes of answers wait for being taken.
const MOST_OPEN: usize = 8;
const MOST_OUTPUT: usize = 128 << 10;
/// A connection on which nothing moves for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// When it is closed if nothing moves.
    pub deadline: Duration,
    /// The stream, which does not block.
    pub stream: TcpStream,
    /// What it is watched for.
    pub watched: EventFlags,
    input: Frames,
    output: Vec<u8>,
    open: usize,
    is_at_end: bool,
}

impl Connection {
    /// A stream that does not block.
    #[must_use]
    pub fn new(stream: TcpStream, peer: SocketAddr, now: Duration) -> Self {
        Self {
            peer,
            deadline: now + IDLE,
            stream,
            watched: EventFlags::IN,
            input: Frames::default(),
            output: Vec::new(),
            open: 0,
            is_at_end: false,
        }
    }

    /// Takes what has come; the questions in it.
    ///
    /// # Errors
    /// When the connection is to be closed.
    pub fn read(&mut self, now: Duration) -> io::Result<Vec<Vec<u8>>> {
        let mut questions = Vec::new();
        self.take(&mut questions)?;
        // Only behind what came before: who sends faster than is answered would fill the memory.
        if self.is_taking() && !self.is_at_end {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_at_end = true,
                Ok(size) => {
                    self.input.push(&buffer[..size]);
                    self.deadline = now + IDLE;
                }
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
            self.take(&mut questions)?;
        }
        Ok(questions)
    }

    /// Takes whole questions, as many as may be under way; where more may, none is left.
    fn take(&mut self, questions: &mut Vec<Vec<u8>>) -> io::Result<()> {
        while self.is_taking() {
            match self.input.next(MOST_QUESTION) {
                Ok(Some(question)) => questions.push(question),
                Ok(None) => break,
                Err(_) => return Err(ErrorKind::InvalidData.into()),
            }
            self.open += 1;
        }
        Ok(())
    }

    /// Puts an answer in line.
    pub fn push(&mut self, message: &[u8]) {
        self.open = self.open.saturating_sub(1);
        self.output.extend_from_slice(&frame(message));
    }

    /// Sends what can be sent.
    ///
    /// # Errors
    /// When the connection is to be closed.
    pub fn write(&mut self, now: Duration) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(size) => {
                    self.output.drain(..size);
                    self.deadline = now + IDLE;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_temporary(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All is said on both sides.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_at_end && self.open == 0 && self.output.is_empty() && !self.input.has_whole()
    }

    /// What it waits for.
    #[must_use]
    pub fn wants(&self) -> EventFlags {
        let mut wants = EventFlags::empty();
        wants.set(EventFlags::IN, self.is_taking() && !self.is_at_end);
        wants.set(EventFlags::OUT, !self.output.is_empty());
        wants
    }

    fn is_taking(&self) -> bool {
        self.open < MOST_OPEN && self.output.len() < MOST_OUTPUT
    }
}

/// There is nothing now.
#[must_use]
pub fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    const NOW: Duration = Duration::from_secs(7);

    fn pair() -> (TcpStream, Connection) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        (client, Connection::new(stream, peer, NOW))
    }

    /// Reads until `count` questions came, each of which is answered at once.
    fn answer(connection: &mut Connection, count: usize) {
        let mut answered = 0;
        while answered < count {
            for question in connection.read(NOW).unwrap() {
                connection.push(&question);
                answered += 1;
            }
            connection.write(NOW).unwrap();
            assert!(answered >= count || !connection.is_done(), "{answered}");
        }
    }

    #[test]
    fn a_client_that_asks_faster_than_it_is_answered_takes_no_memory() {
        let (mut client, mut connection) = pair();
        let many = frame(b"?").repeat(1000);
        let mut sink = [0; 65536];
        for _ in 0..1000 {
            let _ = client.write(&many);
            for question in connection.read(NOW).unwrap() {
                connection.push(&question);
            }
            connection.write(NOW).unwrap();
            let _ = client.read(&mut sink);
            assert!(connection.input.len() < 3 * 4096);
        }
    }

    #[test]
    fn a_client_that_has_said_all_gets_all_answers() {
        let (mut client, mut connection) = pair();
        client.write_all(&frame(b"?").repeat(30)).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        answer(&mut connection, 30);
        // A torn one is no question.
        while !connection.is_at_end {
            assert_eq!(connection.read(NOW).unwrap(), [[0_u8; 0]; 0]);
        }
        assert!(connection.is_done());
    }
}
