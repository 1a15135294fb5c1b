//! Signals to PID 1, and the two ways in which the machine begins to end.

use super::Machine;
use crate::halt::{self, Ending};
use crate::shutdown;
use crate::supervise::event::Event;
use crate::sys::{self, Stage};

impl Machine {
    pub(super) fn read_signals(&mut self) {
        let mut numbers = [0_u8; 64];
        let count = rustix::io::read(&self.signals, &mut numbers).unwrap_or(0);
        for &number in &numbers[..count] {
            match i32::from(number) {
                libc::SIGCHLD => self.children_left = true,
                libc::SIGINT => self.stop(Ending::Reboot, "Ctrl-Alt-Del"),
                libc::SIGUSR1 => self.stop(Ending::Halt, "SIGUSR1"),
                libc::SIGUSR2 => self.stop(Ending::PowerOff, "SIGUSR2"),
                _ => self.stop(Ending::PowerOff, "SIGTERM"),
            }
        }
        if self.children_left {
            self.reap();
        }
    }

    /// Begins to stop; the first wish counts.
    pub(super) fn stop(&mut self, ending: Ending, why: &str) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(ending);
        sys::mark(Stage::Stopping);
        self.console.say("stage stopping");
        self.console.say(format_args!("stopping by {why}"));
        self.tell_engine(Event::Shutdown);
    }

    /// Ends the machine because what it runs from cannot be trusted any more.
    pub(super) fn refuse(&mut self, reason: &str) -> ! {
        self.console.say(format_args!("refused: {reason}"));
        shutdown::kill_all();
        shutdown::unmount_state(self);
        halt::end(&mut self.console, Ending::PowerOff)
    }
}
