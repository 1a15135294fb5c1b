//! What asks the machine to end, and how it goes about it until every workload is down.
//!
//! The first wish says how the machine ends. A second one, from [`NO_SECOND_PRESS`] on, ends its patience; so does the
//! `timeout` of `[shutdown]`. Workloads that are not even down [`GIVE_UP`] after that are left behind.

use std::time::Duration;

use super::Machine;
use crate::console::now;
use crate::failure::{self, Refusal};
use crate::halt::Ending;
use crate::supervise::event::Event;
use crate::sys::{self, Stage};
use crate::{initramfs, shutdown};

/// A button bounces, and whoever presses it from afar presses again until he is heard: that is not meant as a hurry.
const NO_SECOND_PRESS: Duration = Duration::from_secs(3);
/// How long SIGKILL may take for all together.
const GIVE_UP: Duration = Duration::from_secs(15);

/// Somebody's wish that the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) ending: Ending,
    /// Without patience for the workloads.
    pub(super) at_once: bool,
    /// In words, for the console.
    pub(super) by: &'static str,
}

impl Wish {
    pub(super) const POWER_BUTTON: Self = Self::new(Ending::PowerOff, "the power button");

    const fn new(ending: Ending, by: &'static str) -> Self {
        Self {
            ending,
            at_once: false,
            by,
        }
    }

    const fn at_once(ending: Ending, by: &'static str) -> Self {
        Self {
            ending,
            at_once: true,
            by,
        }
    }

    /// What a signal to PID 1 means: by the conventions of sysvinit and systemd. The kernel sends SIGINT for
    /// Ctrl-Alt-Del.
    fn of_signal(signal: i32) -> Option<Self> {
        Some(match signal {
            libc::SIGTERM => Self::new(Ending::PowerOff, "SIGTERM"),
            libc::SIGINT => Self::new(Ending::Reboot, "Ctrl-Alt-Del"),
            libc::SIGUSR1 => Self::new(Ending::Halt, "SIGUSR1"),
            libc::SIGUSR2 => Self::new(Ending::PowerOff, "SIGUSR2"),
            libc::SIGPWR => Self::new(Ending::PowerOff, "SIGPWR: the power fails"),
            _ => match signal - libc::SIGRTMIN() {
                3 => Self::new(Ending::Halt, "SIGRTMIN+3"),
                4 => Self::new(Ending::PowerOff, "SIGRTMIN+4"),
                5 => Self::new(Ending::Reboot, "SIGRTMIN+5"),
                13 => Self::at_once(Ending::Halt, "SIGRTMIN+13"),
                14 => Self::at_once(Ending::PowerOff, "SIGRTMIN+14"),
                15 => Self::at_once(Ending::Reboot, "SIGRTMIN+15"),
                _ => return None,
            },
        })
    }
}

/// The signals that mean something to PID 1.
pub fn signals() -> Vec<i32> {
    let wishes = (1..=libc::SIGRTMAX()).filter(|&signal| Wish::of_signal(signal).is_some());
    wishes.chain([libc::SIGCHLD]).collect()
}

/// A machine that stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) ending: Ending,
    since: Duration,
    /// When patience ends, or (in a hurry) when what still runs is left behind.
    pub(super) deadline: Duration,
    hurried: bool,
}

impl Machine {
    pub(super) fn read_signals(&mut self) {
        let mut numbers = [0_u8; 64];
        let count = rustix::io::read(&self.signals, &mut numbers).unwrap_or(0);
        for &number in &numbers[..count] {
            match Wish::of_signal(number.into()) {
                Some(wish) => self.stop(wish),
                None => self.children_left = true,
            }
        }
        if self.children_left {
            self.reap();
        }
    }

    /// Begins to stop, or loses patience.
    pub(super) fn stop(&mut self, wish: Wish) {
        let now = now();
        match self.stopping {
            None => {
                self.stopping = Some(Stopping {
                    ending: wish.ending,
                    since: now,
                    deadline: now + self.shutdown_timeout,
                    hurried: false,
                });
                sys::mark(Stage::Stopping);
                self.console.say("stage stopping");
                self.console.say(format_args!("stopping by {}", wish.by));
                self.tell_engine(Event::Shutdown);
                if wish.at_once {
                    self.hurry(wish.by);
                }
            }
            Some(stopping) if wish.at_once || now >= stopping.since + NO_SECOND_PRESS => {
                self.hurry(wish.by);
            }
            Some(_) => {}
        }
    }

    fn hurry(&mut self, why: &str) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if std::mem::replace(&mut stopping.hurried, true) {
            return;
        }
        stopping.deadline = now() + GIVE_UP;
        let text = format_args!("killing what still runs, by {why}");
        self.console.say(text);
        self.tell_engine(Event::Hurry);
    }

    /// The deadline of the stop is over.
    pub(super) fn stop_is_late(&mut self) {
        match self.stopping {
            Some(stopping) if stopping.hurried => {
                self.console
                    .say("some workloads do not even end by SIGKILL: going on without them");
                self.all_stopped = true;
            }
            _ => self.hurry("the timeout of [shutdown]"),
        }
    }

    /// Ends the machine because what it runs from cannot be trusted any more.
    pub(super) fn refuse(&mut self, reason: &str) -> ! {
        failure::tell(
            &mut self.console,
            &Refusal::with_hint(initramfs::DAMAGED)(reason),
        );
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
        shutdown::kill_all();
        shutdown::unmount_state(self);
        failure::end_by_policy(&mut self.console)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_wishes_by_convention() {
        let first = libc::SIGRTMIN();
        for (signal, ending, at_once) in [
            (libc::SIGTERM, Ending::PowerOff, false),
            (libc::SIGINT, Ending::Reboot, false),
            (libc::SIGUSR1, Ending::Halt, false),
            (first + 3, Ending::Halt, false),
            (first + 5, Ending::Reboot, false),
            (first + 14, Ending::PowerOff, true),
        ] {
            let wish = Wish::of_signal(signal).unwrap();
            assert_eq!((wish.ending, wish.at_once), (ending, at_once), "{signal}");
        }
        for signal in [libc::SIGCHLD, libc::SIGHUP, libc::SIGWINCH, first + 6] {
            assert_eq!(Wish::of_signal(signal), None, "{signal}");
        }
        assert_eq!(signals().len(), 12);
        assert!(signals().iter().all(|&signal| u8::try_from(signal).is_ok()));
    }
}
