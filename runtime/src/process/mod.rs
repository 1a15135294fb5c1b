//! The process of the container: what is applied to it between the finished root and the execve.

pub mod capabilities;
pub mod identity;
