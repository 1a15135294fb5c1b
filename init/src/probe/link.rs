//! PID 1's side of the prober: what is asked, what is not answered yet, and who answers. It never waits.
//!
//! A question is kept until it is answered. If the prober dies, or is silent for too long, a new one is asked again: no
//! workload loses a check by that, and none is counted against it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};

use super::network;
use super::request::{self, LONGEST, Order, Request};
use crate::children;
use crate::supervise::backoff::Backoff;
use crate::supervise::event::{Id, ProbeKind, ProbeResult};
use crate::sys;

/// How soon the prober is started again: at first, and at most.
const RESTART: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// How soon a link that takes no more is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// An answer that comes so long after its time will not come any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that are read in one turn of the loop.
const TURN_LIMIT: usize = 64;

/// A question without an answer.
#[derive(Debug)]
struct Asked {
    id: Id,
    /// In whose network.
    pid: i32,
    request: Request,
    /// When the prober counts as silent; `None`: it may take as long as it likes.
    until: Option<Duration>,
}

/// The prober, and what it is asked.
#[derive(Debug)]
pub struct Link {
    socket: Option<OwnedFd>,
    child: Option<i32>,
    /// By their numbers, of which none comes twice.
    asked: BTreeMap<u64, Asked>,
    last_number: u64,
    unsent: VecDeque<Unsent>,
    blocked_until: Option<Duration>,
    start_at: Option<Duration>,
    backoff: Backoff,
}

/// A message that is not sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    Ask(u64),
    Drop(u64),
}

impl Default for Link {
    fn default() -> Self {
        Self {
            socket: None,
            child: None,
            asked: BTreeMap::new(),
            last_number: 0,
            unsent: VecDeque::new(),
            blocked_until: None,
            start_at: None,
            backoff: Backoff::new(RESTART, RESTART_MAX),
        }
    }
}

impl Link {
    /// Asks for a workload in the network of its process `pid`; what it was asked before is forgotten.
    pub fn ask(&mut self, id: Id, pid: i32, request: Request, now: Duration) {
        self.forget(id);
        self.last_number += 1;
        let patience = request.timeout.saturating_add(PATIENCE);
        let asked = Asked {
            id,
            pid,
            until: (request.kind == ProbeKind::Once).then(|| now + patience),
            request,
        };
        self.asked.insert(self.last_number, asked);
        self.unsent.push_back(Unsent::Ask(self.last_number));
        if self.child.is_none() {
            self.start_at.get_or_insert(now);
        }
    }

    /// Nobody waits for this workload's answer any more.
    pub fn forget(&mut self, id: Id) {
        let mut asked = self.asked.iter();
        let Some(number) = asked.find_map(|(number, asked)| (asked.id == id).then_some(*number))
        else {
            return;
        };
        self.asked.remove(&number);
        let ask = Unsent::Ask(number);
        match self.unsent.iter().position(|unsent| *unsent == ask) {
            Some(at) => drop(self.unsent.remove(at)),
            None => self.unsent.push_back(Unsent::Drop(number)),
        }
    }

