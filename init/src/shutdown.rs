//! The end of the second life, after the workloads are down: the last processes, the state partition, the root, power.
//!
//! Each step has its time and is told when it takes longer, and the next one is done all the same: a machine that was
//! asked to end does. What can block for good (a disk that does not answer) is done by a child that is left behind.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{WaitOptions, wait};

use crate::halt::{self, Ending};
use crate::machine::Machine;
use crate::state::State;
use crate::sys::{self, Stage};
use crate::watchdog::Watchdog;
use crate::{clock, memory, release};

/// How long processes that are nobody's workload may take after SIGTERM, and again after SIGKILL.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(2);
/// How many ended processes are taken before the time is looked at.
const REAPED_AT_ONCE: usize = 256;
/// How long the state may take to be written and unmounted.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(20);
/// How often the watchdog is fed meanwhile.
const FEED_INTERVAL: Duration = Duration::from_millis(500);

/// Ends everything that still runs, unmounts the state, closes the root, says so, and ends the machine.
pub fn finish(mut machine: Machine, ending: Ending) -> ! {
    machine.network.stop(ending == Ending::Reboot);
    let watchdog = machine.watchdog.as_ref();
    if !end_processes(libc::SIGTERM, watchdog) {
        machine
            .console
            .say("some processes do not end by SIGTERM: killing them");
        end_processes(libc::SIGKILL, watchdog);
    }
    machine.read_kernel_log();
    if let Some(log) = machine.kernel_log.take() {
        log.give_back();
    }
    for id in 0..machine.workloads.len() {
        machine.close_outputs(id);
    }
    unmount_state(&mut machine);
    if let Some(watchdog) = machine.watchdog.take() {
        watchdog.disarm();
    }
    let mut console = machine.give_up_all();
    if let Some(kib) = memory::peak() {
        console.say(format_args!("init used {kib} KiB of memory at most"));
    }
    match release::close_root() {
        Ok(()) => console.say("root closed"),
        Err(reason) => console.say(format_args!("root not closed: {reason}")),
    }
    sys::mark(Stage::PowerOff);
    console.say(format_args!("stage {}", ending.name()));
    halt::end(&mut console, ending)
}

/// Writes everything out and unmounts the state partition, and says how that went.
pub fn unmount_state(machine: &mut Machine) {
    machine.finish_log();
    if let Ok(Some(state)) = &machine.state {
        let text = unmount(state, machine.watchdog.as_ref()).err();
        let text = text.unwrap_or_else(|| "state unmounted clean".to_owned());
        machine.console.say(text);
    }
}

/// A disk may take long; that is no stall of this process.
fn wait_for(child: i32, watchdog: Option<&Watchdog>) -> Option<i32> {
    let deadline = Instant::now() + UNMOUNT_LIMIT;
    loop {
        if let Some(watchdog) = watchdog {
            watchdog.feed();
        }
        let status = sys::wait_for(child, FEED_INTERVAL);
        if status.is_some() || Instant::now() >= deadline {
            return status;
        }
    }
}

fn unmount(state: &State, watchdog: Option<&Watchdog>) -> Result<(), String> {
    let Ok((answer, question)) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC) else {
        return state.unmount();
    };
    let work = || {
        state.save_seed();
        clock::save(&state.mount_point);
        rustix::fs::sync();
        let Err(text) = state.unmount() else { return 0 };
        let _ = rustix::io::write(&question, text.as_bytes());
        1
    };
    let Ok(child) = sys::fork(work) else {
        return state.unmount();
    };
    match wait_for(child, watchdog) {
        Some(0) => Ok(()),
        Some(_) => {
            drop(question);
            let mut text = String::new();
            let _ = File::from(answer).read_to_string(&mut text);
            Err(text)
        }
        None => Err(format!(
            "state not unmounted: its disk does not answer within {} s; it will replay its journal",
            UNMOUNT_LIMIT.as_secs()
        )),
    }
}

/// SIGKILL for every process but this one, and waits for them.
pub fn kill_all() {
    end_processes(libc::SIGKILL, None);
}

/// Signals every process but this one; `true` once no child is left. What ends and begins without pause does not make
/// it take longer than its limit.
fn end_processes(signal: i32, watchdog: Option<&Watchdog>) -> bool {
    let _ = sys::kill(-1, signal);
    let deadline = Instant::now() + STRAGGLER_LIMIT;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(watchdog) = watchdog {
            watchdog.feed();
        }
        for _ in 0..REAPED_AT_ONCE {
            match wait(WaitOptions::NOHANG) {
                Err(Errno::CHILD) => return true,
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                    break;
                }
            }
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}
