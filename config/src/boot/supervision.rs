//! How init keeps a workload: what starts it, what makes it ready, what is checked, when it starts again.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Network;

/// What kind of workload it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It runs until the machine stops, and is ready or not.
    Service,
    /// It ends, and is done once it has exited with status 0.
    Job,
}

/// What the machine must have before a workload starts, beside other workloads. It only orders the start: what has held
/// once counts from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootCondition {
    /// The firewall and the workloads' network are set up.
    Firewall,
    /// An interface to the outside has an address.
    Network,
}

/// What makes a service ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Readiness {
    /// Its process runs: the runtime has executed the command.
    Started,
    /// Something accepts a TCP connection on this port of the loopback address.
    Port {
        /// The port, never 0.
        port: u16,
    },
    /// Its health check passes.
    Health,
    /// It says `READY=1` by sd_notify(3).
    Notify,
}

/// What is asked of a workload to learn whether it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Check {
    /// Something accepts a TCP connection on this port of the loopback address.
    Tcp {
        /// The port, never 0.
        port: u16,
    },
    /// A GET over HTTP/1.1 to the loopback address is answered with a status of 200 to 399.
    Http {
        /// The port, never 0.
        port: u16,
        /// The path with its query, beginning with `/`.
        path: String,
        /// The `Host` header.
        host: String,
    },
    /// This command, executed inside the workload, exits with status 0.
    Exec {
        /// Program and arguments, at least the program.
        command: Vec<String>,
    },
}

/// A check that goes on while the workload runs. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootHealth {
    /// What is asked.
    pub check: Check,
    /// The time between two checks.
    pub every_ms: u64,
    /// How long one may take.
    pub timeout_ms: u64,
    /// So many failed checks in a row make it unhealthy; at least 1.
    pub retries: u32,
    /// Failures within this time of the start do not count. If it is not 0, a workload that is not ready when it
    /// and `retries` intervals are over is unhealthy; with 0 it may take as long as it likes.
    pub grace_ms: u64,
}

/// When a workload is started again. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootRestart {
    /// After which exits.
    pub when: Restart,
    /// The first delay; it doubles with each failure.
    pub delay_ms: u64,
    /// The longest delay.
    pub delay_max_ms: u64,
    /// More starts than this, and it has failed for good; `None`: no limit.
    pub start_limit: Option<StartLimit>,
}

/// The most starts within some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartLimit {
    /// The starts, at least 1.
    pub starts: u32,
    /// Within so many milliseconds.
    pub within_ms: u64,
}

/// What happens when a workload's process exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is started again, whatever its exit status.
    Always,
    /// It is started again unless its exit status was 0.
    OnFailure,
    /// It stays down.
    Never,
}

/// Workloads that share namespaces and a lifetime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootPod {
    /// Its name, a DNS label.
    pub name: String,
    /// The hostname of all its workloads.
    pub hostname: String,
    /// They share one pid namespace.
    pub share_pid: bool,
    /// The machine's id that their id 0 is, with the 65,535 behind it; `None`: their ids are the machine's.
    pub first_id: Option<u32>,
    /// Whose network they have.
    pub network: Network,
}

/// A socket that init listens on for a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSocket {
    /// Its name, a DNS label; what the workload finds in `LISTEN_FDNAMES`.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// The most connections that wait to be accepted.
    pub backlog: u32,
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Listen {
    /// TCP on the machine's network.
    Tcp {
        /// The address, often unspecified: all of them.
        address: IpAddr,
        /// The port, never 0.
        port: u16,
    },
    /// UDP on the machine's network.
    Udp {
        /// The address, often unspecified: all of them.
        address: IpAddr,
        /// The port, never 0.
        port: u16,
    },
    /// A Unix stream socket, at [`socket_path`] on the machine.
    Unix {
        /// Permission bits.
        mode: u32,
    },
}

/// Where a `[socket.NAME]` of kind Unix lies on the machine; nobody but root gets there by itself.
#[must_use]
pub fn socket_path(name: &str) -> String {
    format!("/run/coracle/sockets/{name}")
}

/// Where the socket lies on the machine that a workload reaches as [`NOTIFY_SOCKET`].
#[must_use]
pub fn notify_path(workload: &str) -> String {
    format!("/run/coracle/notify/{workload}")
}

/// Where a workload finds the socket for sd_notify(3).
pub const NOTIFY_SOCKET: &str = "/run/coracle-notify";
