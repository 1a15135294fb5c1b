//! Readiness and health probes, so that nothing a workload answers, or does not, can hold PID 1.
//!
//! By TCP and HTTP one long-lived child asks, the *prober* ([`process`], `coracle-init prober`); PID 1 speaks to it over
//! a [`link`]. Inside a workload a process of its own asks ([`exec`], `coracle-init probe …`).

mod answer;
mod attempt;
pub mod exec;
pub mod link;
mod network;
pub mod process;
pub mod request;

use std::os::fd::AsFd;

/// What the child `prober` does, with its link to PID 1 as standard input; returns the exit status.
#[must_use]
pub fn run() -> i32 {
    let Ok(link) = std::io::stdin().as_fd().try_clone_to_owned() else {
        return 1;
    };
    process::serve(link).map_or(1, |()| 0)
}
