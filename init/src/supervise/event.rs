//! What the engine hears and what it asks for: plain data, so that a test can play the machine.

use std::time::Duration;

/// A workload: its place in the boot specification.
pub type Id = usize;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
    /// It ended, but its status went to nobody.
    Unknown,
}

/// The result of a probe process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// The workload answered.
    Passed,
    /// It did not.
    Failed,
    /// The probe itself was killed or could not run: nothing is known.
    Lost,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The machine is ready to start workloads.
    Begin,
    /// Time passed: the deadline of [`super::engine::Engine::next_deadline`] may be over.
    Tick,
    /// The runtime executed the workload's command.
    Started(Id),
    /// The workload could not be started, for this reason.
    StartFailed(Id, String),
    /// The workload can not be started in this boot, for this reason; trying again is in vain.
    CannotStart(Id, String),
    /// The workload's first process ended.
    Exited(Id, Exit),
    /// The runtime removed what was left of the container (or could not: it is tried again at the next start).
    Cleaned(Id),
    /// A probe ended.
    Probed(Id, ProbeResult),
    /// The machine is to go down.
    Shutdown,
    /// After [`Event::Shutdown`]: it is to go down now, whatever still runs.
    Hurry,
}

/// What kind of probe is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Tries until the workload answers.
    UntilReady,
    /// Tries once.
    Once,
}

/// Something to do. Every action but [`Action::Tell`] and the signals is answered by an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run the runtime; answered by `Started`, `StartFailed` or `CannotStart`.
    Start(Id),
    /// The runtime takes too long: kill it; `StartFailed` follows.
    AbortStart(Id),
    /// Send this signal to the workload's first process; `Exited` follows, unless it refuses.
    Signal(Id, i32),
    /// Kill everything in the workload's cgroup.
    Kill(Id),
    /// Have the runtime remove the container; answered by `Cleaned`.
    Clean(Id),
    /// The runtime takes too long to remove it: kill the runtime; `Cleaned` follows.
    AbortClean(Id),
    /// Start a probe; answered by `Probed`.
    Probe(Id, ProbeKind),
    /// Kill the probe and forget it; nothing follows.
    StopProbe(Id),
    /// Tell the outside.
    Tell(Notice),
    /// Every workload is down after a [`Event::Shutdown`]; the last action ever.
    AllStopped,
}

/// Why a workload is not running any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Its process ended.
    Exited(Exit),
    /// It could not be started.
    StartFailed(String),
}

/// What becomes of a workload that went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is started again after this delay.
    Restart(Duration),
    /// It stays down.
    Down,
}

/// News for the console and for whoever asks later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The command runs.
    Started(Id),
    /// The workload is ready (again).
    Ready(Id),
    /// Every workload has been ready: once in a boot.
    AllReady,
    /// It takes long to become ready.
    Slow(Id, Duration),
    /// It went down by itself.
    Ended(Id, Cause, Next),
    /// A check failed, for the n-th time in a row.
    CheckFailed(Id, u32),
    /// Too many checks failed: it is stopped, to be started again.
    Unhealthy(Id),
    /// It did not stop in time and is killed.
    Killing(Id),
    /// Not even SIGKILL ended it.
    Unkillable(Id),
    /// The first one will not start, because the second one ended without ever being ready.
    Blocked(Id, Id),
    /// It was stopped as asked.
    Stopped(Id),
}
