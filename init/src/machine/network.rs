//! The network's children: started, heard, started again.

use config::boot::BootCondition;

use super::{Machine, Role, Source};
use crate::console::now;
use crate::net::helper::Task;
use crate::net::relief;
use crate::supervise::event::Exit;

impl Machine {
    /// Starts those whose time it is.
    pub(super) fn start_network(&mut self) {
        let now = now();
        self.network.look(now, relief::is_crowded);
        self.network.kill_silent(now, &mut self.console);
        for index in self.network.due(now) {
            match self.network.start(index, now) {
                Ok(pid) => {
                    self.children.insert(pid, Role::Network(index));
                    if let Some(pipe) = self.network.pipe(index) {
                        let _ = self.watch(Source::Network(index), pipe);
                    }
                }
                Err(error) => {
                    self.console.say(format_args!(
                        "cannot start a child for the network: {error}"
                    ));
                    self.on_network_exit(index, Exit::Unknown);
                }
            }
        }
    }

    /// Takes what one tells; workloads may wait for the first address.
    pub(super) fn read_network(&mut self, index: usize) {
        let was_up = self.network.is_up();
        self.network.read(index, now(), &mut self.console);
        self.heed_network(was_up);
    }

    pub(super) fn on_network_exit(&mut self, index: usize, exit: Exit) {
        let was_up = self.network.is_up();
        let done = self.network.on_exit(index, exit, now(), &mut self.console);
        self.heed_network(was_up);
        if done == Some(Task::Fabric) {
            self.set_condition(BootCondition::Firewall, true);
        }
    }

    fn heed_network(&mut self, was_up: bool) {
        if self.network.is_up() != was_up {
            self.set_condition(BootCondition::Network, self.network.is_up());
        }
    }
}
