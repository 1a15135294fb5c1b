//! As much of the D-Bus protocol as it takes to ask a service for something: authentication, method calls with
//! their replies, and signals (D-Bus specification, "Message Protocol").
//!
//! Little-endian only. Refuses messages larger than any that a service manager sends.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No answer takes longer.
const DEADLINE: Duration = Duration::from_secs(30);
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

const METHOD_CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Bytes in the order of the protocol: each value at a multiple of its own size.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, size: usize) {
        self.0.resize(self.0.len().next_multiple_of(size), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `size`. The padding before the first does not count.
    fn array(&mut self, size: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(size);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => {
                self.signature("b");
                self.u32((*value).into());
            }
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::U64(value) => {
                self.signature("t");
                self.u64(*value);
            }
            Value::U32s(list) => {
                self.signature("au");
                self.array(4, |writer| list.iter().for_each(|&value| writer.u32(value)));
            }
        }
    }

    /// `a(sv)`.
    pub(super) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
    }

    /// An array without elements, of structures.
    pub(super) fn no_structures(&mut self) {
        self.array(8, |_| {});
    }
}

/// A value of any of the types that are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Text(String),
    U64(u64),
    U32s(Vec<u32>),
}

/// Reads what [`Writer`] writes; nothing beyond the end.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn align(&mut self, size: usize) {
        self.at = self.at.next_multiple_of(size);
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = self.take(length)?;
        self.byte()?;
        std::str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        let text = self.take(length)?;
        self.byte()?;
        std::str::from_utf8(text).ok()
    }
}

/// A message that has come in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    kind: u8,
    reply_to: Option<u32>,
    error: Option<String>,
    pub(super) member: String,
    pub(super) body: Vec<u8>,
}

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
}

const BUS: Target<'_> = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// A connection to a message bus.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects as the user that this process is.
    pub(super) fn open(socket: &Path, uid: u32) -> io::Result<Self> {
        Self::over(UnixStream::connect(socket)?, uid)
    }

    pub(super) fn over(stream: UnixStream, uid: u32) -> io::Result<Self> {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let (serial, signals) = (0, VecDeque::new());
        let mut connection = Self {
            stream,
            serial,
            signals,
        };
        connection.authenticate(uid)?;
        connection.call(BUS, "Hello", "", Writer::default())?;
        Ok(connection)
    }

    /// EXTERNAL: the kernel vouches for the user, whose number is told in hexadecimal digits of its decimal ones.
    fn authenticate(&mut self, uid: u32) -> io::Result<()> {
        let digits: String = uid
            .to_string()
            .bytes()
            .map(|digit| format!("{digit:02x}"))
            .collect();
        self.stream
            .write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
        let mut line = Vec::new();
        // By the byte: what follows the line belongs to the first message.
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(broken());
            }
        }
        if !line.starts_with(b"OK ") {
            let answer = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::other(format!(
                "the bus refuses this user: {answer}"
            )));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Asks the bus for the signals that match.
    pub(super) fn add_match(&mut self, rule: &str) -> io::Result<()> {
        let mut body = Writer::default();
        body.text(rule);
        self.call(BUS, "AddMatch", "s", body).map(drop)
    }

    /// Calls a method and waits for its reply, whose body it returns.
    pub(super) fn call(
        &mut self,
        target: Target<'_>,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> io::Result<Vec<u8>> {
        self.serial += 1;
        let call = encode_call(self.serial, target, member, signature, &body.0);
        self.stream.write_all(&call)?;
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL {
                self.signals.push_back(message);
            } else if message.reply_to == Some(self.serial) {
                return match message.error {
                    Some(name) => Err(failure(&name, &message.body)),
                    None => Ok(message.body),
                };
            }
        }
    }

    /// The next signal, perhaps one that came before a reply.
    pub(super) fn signal(&mut self) -> io::Result<Message> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (body, fields) = (word(4) as usize, word(12) as usize);
        if head[0] != b'l' || body > MAX_MESSAGE_BYTES || fields > MAX_MESSAGE_BYTES {
            return Err(broken());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        decode(head[1], &rest, fields).ok_or_else(broken)
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not the D-Bus protocol")
}

/// Errors have a text as their first argument, mostly.
fn failure(name: &str, body: &[u8]) -> io::Error {
    let text = Reader::new(body).text().unwrap_or_default();
    io::Error::other(format!("{name}: {text}"))
}

fn encode_call(
    serial: u32,
    target: Target<'_>,
    member: &str,
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut writer = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    writer.u32(body.len() as u32);
    writer.u32(serial);
    writer.array(8, |writer| {
        let fields = [
            (PATH, "o", target.path),
            (DESTINATION, "s", target.destination),
            (INTERFACE, "s", target.interface),
            (MEMBER, "s", member),
        ];
        for (code, kind, value) in fields {
            writer.align(8);
            writer.0.push(code);
            writer.signature(kind);
            writer.text(value);
        }
        if !signature.is_empty() {
            writer.align(8);
            writer.0.push(SIGNATURE);
            writer.signature("g");
            writer.signature(signature);
        }
    });
    writer.align(8);
    writer.0.extend(body);
    writer.0
}

/// `rest` begins with the header fields, which are `fields` bytes long. They start at a multiple of 8.
fn decode(kind: u8, rest: &[u8], fields: usize) -> Option<Message> {
    let mut message = Message {
        kind,
        body: rest.get(fields.next_multiple_of(8)..)?.to_owned(),
        ..Message::default()
    };
    let mut reader = Reader::new(rest.get(..fields)?);
    while reader.at < fields {
        reader.align(8);
        let code = reader.byte()?;
        match (code, reader.signature()?) {
            (REPLY_SERIAL, "u") => message.reply_to = Some(reader.u32()?),
            (ERROR_NAME, "s") => message.error = Some(reader.text()?.to_owned()),
            (MEMBER, "s") => message.member = reader.text()?.to_owned(),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            _ => return None,
        }
    }
    // An error without a name is still none of a success.
    if kind == ERROR && message.error.is_none() {
        return None;
    }
    Some(message)
}

#[cfg(test)]
#[path = "dbus_tests.rs"]
pub(super) mod tests;
