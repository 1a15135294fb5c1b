//! The children that make and remove the namespaces of pods.

use std::process::{Command, Stdio};

use super::{Machine, Role};
use crate::supervise::event::{Event, Exit, PodId};
use crate::{SELF, pod, sys};

impl Machine {
    /// Starts the child that makes the pod's namespaces; an event if there will be none.
    pub(super) fn prepare_pod(&mut self, pod: PodId) -> Option<Event> {
        let words = pod::make_arguments(&self.pods[pod]);
        match self.start_pod_child(&words, Role::MakePod(pod)) {
            Ok(()) => None,
            Err(reason) => Some(Event::PodFailed(pod, reason)),
        }
    }

    /// Starts the child that removes them; an event if there will be none.
    pub(super) fn remove_pod(&mut self, pod: PodId) -> Option<Event> {
        let words = pod::remove_arguments(&self.pods[pod]);
        match self.start_pod_child(&words, Role::RemovePod(pod)) {
            Ok(()) => None,
            Err(reason) => {
                let name = &self.pods[pod].name;
                self.console
                    .say(format_args!("pod {name}: cannot remove it: {reason}"));
                Some(Event::PodRemoved(pod))
            }
        }
    }

    /// The child that makes them takes too long: its end is heard as any other.
    pub(super) fn abort_pod(&self, pod: PodId) {
        let is_its = |role: &Role| matches!(role, Role::MakePod(other) | Role::RemovePod(other) if *other == pod);
        let pids = self.children.iter().filter(|(_, role)| is_its(role));
        for (&pid, _) in pids {
            let _ = sys::kill(pid, libc::SIGKILL);
        }
    }

    pub(super) fn on_pod_made(&mut self, pod: PodId, exit: Exit) {
        let event = match exit {
            Exit::Status(0) => Event::PodPrepared(pod),
            other => {
                let reason = format!("its namespaces could not be made ({other:?})");
                Event::PodFailed(pod, reason)
            }
        };
        self.tell_engine(event);
    }

    /// What the child says of a failure goes where the machine's own words go.
    fn start_pod_child(&mut self, words: &[String], role: Role) -> Result<(), String> {
        let child = Command::new(SELF)
            .args(words)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot execute a child: {error}"))?;
        let pid = i32::try_from(child.id()).expect("a process id fits an i32");
        self.children.insert(pid, role);
        Ok(())
    }
}
