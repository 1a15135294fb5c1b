//! The event loop of the second life: waits, tells the engine what happened, and does what it asks for.
//!
//! Nothing here returns an error to its caller: whatever fails is told on the console, and the loop goes on
//! with what runs. The loop ends in [`crate::shutdown`].

mod actions;
mod reaping;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use config::boot::BootSpec;
use rustix::event::epoll;
use rustix::time::Timespec;

use crate::buttons::PowerButton;
use crate::console::{Console, now};
use crate::halt::Ending;
use crate::initramfs::corruption_message;
use crate::kernel_log::KernelLog;
use crate::net::Network;
use crate::state::State;
use crate::supervise::engine::Engine;
use crate::supervise::event::{Event, Exit, Id};
use crate::sys::{self, Stage};
use crate::uevent::{Uevent, UeventSocket};
use crate::workload::{Stream, Workload};
use crate::{halt, modules, readahead, shutdown};

/// How long after the start of the loop the late modules wait for the workloads to be ready.
const LATE_MODULES_AFTER: Duration = Duration::from_secs(5);

/// What a descriptor in the loop belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Console,
    Signals,
    Uevents,
    Button(usize),
    Output(Id, Stream),
    Lease(usize),
    KernelLog,
}

/// What a child process was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Start(Id),
    Main(Id),
    Clean(Id),
    Probe(Id),
    Dhcp(usize),
}

/// Everything that PID 1 holds.
#[derive(Debug)]
pub struct Machine {
    pub(crate) console: Console,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) state: Result<Option<State>, String>,
    pub(crate) network: Network,
    pub(crate) kernel_log: Option<KernelLog>,
    engine: Engine,
    epoll: OwnedFd,
    signals: OwnedFd,
    uevents: Option<UeventSocket>,
    buttons: Vec<Option<PowerButton>>,
    children: BTreeMap<i32, Role>,
    early_exits: VecDeque<(i32, Exit)>,
    console_watched: bool,
    children_left: bool,
    ending: Option<Ending>,
    all_stopped: bool,
    /// Modules still to be loaded, and when at the latest.
    late_modules: Option<(Vec<String>, Duration)>,
}

impl Machine {
    /// Puts the parts together and begins to listen to them.
    ///
    /// # Errors
    /// Only when the kernel has no epoll descriptor to give: nothing could be waited for.
    pub fn new(
        console: Console,
        spec: &BootSpec,
        state: Result<Option<State>, String>,
        signals: OwnedFd,
        uevents: Option<UeventSocket>,
    ) -> rustix::io::Result<Self> {
        let machine = Self {
            console,
            workloads: spec.workloads.iter().cloned().map(Workload::new).collect(),
            state,
            network: Network::new(spec),
            kernel_log: None,
            engine: Engine::new(&spec.workloads),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            signals,
            uevents,
            buttons: Vec::new(),
            children: BTreeMap::new(),
            early_exits: VecDeque::new(),
            console_watched: false,
            children_left: false,
            ending: None,
            all_stopped: false,
            late_modules: Some((spec.late_modules.clone(), now() + LATE_MODULES_AFTER)),
        };
        machine.watch(Source::Signals, &machine.signals)?;
        if let Some(uevents) = &machine.uevents {
            machine.watch(Source::Uevents, uevents)?;
        }
        Ok(machine)
    }

    /// Runs the machine until it ends.
    pub fn run(mut self) -> ! {
        for button in PowerButton::find_all() {
            self.add_button(button);
        }
        for interface in 0..self.network.len() {
            self.start_dhcp(interface);
        }
        self.take_kernel_log();
        self.tell_engine(Event::Begin);
        loop {
            self.finish_turn();
            if self.all_stopped {
                let ending = self.ending.unwrap_or(Ending::PowerOff);
                shutdown::finish(self, ending)
            }
            self.wait_and_dispatch();
        }
    }

    fn finish_turn(&mut self) {
        if self.children_left {
            self.reap();
        }
        self.console.write_some();
        self.watch_console();
    }

    fn wait_and_dispatch(&mut self) {
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
        for interface in self.network.due(now) {
            self.start_dhcp(interface);
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
        ];
        let deadline = deadlines.into_iter().flatten().min()?;
        let left = deadline.saturating_sub(now());
        Some(if left.is_zero() {
            left
        } else {
            left + Duration::from_millis(1)
        })
    }

    fn late_modules_deadline(&self) -> Option<Duration> {
        self.late_modules.as_ref().map(|(_, deadline)| *deadline)
    }

    /// Ends the boot, once: loads what no workload waits for, and lets the kernel read ahead as it likes. Buttons
    /// that appear by it are told by uevents.
    pub(crate) fn end_boot(&mut self) {
        if let Some((paths, _)) = self.late_modules.take() {
            readahead::set_for_root(readahead::AFTERWARDS_KIB);
            modules::load_all(&paths, &mut self.console);
        }
    }

    fn dispatch(&mut self, source: Source) {
        match source {
            Source::Console => self.console.write_some(),
            Source::Signals => self.read_signals(),
            Source::Uevents => self.read_uevents(),
            Source::Button(index) => self.read_button(index),
            Source::Output(id, stream) => {
                let Some(workload) = self.workloads.get_mut(id) else {
                    return;
                };
                let name = workload.spec.name.clone();
                workload.read_output(stream, &mut |line| self.console.say_for(&name, line));
            }
            Source::Lease(interface) => self.network.read(interface, &mut self.console),
            Source::KernelLog => self.read_kernel_log(),
        }
    }

