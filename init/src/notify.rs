//! What workloads say of themselves by sd_notify(3): one datagram socket a workload, at which only that workload's own
//! processes are heard.
//!
//! Whatever a datagram holds is data: what is not known is ignored, descriptors that come with it are closed, and one
//! that is too long is dropped. At most sixteen of them are read in one turn of the loop, and some hundreds a second: who
//! says more waits in its own send(2).

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use config::boot::notify_path;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags, SocketType,
    recvmsg, sockopt,
};

use crate::lines::visible;
use crate::listen::bound;
use crate::supervise::event::News;

/// The datagrams of one workload in one turn.
const TURN_LIMIT: usize = 16;
/// The datagrams of one workload in this time, beyond which its socket rests until the time is over.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_LIMIT: usize = 64;
/// The longest datagram.
const LONGEST: usize = 4096;
/// The longest status, in characters as they came.
const LONGEST_STATUS: usize = 200;

/// One thing that a workload said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// What the engine wants to know.
    News(News),
    /// `STATUS=`, for people: made visible, so that no escape sequence reaches a terminal.
    Status(String),
}

/// The socket of one workload.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    path: String,
    /// When the window began, and what came in it.
    since: Duration,
    count: usize,
}

impl NotifySocket {
    /// Makes it anew for the workload, in place of an older one.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn open(workload: &str) -> io::Result<Self> {
        Self::open_at(notify_path(workload))
    }

    fn open_at(path: String) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Whoever sees the file may write: it is mounted into the workload alone.
        let socket = bound(&path, SocketType::DGRAM, flags, 0o666)?;
        sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self {
            socket,
            path,
            since: Duration::ZERO,
            count: 0,
        })
    }

    /// Hands over what came from processes that `is_heard`, within the limit of a turn. Returns until when the socket
    /// is to rest, if it is.
    pub fn read(
        &mut self,
        now: Duration,
        is_heard: impl Fn(i32) -> bool,
        mut hear: impl FnMut(Word),
    ) -> Option<Duration> {
        if now >= self.since + WINDOW {
            (self.since, self.count) = (now, 0);
        }
        let mut buffer = [0_u8; LONGEST + 1];
        for _ in 0..TURN_LIMIT {
            match receive(&self.socket, &mut buffer) {
                Ok((size, Some(pid))) if size <= LONGEST && is_heard(pid) => {
                    parse(&buffer[..size]).into_iter().for_each(&mut hear);
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            self.count += 1;
        }
        (self.count >= WINDOW_LIMIT).then_some(self.since + WINDOW)
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The size of the next datagram and the process that sent it, as the kernel vouches.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Option<i32>), Errno> {
    // There is room for the credentials alone: the kernel closes descriptors that do not fit.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_nonzero().get()),
        _ => None,
    });
    let is_whole = !message.flags.contains(ReturnFlags::TRUNC);
    Ok((message.bytes, sender.filter(|_| is_whole)))
}

/// Whether a process is in the workload's cgroup or below it. One that is gone is not: nobody can tell what it was.
#[must_use]
pub fn is_of_workload(pid: i32, workload: &str) -> bool {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    is_below(&cgroup, &format!("/coracle/{workload}"))
}

