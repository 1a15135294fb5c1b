//! The system calls that no safe crate offers. The only module with `unsafe`.
//!
//! Each function is a thin, safe wrapper of one system call; none decides anything or keeps state, but for `start`.
//! `clone` makes processes and namespaces · `mount` changes mounts · `process` executes, signals, limits ·
//! `filter` loads seccomp and eBPF programs · `net` brings up devices · `start` is where the program begins.
#![allow(unsafe_code, reason = "system calls that rustix does not wrap")]

mod clone;
mod filter;
mod idle;
mod mount;
mod net;
mod process;
mod start;

use std::io;

pub(crate) use clone::*;
pub(crate) use filter::*;
pub(crate) use idle::*;
pub(crate) use mount::*;
pub(crate) use net::*;
pub(crate) use process::*;
pub(crate) use start::*;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
