//! The clock by the network's time: `coracle-init ntp`, a client of NTP (RFC 5905).
//!
//! It asks some servers in rounds, several times each, goes by what most of them agree on ([`sample`]), and has the kernel
//! set or draw the clock ([`discipline`]). When to ask whom is decided by [`client`]; [`run`] is the loop around it. It begins
//! when the workloads are ready, and no boot waits for it.
//!
//! It believes no packet that does not repeat the random number of the request, no server that is not sure of itself, and
//! no time before the image was made. It does not authenticate servers (RFC 8915 is not spoken): who can change
//! packets on the way to most of the servers can set the clock, within these bounds.

pub mod client;
pub mod clock;
pub mod discipline;
pub mod packet;
pub mod run;
pub mod sample;

/// Where time servers listen.
pub const PORT: u16 = 123;
/// Who is asked where neither the file nor the network names a server.
pub const DEFAULT_SERVER: &str = "pool.ntp.org";
