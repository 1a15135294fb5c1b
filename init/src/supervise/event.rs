//! What the engine hears and what it asks for: plain data, so that a test can play the machine.

use std::time::Duration;

use config::boot::{BootCondition, StartLimit};

/// A workload: its place in the boot specification.
pub type Id = usize;

/// A pod: its place in the boot specification.
pub type PodId = usize;

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

/// What a workload says of itself by sd_notify(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// `READY=1`.
    Ready,
    /// `RELOADING=1`.
    Reloading,
    /// `STOPPING=1`: it is about to end.
    Stopping,
    /// `WATCHDOG=1`: it lives.
    Watchdog,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The machine is ready to start workloads.
    Begin,
    /// Time passed: the deadline of [`super::engine::Engine::next_deadline`] may be over.
    Tick,
    /// Somebody connects to one of the sockets that are watched since `Watch`, which ends with this.
    Connected(Id),
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
    /// One of the workload's own processes said something.
    Notified(Id, News),
    /// The pod's namespaces are there.
    PodPrepared(PodId),
    /// They could not be made, or they are gone, for this reason.
    PodFailed(PodId, String),
    /// What was left of the pod is removed (or could not be: it is tried again when it is prepared again).
    PodRemoved(PodId),
    /// The machine has what workloads wait for, or has it no more. It only orders the start: having held once counts.
    Condition {
        /// What it is.
        condition: BootCondition,
        /// Whether it is there now.
        holds: bool,
    },
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

/// Something to do. Every action but the signals and those that say so is answered by an event.
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
    /// Tell the first connection to one of its sockets, by `Connected`.
    Watch(Id),
    /// Watch its sockets no more; nothing follows.
    Unwatch(Id),
    /// Close its sockets for good; nothing follows. What watched them is over, too.
    CloseSockets(Id),
    /// Start a probe; answered by `Probed`.
    Probe(Id, ProbeKind),
    /// Kill the probe and forget it; nothing follows.
    StopProbe(Id),
    /// Make the namespaces that the pod's workloads share; answered by `PodPrepared` or `PodFailed`. None of them
    /// starts before.
    PreparePod(PodId),
    /// Making it takes too long: kill what makes it; `PodFailed` follows.
    AbortPod(PodId),
    /// Remove what `PreparePod` made; none of its workloads runs. Answered by `PodRemoved`.
    RemovePod(PodId),
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
    /// After this delay the next connection starts it.
    Listen(Duration),
    /// A job that is done.
    Done,
    /// It stays down, as it may.
    Down,
    /// It has failed for good, by this limit or by its restart policy.
    Failed(Option<StartLimit>),
}

/// What makes a running workload unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Too many checks failed in a row.
    Checks,
    /// It is not ready, and its grace is over.
    NotReady,
    /// `WATCHDOG=1` did not come in time.
    Watchdog,
    /// It said that it is about to end, and did not.
    StillThere,
}

/// Where a workload stands that others wait for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It failed.
    Failed,
    /// It ended well.
    Down,
    /// It waits in vain itself.
    Waiting,
}

/// News for the console and for whoever asks later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The command runs.
    Started(Id),
    /// The workload is ready (again).
    Ready(Id),
    /// Its sockets listen, and what it comes after is there: for the first time.
    Listening(Id),
    /// Every workload has been ready: once in a boot.
    AllReady,
    /// It takes long to become ready.
    Slow(Id, Duration),
    /// It went down by itself, or because it was unhealthy.
    Ended(Id, Cause, Next),
    /// A check failed, for the n-th time in a row.
    CheckFailed(Id, u32),
    /// It is unhealthy; whether it is stopped for that.
    Unhealthy(Id, Trouble, bool),
    /// The second one, which the first one requires, went down: the first one is stopped.
    NeedIsGone(Id, Id),
    /// It did not stop in time and is killed.
    Killing(Id),
    /// Not even SIGKILL ended it.
    Unkillable(Id),
    /// It waits long for this alone.
    WaitsFor(Id, BootCondition),
    /// The first one waits for the second one in vain.
    Blocked(Id, Id, Standing),
    /// It was stopped as asked.
    Stopped(Id),
    /// Nobody will answer on its sockets in this boot.
    SocketsClosed(Id),
    /// The pod could not be made, for this reason; it is tried again after the delay.
    PodNotMade(PodId, String, Duration),
    /// The pod is gone, for this reason; its workloads are stopped, and started again in a new one.
    PodLost(PodId, String),
    /// This workload of the pod failed for good; the others are stopped.
    PodFailed(PodId, Id),
}