    /// When [`Link::keep`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let silent = self.asked.values().filter_map(|asked| asked.until).min();
        let blocked = self.blocked_until.filter(|_| self.socket.is_some());
        [self.start_at, blocked, silent].into_iter().flatten().min()
    }

    /// Whether the prober is to be started now.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.child.is_none() && self.start_at.is_some_and(|at| at <= now)
    }

    /// Starts the prober; returns its process id. It is asked all that is not answered.
    ///
    /// # Errors
    /// When there is no process or socket to be had; it is tried again later.
    pub fn start(&mut self, now: Duration) -> io::Result<i32> {
        self.start_at = Some(now + self.backoff.next_delay());
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = children::command();
        let pid = children::spawn(command.arg("prober").stdin(far))?;
        self.use_socket(near, pid, now);
        Ok(pid)
    }

    fn use_socket(&mut self, socket: OwnedFd, pid: i32, now: Duration) {
        self.start_at = None;
        self.socket = Some(socket);
        self.child = Some(pid);
        self.blocked_until = None;
        self.unsent = self.asked.keys().copied().map(Unsent::Ask).collect();
        for asked in self.asked.values_mut() {
            let patience = asked.request.timeout.saturating_add(PATIENCE);
            asked.until = asked.until.map(|_| now + patience);
        }
    }

    /// The prober ended. It is started again when something is asked that it has not answered.
    pub fn on_exit(&mut self, now: Duration) {
        self.socket = None;
        self.child = None;
        self.unsent.clear();
        if !self.asked.is_empty() {
            self.start_at = Some(now + self.backoff.next_delay());
        }
    }

    /// The socket to the prober, to wait for its answers.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Sends what waits, as far as the link takes it, and ends a prober that is silent. Returns whose probe cannot even be
    /// asked for: their process is gone.
    pub fn keep(&mut self, now: Duration) -> Vec<Id> {
        let mut lost = Vec::new();
        if self.blocked_until.is_some_and(|until| until > now) {
            return lost;
        }
        self.blocked_until = None;
        while let Some(&unsent) = self.unsent.front()
            && self.socket.is_some()
        {
            match self.send(unsent) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                    self.blocked_until = Some(now + LOOK_AGAIN);
                    break;
                }
                // The link is gone: its end is told by the child's.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.socket = None;
                    break;
                }
                Err(_) => lost.extend(self.give_up(unsent)),
            }
            self.unsent.pop_front();
        }
        self.end_if_silent(now);
        lost
    }

    fn give_up(&mut self, unsent: Unsent) -> Option<Id> {
        let (Unsent::Ask(number) | Unsent::Drop(number)) = unsent;
        self.asked.remove(&number).map(|asked| asked.id)
    }

    fn send(&self, unsent: Unsent) -> Result<(), Errno> {
        let (Some(socket), asked) = (&self.socket, &self.asked) else {
            return Err(Errno::PIPE);
        };
        let (order, namespace) = match unsent {
            Unsent::Drop(number) => (Order::Drop(number), None),
            Unsent::Ask(number) => {
                let Some(asked) = asked.get(&number) else {
                    return Ok(());
                };
                // As long as PID 1 has not reaped the process, its number is nobody else's.
                let namespace = network::of_process(asked.pid).map_err(|_| Errno::SRCH)?;
                (Order::Ask(number, asked.request.clone()), namespace)
            }
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights: Vec<BorrowedFd<'_>> = namespace.iter().map(AsFd::as_fd).collect();
        if !rights.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&rights));
        }
        let message = order.to_message();
        if message.len() > LONGEST {
            return Err(Errno::MSGSIZE);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let parts = [IoSlice::new(message.as_bytes())];
        sendmsg(socket, &parts, &mut control, flags).map(drop)
    }

    /// A prober that hangs is as good as dead; once it is, a new one is asked.
    fn end_if_silent(&mut self, now: Duration) {
        let is_late = |asked: &Asked| asked.until.is_some_and(|until| until <= now);
        if !self.asked.values().any(is_late) {
            return;
        }
        if let Some(pid) = self.child {
            let _ = sys::kill(pid, libc::SIGKILL);
        }
        let again = now + PATIENCE;
        for asked in self.asked.values_mut() {
            asked.until = asked.until.map(|until| until.max(again));
        }
    }

    /// Takes answers, within the limit of a turn.
    pub fn read(&mut self) -> Vec<(Id, ProbeResult)> {
        let mut results = Vec::new();
        let mut bytes = [0; 64];
        for _ in 0..TURN_LIMIT {
            let Some(socket) = &self.socket else { break };
            let size = match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((size, _)) if size > 0 => size,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                // Its end would be told in each turn.
                Ok(_) | Err(_) => {
                    self.socket = None;
                    break;
                }
            };
            let text = std::str::from_utf8(&bytes[..size]).unwrap_or_default();
            let answer = request::parse_answer(text);
            if let Some((number, result)) = answer
                && let Some(asked) = self.asked.remove(&number)
            {
                self.backoff.reset();
                results.push((asked.id, result));
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::request::Question;
    use rustix::net::{recv, send};

    const START: Duration = Duration::from_secs(100);

    fn request(kind: ProbeKind) -> Request {
        Request {
            kind,
            timeout: Duration::from_secs(5),
            question: Question::Tcp(80),
        }
    }

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    /// A link to nobody's process, with its other end.
    fn connect(link: &mut Link) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        link.use_socket(near, i32::MAX, START);
        far
    }

    fn messages(far: &OwnedFd) -> Vec<String> {
        let mut bytes = [0; LONGEST];
        std::iter::from_fn(|| {
            let (size, _) = recv(far, &mut bytes[..], RecvFlags::DONTWAIT).ok()?;
            (size > 0).then(|| String::from_utf8(bytes[..size].to_vec()).unwrap())
        })
        .collect()
    }

    fn say(far: &OwnedFd, text: &str) {
        send(far, text.as_bytes(), SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_question_is_answered_once_and_late_answers_are_nobodys() {
        let mut link = Link::default();
        assert_eq!(link.next_deadline(), None);
        link.ask(3, own_pid(), request(ProbeKind::Once), START);
        assert!(link.is_due(START));
        let far = connect(&mut link);
        assert!(link.keep(START).is_empty());
        assert_eq!(messages(&far), ["ask 1 once 5000 tcp 80"]);
        say(&far, "7 passed");
        say(&far, "nonsense");
        say(&far, "1 failed");
        say(&far, "1 passed");
        assert_eq!(link.read(), [(3, ProbeResult::Failed)]);
        assert_eq!(link.next_deadline(), None);
    }

    #[test]
    fn what_nobody_waits_for_is_dropped_and_what_was_not_sent_never_is() {
        let mut link = Link::default();
        let far = connect(&mut link);
        link.ask(0, own_pid(), request(ProbeKind::UntilReady), START);
        link.forget(0);
        assert_eq!((link.keep(START), messages(&far).len()), (vec![], 0));
        link.ask(0, own_pid(), request(ProbeKind::UntilReady), START);
        link.keep(START);
        link.forget(0);
        link.forget(0);
        link.keep(START);
        assert_eq!(messages(&far), ["ask 2 until 5000 tcp 80", "drop 2"]);
        say(&far, "2 passed");
        assert_eq!(link.read(), []);
    }

    #[test]
    fn a_new_prober_is_asked_what_the_dead_one_has_not_answered() {
        let mut link = Link::default();
        let far = connect(&mut link);
        for id in 0..3 {
            link.ask(id, own_pid(), request(ProbeKind::UntilReady), START);
        }
        link.keep(START);
        assert_eq!(messages(&far).len(), 3);
        say(&far, "2 passed");
        drop(far);
        assert_eq!(link.read(), [(1, ProbeResult::Passed)]);
        link.on_exit(START);
        assert!(!link.is_due(START) && link.is_due(START + RESTART));
        link.ask(1, own_pid(), request(ProbeKind::Once), START);
        let far = connect(&mut link);
        link.keep(START);
        let numbers: Vec<String> = messages(&far).iter().map(|m| m[..5].to_owned()).collect();
        assert_eq!(numbers, ["ask 1", "ask 3", "ask 4"]);
    }

    #[test]
    fn a_prober_that_nobody_asks_is_not_started_again() {
        let mut link = Link::default();
        let far = connect(&mut link);
        drop(far);
        assert_eq!(link.read(), []);
        link.on_exit(START);
        assert_eq!(link.next_deadline(), None);
    }

    #[test]
    fn the_question_for_a_process_that_is_gone_is_lost() {
        let mut link = Link::default();
        let far = connect(&mut link);
        link.ask(5, i32::MAX, request(ProbeKind::Once), START);
        assert_eq!(link.keep(START), [5]);
        assert_eq!((messages(&far).len(), link.next_deadline()), (0, None));
    }

    #[test]
    fn a_full_link_is_tried_again_and_a_silent_prober_is_told_by_its_deadline() {
        let mut link = Link::default();
        let far = connect(&mut link);
        for id in 0..5000 {
            link.ask(id, own_pid(), request(ProbeKind::Once), START);
        }
        assert!(link.keep(START).is_empty());
        assert_eq!(link.next_deadline(), Some(START + LOOK_AGAIN));
        let first = messages(&far).len();
        assert!((1..5000).contains(&first), "{first}");
        assert!(link.keep(START).is_empty());
        assert_eq!(messages(&far).len(), 0);
        link.keep(START + LOOK_AGAIN);
        assert!(!messages(&far).is_empty());
        // Nobody answers: the process (of nobody) is killed, and the time begins again.
        let late = START + Duration::from_secs(35);
        link.child = None;
        link.keep(late);
        assert!(link.asked.values().all(|asked| asked.until > Some(late)));
    }
}
