//! The firewall in real network namespaces of this host: that its messages and its text say the same, and what it lets
//! through. It needs root, ip(8) and nft(8).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;
mod namespace;
mod rules;
mod traffic;
