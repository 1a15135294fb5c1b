//! Children that ended: what they were started for, and what their end means.

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::{Machine, Role};
use crate::console::now;
use crate::limits;
use crate::supervise::event::{Event, Exit, Id, ProbeResult};
use crate::sys;

/// Children reaped in one turn, so that a zombie factory does not starve the loop.
const REAP_LIMIT: usize = 256;
/// Exits of unknown processes that are remembered while the runtime starts something.
const EARLY_EXITS: usize = 256;

impl Machine {
    /// Reaps all that ended, orphans too, within the limit of a turn.
    pub(super) fn reap(&mut self) {
        self.children_left = false;
        for _ in 0..REAP_LIMIT {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    self.on_child(pid.as_raw_nonzero().get(), exit_of(status))
                }
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
        self.children_left = true;
    }

    fn on_child(&mut self, pid: i32, exit: Exit) {
        match self.children.remove(&pid) {
            Some(Role::Start(id)) => {
                self.on_runtime_done(id, exit);
                // A process id comes again: what is remembered must not be taken for a later process.
                if !self.is_starting() {
                    self.early_exits.clear();
                }
            }
            Some(Role::Main(id)) => {
                self.workloads[id].main_pid = None;
                self.show_last_words(id);
                self.tell_engine(Event::Exited(id, exit));
            }
            Some(Role::Clean(id)) => {
                self.workloads[id].helper_pid = None;
                self.tell_engine(Event::Cleaned(id));
            }
            Some(Role::Probe(id)) => {
                self.workloads[id].probe_pid = None;
                let result = match exit {
                    Exit::Status(0) => ProbeResult::Passed,
                    Exit::Status(1) => ProbeResult::Failed,
                    _ => ProbeResult::Lost,
                };
                self.tell_engine(Event::Probed(id, result));
            }
            Some(Role::Modprobe) => self.hotplug.on_exit(exit),
            Some(Role::BootTimes) => self.tell_boot_times(),
            Some(Role::MakePod(pod)) => self.on_pod_made(pod, exit),
            Some(Role::RemovePod(pod)) => self.tell_engine(Event::PodRemoved(pod)),
            Some(Role::FirstOfPod(pod)) => self.on_pod_lost(pod, exit),
            Some(Role::Network(index)) => self.on_network_exit(index, exit),
            Some(Role::StateKeeper) => self.state_keeper.on_exit(exit, now()),
            Some(Role::Prober) => self.on_prober_exit(exit),
            Some(Role::Log) => self.on_log_exit(exit),
            None => self.remember_early_exit(pid, exit),
        }
    }

    /// A workload may end before the runtime that started it is reaped; then its id is not known yet.
    fn remember_early_exit(&mut self, pid: i32, exit: Exit) {
        if self.is_starting() {
            self.early_exits.push_back((pid, exit));
            if self.early_exits.len() > EARLY_EXITS {
                self.early_exits.pop_front();
            }
        }
    }

    fn is_starting(&self) -> bool {
        let starts = |role: &Role| matches!(role, Role::Start(_));
        self.children.values().any(starts)
    }

    fn on_runtime_done(&mut self, id: Id, exit: Exit) {
        self.workloads[id].helper_pid = None;
        if exit != Exit::Status(0) {
            self.show_last_words(id);
            let reason = self.workloads[id].take_last_error();
            let reason =
                reason.unwrap_or_else(|| format!("the runtime ended with {exit:?} and no word"));
            return self.tell_engine(Event::StartFailed(id, reason));
        }
        let pid = match self.workloads[id].read_pid() {
            Ok(pid) => pid,
            Err(reason) => return self.tell_engine(Event::StartFailed(id, reason)),
        };
        self.workloads[id].main_pid = Some(pid);
        if let Err(reason) = limits::bound_disks(&self.workloads[id].spec) {
            let name = &self.workloads[id].spec.name;
            self.console.say(format_args!(
                "workload {name}: its disk limits do not hold: {reason}"
            ));
        }
        self.tell_engine(Event::Started(id));
        match self.take_early_exit(pid) {
            None => drop(self.children.insert(pid, Role::Main(id))),
            Some(exit) => {
                self.workloads[id].main_pid = None;
                self.show_last_words(id);
                self.tell_engine(Event::Exited(id, exit));
            }
        }
    }

    pub(super) fn take_early_exit(&mut self, pid: i32) -> Option<Exit> {
        let found = self.early_exits.iter().position(|(early, _)| *early == pid);
        if let Some(index) = found {
            return self.early_exits.remove(index).map(|(_, exit)| exit);
        }
        // Forgotten among too many: it is gone, and nobody will tell its status again.
        sys::kill(pid, 0).is_err().then_some(Exit::Unknown)
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}
