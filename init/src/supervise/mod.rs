//! Supervision: what decides ([`engine`], pure), what it hears and asks for ([`event`]), how it is told.

pub mod backoff;
pub mod engine;
pub mod event;
pub mod notices;