/// By cgroups(7): the line of version 2 is `0::PATH`.
fn is_below(cgroups: &str, path: &str) -> bool {
    let mut lines = cgroups.lines();
    let rest = lines.find_map(|line| line.strip_prefix("0::")?.strip_prefix(path));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The lines of a datagram that mean something.
fn parse(datagram: &[u8]) -> Vec<Word> {
    let text = String::from_utf8_lossy(datagram);
    text.lines()
        .filter_map(parse_line)
        .take(TURN_LIMIT)
        .collect()
}

fn parse_line(line: &str) -> Option<Word> {
    let news = match line {
        "READY=1" => News::Ready,
        "RELOADING=1" => News::Reloading,
        "STOPPING=1" => News::Stopping,
        "WATCHDOG=1" => News::Watchdog,
        _ => {
            let status = line.strip_prefix("STATUS=")?;
            let status: String = status.chars().take(LONGEST_STATUS).collect();
            return Some(Word::Status(visible(status.as_bytes())));
        }
    };
    Some(Word::News(news))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn known_lines_are_heard_and_all_others_ignored() {
        assert_eq!(
            parse(b"STATUS=half way\nREADY=1\nMAINPID=1\nERRNO=2\nFDSTORE=1\nX\n\nREADY=0"),
            [Word::Status("half way".to_owned()), Word::News(News::Ready)]
        );
        assert_eq!(
            parse(b"STATUS=\rcoracle: ready\x1b[2J"),
            [Word::Status("^Mcoracle: ready^[[2J".to_owned())]
        );
        assert_eq!(parse(b"WATCHDOG=1"), [Word::News(News::Watchdog)]);
        assert_eq!(parse(b"\xff\0\nREADY=1\0"), []);
        assert_eq!(parse(b""), []);
        assert_eq!(parse(&b"READY=1\n".repeat(500)).len(), TURN_LIMIT);
        let Word::Status(long) = parse(&[b"STATUS=".as_slice(), &[b'x'; 3000]].concat()).remove(0)
        else {
            panic!("no status");
        };
        assert_eq!(long.len(), LONGEST_STATUS);
    }

    #[test]
    fn only_the_workloads_own_cgroup_is_its_own() {
        for (cgroups, expected) in [
            ("0::/coracle/web\n", true),
            ("0::/coracle/web/sub\n", true),
            ("1:name=x:/coracle/web\n0::/coracle/web", true),
            ("0::/coracle/web2\n", false),
            ("0::/coracle/we\n", false),
            ("1:x:/coracle/web\n0::/\n", false),
            ("0::/other/coracle/web\n", false),
            ("", false),
        ] {
            assert_eq!(is_below(cgroups, "/coracle/web"), expected, "{cgroups:?}");
        }
        assert!(!is_of_workload(i32::MAX, "web"));
    }

    #[test]
    fn the_kernel_vouches_for_the_sender_and_hostile_datagrams_are_harmless() {
        let folder = std::env::temp_dir().join(format!("coracle-notify-{}", std::process::id()));
        let path = folder.join("web").display().to_string();
        let mut socket = NotifySocket::open_at(path.clone()).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let heard = |socket: &mut NotifySocket| {
            let mut words = Vec::new();
            socket.read(Duration::ZERO, |pid| pid == own, |word| words.push(word));
            words
        };
        assert_eq!(heard(&mut socket), []);
        sender.send(b"READY=1").unwrap();
        assert_eq!(heard(&mut socket), [Word::News(News::Ready)]);
        sender.send(&[b'x'; 100_000]).unwrap();
        sender.send(b"").unwrap();
        // A descriptor comes along, and is closed.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = [sender.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
        let before = fs::read_dir("/proc/self/fd").unwrap().count();
        sendmsg(
            &sender,
            &[IoSlice::new(b"STOPPING=1")],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
        assert_eq!(heard(&mut socket), [Word::News(News::Stopping)]);
        assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), before);
        sender.send(b"READY=1").unwrap();
        let strangers = |word| panic!("{word:?} of a stranger");
        socket.read(Duration::ZERO, |_| false, strangers);
        drop(socket);
        assert!(!fs::exists(&path).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_flood_makes_the_socket_rest_and_a_watchdog_does_not() {
        let folder = std::env::temp_dir().join(format!("coracle-flood-{}", std::process::id()));
        let path = folder.join("web").display().to_string();
        let mut socket = NotifySocket::open_at(path.clone()).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let mut say_at = |milliseconds| {
            sender.send(b"WATCHDOG=1").unwrap();
            socket.read(Duration::from_millis(milliseconds), |_| true, drop)
        };
        assert!((0..200).all(|turn| say_at(turn * 10).is_none()));
        let mut turns = (0..1000).map(|_| say_at(5000));
        let rests = turns.position(|rest| rest == Some(Duration::from_millis(5100)));
        assert_eq!(rests, Some(WINDOW_LIMIT - 1));
        assert_eq!(say_at(5100), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
