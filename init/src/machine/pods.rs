//! The children that make and remove the namespaces of pods.

use std::process::Stdio;

use super::{Machine, Role};
use crate::supervise::event::{Event, Exit, PodId};
use crate::{children, pod, sys};

impl Machine {
    /// Starts the child that makes the pod's namespaces; an event if there will be none.
    pub(super) fn prepare_pod(&mut self, pod: PodId) -> Option<Event> {
        self.forget_first_of(pod);
        let words = pod::make_arguments(&self.pods[pod]);
        match self.start_pod_child(&words, Role::MakePod(pod)) {
            Ok(()) => None,
            Err(reason) => Some(Event::PodFailed(pod, reason)),
        }
    }

    /// Starts the child that removes them; an event if there will be none.
    pub(super) fn remove_pod(&mut self, pod: PodId) -> Option<Event> {
        self.forget_first_of(pod);
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
        let made = match exit {
            Exit::Status(0) => self.watch_first_of(pod),
            other => Err(format!("its namespaces could not be made ({other:?})")),
        };
        self.tell_engine(match made {
            Ok(()) => Event::PodPrepared(pod),
            Err(reason) => Event::PodFailed(pod, reason),
        });
    }

    /// The pid namespace ends with its first process, and no workload starts in it any more: the pod is made again.
    pub(super) fn on_pod_lost(&mut self, pod: PodId, exit: Exit) {
        let reason = format!("the first process of its pid namespace ended ({exit:?})");
        self.tell_engine(Event::PodFailed(pod, reason));
    }

    fn watch_first_of(&mut self, pod: PodId) -> Result<(), String> {
        if !self.pods[pod].share_pid {
            return Ok(());
        }
        let pid = pod::first_process(&self.pods[pod].name)
            .ok_or("the first process of its pid namespace is not known")?;
        if let Some(exit) = self.take_early_exit(pid) {
            return Err(format!(
                "the first process of its pid namespace ended ({exit:?})"
            ));
        }
        self.children.insert(pid, Role::FirstOfPod(pod));
        Ok(())
    }

    /// Its end is meant.
    fn forget_first_of(&mut self, pod: PodId) {
        let is_its = |role: &Role| *role == Role::FirstOfPod(pod);
        self.children.retain(|_, role| !is_its(role));
    }

    /// What the child says of a failure goes where the machine's own words go.
    fn start_pod_child(&mut self, words: &[String], role: Role) -> Result<(), String> {
        let mut command = children::command();
        let pid = children::spawn(command.args(words).stderr(Stdio::inherit()))
            .map_err(|error| format!("cannot execute a child: {error}"))?;
        self.children.insert(pid, role);
        Ok(())
    }
}
