//! `BootSpec`: what PID 1 reads at boot, written by the builder into the verified root.
//!
//! Everything that needs thought is resolved at build time; this file holds only what init has to *do*.
//! It is trusted because it lies in the dm-verity-checked root, so it refuses nothing but another format.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

mod confinement;
mod interface;
mod network;
mod supervision;

pub use confinement::*;
pub use interface::*;
pub use network::*;
pub use supervision::*;

/// Where the builder puts the file and init finds it.
pub const BOOT_SPEC_PATH: &str = "/usr/lib/coracle/boot.json";

/// Where the root has all drivers that are loaded on demand, with the tables by which they are found.
pub const DRIVERS_PATH: &str = "/usr/lib/coracle/drivers";
/// The same in the initrd, for those that may lead to the root.
pub const INITRD_DRIVERS_PATH: &str = "/drivers";

/// Where the builder puts the [`Template`](crate::template::Template) of the state's file system.
pub const STATE_TEMPLATE_PATH: &str = "/usr/lib/coracle/state.template";

/// Where init puts secrets: a folder for each workload, with a file for each of its secrets.
pub const SECRETS_DIR: &str = "/run/coracle/secrets";

/// The only [`BootSpec::format`] this version writes and reads.
pub const BOOT_SPEC_FORMAT: u32 = 1;

/// Everything init does after the verified root is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSpec {
    /// [`BOOT_SPEC_FORMAT`].
    pub format: u32,
    /// The machine's name, a DNS label.
    pub name: String,
    /// The image's version, as the user wrote it.
    pub version: String,
    /// When the image was made, in seconds since 1970; 0 where nobody says.
    pub epoch: i64,
    /// What `sethostname(2)` gets.
    pub hostname: String,
    /// The file says so: what DHCP tells does not count.
    pub hostname_fixed: bool,
    /// Name servers in place of those that the networks tell; none: those that they tell.
    pub dns: Vec<IpAddr>,
    /// Search domains in place of those that the networks tell; none: those that they tell.
    pub search: Vec<String>,
    /// Time servers, by name or address, in place of those that the networks tell; `None`: those that they tell, else
    /// the world's. An empty list: the clock is left alone.
    pub ntp: Option<Vec<String>>,
    /// Absolute paths of kernel modules in the root, in load order (dependencies first).
    pub modules: Vec<String>,
    /// The same for modules that no workload waits for: loaded once all workloads are ready, or after some seconds.
    pub late_modules: Vec<String>,
    /// The root has drivers that are loaded when a device asks for them.
    pub drivers: bool,
    /// The state partition; `None`: the machine keeps nothing over a reboot.
    pub state: Option<BootState>,
    /// How much is kept of what the workloads print.
    pub log: BootLog,
    /// How long all workloads together may take to stop before they are killed, in milliseconds.
    pub shutdown_timeout_ms: u64,
    /// The time within which the watchdog device wants to be fed, in seconds; `None`: none is used.
    pub watchdog_s: Option<u32>,
    /// The network interfaces, in the order of the file.
    pub interfaces: Vec<BootInterface>,
    /// The firewall and the workloads' links; `None`: there is neither.
    pub fabric: Option<BootFabric>,
    /// The pods, in the order of the file.
    pub pods: Vec<BootPod>,
    /// The sockets, in the order of the file.
    pub sockets: Vec<BootSocket>,
    /// The workloads in start order: each one stands behind all that it comes `after` or requires.
    pub workloads: Vec<BootWorkload>,
}

impl BootSpec {
    /// The names of the secrets that workloads and interfaces ask for, with repetitions.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let workloads = self.workloads.iter().flat_map(|workload| &workload.secrets);
        let interfaces = self.interfaces.iter();
        workloads
            .map(|secret| secret.name.as_str())
            .chain(interfaces.flat_map(|interface| interface.link.secret_names()))
    }
}

/// The state partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootState {
    /// The GPT unique partition GUID, lower-case with hyphens.
    pub partition_uuid: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// Its least size in bytes.
    pub size: u64,
    /// What happens when its file system cannot be mounted.
    pub on_damage: OnDamage,
}

/// What happens to a state partition whose file system cannot be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// What is readable is mounted, read-only; nothing is changed.
    Keep,
    /// It is made anew, empty.
    Reset,
    /// The machine ends.
    Halt,
}

/// The bounds of the log; each is one of every workload, and of init's own lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootLog {
    /// The most bytes of files on the state partition.
    pub size: u64,
    /// The most bytes in memory.
    pub memory: u64,
}

/// One workload: an OCI bundle in the root and how init keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootWorkload {
    /// Its name, a DNS label; also the container id.
    pub name: String,
    /// Absolute path of the OCI bundle.
    pub bundle: String,
    /// Service or job.
    pub kind: Kind,
    /// Names of workloads that must have been ready (jobs: be done) before this one starts.
    pub after: Vec<String>,
    /// The same, and it runs only while they are up.
    pub requires: Vec<String>,
    /// What the machine must have before it starts.
    pub conditions: Vec<BootCondition>,
    /// The name of its pod.
    pub pod: Option<String>,
    /// Names of the sockets whose first connection starts it, in the order of its descriptors.
    pub sockets: Vec<String>,
    /// The machine's id that its id 0 is, with the 65,535 behind it; `None`: its ids are the machine's.
    pub first_id: Option<u32>,
    /// Whose network it has.
    pub network: Network,
    /// What it may use of the disks.
    pub io: Option<BootIo>,
    /// Volumes that must exist on the state partition before it starts.
    pub volumes: Vec<BootVolume>,
    /// Secrets that must have come before it starts.
    pub secrets: Vec<BootSecret>,
    /// Published ports.
    pub ports: Vec<BootPort>,
    /// What makes it ready.
    pub readiness: Readiness,
    /// The check that goes on once it is ready; `None`: there is none.
    pub health: Option<BootHealth>,
    /// Within so many milliseconds `WATCHDOG=1` must come again; `None`: nothing is expected.
    pub watchdog_ms: Option<u64>,
    /// What happens when its process exits.
    pub restart: BootRestart,
    /// The number of the signal that asks it to stop.
    pub stop_signal: i32,
    /// How long it may take to stop before SIGKILL, in milliseconds.
    pub stop_timeout_ms: u64,
}

/// A directory on the state partition that a workload mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootVolume {
    /// Absolute path of the directory, below the state partition's mount point.
    pub path: String,
    /// Owner when it is first created.
    pub uid: u32,
    /// Group when it is first created.
    pub gid: u32,
    /// Permission bits when it is first created.
    pub mode: u32,
    /// The file asks for owner or mode, so an existing one is changed to them.
    pub enforce: bool,
    /// The workload only reads it.
    pub read_only: bool,
    /// Its project on the file system, by which its blocks are counted; the same in each version of the machine.
    pub project: u32,
    /// The most bytes that it may hold; `None`: as many as the partition has.
    pub size: Option<u64>,
}

/// A secret that a workload reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSecret {
    /// Its name, by which the outside hands it over, and its file's name in the workload's folder.
    pub name: String,
    /// The machine's user that owns it.
    pub uid: u32,
    /// The machine's group that owns it.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// The workload starts without it, too.
    pub optional: bool,
}

/// A port of a workload, or several in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootPort {
    /// The machine's address at which the outside reaches it, maybe unspecified: all of that family; `None`: all.
    pub address: Option<IpAddr>,
    /// The first port of the machine that the outside reaches.
    pub published: u16,
    /// The first port that the workload listens on.
    pub target: u16,
    /// How many ports in a row, at least 1.
    pub count: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
