//! The machine's console: init's own lines, and the workloads' lines with their names in front.
//!
//! Writing never blocks PID 1: lines go into bounded queues, one a workload, and these go to the console in turns,
//! as fast as the console takes them. So a flood of one does not keep the others' lines. Init's own lines go first, in
//! a queue of their own; a line that finds its queue full is dropped and counted, and the count is said once the queue
//! is empty. Nothing that a workload prints can look like a line of init's: see
//! [`crate::lines::LineSplitter`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::log::batch::Stamp;
use crate::screens::Screens;
use crate::sys;

/// What one workload's lines may take up in memory while the console is slow.
const SHARE_LIMIT: usize = 64 * 1024;
/// What all workloads' lines may take up together.
const QUEUE_LIMIT: usize = 256 * 1024;
/// What is taken of one workload's lines before it is another's turn.
const QUANTUM: usize = 2048;
/// What own lines may take up while the console takes nothing.
const OWN_QUEUE_LIMIT: usize = 128 * 1024;
/// What own lines may take up until they are taken for the log.
const OWN_LIMIT: usize = 32 * 1024;

/// What a serial port takes for its own 16 bytes at 115,200 bits a second, with some to spare.
const PORT_TIME: Duration = Duration::from_millis(5);

/// Time since the machine started, with what it spent suspended.
#[must_use]
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Whose lines wait.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Speaker {
    Kernel,
    Workload(String),
}

/// The lines of one speaker that wait, and how many did not find room.
#[derive(Debug, Default)]
struct Share {
    lines: VecDeque<u8>,
    lost: u64,
}

/// The console with its queues.
#[derive(Debug)]
pub struct Console {
    device: Option<OwnedFd>,
    screens: Screens,
    /// Whole lines that are being written.
    current: VecDeque<u8>,
    own: VecDeque<u8>,
    /// Own lines that did not find room.
    own_lost: u64,
    shares: BTreeMap<Speaker, Share>,
    /// Bytes in all shares.
    shared: usize,
    /// Whose turn it was last.
    last: Option<Speaker>,
    opened: Duration,
    /// Own lines for the log, and their size.
    kept: VecDeque<(Stamp, String)>,
    kept_size: usize,
}

