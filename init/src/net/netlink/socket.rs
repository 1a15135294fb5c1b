//! Netlink sockets: requests and their acknowledgements, dumps, news.
//!
//! The kernel answers within the call that sends, so nothing here waits for anything but the kernel's own locks. Those
//! can take tens of milliseconds: only children of PID 1 send requests.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};

use super::message::{
    ACKNOWLEDGE, Answer, DONE, DUMP, ERROR, HEADER_SIZE, Request, answers, attributes, number, text,
};
use crate::sys::netlink as sys;

/// The kernel fills no more than this at once in a dump.
const BUFFER_SIZE: usize = 32 * 1024;
/// `NLM_F_CAPPED`: the acknowledgement holds only the header of the request.
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// What the kernel did not do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which of the requests that were sent together, from 0.
    pub request: usize,
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words, where it has some.
    pub text: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{text} ({})", io::Error::from(self.errno)),
            None => io::Error::from(self.errno).fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = io::Error::from(refused.errno).kind();
        Self::new(kind, refused)
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self {
            request: 0,
            errno,
            text: None,
        }
    }
}

/// A netlink socket; it belongs to the network namespace that it was opened in for ever.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A socket for requests of rtnetlink(7).
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub fn open() -> io::Result<Self> {
        Self::of(None)
    }

    /// The same of another protocol: `NETLINK_GENERIC`, `NETLINK_NETFILTER`.
    ///
    /// # Errors
    /// When the kernel has no such socket, or (`EPROTONOSUPPORT`) not this protocol.
    pub fn of(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        // Acknowledgements with words, and without the request that they are for. A kernel without says less.
        let _ = sys::set_option(fd.as_fd(), libc::NETLINK_EXT_ACK);
        let _ = sys::set_option(fd.as_fd(), libc::NETLINK_CAP_ACK);
        Ok(Self { fd, sequence: 0 })
    }

    /// Hears of what happens in these groups (bits of `nl_groups`), and waits for nothing.
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub fn subscribed(groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Has one request done.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn request(&mut self, request: &Request) -> Result<(), Refused> {
        self.request_all(std::slice::from_ref(request))
    }

    /// Has requests done in order by one call; the kernel goes on behind one that it refuses.
    ///
    /// # Errors
    /// The first refusal.
    pub fn request_all(&mut self, requests: &[Request]) -> Result<(), Refused> {
        match self.request_each(requests)?.into_iter().next() {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    /// The same; returns every refusal.
    ///
    /// # Errors
    /// When the requests cannot be sent.
    pub fn request_each(&mut self, requests: &[Request]) -> Result<Vec<Refused>, Refused> {
        let Some((last, before)) = requests.split_last() else {
            return Ok(Vec::new());
        };
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(256 * requests.len());
        for request in before {
            // A refusal is answered all the same, and one acknowledgement for all is one call.
            request.finish(0, self.next_sequence(), &mut bytes);
        }
        let end = self.next_sequence();
        last.finish(ACKNOWLEDGE, end, &mut bytes);
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut refused = Vec::new();
        let mut buffer = vec![0; 8192];
        loop {
            let size = self.receive(&mut buffer)?;
            for answer in answers(&buffer[..size]).filter(|answer| answer.kind == ERROR) {
                let index = answer.sequence.wrapping_sub(first) as usize;
                if index < requests.len() {
                    refused.extend(refusal(&answer, index));
                    if answer.sequence == end {
                        return Ok(refused);
                    }
                }
            }
        }
    }

    /// Asks for a list: of all answers what `read` takes for an entry.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn list<T>(
        &mut self,
        request: &Request,
        mut read: impl FnMut(&Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Refused> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        request.finish(DUMP, sequence, &mut bytes);
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; BUFFER_SIZE];
        let mut found = Vec::new();
        loop {
            let size = self.receive(&mut buffer)?;
            for answer in answers(&buffer[..size]).filter(|answer| answer.sequence == sequence) {
                match answer.kind {
                    DONE => return Ok(found),
                    ERROR => return refusal(&answer, 0).map_or(Ok(found), Err),
                    _ => found.extend(read(&answer)),
                }
            }
        }
    }

    /// Sends bytes that are messages already.
    ///
    /// # Errors
    /// What send(2) says.
    pub fn send_bytes(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.fd, bytes, SendFlags::empty())?)
    }

    /// What is there to be received now; `None`: nothing.
    ///
    /// # Errors
    /// `ENOBUFS`: something was lost, since it was not received in time.
    pub fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((size, _)) => Ok(Some(size)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes room for sending so many bytes at once.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN` in the first user namespace.
    pub fn make_room(&self, bytes: usize) -> io::Result<()> {
        sys::force_send_buffer(self.fd.as_fd(), bytes)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((size, _)) => return Ok(size),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// What an answer of the kind [`ERROR`] refuses; `None`: it is an acknowledgement.
#[must_use]
pub fn refusal(answer: &Answer<'_>, request: usize) -> Option<Refused> {
    let code = number(answer.body, 0).map_or(-libc::EBADMSG, u32::cast_signed);
    if code == 0 {
        return None;
    }
    // Behind the code stands the request: its header, or all of it where the kernel does not cap it.
    let length = match answer.flags & CAPPED {
        0 => number(answer.body, 4).map_or(HEADER_SIZE, |length| length as usize),
        _ => HEADER_SIZE,
    };
    let rest = answer.body.get(4 + length.next_multiple_of(4)..);
    let mut found = attributes(rest.unwrap_or_default());
    let text = found
        .find(|(kind, _)| *kind == ERROR_TEXT)
        .and_then(|(_, value)| text(value));
    Some(Refused {
        request,
        errno: Errno::from_raw_os_error(code.wrapping_neg()),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::message::REQUEST;

    fn answer(code: i32, flags: u16, request: &[u8], words: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Request::new(16, 0, request).finish(0, 3, &mut bytes);
        let mut answer = Request::new(ERROR, flags, &[&code.to_ne_bytes()[..], &bytes].concat());
        if let Some(words) = words {
            answer.put_text(ERROR_TEXT, words);
        }
        let mut bytes = Vec::new();
        answer.finish(0, 3, &mut bytes);
        bytes
    }

    #[test]
    fn refusals_tell_the_number_and_the_kernels_words() {
        for (flags, request) in [(CAPPED, &[][..]), (0, &[1, 2, 3, 4][..])] {
            let bytes = answer(-17, flags, request, Some("Name in use"));
            let refused = refusal(&answers(&bytes).next().unwrap(), 2).unwrap();
            assert_eq!((refused.request, refused.errno), (2, Errno::EXIST));
            assert!(
                refused.to_string().starts_with("Name in use ("),
                "{refused}"
            );
        }
        let bytes = answer(-19, CAPPED | REQUEST, &[], None);
        let refused = refusal(&answers(&bytes).next().unwrap(), 0).unwrap();
        assert_eq!(refused.text, None);
        assert!(io::Error::from(refused).to_string().contains("os error 19"));
    }

    #[test]
    fn acknowledgements_refuse_nothing_and_torn_ones_do() {
        let bytes = answer(0, CAPPED, &[], None);
        assert_eq!(refusal(&answers(&bytes).next().unwrap(), 0), None);
        let torn = Answer {
            kind: ERROR,
            flags: 0,
            sequence: 1,
            body: &[1, 2],
        };
        assert_eq!(refusal(&torn, 0).unwrap().errno, Errno::BADMSG);
    }
}
