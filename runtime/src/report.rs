//! What the container's process tells the runtime over a socket, and the word to go that it waits for.
//!
//! The process sends one byte when the mounts are there and the runtime's hooks may run (only if there are any; it
//! then waits for the word), and one when it is set up, or one byte and a text when it has failed; before it loads a
//! seccomp filter with a listener, one byte and the number of the descriptor that this will be; if its root lies in a
//! joined mount namespace, one byte and the number of that mount. Every descriptor of
//! the socket is close-on-exec, so the end of the stream after *ready* means that the command was executed.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

const READY: u8 = b'R';
const MOUNTED: u8 = b'M';
const FAILED: u8 = b'E';
const GO: u8 = b'G';
const LISTENER: u8 = b'L';
const ROOT: u8 = b'T';

/// No report is longer.
const MAX_TEXT_BYTES: u64 = 16 * 1024;

/// What the other side said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The mounts are there; waits for the hooks of the runtime.
    Mounted,
    /// The root is mounted, in a namespace of others, by this number of its mount.
    Root(u64),
    /// Set up; waits for the word to go.
    Ready,
    /// About to load a seccomp filter, whose listener will be this descriptor of the process.
    Listener(i32),
    /// The chain of the error, on one line.
    Failed(String),
    /// The stream ended: the command was executed, or the process died.
    Ended,
}

/// Waits for the next report.
pub(crate) fn receive(stream: &mut UnixStream) -> io::Result<Report> {
    let mut kind = [0];
    match read_retrying(stream, &mut kind)? {
        0 => Ok(Report::Ended),
        _ if kind[0] == READY => Ok(Report::Ready),
        _ if kind[0] == LISTENER => {
            let mut number = [0; 4];
            stream.read_exact(&mut number)?;
            Ok(Report::Listener(i32::from_ne_bytes(number)))
        }
        _ if kind[0] == ROOT => {
            let mut mount = [0; 8];
            stream.read_exact(&mut mount)?;
            Ok(Report::Root(u64::from_ne_bytes(mount)))
        }
        _ if kind[0] == MOUNTED => Ok(Report::Mounted),
        _ => {
            let mut text = Vec::new();
            stream.take(MAX_TEXT_BYTES).read_to_end(&mut text)?;
            Ok(Report::Failed(String::from_utf8_lossy(&text).into_owned()))
        }
    }
}

/// A peer that died with our word unread resets the connection; for us that is its end.
fn read_retrying(stream: &mut UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
            other => return other,
        }
    }
}

/// Says that the process is set up.
pub(crate) fn send_ready(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[READY])
}

/// Says which descriptor the listener of the seccomp filter will be.
pub(crate) fn send_listener(stream: &mut UnixStream, number: i32) -> io::Result<()> {
    let [a, b, c, d] = number.to_ne_bytes();
    stream.write_all(&[LISTENER, a, b, c, d])
}

/// Says which mount of a joined namespace the root is.
pub(crate) fn send_root(stream: &mut UnixStream, mount: u64) -> io::Result<()> {
    let message: Vec<u8> = [ROOT].into_iter().chain(mount.to_ne_bytes()).collect();
    stream.write_all(&message)
}

/// Says that the mounts are there.
pub(crate) fn send_mounted(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[MOUNTED])
}

/// Says why it will not work. There is nobody to tell if this fails.
pub(crate) fn send_failure(stream: &mut UnixStream, text: &str) {
    let _ = stream.write_all(&[&[FAILED], text.as_bytes()].concat());
}

/// Tells the process to execute the command.
pub(crate) fn send_go(stream: &mut UnixStream) -> io::Result<()> {
    match stream.write_all(&[GO]) {
        // Dead already; the end of the stream will say so.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PIPE) => Ok(()),
        other => other,
    }
}

/// Waits for the word on the stream of `run`.
pub(crate) fn await_go(stream: &mut UnixStream) -> io::Result<()> {
    let mut word = [0];
    match read_retrying(stream, &mut word)? {
        1 if word[0] == GO => Ok(()),
        _ => Err(io::Error::other("the runtime went away before the start")),
    }
}

/// Refuses if whoever gave the word is not there any more, or has taken it back ([`withdraw`]).
pub(crate) fn check_still_wanted(stream: &UnixStream) -> io::Result<()> {
    // After the word nothing more comes, so all there is to read is the end.
    let mut watched = [PollFd::new(stream, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match retry_on_intr(|| poll(&mut watched, Some(&now)))? {
        0 => Ok(()),
        _ => Err(io::Error::other("the runtime went away before the execve")),
    }
}

/// Takes the word to go back; the answer tells whether that was in time.
pub(crate) fn withdraw(stream: &UnixStream) {
    // It fails only if the other side is gone, which the next report says.
    let _ = stream.shutdown(Shutdown::Write);
}

/// Waits for `start` to connect and give the word. Whoever connects and leaves without it is ignored.
pub(crate) fn accept_go(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => match await_go(&mut stream) {
                Ok(()) => return Ok(stream),
                Err(_) => continue,
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_as_they_were_sent() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        send_listener(&mut theirs, 258).expect("sent");
        send_root(&mut theirs, 1 << 40).expect("sent");
        send_ready(&mut theirs).expect("sent");
        send_failure(&mut theirs, "mount x: no");
        drop(theirs);
        assert_eq!(receive(&mut ours).expect("received"), Report::Listener(258));
        let root = Report::Root(1 << 40);
        assert_eq!(receive(&mut ours).expect("received"), root);
        assert_eq!(receive(&mut ours).expect("received"), Report::Ready);
        assert_eq!(
            receive(&mut ours).expect("received"),
            Report::Failed("mount x: no".into())
        );
        assert_eq!(receive(&mut ours).expect("received"), Report::Ended);
        assert!(
            send_go(&mut ours).is_ok(),
            "a dead peer is seen at the next report"
        );
    }

    #[test]
    fn end_without_the_word_is_no_word() {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        drop(ours);
        assert!(await_go(&mut theirs).is_err());
    }

    #[test]
    fn word_holds_until_its_giver_takes_it_back_or_goes() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        send_go(&mut ours).expect("sent");
        await_go(&mut theirs).expect("the word");
        check_still_wanted(&theirs).expect("it is");
        withdraw(&ours);
        assert!(check_still_wanted(&theirs).is_err());
        send_failure(&mut theirs, "not wanted");
        drop(theirs);
        let answer = receive(&mut ours).expect("received");
        assert_eq!(answer, Report::Failed("not wanted".into()));
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        drop(ours);
        assert!(check_still_wanted(&theirs).is_err());
    }
}
