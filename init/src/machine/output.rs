//! What workloads print, on its way to the console and the log; and the log process.
//!
//! Each stream is read in small pieces, and rests after some of them; it rests as well while its ring is full. What
//! is not read stays in the pipe, where only the workload that wrote it waits.

use std::time::Duration;

use rustix::event::epoll;

use super::{Machine, Role, Source};
use crate::console::now;
use crate::log::journal::READ;
use crate::supervise::event::{Exit, Id};
use crate::watchdog::Watchdog;
use crate::workload::{Came, Output, Stream};

/// Reads of one stream in one turn of the loop.
const TURN_READS: usize = 8;
/// How long a stream rests that has given that much: one alone gives some megabytes a second.
const REST: Duration = Duration::from_millis(10);
/// How soon a full ring is looked at again when the log process says nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Reads of one stream at most when a process ended and its last words are wanted: more than a pipe holds.
const LAST_WORDS_READS: usize = 64;

/// Runs of the log process at the end of the machine: one takes what a ring holds, and two pipes hold more.
const FINISHES: usize = 5;

/// A stream that is not read for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paused {
    id: Id,
    stream: Stream,
    until: Duration,
    for_room: bool,
}

/// A stream of a process that is gone.
#[derive(Debug)]
pub(super) struct Left {
    id: Id,
    stream: Stream,
    output: Output,
}

impl Machine {
    /// Reads what a workload printed, as far as it is this stream's turn.
    pub(super) fn read_output(&mut self, id: Id, stream: Stream) {
        for _ in 0..TURN_READS {
            let now = now();
            if !self.journal.has_room(id, now) {
                return self.pause_output(id, stream, now + LOOK_AGAIN, true);
            }
            if self.copy_output(id, stream) == Came::All {
                return;
            }
        }
        self.pause_output(id, stream, now() + REST, false);
    }

    /// One read, to the console and the log.
    fn copy_output(&mut self, id: Id, stream: Stream) -> Came {
        let (console, batch) = (&mut self.console, &mut self.batch);
        let Some(workload) = self.workloads.get_mut(id) else {
            return Came::All;
        };
        let name = workload.spec.name.clone();
        let came = workload.read_output(stream, &mut |line| {
            console.say_for(&name, line);
            batch.push(line);
        });
        self.journal.append(id, stream.origin(), &self.batch);
        self.batch.clear();
        came
    }

    /// Reads what an ended workload has left in its pipes, as far as there is room for it.
    pub(super) fn show_last_words(&mut self, id: Id) {
        for stream in Stream::ALL {
            for _ in 0..LAST_WORDS_READS {
                if !self.journal.has_room(id, now()) || self.copy_output(id, stream) == Came::All {
                    break;
                }
            }
        }
    }

    /// Makes way for new streams of a workload. What is in the old ones and finds no room now is not forgotten.
    pub(crate) fn close_outputs(&mut self, id: Id) {
        self.paused.retain(|paused| paused.id != id);
        for stream in Stream::ALL {
            if let Some(output) = self.workloads[id].take_output(stream) {
                // Its end would be told in each turn. One that rests is not listened to anyway.
                let _ = epoll::delete(&self.epoll, &output);
                self.left.push(Left { id, stream, output });
            }
        }
        self.read_left();
    }

    /// Reads old streams as far as there is room; nobody writes to them any more.
    pub(super) fn read_left(&mut self) {
        for mut old in std::mem::take(&mut self.left) {
            if !self.read_old(&mut old) {
                self.left.push(old);
            }
        }
    }

    /// Whether there is nothing left.
    fn read_old(&mut self, old: &mut Left) -> bool {
        let name = self.workloads[old.id].spec.name.clone();
        for _ in 0..LAST_WORDS_READS {
            if !self.journal.has_room(old.id, now()) {
                return false;
            }
            let (console, batch) = (&mut self.console, &mut self.batch);
            let mut line = |text: &str| {
                console.say_for(&name, text);
                batch.push(text);
            };
            let has_more = old.output.read(&mut line) == Some(Came::Much);
            if !has_more {
                old.output.finish(&mut line);
            }
            let origin = old.stream.origin();
            self.journal.append(old.id, origin, &self.batch);
            self.batch.clear();
            if !has_more {
                break;
            }
        }
        true
    }

    fn pause_output(&mut self, id: Id, stream: Stream, until: Duration, for_room: bool) {
        let Some(output) = self.workloads[id].output(stream) else {
            return;
        };
        // Removed, not masked: a pipe without a writer is told whatever the mask is.
        if epoll::delete(&self.epoll, output).is_ok() {
            self.paused.push(Paused {
                id,
                stream,
                until,
                for_room,
            });
        }
    }

    fn resume_outputs(&mut self, is_due: impl Fn(&Paused) -> bool) {
        let (due, paused) = self.paused.iter().partition(|paused| is_due(paused));
        let due: Vec<Paused> = due;
        self.paused = paused;
        for Paused { id, stream, .. } in due {
            if let Some(output) = self.workloads[id].output(stream) {
                let _ = self.watch(Source::Output(id, stream), output);
            }
        }
    }

    /// When [`Machine::keep_log`] has something to do.
    pub(super) fn log_deadline(&self) -> Option<Duration> {
        let paused = self.paused.iter().map(|paused| paused.until);
        let left = self.left_due.filter(|_| !self.left.is_empty());
        let deadlines = paused.chain(left).chain(self.journal.next_deadline());
        deadlines.min()
    }

    /// Reads streams again that have rested, and starts the log process.
    pub(super) fn keep_log(&mut self, now: Duration) {
        if !self.paused.is_empty() {
            self.resume_outputs(|paused| paused.until <= now);
        }
        if !self.left.is_empty() && self.left_due.is_none_or(|due| due <= now) {
            self.left_due = Some(now + LOOK_AGAIN);
            self.read_left();
        }
        if !self.journal.is_due(now) {
            return;
        }
        match self.journal.start(now) {
            Ok(Some(pid)) => {
                self.children.insert(pid, Role::Log);
                if let Some(link) = self.journal.link() {
                    let _ = self.watch(Source::Log, link);
                }
            }
            Ok(None) => {}
            Err(error) => {
                let text = format_args!("cannot start the log process: {error}");
                self.console.say(text);
            }
        }
    }

    pub(super) fn read_log_link(&mut self) {
        let word = self.journal.read_link();
        for text in word.texts {
            self.console.say(text);
        }
        if word.has_read {
            self.read_left();
            self.resume_outputs(|paused| paused.for_room);
        }
    }

    pub(super) fn on_log_exit(&mut self, exit: Exit) {
        let text = format_args!("the log process ended ({exit:?}); starting it again");
        self.console.say(text);
        self.journal.on_exit(now());
    }

    /// Init's own lines since the last turn.
    pub(super) fn log_own_lines(&mut self) {
        while let Some((stamp, text)) = self.console.take_own_line() {
            self.journal.append_own(stamp, &text);
        }
    }

    /// Has all lines on the disk, after every other process has ended. The disk may take long: that is no stall, so the
    /// watchdog is fed meanwhile.
    pub(crate) fn finish_log(&mut self) {
        self.log_own_lines();
        for _ in 0..FINISHES {
            let watchdog = self.watchdog.as_ref();
            let feed = || watchdog.into_iter().for_each(Watchdog::feed);
            if let Err(text) = self.journal.finish(feed) {
                return self.console.say(text);
            }
            if self.left.is_empty() {
                return;
            }
            self.read_left();
        }
    }
}

const _: () = assert!(LAST_WORDS_READS * READ > 64 * 1024);
