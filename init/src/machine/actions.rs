//! What the engine's actions come to.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use config::boot::BootCondition;

use super::{Machine, Role, Source};
use crate::console::now;
use crate::secrets;
use crate::supervise::event::{Action, Event, Id, Notice};
use crate::supervise::notices::{self, Names};
use crate::sys::{self, Stage};
use crate::workload::Stream;

impl Machine {
    /// Tells the engine what happened, and does what it asks for until it asks for nothing more.
    pub(super) fn tell_engine(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.engine.handle(event, now()) {
                events.extend(self.perform(action));
            }
        }
    }

    /// The machine has, or lost, what workloads wait for: whoever sees to it says so, as often as he likes.
    pub(crate) fn set_condition(&mut self, condition: BootCondition, holds: bool) {
        self.tell_engine(Event::Condition { condition, holds });
    }

    /// Does what the engine asks for; returns what is known of the result at once.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(id) => return self.start(id),
            Action::Clean(id) => return self.clean(id),
            Action::Probe(id, kind) => return self.probe(id, kind),
            Action::AbortStart(id) | Action::AbortClean(id) => {
                if let Some(pid) = self.workloads[id].helper_pid {
                    let _ = sys::kill(pid, libc::SIGKILL);
                }
            }
            Action::Signal(id, signal) => self.workloads[id].ask_to_stop(signal),
            Action::Kill(id) => self.workloads[id].kill(),
            Action::StopProbe(id) => self.stop_probe(id),
            Action::Watch(id) => return self.watch_sockets(id),
            Action::Unwatch(id) => self.unwatch_sockets(id),
            Action::CloseSockets(id) => self.close_sockets(id),
            Action::AbortPod(pod) => self.abort_pod(pod),
            Action::PreparePod(pod) => return self.prepare_pod(pod),
            Action::RemovePod(pod) => return self.remove_pod(pod),
            Action::Tell(notice) => self.tell(&notice),
            Action::AllStopped => self.all_stopped = true,
        }
        None
    }

    fn tell(&mut self, notice: &Notice) {
        match notice {
            Notice::Ready(_) => sys::mark(Stage::WorkloadReady),
            Notice::AllReady => {
                sys::mark(Stage::Ready);
                // Before the words are out: whoever reads them may press the power button.
                self.end_boot();
                self.read_uevents();
            }
            _ => {}
        }
        let names = Names {
            workload: &|id| self.workloads[id].spec.name.as_str(),
            pod: &|id| self.pods[id].name.as_str(),
        };
        let text = notices::describe(notice, names);
        self.console.say(text);
    }

    fn start(&mut self, id: Id) -> Option<Event> {
        if let Err(event) = self.prepare_volumes(id) {
            return Some(event);
        }
        let spec = &self.workloads[id].spec;
        if let Err(reason) = secrets::provide(&spec.name, &spec.secrets) {
            return Some(Event::CannotStart(id, reason));
        }
        self.execute_runtime(id)
            .err()
            .map(|reason| Event::StartFailed(id, reason))
    }

    /// The state partition is mounted once, before: without it there will be no volumes in this boot.
    fn prepare_volumes(&mut self, id: Id) -> Result<(), Event> {
        let volumes = &self.workloads[id].spec.volumes;
        let name = &self.workloads[id].spec.name;
        let console = &mut self.console;
        let mut tell = |text| console.say(format_args!("workload {name}: {text}"));
        let without = |reason: String| Err(Event::CannotStart(id, reason));
        match &self.state {
            _ if volumes.is_empty() => Ok(()),
            Ok(Some(state)) => {
                if let Some(reason) = volumes.iter().find_map(|volume| state.refuses(volume)) {
                    return without(reason);
                }
                volumes
                    .iter()
                    .try_for_each(|volume| state.prepare_volume(volume, &mut tell))
                    .map_err(|reason| Event::StartFailed(id, reason))
            }
            Ok(None) => {
                without("its volumes need a state partition, and the machine has none".to_owned())
            }
            Err(reason) => without(format!("its volumes need the state partition: {reason}")),
        }
    }

    fn execute_runtime(&mut self, id: Id) -> Result<(), String> {
        self.close_outputs(id);
        self.open_notify_socket(id)?;
        let pid = self.start_with_sockets(id)?;
        self.children.insert(pid, Role::Start(id));
        for stream in Stream::ALL {
            if let Some(output) = self.workloads[id].output(stream) {
                let watched = self.watch(Source::Output(id, stream), output);
                if let Err(errno) = watched {
                    // The runtime runs: what it has begun is over when it is, and then the start has failed.
                    let reason = format!("cannot listen to its output: {errno}");
                    self.workloads[id].note_error(reason);
                    let _ = sys::kill(pid, libc::SIGKILL);
                }
            }
        }
        Ok(())
    }

    fn start_with_sockets(&mut self, id: Id) -> Result<i32, String> {
        let names: Vec<String> = self.listeners_of(id).map(|l| l.name.clone()).collect();
        let descriptors: Result<Vec<OwnedFd>, String> = self
            .listeners_of(id)
            .map(|listener| {
                let copy = listener.descriptor()?.try_clone_to_owned();
                copy.map_err(|error| format!("socket {}: {error}", listener.name))
            })
            .collect();
        self.workloads[id].start(&names, &descriptors?)
    }

    fn clean(&mut self, id: Id) -> Option<Event> {
        let workload = &mut self.workloads[id];
        workload.notify = None;
        workload.kill();
        workload.main_pid = None;
        match workload.clean() {
            Ok(pid) => {
                self.children.insert(pid, Role::Clean(id));
                None
            }
            Err(error) => {
                self.console.say(format_args!(
                    "workload {}: cannot remove it: {error}",
                    workload.spec.name
                ));
                Some(Event::Cleaned(id))
            }
        }
    }
}