impl Console {
    /// Opens `/dev/console`, or takes standard output where that fails (devtmpfs not mounted yet and no node
    /// in the initramfs); without either, lines go nowhere and init works on.
    #[must_use]
    pub fn open() -> Self {
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/console", flags, Mode::empty())
            .or_else(|_| rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3))
            .ok();
        Self {
            screens: Screens::open(),
            ..Self::on(device)
        }
    }

    fn on(device: Option<OwnedFd>) -> Self {
        Self {
            device,
            screens: Screens::default(),
            current: VecDeque::new(),
            own: VecDeque::new(),
            own_lost: 0,
            shares: BTreeMap::new(),
            shared: 0,
            last: None,
            opened: now(),
            kept: VecDeque::new(),
            kept_size: 0,
        }
    }

    /// Prints `coracle: [SECONDS.mmm] TEXT`.
    pub fn say(&mut self, text: impl fmt::Display) {
        // What came before is shown before, as far as the console takes it.
        self.write_some();
        let stamp = Stamp::now();
        let text = one_line(&text);
        let line = own_line(stamp.boot, &text);
        self.screens.show(&line);
        self.queue_own(&line);
        self.keep(stamp, text);
        self.write_some();
    }

    /// Prints a message of the kernel's. It is dropped and counted where there is no room.
    pub fn say_for_kernel(&mut self, text: &str) {
        let line = own_line(now(), &one_line(&format_args!("kernel: {text}")));
        self.share(Speaker::Kernel, &[&line]);
    }

    /// Prints one already sanitized line of a workload: `NAME | TEXT`. It is dropped and counted where there is no
    /// room.
    pub fn say_for(&mut self, name: &str, text: &str) {
        let speaker = Speaker::Workload(name.to_owned());
        self.share(speaker, &[name, " | ", text, "\n"]);
    }

    fn share(&mut self, speaker: Speaker, parts: &[&str]) {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let share = self.shares.entry(speaker).or_default();
        if share.lines.len() + size > SHARE_LIMIT || self.shared + size > QUEUE_LIMIT {
            share.lost += 1;
            return;
        }
        self.shared += size;
        for part in parts {
            share.lines.extend(part.as_bytes());
        }
    }

    /// Takes an own line for the log, the oldest first.
    pub fn take_own_line(&mut self) -> Option<(Stamp, String)> {
        let line = self.kept.pop_front()?;
        self.kept_size -= line.1.len();
        Some(line)
    }

    fn keep(&mut self, stamp: Stamp, text: String) {
        self.kept_size += text.len();
        self.kept.push_back((stamp, text));
        while self.kept_size > OWN_LIMIT {
            let _ = self.take_own_line();
        }
    }

    /// Writes what the console takes now; call it when [`Console::fd`] is writable and after each batch.
    pub fn write_some(&mut self) {
        loop {
            if self.current.is_empty() && !self.refill() {
                return;
            }
            let Some(device) = &self.device else {
                self.current.clear();
                continue;
            };
            match rustix::io::write(device, self.current.as_slices().0) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return,
                Ok(written) => drop(self.current.drain(..written)),
                Err(rustix::io::Errno::INTR) => {}
                // A console that went away (a hung-up line) must not stop the machine.
                Err(_) => self.current.clear(),
            }
        }
    }

    /// Takes the next whole lines: own ones, or some of the speaker's whose turn it is.
    fn refill(&mut self) -> bool {
        if self.own.is_empty() {
            let Some(speaker) = self.next_speaker() else {
                return false;
            };
            self.take_turn(&speaker);
            self.last = Some(speaker);
        }
        if !self.own.is_empty() {
            let rest = std::mem::take(&mut self.own);
            self.current.extend(rest);
            let lost = std::mem::take(&mut self.own_lost);
            if lost > 0 {
                self.say_lost(lost, "of init's own");
            }
        }
        true
    }

    /// The one behind the last one in the circle.
    fn next_speaker(&self) -> Option<Speaker> {
        let behind = self.last.as_ref().and_then(|last| {
            let range = (Bound::Excluded(last), Bound::Unbounded);
            self.shares.range::<Speaker, _>(range).next()
        });
        let next = behind.or_else(|| self.shares.first_key_value());
        next.map(|(speaker, _)| speaker.clone())
    }

    fn take_turn(&mut self, speaker: &Speaker) {
        let Some(share) = self.shares.get_mut(speaker) else {
            return;
        };
        // Some whole lines, or one that is longer than that.
        let some = share.lines.len().min(QUANTUM);
        let ends = |from, to| share.lines.range(from..to).enumerate();
        let newline = |(_, byte): &(usize, &u8)| **byte == b'\n';
        let end = match ends(0, some).rfind(newline) {
            Some((at, _)) => at + 1,
            None => ends(some, share.lines.len())
                .find(newline)
                .map_or(share.lines.len(), |(at, _)| some + at + 1),
        };
        self.current.extend(share.lines.drain(..end));
        self.shared -= end;
        if share.lines.is_empty() {
            let lost = share.lost;
            self.shares.remove(speaker);
            if lost > 0 {
                let whose = match speaker {
                    Speaker::Kernel => "of the kernel",
                    Speaker::Workload(name) => &format!("of {name}"),
                };
                self.say_lost(lost, whose);
            }
        }
    }

    /// As [`Console::say`], but does not write: called while something is written.
    fn say_lost(&mut self, lost: u64, whose: &str) {
        let stamp = Stamp::now();
        let text = format!("{lost} lines {whose} were not shown: the console is slower");
        self.queue_own(&own_line(stamp.boot, &text));
        self.keep(stamp, text);
    }

    /// A console may take nothing for days: a line that finds no room is in the log only.
    fn queue_own(&mut self, line: &str) {
        if self.own.len() + line.len() > OWN_QUEUE_LIMIT {
            self.own_lost += 1;
        } else {
            self.own.extend(line.as_bytes());
        }
    }

    /// Something waits for the console to take it.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        !(self.current.is_empty() && self.own.is_empty() && self.shares.is_empty())
    }

    /// When it was opened: what the kernel logged before is not of init's doing.
    #[must_use]
    pub const fn opened(&self) -> Duration {
        self.opened
    }

    /// The console's descriptor, to wait on for writability.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.as_ref().map(AsFd::as_fd)
    }

    /// What the driver holds goes out too. Not tcdrain(3): it waits for ever for a line that takes nothing.
    fn wait_for_wire(&self, deadline: Instant) {
        let Some(device) = &self.device else { return };
        while Instant::now() < deadline && sys::output_queue(device.as_fd()).is_ok_and(|n| n > 0) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The last bytes are in the port itself.
        std::thread::sleep(PORT_TIME);
    }

    /// Blocks until everything is on the wire, at most for `limit`.
    pub fn drain(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.write_some();
        while self.has_backlog() && Instant::now() < deadline {
            let Some(device) = &self.device else { return };
            let step = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            let _ = poll(&mut [PollFd::new(device, PollFlags::OUT)], Some(&step));
            self.write_some();
        }
        self.wait_for_wire(deadline);
    }
}

