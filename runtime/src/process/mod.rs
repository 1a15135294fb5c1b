//! The process of the container: what is applied to it between the finished root and the execve, and what the
//! runtime does for it in the foreground.

pub mod attributes;
pub mod capabilities;
pub(crate) mod execution;
pub mod identity;
pub mod label;
pub(crate) mod listen;
pub mod memory_policy;
pub(crate) mod supervise;
pub mod terminal;
