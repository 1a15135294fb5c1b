//! The operations on containers that exist, and what this program says of itself: one module a command or family.

pub mod events;
pub mod exec;
pub mod features;
pub mod lifecycle;
pub mod list;
pub mod pause;
pub mod ps;
pub mod spec;
pub mod update;
