//! What a panic of PID 1 comes to: its message on the console, and an end of the machine that is no loop.
//!
//! PID 1 is not meant to panic; if it does, the kernel would panic with it. A machine that was up for a while
//! starts again; one that panics while it boots powers off, because it would do the same again.

use std::time::Duration;

use crate::console::{Console, now};
use crate::halt::{self, Ending};

/// A panic before this is one of the boot.
const BOOT_TIME: Duration = Duration::from_secs(60);

/// Installs the handler; for PID 1 only.
pub fn install_handler() {
    std::panic::set_hook(Box::new(|information| {
        let mut console = Console::open();
        console.say(format_args!("panic: {information}"));
        halt::end(&mut console, ending(now()))
    }));
}

fn ending(uptime: Duration) -> Ending {
    if uptime < BOOT_TIME {
        Ending::PowerOff
    } else {
        Ending::Reboot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_was_up_starts_again() {
        assert_eq!(ending(Duration::from_secs(2)), Ending::PowerOff);
        assert_eq!(ending(Duration::from_secs(3600)), Ending::Reboot);
    }
}
