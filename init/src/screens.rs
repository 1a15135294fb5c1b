//! The consoles beside `/dev/console`: a machine of metal has a screen and a serial line, and nobody knows at which one
//! somebody looks.
//!
//! They show init's own lines. A workload's do not get there: a screen scrolls slowly, and it is PID 1 that would wait.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

/// The consoles of the kernel's command line that exist; `/dev/console` is the last of them.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// The other consoles, open.
#[derive(Debug, Default)]
pub struct Screens(Vec<OwnedFd>);

impl Screens {
    /// Opens what there is; one that cannot be opened is left out.
    #[must_use]
    pub fn open() -> Self {
        let active = fs::read_to_string(ACTIVE).unwrap_or_default();
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |name: &str| rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty()).ok();
        Self(others(&active).filter_map(open).collect())
    }

    /// Shows a line on each. What one does not take at once it does not get.
    pub fn show(&self, line: &str) {
        for screen in &self.0 {
            let _ = rustix::io::write(screen, line.as_bytes());
        }
    }
}

/// All but the last name of the list.
fn others(active: &str) -> impl Iterator<Item = &str> {
    let mut names: Vec<&str> = active.split_whitespace().collect();
    names.pop();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_last_console_is_the_one_that_has_its_lines_already() {
        for (active, expected) in [("tty0 ttyS0\n", &["tty0"][..]), ("ttyS0\n", &[]), ("", &[])] {
            assert!(others(active).eq(expected.iter().copied()), "{active}");
        }
    }

    #[test]
    fn a_screen_that_takes_nothing_holds_nobody_up() {
        let (mut read, write) = std::io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&write, OFlags::NONBLOCK).unwrap();
        let screens = Screens(vec![write.into()]);
        for _ in 0..10_000 {
            screens.show("a line of a machine\n");
        }
        drop(screens);
        let mut shown = String::new();
        read.read_to_string(&mut shown).unwrap();
        assert!(shown.starts_with("a line of a machine\n") && shown.len() < 100_000);
    }
}
