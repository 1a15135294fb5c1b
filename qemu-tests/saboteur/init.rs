//! What goes wrong with PID 1 and cannot be brought about from a workload: runs before Coracle's init, leaves a child
//! behind, and becomes init. Once init is as far as is wanted, the child does to it what its argument says.
//!
//! Compiled by the cases that want it, not part of the workspace.

use std::ffi::c_long;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

unsafe extern "C" {
    fn fork() -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn mount(
        source: *const i8,
        target: *const i8,
        kind: *const i8,
        flags: u64,
        data: *const i8,
    ) -> i32;
    fn ptrace(request: c_long, pid: i32, address: usize, data: usize) -> c_long;
}

const SIGSEGV: i32 = 11;
const PTRACE_SEIZE: c_long = 0x4206;
const PTRACE_INTERRUPT: c_long = 0x4207;

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let _ = fs::create_dir("/seen");
    // SAFETY: the strings end with a NUL; fork(2) copies a process of one thread.
    let is_child = unsafe {
        mount(
            c"proc".as_ptr(),
            c"/seen".as_ptr(),
            c"proc".as_ptr(),
            0,
            std::ptr::null(),
        );
        fork() == 0
    };
    if is_child {
        sabotage(&what);
    }
    let error = Command::new("/init").exec();
    panic!("cannot execute /init: {error}");
}

/// Waits for init to be where it is to be hit, and hits it.
fn sabotage(what: &str) -> ! {
    let there = match what {
        "fault" => has_state,
        _ => has_watchdog,
    };
    while !there() {
        thread::sleep(Duration::from_millis(100));
    }
    // A moment for what init does next with it.
    thread::sleep(Duration::from_secs(1));
    // SAFETY: the calls take no pointer.
    unsafe {
        if what == "fault" {
            kill(1, SIGSEGV);
        } else {
            ptrace(PTRACE_SEIZE, 1, 0, 0);
            ptrace(PTRACE_INTERRUPT, 1, 0, 0);
        }
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn has_state() -> bool {
    fs::read_to_string("/seen/1/mountinfo").is_ok_and(|mounts| mounts.contains(" /state "))
}

fn has_watchdog() -> bool {
    let Ok(files) = fs::read_dir("/seen/1/fd") else {
        return false;
    };
    let targets = files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok());
    targets
        .into_iter()
        .any(|target| target.starts_with("/dev/watchdog"))
}
