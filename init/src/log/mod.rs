//! What the machine says, kept: every line of the workloads and of init's own, with its time, stream and number.
//!
//! ```text
//! pipes ─► PID 1 ─► a ring a workload, in one memfd ─► log process ─► log/NAME/00000001.log, … on the state partition
//!                   ([`ring`], [`journal`])            ([`process`])    ([`files`], [`line`])
//!                                                          └── /dev/kmsg ([`kernel`])
//! ```
//! PID 1 only appends to the rings, which never blocks. The log process is its child; it may be killed at any moment,
//! and the next one goes on behind the last line that is in the files, so that no line is lost and none is there
//! twice. A workload whose ring is full waits for the log process. Where nobody reads the rings, the oldest lines go,
//! and the numbers of the others tell how many they were.

pub mod batch;
pub mod boots;
mod copier;
pub mod files;
pub mod journal;
pub mod kernel;
pub mod line;
pub mod process;
pub mod ring;

/// What keeps the kernel's messages.
pub const KERNEL: &str = "kernel";
/// What keeps init's own lines.
pub const OWN: &str = "coracle";
