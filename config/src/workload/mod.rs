//! A validated workload: the part of the [`Spec`](crate::Spec) that becomes an OCI bundle.

use std::time::Duration;

mod command;
pub(crate) mod confinement;
mod files;
mod health;
mod limits;
mod restart;
mod root;

use crate::boot::{BootCondition, BootIo, Kind, Network, Readiness};
use crate::condition;
use crate::linux;
use crate::log;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::network::{self, Membership, Port};
use crate::secret;
pub use crate::secret::Secret;
use crate::value;
pub use files::{File, FileContent, Volume};
pub use health::Health;
pub use restart::RestartPolicy;
pub use root::Source;

/// How long a workload may take to stop if the file does not say.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The size of a workload's writable layer if the file does not say, in bytes.
const DEFAULT_SCRATCH: u64 = 64 << 20;

/// A validated workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name, a DNS label.
    pub name: String,
    /// Where its root comes from.
    pub source: Source,
    /// The command, in place of the image's entrypoint and command; always there for a root of packages.
    pub command: Option<Vec<String>>,
    /// The arguments, in place of the image's command behind its entrypoint.
    pub args: Option<Vec<String>>,
    /// Environment variables beside the image's own.
    pub env: Vec<(String, String)>,
    /// `USER[:GROUP]` by name or number; `None`: the image's.
    pub user: Option<Text>,
    /// The working directory; `None`: the image's.
    pub working_dir: Option<String>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Service or job.
    pub kind: Kind,
    /// What must have been ready before it starts.
    pub after: Vec<String>,
    /// The same, and it runs only while they are up.
    pub requires: Vec<String>,
    /// What the machine must have before it starts.
    pub conditions: Vec<BootCondition>,
    /// Its pod.
    pub pod: Option<String>,
    /// The sockets whose first connection starts it.
    pub sockets: Vec<String>,
    /// Volumes on the state partition.
    pub volumes: Vec<Volume>,
    /// Files laid over its root.
    pub files: Vec<File>,
    /// Secrets that it reads.
    pub secrets: Vec<Secret>,
    /// The memory limit in bytes.
    pub memory: Option<u64>,
    /// The processor limit in thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// The most processes and threads.
    pub pids: u32,
    /// The most open files of a process; `None`: a thousand, and more for one that asks.
    pub open_files: Option<u32>,
    /// What it may use of the disks.
    pub io: Option<BootIo>,
    /// The machine's id that its id 0 is, with the 65,535 behind it; `None`: its ids are the machine's.
    pub first_id: Option<u32>,
    /// Its processes are among the machine's own.
    pub host_pids: bool,
    /// Whose network it has.
    pub network: Network,
    /// The networks that it is on; none unless the network is its own or its pod's.
    pub networks: Vec<String>,
    /// Unix sockets of the machine by name, and where it sees them.
    pub connect: Vec<(String, String)>,
    /// What makes it ready.
    pub readiness: Readiness,
    /// The check that goes on once it is ready.
    pub health: Option<Health>,
    /// Within this time `WATCHDOG=1` must come again.
    pub watchdog: Option<Duration>,
    /// Its capabilities; `None`: the default of its user.
    pub capabilities: Option<Vec<String>>,
    /// Its root cannot be written.
    pub read_only: bool,
    /// The size of its writable layer in bytes.
    pub scratch: u64,
    /// What happens when it exits.
    pub restart: RestartPolicy,
    /// The signal that asks it to stop; `None`: the image's, or SIGTERM.
    pub stop_signal: Option<i32>,
    /// How long it may take to stop.
    pub stop_timeout: Duration,
}

impl Workload {
    /// Validates one; its mistakes are kept and something harmless takes the value's place.
    pub(crate) fn new(name: &Text, from: &manifest::Workload, mistakes: &mut Mistakes) -> Self {
        mistakes.take(log::workload_name(name));
        network::refuse_reserved(name, "workload", mistakes);
        let ports = mistakes.take_all(&from.ports, network::port);
        let names = |texts: &[Text]| texts.iter().map(|text| text.get_ref().clone()).collect();
        let membership = Membership::new(from.network.as_ref(), mistakes);
        confinement::check(from, membership.network, mistakes);
        let kind = restart::kind(from, mistakes);
        let watching = health::Watching::new(from, kind, &ports, mistakes);
        files::check_unique_paths(from, mistakes);
        command::check_command(name, from, mistakes);
        mistakes.take_some(from.user.as_ref(), command::without_nul);
        Self {
            name: name.get_ref().clone(),
            source: root::source(name, from, mistakes),
            command: command::words(from.command.as_ref(), mistakes),
            args: command::words(from.args.as_ref(), mistakes),
            env: command::environment(from, mistakes),
            user: from.user.clone(),
            working_dir: mistakes.take_some(from.working_dir.as_ref(), command::working_dir),
            ports,
            kind,
            after: condition::workloads_of(&from.after),
            requires: names(&from.requires),
            conditions: condition::asked_for(from, mistakes),
            pod: from.pod.as_ref().map(|pod| pod.get_ref().clone()),
            sockets: names(&from.sockets),
            volumes: from
                .volumes
                .iter()
                .filter_map(|v| mistakes.take(files::volume(v)))
                .collect(),
            files: from
                .files
                .iter()
                .filter_map(|f| mistakes.take(files::file(f)))
                .collect(),
            secrets: secret::secrets(from, mistakes),
            memory: mistakes.take_some(from.memory.as_ref(), limits::memory),
            cpu_millis: from
                .cpus
                .as_ref()
                .and_then(|cpus| mistakes.take(limits::cpu_millis(cpus))),
            pids: from
                .pids
                .as_ref()
                .and_then(|pids| mistakes.take(limits::process_limit(pids)))
                .unwrap_or(limits::DEFAULT_PROCESSES),
            open_files: from
                .open_files
                .as_ref()
                .and_then(|files| mistakes.take(limits::open_files(files))),
            io: from.io.as_ref().map(|io| limits::io(io, mistakes)),
            first_id: mistakes
                .take_some(from.user_namespace.as_ref(), confinement::user_namespace)
                .unwrap_or(true)
                .then_some(confinement::IDS),
            host_pids: confinement::host_pids(from, mistakes),
            network: membership.network,
            networks: membership.networks,
            connect: from
                .connect
                .iter()
                .filter_map(|(name, path)| {
                    Some((
                        name.get_ref().clone(),
                        mistakes.take(confinement::place(path))?,
                    ))
                })
                .collect(),
            readiness: watching.readiness,
            health: watching.health,
            watchdog: watching.watchdog,
            capabilities: from
                .capabilities
                .as_ref()
                .map(|list| mistakes.take_all(list, linux::capability)),
            read_only: from.read_only,
            scratch: mistakes
                .take_some(from.scratch.as_ref(), limits::memory)
                .unwrap_or(DEFAULT_SCRATCH),
            restart: RestartPolicy::new(from, kind, mistakes),
            stop_signal: mistakes.take_some(from.stop_signal.as_ref(), linux::signal),
            stop_timeout: mistakes
                .take_some(from.stop_timeout.as_ref(), value::duration)
                .unwrap_or(DEFAULT_STOP_TIMEOUT),
        }
    }
}
