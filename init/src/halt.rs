//! The ways in which the machine ends: off, rebooted, or off because something was refused.
//!
//! Whatever led here, the console's last line is out before the power goes, and nothing here returns.

use std::fmt;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::system::{RebootCommand, reboot};

use crate::console::Console;

/// How long a slow console may take for its last lines.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Kernel messages shown beside a refusal.
const HINTS: usize = 6;
/// The kernel's log and init's clock differ by some milliseconds.
const CLOCK_SLACK: Duration = Duration::from_millis(100);
/// `KERN_WARNING` of syslog(2): this and what is worse is worth a hint.
const WARNING: u32 = 4;

/// What the machine does after everything is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Off.
    PowerOff,
    /// Starts again.
    Reboot,
    /// Stops, with the power on.
    Halt,
}

/// Ends the machine. What was printed is on the wire first.
pub fn end(console: &mut Console, ending: Ending) -> ! {
    rustix::fs::sync();
    console.drain(LAST_LINES);
    let command = match ending {
        Ending::PowerOff => RebootCommand::PowerOff,
        Ending::Reboot => RebootCommand::Restart,
        Ending::Halt => RebootCommand::Halt,
    };
    let error = reboot(command).err();
    // Only without the right, or on a machine that cannot: stand still rather than make the kernel panic.
    console.say(format_args!(
        "the machine does not end: {error:?}; it is safe to switch it off"
    ));
    console.drain(LAST_LINES);
    let _ = reboot(RebootCommand::Halt);
    loop {
        std::thread::park();
    }
}

/// Says `refused: REASON` with the kernel's last warnings and powers off. State must be unmounted before.
pub fn refuse(console: &mut Console, reason: impl fmt::Display) -> ! {
    console.say(format_args!("refused: {reason}"));
    for hint in kernel_warnings(console.opened().saturating_sub(CLOCK_SLACK)) {
        console.say(format_args!("kernel: {hint}"));
    }
    end(console, Ending::PowerOff)
}

/// The last warnings of the kernel's log since then.
fn kernel_warnings(since: Duration) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(log) = rustix::fs::open("/dev/kmsg", flags, Mode::empty()) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let mut record = [0_u8; 8192];
    loop {
        match rustix::io::read(&log, &mut record) {
            Ok(0) => break,
            Ok(size) => warnings.extend(parse_warning(&record[..size], since)),
            // EPIPE: records were overwritten while reading; the next read goes on behind them.
            Err(Errno::PIPE | Errno::INTR) => {}
            Err(_) => break,
        }
    }
    warnings.split_off(warnings.len().saturating_sub(HINTS))
}

/// `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT` and then dictionary lines.
fn parse_warning(record: &[u8], since: Duration) -> Option<String> {
    let record = String::from_utf8_lossy(record);
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let at = Duration::from_micros(fields.nth(1)?.parse().ok()?);
    (priority & 7 <= WARNING && at >= since)
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_warnings_and_worse_are_hints() {
        let since = Duration::from_micros(3000);
        let cases = [
            (
                "3,100,5000,-;virtio_blk: broken\n SUBSYSTEM=pci\n",
                Some("virtio_blk: broken"),
            ),
            ("4,1,3000,-;warned\n", Some("warned")),
            ("6,1,2,-;just information\n", None),
            (
                "12,1,3000,-;warned by a program\n",
                Some("warned by a program"),
            ),
            ("30,1,2,-;told by a daemon\n", None),
            ("4,1,2999,-;warned before\n", None),
            ("garbage", None),
            ("x,1;y", None),
        ];
        for (record, expected) in cases {
            assert_eq!(
                parse_warning(record.as_bytes(), since).as_deref(),
                expected,
                "{record}"
            );
        }
    }
}
