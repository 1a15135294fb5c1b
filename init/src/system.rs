//! The second life: in the verified root, from its mounts to the event loop.
//!
//! The order is that of what workloads need: mounts, modules, state, names, and then everything at once. Only
//! a root without a readable boot specification ends here; all else is told and worked around.

use std::fs;
use std::os::fd::OwnedFd;

use config::boot::{BOOT_SPEC_FORMAT, BOOT_SPEC_PATH, BootSpec, OnDamage};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::system::{RebootCommand, reboot, sethostname};

use crate::console::Console;
use crate::machine::{self, Machine};
use crate::net::{self, netlink};
use crate::state::{self, State};
use crate::sys::{self, Stage};
use crate::uevent::UeventSocket;
use crate::{clock, describe, failure, limits, modules, mounts, panic};

/// The most descriptors that a process may ask for.
const DESCRIPTORS: u64 = 524_288;

/// Runs the second life.
pub fn run(mut console: Console, uevents: Option<UeventSocket>) -> ! {
    // Before anything can go wrong or be pressed.
    let signals = sys::catch_signals(&machine::signals());
    let _ = reboot(RebootCommand::CadOff);
    prepare_mounts(&mut console);
    sys::mark(Stage::System);
    console.say("stage system");
    let spec = read_spec().unwrap_or_else(|reason| failure::refuse(&mut console, reason));
    let signals = signals
        .unwrap_or_else(|error| failure::refuse(&mut console, format!("no signals: {error}")));
    console.write_some();
    supervise(console, &spec, signals, uevents)
}

fn supervise(
    mut console: Console,
    spec: &BootSpec,
    signals: OwnedFd,
    uevents: Option<UeventSocket>,
) -> ! {
    raise_limits(spec.workloads.len());
    modules::load_all(&spec.modules, &mut console);
    set_names(&mut console, spec);
    limits::prepare(spec, &mut console);
    let state = mount_state(&mut console, spec, uevents.as_ref());
    let mounted = state.as_ref().ok().and_then(Option::as_ref);
    if let Err(reason) = state::settle_machine_id(mounted) {
        console.say(reason);
    }
    let mount_point = mounted.map(|state| state.mount_point.as_str());
    clock::set(spec.epoch, mount_point, &mut console);
    match Machine::new(console, spec, state, signals, uevents) {
        Ok(mut machine) => {
            if let Some(seconds) = spec.watchdog_s {
                machine.arm_watchdog(seconds);
            }
            machine.run()
        }
        Err(errno) => failure::refuse(
            &mut Console::open(),
            format!("nothing can be waited for: {errno}"),
        ),
    }
}

fn prepare_mounts(console: &mut Console) {
    for error in mounts::mount_root() {
        console.say(describe(&error));
    }
    match mounts::prepare_cgroups() {
        Ok(refused) if refused.is_empty() => {}
        Ok(refused) => console.say(format_args!(
            "the kernel refuses cgroup controllers: {}",
            refused.join(" ")
        )),
        Err(error) => console.say(format_args!("cannot prepare cgroups: {error}")),
    }
}

/// What this machine is.
///
/// # Errors
/// When there is no such file, or one of another format.
pub fn read_spec() -> Result<BootSpec, String> {
    let bytes = fs::read(BOOT_SPEC_PATH)
        .map_err(|error| format!("cannot read {BOOT_SPEC_PATH}: {error}"))?;
    let spec: BootSpec =
        serde_json::from_slice(&bytes).map_err(|error| format!("{BOOT_SPEC_PATH}: {error}"))?;
    if spec.format != BOOT_SPEC_FORMAT {
        return Err(format!(
            "{BOOT_SPEC_PATH} has format {}; this init reads {BOOT_SPEC_FORMAT}",
            spec.format
        ));
    }
    Ok(spec)
}

/// Two pipes and some more a workload.
fn raise_limits(workloads: usize) {
    let wanted = (workloads as u64).saturating_mul(4).saturating_add(256);
    let current = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS);
    let limit = Rlimit {
        current: Some(current.max(wanted).min(DESCRIPTORS)),
        maximum: Some(DESCRIPTORS),
    };
    let _ = setrlimit(Resource::Nofile, limit);
}

fn set_names(console: &mut Console, spec: &BootSpec) {
    if let Err(errno) = sethostname(spec.hostname.as_bytes()) {
        console.say(format_args!(
            "cannot set the hostname {}: {errno}",
            spec.hostname
        ));
    }
    if let Err(error) = netlink::bring_up_loopback() {
        console.say(format_args!(
            "cannot bring up the loopback interface: {error}"
        ));
    }
    if let Err(error) = net::prepare_files(&spec.hostname) {
        console.say(format_args!(
            "cannot make the files of {}: {error}",
            net::FILES
        ));
    }
}

fn mount_state(
    console: &mut Console,
    spec: &BootSpec,
    uevents: Option<&UeventSocket>,
) -> Result<Option<State>, String> {
    let Some(wanted) = &spec.state else {
        return Ok(None);
    };
    let mut tell = |text: String| console.say(format_args!("state: {text}"));
    match State::open(wanted, uevents, &mut tell) {
        Ok(state) => {
            sys::mark(Stage::State);
            console.say("stage state");
            panic::use_state(&state.mount_point, console);
            Ok(Some(state))
        }
        Err(error) => {
            let reason = describe(&error);
            if wanted.on_damage == OnDamage::Halt {
                failure::refuse(console, format!("no state: {reason}"));
            }
            console.say(format_args!(
                "no state: {reason}; workloads with volumes will not start"
            ));
            Err(reason)
        }
    }
}
