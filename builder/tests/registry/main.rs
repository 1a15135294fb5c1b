//! Images from registries: a scripted one that goes wrong in every way, and a real one on loopback.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers may fail like the test itself"
)]

mod command;
mod downloads;
mod faults;
mod logins;
mod place;
mod real;
mod server;