    fn read_signals(&mut self) {
        let mut numbers = [0_u8; 64];
        let count = rustix::io::read(&self.signals, &mut numbers).unwrap_or(0);
        for &number in &numbers[..count] {
            match i32::from(number) {
                libc::SIGCHLD => self.children_left = true,
                libc::SIGINT => self.stop(Ending::Reboot, "Ctrl-Alt-Del"),
                libc::SIGUSR1 => self.stop(Ending::Halt, "SIGUSR1"),
                libc::SIGUSR2 => self.stop(Ending::PowerOff, "SIGUSR2"),
                _ => self.stop(Ending::PowerOff, "SIGTERM"),
            }
        }
        if self.children_left {
            self.reap();
        }
    }

    /// Begins to stop; the first wish counts.
    fn stop(&mut self, ending: Ending, why: &str) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(ending);
        sys::mark(Stage::Stopping);
        self.console.say("stage stopping");
        self.console.say(format_args!("stopping by {why}"));
        self.tell_engine(Event::Shutdown);
    }

    fn read_uevents(&mut self) {
        while let Some(event) = self.uevents.as_ref().and_then(UeventSocket::next) {
            match event {
                Uevent::Corrupted(block) => self.refuse(&corruption_message(&block)),
                Uevent::InputAdded(node) => {
                    if let Some(button) = node.strip_prefix("input/").and_then(PowerButton::open) {
                        self.add_button(button);
                    }
                }
                Uevent::BlockAdded | Uevent::Other => {}
            }
        }
    }

    /// Ends the machine because what it runs from cannot be trusted any more.
    fn refuse(&mut self, reason: &str) -> ! {
        self.console.say(format_args!("refused: {reason}"));
        shutdown::kill_all();
        shutdown::unmount_state(self);
        halt::end(&mut self.console, Ending::PowerOff)
    }

    /// From now on a workload may print.
    fn take_kernel_log(&mut self) {
        self.kernel_log = KernelLog::take();
        if let Some(log) = &self.kernel_log
            && self.watch(Source::KernelLog, log).is_err()
        {
            log.give_back();
            self.kernel_log = None;
        }
    }

    /// A workload may make the kernel say much: such lines are dropped like its own when the console is slow.
    pub(crate) fn read_kernel_log(&mut self) {
        if let Some(log) = &self.kernel_log {
            log.read(|text| self.console.say_if_room(format_args!("kernel: {text}")));
        }
    }

    fn add_button(&mut self, button: PowerButton) {
        let index = self.buttons.len();
        if self.watch(Source::Button(index), &button).is_ok() {
            self.buttons.push(Some(button));
        }
    }

    fn read_button(&mut self, index: usize) {
        match self
            .buttons
            .get(index)
            .and_then(Option::as_ref)
            .map(PowerButton::was_pressed)
        {
            Some(Some(true)) => self.stop(Ending::PowerOff, "the power button"),
            Some(None) => self.buttons[index] = None,
            _ => {}
        }
    }

    fn start_dhcp(&mut self, interface: usize) {
        if self.ending.is_some() {
            return;
        }
        match self.network.start(interface) {
            Ok(Some(pid)) => {
                self.children.insert(pid, Role::Dhcp(interface));
                if let Some(pipe) = self.network.pipe(interface) {
                    let _ = self.watch(Source::Lease(interface), pipe);
                }
            }
            Ok(None) => {}
            Err(error) => {
                self.console.say(format_args!("cannot start DHCP: {error}"));
                self.network.on_exit(interface, now(), &mut self.console);
            }
        }
    }

    fn watch(&self, source: Source, fd: impl AsFd) -> rustix::io::Result<()> {
        epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(source.encode()),
            epoll::EventFlags::IN,
        )
    }

    /// The console is waited for only while it has a backlog.
    fn watch_console(&mut self) {
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

impl Source {
    const fn encode(self) -> u64 {
        let (kind, index) = match self {
            Self::Console => (0, 0),
            Self::Signals => (1, 0),
            Self::Uevents => (2, 0),
            Self::Button(index) => (3, index),
            Self::Output(id, Stream::Out) => (4, id),
            Self::Output(id, Stream::Error) => (5, id),
            Self::Lease(interface) => (6, interface),
            Self::KernelLog => (7, 0),
        };
        kind << 32 | index as u64
    }

    fn decode(data: u64) -> Option<Self> {
        let index = usize::try_from(data & 0xffff_ffff).ok()?;
        Some(match data >> 32 {
            0 => Self::Console,
            1 => Self::Signals,
            2 => Self::Uevents,
            3 => Self::Button(index),
            4 => Self::Output(index, Stream::Out),
            5 => Self::Output(index, Stream::Error),
            6 => Self::Lease(index),
            7 => Self::KernelLog,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_way_through_epoll() {
        let sources = [
            Source::Console,
            Source::Signals,
            Source::Uevents,
            Source::Button(3),
            Source::Output(499, Stream::Out),
            Source::Output(0, Stream::Error),
            Source::Lease(1),
            Source::KernelLog,
        ];
        for source in sources {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(99 << 32), None);
    }
}
