//! What the machine does when it cannot go on: its reason on the console, what to do about it, and then the action of
//! `[failure]`. Nothing here hangs in silence.
//!
//! The policy comes from the kernel's command line, which the UKI's signature covers, because it must hold before
//! there is a root to read. A command line without it, or with something else in its place, has the default.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use config::ending::{FailureAction, FailurePolicy};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::console::Console;
use crate::describe;
use crate::halt::{self, Ending};
use crate::kmsg::Record;

/// Kernel messages shown beside a refusal.
const HINTS: usize = 6;
/// The kernel's log and init's clock differ by some milliseconds.
const CLOCK_SLACK: Duration = Duration::from_millis(100);
/// `KERN_WARNING` of syslog(2): this and what is worse is worth a hint.
const WARNING: u32 = 4;
/// What helps where nothing better is known.
const WRITE_ANEW: &str =
    "try it again; if it comes back, the image or its disk is damaged: write the image anew";

static POLICY: OnceLock<FailurePolicy> = OnceLock::new();

/// Why the machine cannot go on, and what helps.
#[derive(Debug)]
pub struct Refusal {
    /// What could not be done, and why.
    pub reason: String,
    /// What whoever reads it can do.
    pub hint: &'static str,
}

impl Refusal {
    /// For an error, as an argument of `map_err`.
    pub fn with_hint<E: Into<Box<dyn std::error::Error>>>(
        hint: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self {
            reason: describe(error.into().as_ref()),
            hint,
        }
    }
}

impl<T: fmt::Display> From<T> for Refusal {
    fn from(reason: T) -> Self {
        Self {
            reason: reason.to_string(),
            hint: WRITE_ANEW,
        }
    }
}

/// Sets the policy, once, as early as it is known.
pub fn set_policy(policy: FailurePolicy) {
    let _ = POLICY.set(policy);
}

/// The policy that holds.
#[must_use]
pub fn policy() -> FailurePolicy {
    POLICY.get().copied().unwrap_or_default()
}

/// Says `refused: REASON` with the kernel's last warnings and a hint, and ends the machine by its policy. State must
/// be unmounted before.
pub fn refuse(console: &mut Console, refusal: impl Into<Refusal>) -> ! {
    tell(console, &refusal.into());
    end_by_policy(console)
}

/// The reason, the kernel's warnings and the hint.
pub fn tell(console: &mut Console, refusal: &Refusal) {
    console.say(format_args!("refused: {}", refusal.reason));
    for warning in kernel_warnings(console.opened().saturating_sub(CLOCK_SLACK)) {
        console.say(format_args!("kernel: {warning}"));
    }
    console.say(format_args!("hint: {}", refusal.hint));
}

/// Says what comes, waits as long as the policy says, and ends the machine.
pub fn end_by_policy(console: &mut Console) -> ! {
    let policy = policy();
    console.say(announcement(policy));
    halt::drain(console);
    std::thread::sleep(policy.delay);
    halt::end(console, ending(policy))
}

fn announcement(policy: FailurePolicy) -> String {
    let what = match policy.action {
        FailureAction::Reboot => "starts again",
        FailureAction::PowerOff => "switches itself off",
        FailureAction::Halt => "halts",
    };
    let seconds = policy.delay.as_secs_f64();
    format!("the machine {what} in {seconds} s, as [failure] in its file says")
}

const fn ending(policy: FailurePolicy) -> Ending {
    match policy.action {
        FailureAction::Reboot => Ending::Reboot,
        FailureAction::PowerOff => Ending::PowerOff,
        FailureAction::Halt => Ending::Halt,
    }
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

/// The text of a record that is worth a hint.
fn parse_warning(record: &[u8], since: Duration) -> Option<String> {
    let record = Record::parse(record)?;
    (record.level() <= WARNING && record.at >= since)
        .then(|| String::from_utf8_lossy(record.text).into_owned())
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

    #[test]
    fn what_comes_is_announced() {
        let policy = "reboot,1500ms".parse().unwrap();
        assert_eq!(
            announcement(policy),
            "the machine starts again in 1.5 s, as [failure] in its file says"
        );
        assert_eq!(ending(policy), Ending::Reboot);
    }
}
