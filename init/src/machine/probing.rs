//! Probes: by the prober, or by a process inside the workload; and the prober's own life.

use std::time::Duration;

use config::boot::Check;

use super::{Machine, Role, Source};
use crate::console::now;
use crate::probe::request::{Question, Request};
use crate::supervise::event::{Event, Exit, Id, ProbeKind, ProbeResult};
use crate::sys;

impl Machine {
    /// Begins a probe; what is known of it at once.
    pub(super) fn probe(&mut self, id: Id, kind: ProbeKind) -> Option<Event> {
        let workload = &mut self.workloads[id];
        let lost = Some(Event::Probed(id, ProbeResult::Lost));
        let (Some(pid), Some((check, timeout_ms))) = (workload.main_pid, workload.check(kind))
        else {
            return lost;
        };
        if let Some(question) = Question::of(&check) {
            let request = Request {
                kind,
                timeout: Duration::from_millis(timeout_ms.max(1)),
                question,
            };
            self.prober.ask(id, pid, request, now());
            return None;
        }
        let Check::Exec { command } = check else {
            return lost;
        };
        match workload.start_probe(kind, &command, timeout_ms) {
            Ok(pid) => {
                self.children.insert(pid, Role::Probe(id));
                None
            }
            Err(error) => {
                let name = &workload.spec.name;
                let text = format_args!("workload {name}: cannot start a probe: {error}");
                self.console.say(text);
                lost
            }
        }
    }

    pub(super) fn stop_probe(&mut self, id: Id) {
        self.prober.forget(id);
        if let Some(pid) = self.workloads[id].probe_pid.take() {
            self.children.remove(&pid);
            let _ = sys::kill(pid, libc::SIGKILL);
        }
    }

    /// When [`Machine::keep_prober`] has something to do.
    pub(super) fn prober_deadline(&self) -> Option<Duration> {
        self.prober
            .next_deadline()
            .filter(|_| self.stopping.is_none())
    }

    /// Starts the prober when it is asked for something, and sends it what it has not got yet.
    pub(super) fn keep_prober(&mut self) {
        let now = now();
        if self.prober.is_due(now) && self.stopping.is_none() {
            match self.prober.start(now) {
                Ok(pid) => {
                    self.children.insert(pid, Role::Prober);
                    if let Some(socket) = self.prober.socket()
                        && let Err(errno) = self.watch(Source::Prober, socket)
                    {
                        let text = format_args!("cannot listen to the prober: {errno}");
                        self.console.say(text);
                        let _ = sys::kill(pid, libc::SIGKILL);
                    }
                }
                Err(error) => {
                    let text = format_args!("cannot start the prober: {error}");
                    self.console.say(text);
                }
            }
        }
        for id in self.prober.keep(now) {
            self.tell_engine(Event::Probed(id, ProbeResult::Lost));
        }
    }

    pub(super) fn read_prober(&mut self) {
        for (id, result) in self.prober.read() {
            self.tell_engine(Event::Probed(id, result));
        }
    }

    pub(super) fn on_prober_exit(&mut self, exit: Exit) {
        self.read_prober();
        if self.stopping.is_none() {
            let text = format_args!("the prober ended ({exit:?}); starting it again");
            self.console.say(text);
        }
        self.prober.on_exit(now());
    }
}
