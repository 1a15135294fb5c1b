//! The event loop of the second life: waits, tells the engine what happened, and does what it asks for.
//!
//! Nothing here returns an error to its caller: whatever fails is told on the console, and the loop goes on
//! with what runs. The loop ends in [`crate::shutdown`].

mod actions;
mod devices;
mod network;
mod output;
mod pods;
mod probing;
mod reaping;
mod signals;
mod sockets;
mod source;
mod state_keeper;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::process::ChildStdout;
use std::time::Duration;

use config::boot::{BootCondition, BootPod, BootSpec};
use rustix::event::epoll;
use rustix::thread::sched_getaffinity;

use crate::buttons::PowerButton;
use crate::console::{Console, now};
use crate::halt::Ending;
use crate::hotplug::Hotplug;
use crate::kernel_log::KernelLog;
use crate::listen::Listener;
use crate::log::batch::Batch;
use crate::log::journal::Journal;
use crate::net::Network;
use crate::net::helper::Task;
use crate::probe::link::Link;
use crate::shutdown;
use crate::state::State;
use crate::supervise::engine::{Engine, Settings};
use crate::supervise::event::{Event, Exit, Id};
use crate::uevent::UeventSocket;
use crate::watchdog::Watchdog;
use crate::workload::Workload;
use output::{Left, Paused};
use signals::Stopping;
pub use signals::signals;
use source::{Role, Source};
use state_keeper::StateKeeper;

/// How long after the start of the loop the late modules wait for the workloads to be ready.
const LATE_MODULES_AFTER: Duration = Duration::from_secs(5);

/// Everything that PID 1 holds.
#[derive(Debug)]
pub struct Machine {
    pub(crate) console: Console,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) state: Result<Option<State>, String>,
    pub(crate) network: Network,
    pub(crate) kernel_log: Option<KernelLog>,
    pods: Vec<BootPod>,
    listeners: Vec<Listener>,
    engine: Engine,
    epoll: OwnedFd,
    signals: OwnedFd,
    uevents: Option<UeventSocket>,
    buttons: Vec<Option<PowerButton>>,
    hotplug: Hotplug,
    prober: Link,
    children: BTreeMap<i32, Role>,
    early_exits: VecDeque<(i32, Exit)>,
    console_watched: bool,
    children_left: bool,
    stopping: Option<Stopping>,
    shutdown_timeout: Duration,
    pub(crate) watchdog: Option<Watchdog>,
    journal: Journal,
    /// Lines between a pipe and the console and the journal.
    batch: Batch,
    paused: Vec<Paused>,
    /// Workloads that said too much at their notify sockets, and until when they are not listened to.
    resting: Vec<(Id, Duration)>,
    /// Streams of processes that are gone, and when they are looked at again.
    left: Vec<Left>,
    left_due: Option<Duration>,
    all_stopped: bool,
    state_keeper: StateKeeper,
    /// Modules still to be loaded, and when at the latest.
    late_modules: Option<(Vec<String>, Duration)>,
    /// What the child says that asks for the times before the kernel.
    boot_times: Option<ChildStdout>,
}

/// Starts at once: as many as keep each processor busy while some of them wait for a disk.
const STARTS_PER_PROCESSOR: usize = 8;

/// How many processors the machine has.
fn processors() -> usize {
    let set = sched_getaffinity(None).map_or(1, |set| set.count());
    usize::try_from(set).map_or(1, |count| count.max(1))
}

/// The jitter of restarts needs no better seed than the time that the boot took.
fn settings(spec: &BootSpec) -> Settings {
    Settings {
        seed: u64::from(now().subsec_nanos()) | 1,
        shutdown_limit: Duration::from_millis(spec.shutdown_timeout_ms),
        starts: STARTS_PER_PROCESSOR * processors(),
    }
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
        let mount_point = state.as_ref().ok().and_then(Option::as_ref);
        let mount_point = mount_point.map(|state| state.mount_point.as_str());
        let (journal, made) = Journal::new(spec, mount_point);
        let mut machine = Self {
            console,
            workloads: spec.workloads.iter().cloned().map(Workload::new).collect(),
            state,
            network: Network::new(spec),
            kernel_log: None,
            pods: spec.pods.clone(),
            listeners: spec.sockets.iter().map(Listener::open).collect(),
            engine: Engine::new(&spec.workloads, &spec.pods, settings(spec)),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            signals,
            uevents,
            buttons: Vec::new(),
            hotplug: Hotplug::new(spec.drivers),
            prober: Link::default(),
            children: BTreeMap::new(),
            early_exits: VecDeque::new(),
            console_watched: false,
            children_left: false,
            stopping: None,
            shutdown_timeout: Duration::from_millis(spec.shutdown_timeout_ms),
            watchdog: None,
            journal,
            batch: Batch::default(),
            paused: Vec::new(),
            resting: Vec::new(),
            left: Vec::new(),
            left_due: None,
            all_stopped: false,
            state_keeper: StateKeeper::default(),
            late_modules: Some((spec.late_modules.clone(), now() + LATE_MODULES_AFTER)),
            boot_times: None,
        };
        if let Err(text) = made {
            machine.console.say(text);
        }
        machine.watch(Source::Signals, &machine.signals)?;
        if let Some(uevents) = &machine.uevents {
            machine.watch(Source::Uevents, uevents)?;
        }
        Ok(machine)
    }

    /// Arms the watchdog device; without one the machine goes on unwatched.
    pub fn arm_watchdog(&mut self, seconds: u32) {
        match Watchdog::arm(seconds, now()) {
            Ok((watchdog, text)) => {
                self.console.say(text);
                self.watchdog = Some(watchdog);
            }
            Err(text) => self.console.say(text),
        }
    }

    /// Runs the machine until it ends.
    pub fn run(mut self) -> ! {
        for button in PowerButton::find_all() {
            self.add_button(button);
        }
        self.ask_for_missing_drivers();
        self.start_network();
        self.take_kernel_log();
        if self.state_is_urgent() {
            self.start_state_keeper();
        }
        if !self.network.has(Task::Fabric) {
            self.set_condition(BootCondition::Firewall, true);
        }
        self.tell_engine(Event::Begin);
        loop {
            self.finish_turn();
            if self.all_stopped {
                let ending = self
                    .stopping
                    .map_or(Ending::PowerOff, |stopping| stopping.ending);
                shutdown::finish(self, ending)
            }
            self.wait_and_dispatch();
        }
    }

    /// Lets go of everything but the console.
    #[must_use]
    pub(crate) fn give_up_all(self) -> Console {
        self.console
    }

    fn finish_turn(&mut self) {
        if self.children_left {
            self.reap();
        }
        self.log_own_lines();
        self.journal.wake();
        self.start_modprobe();
        self.keep_prober();
        self.console.write_some();
        self.watch_console();
    }
}
