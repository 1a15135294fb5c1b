//! Supervision: what decides ([`engine`], pure) and what acts ([`shell`]).

pub mod backoff;
pub mod engine;
pub mod event;
