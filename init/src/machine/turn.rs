//! One turn of the loop: how long to wait, for what, and who hears of it.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::time::Timespec;

use super::{Machine, Source};
use crate::console::now;
use crate::supervise::event::Event;
use crate::watchdog::Watchdog;

impl Machine {
    pub(super) fn wait_and_dispatch(&mut self) {
        let timeout = self.time_left().map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 32];
        let count = epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()).unwrap_or(0);
        for event in &events[..count] {
            if let Some(source) = Source::decode(event.data.u64()) {
                self.dispatch(source);
            }
        }
        let now = now();
        if self
            .engine
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.tell_engine(Event::Tick);
        }
        if self
            .late_modules_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.end_boot();
        }
        if self.state_keeper.is_due(now) {
            self.start_state_keeper();
        }
        if self
            .stopping
            .is_some_and(|stopping| stopping.deadline <= now)
        {
            self.stop_is_late();
        }
        self.start_network();
        self.wake_notify_sockets(now);
        self.keep_log(now);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.after_turn(self.engine.next_deadline(), now);
        }
    }

    /// Rounded up to milliseconds, which is what epoll counts in.
    fn time_left(&self) -> Option<Duration> {
        if self.children_left {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.engine.next_deadline(),
            self.network.next_deadline(),
            self.late_modules_deadline(),
            self.state_keeper.next_deadline(),
            self.prober_deadline(),
            self.log_deadline(),
            self.rest_deadline(),
            self.stopping.map(|stopping| stopping.deadline),
            self.watchdog.as_ref().map(Watchdog::next_deadline),
        ];
        let deadline = deadlines.into_iter().flatten().min()?;
        let left = deadline.saturating_sub(now());
        Some(if left.is_zero() {
            left
        } else {
            left + Duration::from_millis(1)
        })
    }

    fn dispatch(&mut self, source: Source) {
        match source {
            Source::Console => self.console.write_some(),
            Source::Signals => self.read_signals(),
            Source::Uevents => self.read_uevents(),
            Source::Button(index) => self.read_button(index),
            Source::Output(id, stream) => self.read_output(id, stream),
            Source::Network(index) => self.read_network(index),
            Source::KernelLog => self.read_kernel_log(),
            Source::StateKeeper => self.read_state_keeper(),
            Source::Prober => self.read_prober(),
            Source::Log => self.read_log_link(),
            Source::Socket(id) => self.on_connection(id),
            Source::Notify(id) => self.read_notify(id),
        }
    }

    pub(super) fn watch(&self, source: Source, fd: impl AsFd) -> rustix::io::Result<()> {
        epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(source.encode()),
            epoll::EventFlags::IN,
        )
    }

    /// The console is waited for only while it has a backlog.
    pub(super) fn watch_console(&mut self) {
        let wanted = self.console.has_backlog();
        if wanted == self.console_watched {
            return;
        }
        let Some(device) = self.console.fd() else {
            return;
        };
        let data = epoll::EventData::new_u64(Source::Console.encode());
        let result = if wanted {
            epoll::add(&self.epoll, device, data, epoll::EventFlags::OUT)
        } else {
            epoll::delete(&self.epoll, device)
        };
        self.console_watched = wanted && result.is_ok();
    }
}
