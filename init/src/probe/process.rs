//! The prober: one child of PID 1 that makes all probes by TCP and HTTP at once. It waits for its sockets and for its
//! link to PID 1 only; nothing that a server does, or does not, holds it up or makes it keep more than some bytes.
//!
//! It ends when PID 1 closes the link. Killed at any moment it leaves nothing behind: PID 1 asks a new one again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use rustix::time::Timespec;

use super::attempt::{Attempt, Progress};
use super::network::Home;
use super::request::{self, LONGEST, Order, Request};
use crate::console::now;
use crate::supervise::event::{ProbeKind, ProbeResult};

/// The first pause between two tries; it doubles to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Where many workloads are not ready yet each one is asked less often: all together have one try in this time.
const SHARE: Duration = Duration::from_millis(2);
/// What the link's event is told by; no probe has this number.
const LINK: u64 = u64::MAX;
/// Messages of PID 1 that are read in one turn.
const MESSAGES: usize = 64;

/// A probe that is under way.
#[derive(Debug)]
struct Probe {
    request: Request,
    /// `None`: the machine's.
    namespace: Option<OwnedFd>,
    /// The try that is under way; `None`: it pauses.
    attempt: Option<Attempt>,
    /// When the try has taken too long, or the pause is over.
    due: Duration,
    pause: Duration,
}

/// Everything that the prober holds.
#[derive(Debug)]
struct Prober {
    link: OwnedFd,
    epoll: OwnedFd,
    home: Home,
    probes: BTreeMap<u64, Probe>,
    /// Their times, the next one first.
    due: BTreeSet<(Duration, u64)>,
}

/// Serves PID 1 at the other end of the link until it is closed.
///
/// # Errors
/// When the kernel has no descriptors to give, or the link fails.
pub fn serve(link: OwnedFd) -> io::Result<()> {
    let mut prober = Prober {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        home: Home::here()?,
        link,
        probes: BTreeMap::new(),
        due: BTreeSet::new(),
    };
    prober.watch(LINK, &prober.link, epoll::EventFlags::IN)?;
    while prober.turn()? {}
    Ok(())
}

impl Prober {
    /// One turn of the loop; whether there will be another one.
    fn turn(&mut self) -> io::Result<bool> {
        let timeout = self.due.first().map(|(at, _)| {
            // Rounded up to milliseconds, which is what epoll counts in.
            let left = at.saturating_sub(now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 32];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            match event.data.u64() {
                LINK if !self.read_link()? => return Ok(false),
                LINK => {}
                number => self.go_on(number)?,
            }
        }
        self.keep_times()?;
        Ok(true)
    }

    /// Takes orders; false: PID 1 wants nothing any more.
    fn read_link(&mut self) -> io::Result<bool> {
        for _ in 0..MESSAGES {
            let mut buffer = [0; LONGEST];
            let (size, namespace) = match receive(&self.link, &mut buffer) {
                Ok((0, _)) => return Ok(false),
                Ok(received) => received,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let text = std::str::from_utf8(&buffer[..size]).unwrap_or_default();
            match Order::parse(text) {
                Some(Order::Ask(number, request)) => self.begin(number, request, namespace)?,
                Some(Order::Drop(number)) => self.forget(number),
                None => {}
            }
        }
        Ok(true)
    }

    fn begin(
        &mut self,
        number: u64,
        request: Request,
        namespace: Option<OwnedFd>,
    ) -> io::Result<()> {
        self.forget(number);
        let probe = Probe {
            request,
            namespace,
            attempt: None,
            due: Duration::ZERO,
            pause: FIRST_PAUSE,
        };
        self.probes.insert(number, probe);
        self.try_now(number)
    }

    /// Closes what the probe has open, which takes it out of the epoll set, too.
    fn forget(&mut self, number: u64) {
        if let Some(probe) = self.probes.remove(&number) {
            self.due.remove(&(probe.due, number));
        }
    }

    fn try_now(&mut self, number: u64) -> io::Result<()> {
        let Some(probe) = self.probes.get_mut(&number) else {
            return Ok(());
        };
        let question = &probe.request.question;
        let begun = self
            .home
            .within(probe.namespace.as_ref(), || Attempt::begin(question));
        let Ok(mut attempt) = begun else {
            return self.end(number, &ProbeResult::Lost);
        };
        let flags = match attempt.go_on() {
            Progress::Over(passed) => return self.on_tried(number, passed),
            Progress::Waits(flags) => flags,
        };
        let data = epoll::EventData::new_u64(number);
        if epoll::add(&self.epoll, &attempt, data, flags).is_err() {
            return self.end(number, &ProbeResult::Lost);
        }
        probe.attempt = Some(attempt);
        let due = now() + probe.request.timeout;
        self.set_due(number, due);
        Ok(())
    }

    /// Something came for a try.
    fn go_on(&mut self, number: u64) -> io::Result<()> {
        let Some(probe) = self.probes.get_mut(&number) else {
            return Ok(());
        };
        let Some(attempt) = &mut probe.attempt else {
            return Ok(());
        };
        match attempt.go_on() {
            Progress::Over(passed) => self.on_tried(number, passed),
            Progress::Waits(flags) => {
                let data = epoll::EventData::new_u64(number);
                epoll::modify(&self.epoll, &*attempt, data, flags)?;
                Ok(())
            }
        }
    }

    fn on_tried(&mut self, number: u64, passed: bool) -> io::Result<()> {
        let waiting = u32::try_from(self.probes.len()).unwrap_or(u32::MAX);
        let Some(probe) = self.probes.get_mut(&number) else {
            return Ok(());
        };
        probe.attempt = None;
        match (passed, probe.request.kind) {
            (true, _) => self.end(number, &ProbeResult::Passed),
            (false, ProbeKind::Once) => self.end(number, &ProbeResult::Failed),
            (false, ProbeKind::UntilReady) => {
                let due = now() + probe.pause;
                let longest = LONGEST_PAUSE.max(SHARE.saturating_mul(waiting));
                probe.pause = (probe.pause * 2).min(longest);
                self.set_due(number, due);
                Ok(())
            }
        }
    }

    fn set_due(&mut self, number: u64, due: Duration) {
        if let Some(probe) = self.probes.get_mut(&number) {
            self.due.remove(&(probe.due, number));
            probe.due = due;
            self.due.insert((due, number));
        }
    }

    /// Ends tries that have taken too long, and pauses that are over.
    fn keep_times(&mut self) -> io::Result<()> {
        let now = now();
        while let Some(&(at, number)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let is_trying = |probe: &Probe| probe.attempt.is_some();
            if self.probes.get(&number).is_some_and(is_trying) {
                self.on_tried(number, false)?;
            } else {
                self.try_now(number)?;
            }
        }
        Ok(())
    }

    /// Answers. PID 1 always reads, sooner or later.
    fn end(&mut self, number: u64, result: &ProbeResult) -> io::Result<()> {
        self.forget(number);
        let message = request::answer(number, result);
        loop {
            match send(&self.link, message.as_bytes(), SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return Ok(result.map(drop)?),
            }
        }
    }

    fn watch(&self, number: u64, fd: impl AsFd, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number);
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }
}

/// The size of the next message, and the descriptor that came with it.
fn receive(link: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(link, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    let is_whole = !message.flags.contains(ReturnFlags::TRUNC);
    // One that is cut is not understood; it is no end of the link either.
    let size = if is_whole { message.bytes } else { 1 };
    Ok((size, descriptor))
}

#[cfg(test)]
mod tests;
