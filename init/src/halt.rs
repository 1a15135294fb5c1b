//! The ways in which the machine ends: off, started again, or standing still.
//!
//! Whatever led here, the console's last line is out before the power goes, and nothing here returns or waits for
//! ever: not for a console that takes nothing, and not for a disk that does not answer.

use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use crate::console::Console;
use crate::sys;

/// How long a slow console may take for its last lines.
const LAST_LINES: Duration = Duration::from_secs(5);
/// How long disks may take to write what is still in memory.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

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

impl Ending {
    /// The name of the last stage.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Halt => "halt",
        }
    }
}

/// Ends the machine. What was printed is on the wire first.
pub fn end(console: &mut Console, ending: Ending) -> ! {
    if !sync() {
        console.say("a disk does not answer: not all is written");
    }
    drain(console);
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
    drain(console);
    let _ = reboot(RebootCommand::Halt);
    loop {
        std::thread::park();
    }
}

/// Gives the console the time for its last lines.
pub fn drain(console: &mut Console) {
    console.drain(LAST_LINES);
}

/// Writes out what is in memory. A disk that does not answer would hold this process up for ever, so a child waits for
/// it; `false` if that took too long.
#[must_use]
pub fn sync() -> bool {
    let write = || {
        rustix::fs::sync();
        0
    };
    match sys::fork(write) {
        Ok(child) => sys::wait_for(child, SYNC_LIMIT).is_some(),
        Err(_) => {
            rustix::fs::sync();
            true
        }
    }
}
