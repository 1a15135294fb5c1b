//! A client of Redis: inline commands and simple replies, enough to set a key and get it back.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long Redis may take to load its data.
const LOADING_TIME: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Connects.
    ///
    /// # Errors
    /// If nothing listens.
    pub fn connect(address: SocketAddrV4) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connect to Redis")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let stream = BufReader::new(stream);
        Ok(Self { stream })
    }

    /// Sends words without spaces as a command and returns the reply's text; `None` for a missing value. While Redis
    /// still loads its data the command is sent again.
    ///
    /// # Errors
    /// If the connection fails, Redis answers with an error or loads for longer than its time.
    pub fn command(&mut self, words: &[&str]) -> Result<Option<String>> {
        let deadline = Instant::now() + LOADING_TIME;
        loop {
            match self.command_once(words) {
                Err(error)
                    if Instant::now() < deadline && error.to_string().contains("-LOADING") =>
                {
                    thread::sleep(Duration::from_millis(100));
                }
                done => return done,
            }
        }
    }

    fn command_once(&mut self, words: &[&str]) -> Result<Option<String>> {
        let line = format!("{}\r\n", words.join(" "));
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .context("send to Redis")?;
        let reply = self.line()?;
        match reply.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(Some(text.to_owned())),
            Some(("$", "-1")) => Ok(None),
            Some(("$", _)) => Ok(Some(self.line()?)),
            _ => bail!("Redis answers {reply:?} to {words:?}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line);
        length.context("receive from Redis")?;
        Ok(line.trim_end().to_owned())
    }
}
