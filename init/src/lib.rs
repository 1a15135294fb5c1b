//! Coracle's PID 1, and its short-lived children, in one static binary.
//!
//! In the initramfs it sets up the verified root ([`initramfs`]); in the root it supervises the workloads
//! ([`system`]); as its own child it speaks DHCP or probes a port ([`children`]).
//! Modules that decide (`gpt`, `verity`, `cmdline`, `lines`, [`supervise::engine`]) do no input or output;
//! modules that act are thin. Every `unsafe` is in [`sys`].

pub mod boot_times;
pub mod buttons;
pub mod children;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod disks;
pub mod dm;
pub mod failure;
pub mod gpt;
pub mod halt;
pub mod hotplug;
pub mod initramfs;
pub mod kernel_log;
pub mod kmsg;
pub mod limits;
pub mod lines;
pub mod listen;
pub mod log;
pub mod machine;
pub mod memory;
pub mod modules;
pub mod mounts;
pub mod net;
pub mod notify;
pub mod panic;
pub mod pod;
pub mod probe;
pub mod readahead;
pub mod release;
mod replace;
pub mod runtime_file;
pub mod screens;
pub mod secrets;
pub mod shutdown;
pub mod smbios;
pub mod state;
pub mod supervise;
pub mod sys;
pub mod system;
pub mod uevent;
pub mod verity;
pub mod watchdog;
pub mod workload;

use std::error::Error;

/// This very program, for its children: also when its file is gone with the initramfs.
pub const SELF: &str = "/proc/self/exe";
/// The device mapper's name of the verified root.
pub const ROOT_DEVICE_NAME: &str = "root";

/// An error with its causes in one line.
#[must_use]
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
