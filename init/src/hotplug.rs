//! Devices that appear while the machine runs, and those that were there before anyone asked for their drivers.
//!
//! A child loads the modules ([`crate::modules::modprobe`]), one at a time: it reads the tables once for all devices
//! that came meanwhile. Decides only when; a child that fails has told so in the kernel's log.

use std::io;

use crate::children;
use crate::supervise::event::Exit;

/// The most devices that one child is told by name; with more it looks at all there are.
const NAMED: usize = 64;

/// So many children that were killed have another one behind them.
const TRIES: u32 = 3;

/// What a child is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Nothing,
    These(Vec<String>),
    All,
}

/// The devices that wait for their drivers.
#[derive(Debug)]
pub struct Hotplug {
    has_drivers: bool,
    wanted: Wanted,
    running: bool,
    /// Children that were killed, one after the other.
    killed: u32,
}

impl Hotplug {
    /// `has_drivers`: the image has modules that are loaded on demand.
    #[must_use]
    pub const fn new(has_drivers: bool) -> Self {
        Self {
            has_drivers,
            wanted: Wanted::Nothing,
            running: false,
            killed: 0,
        }
    }

    /// Every device that is there is to be looked at.
    pub fn want_all(&mut self) {
        self.wanted = Wanted::All;
    }

    /// A device appeared.
    pub fn want(&mut self, modalias: String) {
        match &mut self.wanted {
            Wanted::All => {}
            Wanted::Nothing => self.wanted = Wanted::These(vec![modalias]),
            Wanted::These(list) if list.len() == NAMED => self.wanted = Wanted::All,
            Wanted::These(list) if list.contains(&modalias) => {}
            Wanted::These(list) => list.push(modalias),
        }
    }

    /// Starts a child if there is something to look at and none runs; returns its process id.
    ///
    /// # Errors
    /// When there is no process to be had.
    pub fn start(&mut self) -> io::Result<Option<i32>> {
        let Some(arguments) = self.next() else {
            return Ok(None);
        };
        let mut command = children::command();
        let pid = children::spawn(command.arg("modprobe").args(&arguments))?;
        self.wanted = Wanted::Nothing;
        self.running = true;
        Ok(Some(pid))
    }

    /// What waited is given up, so that a machine without processes to be had does not try without end.
    pub fn forget(&mut self) {
        self.wanted = Wanted::Nothing;
    }

    /// The child ended. What one that was killed had not done another one does, unless it is always killed.
    pub fn on_exit(&mut self, exit: Exit) {
        self.running = false;
        match exit {
            Exit::Status(_) => self.killed = 0,
            Exit::Signal(_) | Exit::Unknown => {
                self.killed += 1;
                if self.killed <= TRIES {
                    self.wanted = Wanted::All;
                }
            }
        }
    }

    /// The arguments of the child that is to run now.
    fn next(&self) -> Option<Vec<String>> {
        match &self.wanted {
            _ if self.running || !self.has_drivers => None,
            Wanted::Nothing => None,
            Wanted::These(list) => Some(list.clone()),
            Wanted::All => Some(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_come_while_a_child_runs_wait_for_the_next_one() {
        let mut hotplug = Hotplug::new(true);
        assert_eq!(hotplug.next(), None);
        hotplug.want("usb:a".to_owned());
        hotplug.want("usb:a".to_owned());
        hotplug.want("usb:b".to_owned());
        assert_eq!(hotplug.next().unwrap(), ["usb:a", "usb:b"]);
        hotplug.running = true;
        assert_eq!(hotplug.next(), None);
        hotplug.on_exit(Exit::Status(0));
        assert!(hotplug.next().is_some());
    }

    #[test]
    fn what_a_killed_child_has_not_done_another_one_does_but_not_without_end() {
        let mut hotplug = Hotplug::new(true);
        for tries in 1..10 {
            hotplug.on_exit(Exit::Signal(9));
            assert_eq!(hotplug.next().is_some(), tries <= TRIES, "{tries}");
            hotplug.wanted = Wanted::Nothing;
        }
        hotplug.on_exit(Exit::Status(1));
        hotplug.on_exit(Exit::Signal(9));
        assert!(hotplug.next().is_some());
    }

    #[test]
    fn too_many_devices_to_name_are_all_looked_at() {
        let mut hotplug = Hotplug::new(true);
        for number in 0..=NAMED {
            hotplug.want(format!("pci:{number}"));
        }
        assert_eq!(hotplug.next().unwrap(), [""; 0]);
        hotplug.want("pci:more".to_owned());
        assert_eq!(hotplug.next().unwrap(), [""; 0]);
    }

    #[test]
    fn an_image_without_drivers_on_demand_starts_no_child() {
        let mut hotplug = Hotplug::new(false);
        hotplug.want_all();
        assert_eq!(hotplug.next(), None);
    }
}
