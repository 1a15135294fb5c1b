//! The end of the second life, after the workloads are down: the last processes, the state partition, power.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::halt::{self, Ending};
use crate::machine::Machine;
use crate::sys::{self, Stage};

/// How long processes that are nobody's workload may take after SIGTERM, and again after SIGKILL.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(2);

/// Ends everything that still runs, unmounts the state, says so, and ends the machine.
pub fn finish(mut machine: Machine, ending: Ending) -> ! {
    machine.network.stop();
    if !end_processes(libc::SIGTERM) {
        machine
            .console
            .say("some processes do not end by SIGTERM: killing them");
        kill_all();
    }
    machine.read_kernel_log();
    if let Some(log) = machine.kernel_log.take() {
        log.give_back();
    }
    for id in 0..machine.workloads.len() {
        machine.close_outputs(id);
    }
    unmount_state(&mut machine);
    sys::mark(Stage::PowerOff);
    machine.console.say("stage poweroff");
    halt::end(&mut machine.console, ending)
}

/// Writes everything out and unmounts the state partition, and says how that went.
pub fn unmount_state(machine: &mut Machine) {
    machine.finish_log();
    if let Ok(Some(state)) = &machine.state {
        state.save_seed();
        rustix::fs::sync();
        match state.unmount() {
            Ok(()) => machine.console.say("state unmounted clean"),
            Err(text) => machine.console.say(text),
        }
    }
}

/// SIGKILL for every process but this one, and waits for them.
pub fn kill_all() {
    end_processes(libc::SIGKILL);
}

/// Signals every process but this one; `true` once no child is left.
fn end_processes(signal: i32) -> bool {
    let _ = sys::kill(-1, signal);
    let deadline = Instant::now() + STRAGGLER_LIMIT;
    let mut pause = Duration::from_millis(1);
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return true,
            Ok(Some(_)) | Err(_) => continue,
            Ok(None) if Instant::now() >= deadline => return false,
            Ok(None) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
