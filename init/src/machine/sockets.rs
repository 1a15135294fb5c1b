//! Sockets that start workloads, and the ones by which workloads speak.

use std::time::Duration;

use rustix::event::epoll;

use super::{Machine, Source};
use crate::console::now;
use crate::listen::Listener;
use crate::notify::{NotifySocket, Word, is_of_workload};
use crate::supervise::event::{Event, Id};

impl Machine {
    /// The listeners of a workload, in the order of its descriptors.
    pub(super) fn listeners_of(&self, id: Id) -> impl Iterator<Item = &Listener> {
        let names = &self.workloads[id].spec.sockets;
        let by_name = |name: &String| self.listeners.iter().find(move |l| l.name == *name);
        names.iter().filter_map(by_name)
    }

    /// Waits for the first connection. Where one of the sockets is not there the start itself will tell.
    pub(super) fn watch_sockets(&self, id: Id) -> Option<Event> {
        let watched = self.listeners_of(id).all(|listener| {
            let descriptor = listener.descriptor();
            descriptor.is_ok_and(|descriptor| self.watch(Source::Socket(id), descriptor).is_ok())
        });
        if watched {
            return None;
        }
        self.unwatch_sockets(id);
        Some(Event::Connected(id))
    }

    pub(super) fn unwatch_sockets(&self, id: Id) {
        for descriptor in self.listeners_of(id).filter_map(|l| l.descriptor().ok()) {
            // One that is not watched is no error.
            let _ = epoll::delete(&self.epoll, descriptor);
        }
    }

    pub(super) fn close_sockets(&mut self, id: Id) {
        let names = &self.workloads[id].spec.sockets;
        for listener in &mut self.listeners {
            if names.contains(&listener.name) {
                listener.close();
            }
        }
    }

    pub(super) fn on_connection(&mut self, id: Id) {
        if id < self.workloads.len() {
            self.unwatch_sockets(id);
            self.tell_engine(Event::Connected(id));
        }
    }

    /// A socket of its own for each start: what an earlier run still says is not heard.
    pub(super) fn open_notify_socket(&mut self, id: Id) -> Result<(), String> {
        if !self.workloads[id].notifies() {
            return Ok(());
        }
        let socket = NotifySocket::open(&self.workloads[id].spec.name)
            .map_err(|error| format!("cannot make its notify socket: {error}"))?;
        self.watch(Source::Notify(id), &socket)
            .map_err(|errno| format!("cannot listen to its notify socket: {errno}"))?;
        self.workloads[id].notify = Some(socket);
        Ok(())
    }

    pub(super) fn read_notify(&mut self, id: Id) {
        let Some(workload) = self.workloads.get_mut(id) else {
            return;
        };
        let name = &workload.spec.name;
        let mut news = Vec::new();
        if let Some(socket) = &mut workload.notify {
            let console = &mut self.console;
            let rest = socket.read(
                now(),
                |pid| is_of_workload(pid, name),
                |word| match word {
                    Word::News(word) => news.push(word),
                    Word::Status(text) => console.say_for(name, &format!("status: {text}")),
                },
            );
            if let Some(until) = rest
                && epoll::delete(&self.epoll, &*socket).is_ok()
            {
                self.resting.push((id, until));
            }
        }
        for word in news {
            self.tell_engine(Event::Notified(id, word));
        }
    }

    /// When [`Machine::wake_notify_sockets`] has something to do.
    pub(super) fn rest_deadline(&self) -> Option<Duration> {
        self.resting.iter().map(|(_, until)| *until).min()
    }

    /// Listens again to workloads that have said too much before.
    pub(super) fn wake_notify_sockets(&mut self, now: Duration) {
        let (due, resting): (Vec<_>, Vec<_>) =
            self.resting.iter().partition(|(_, until)| *until <= now);
        self.resting = resting;
        for (id, _) in due {
            if let Some(socket) = &self.workloads[id].notify {
                // That of a later start is listened to already.
                let _ = self.watch(Source::Notify(id), socket);
            }
        }
    }
}