/// The text with control characters as spaces, so that it stays one line.
fn one_line(text: &impl fmt::Display) -> String {
    let text = text.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).collect()
}

fn own_line(at: Duration, text: &str) -> String {
    let (seconds, millis) = (at.as_secs(), at.subsec_millis());
    format!("coracle: [{seconds}.{millis:03}] {text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_carry_seconds_and_milliseconds_without_padding() {
        let line = own_line(Duration::from_millis(7_042), "stage root");
        assert_eq!(line, "coracle: [7.042] stage root\n");
    }

    #[test]
    fn an_own_line_stays_one_line_whatever_it_quotes() {
        assert_eq!(one_line(&"bad\nname\r\u{1b}[2J"), "bad name  [2J");
    }

    /// What a console that takes everything would show next.
    fn show(console: &mut Console) -> String {
        let mut shown = Vec::new();
        while console.refill() {
            shown.extend(console.current.drain(..));
        }
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn a_flood_is_dropped_and_counted_by_its_speaker_and_others_are_shown_at_once() {
        let mut console = Console::on(None);
        let text = "x".repeat(1000);
        for _ in 0..1000 {
            console.say_for("noisy", &text);
        }
        console.say_for("quiet", "hello");
        console.say_for_kernel("news");
        assert!(console.shared <= SHARE_LIMIT + 100);
        let shown = show(&mut console);
        let at = |what| shown.find(what).unwrap_or_else(|| panic!("no {what}"));
        assert!(at("quiet | hello") < 2 * QUANTUM && at("kernel: news") < 2 * QUANTUM);
        let lost = 1000 - shown.matches("noisy | x").count();
        at(&format!("] {lost} lines of noisy were not shown"));
        assert!(!console.has_backlog() && console.shared == 0);
    }

    #[test]
    fn all_floods_together_are_bounded_and_lines_stay_whole() {
        let mut console = Console::on(None);
        for number in 0..5000 {
            let text = format!("begin {} end", "y".repeat(number % 3000));
            console.say_for(&format!("w{}", number % 7), &text);
        }
        assert!(console.shared <= QUEUE_LIMIT);
        for line in show(&mut console).lines() {
            let is_whole = line.contains(" | begin ") && line.ends_with(" end");
            assert!(is_whole || line.contains("were not shown"), "{line}");
        }
    }

    #[test]
    fn own_lines_for_a_console_that_takes_nothing_are_bounded_and_counted() {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut console = Console::on(Some(writer));
        for number in 0..2000 {
            console.say(format_args!("{number} {}", "z".repeat(1000)));
        }
        assert!(console.own.len() <= OWN_QUEUE_LIMIT && console.current.len() <= OWN_QUEUE_LIMIT);
        let lost = console.own_lost;
        assert!(lost > 1000);
        let shown = show(&mut console);
        assert!(shown.contains(&format!("] {lost} lines of init's own were not shown")));
    }

    #[test]
    fn own_lines_are_kept_for_the_log_within_bounds() {
        let mut console = Console::on(None);
        for number in 0..100 {
            console.say(format_args!("{number} {}", "z".repeat(1000)));
        }
        let mut kept = Vec::new();
        while let Some((_, text)) = console.take_own_line() {
            kept.push(text);
        }
        assert!((20..40).contains(&kept.len()) && kept.last().unwrap().starts_with("99 "));
        assert_eq!(console.kept_size, 0);
    }
}
