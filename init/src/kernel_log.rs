//! The kernel's own messages, once workloads run: kept off the console and told in init's lines instead.
//!
//! The kernel writes to the console in the midst of other lines: what is left of a workload's line behind such a
//! message stands at the beginning of a line, and could pass for init's own. So only the last words of a dying
//! kernel go to the console by themselves; what else it would have shown there is read from its log.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::kmsg::Record;

const LOG: &str = "/dev/kmsg";
/// The first number is the level below which messages are shown on the console (Linux: sysctl/kernel).
const CONSOLE_LEVEL: &str = "/proc/sys/kernel/printk";
/// Above `KERN_EMERG` only.
const LAST_WORDS_ONLY: &str = "1";
/// Messages that are handed over in one turn of the loop.
const TURN_LIMIT: usize = 16;

/// The kernel's log, read from the moment on at which it was taken off the console.
#[derive(Debug)]
pub struct KernelLog {
    device: OwnedFd,
    console_level: u32,
}

impl KernelLog {
    /// Takes the kernel's messages off the console. `None` where that is not possible: then they stay there.
    #[must_use]
    pub fn take() -> Option<Self> {
        let levels = fs::read_to_string(CONSOLE_LEVEL).ok()?;
        let console_level = levels.split_whitespace().next()?.parse().ok()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open(LOG, flags, Mode::empty()).ok()?;
        rustix::fs::seek(&device, SeekFrom::End(0)).ok()?;
        fs::write(CONSOLE_LEVEL, LAST_WORDS_ONLY).ok()?;
        Some(Self {
            device,
            console_level,
        })
    }

    /// Lets the kernel write to the console itself again: no workload is left that could make use of it.
    pub fn give_back(&self) {
        let _ = fs::write(CONSOLE_LEVEL, self.console_level.to_string());
    }

    /// Hands over what the kernel would have shown, as far as it waits, within the limit of a turn.
    pub fn read(&self, mut line: impl FnMut(&str)) {
        let mut record = [0_u8; 8192];
        for _ in 0..TURN_LIMIT {
            match rustix::io::read(&self.device, &mut record) {
                Ok(0) => return,
                Ok(size) => {
                    if let Some(text) = shown(&record[..size], self.console_level) {
                        line(text);
                    }
                }
                // EPIPE: records were overwritten before they were read; the next read goes on behind them.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// The text of a record of the kernel's own below this level. What a program
/// wrote into the log has a facility other than 0 in its priority.
fn shown(record: &[u8], console_level: u32) -> Option<&str> {
    let Record { priority, text, .. } = Record::parse(record)?;
    let text = std::str::from_utf8(text).ok()?;
    (priority < console_level.min(8)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_console_would_have_shown_is_shown() {
        let cases = [
            (
                "3,100,5000,-;I/O error\n SUBSYSTEM=block\n",
                4,
                Some("I/O error"),
            ),
            ("4,1,2,-;only a warning\n", 4, None),
            ("4,1,2,-;only a warning\n", 7, Some("only a warning")),
            ("6,1,2,-;information\n", 15, Some("information")),
            ("11,1,2,-;said by a program\n", 15, None),
            ("x,1,2,-;garbage\n", 15, None),
            ("no record", 15, None),
        ];
        for (record, level, expected) in cases {
            assert_eq!(shown(record.as_bytes(), level), expected, "{record}");
        }
    }
}
