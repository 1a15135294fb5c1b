//! The name server of workloads with networks of their own: `coracle-init resolver`.
//!
//! It listens on the machine's workload-side addresses, answers for the names of workloads ([`names`]), and forwards the
//! rest to the name servers that the network's facts tell, with a cache before them. What it decides is in
//! [`forwarder`], which does no input or output; [`server`] is the loop around it. Everything is bounded: the answers that
//! are kept, the questions under way, each client's share of them, connections and what is buffered for them.
//!
//! It is no resolver of its own (RFC 8499: a forwarder) and checks no signatures: it passes them on to clients that ask for
//! them, and never says that it has checked any. Names are not put in random case towards the name servers: servers that
//! give back another case are still in use, and a random number of a question comes with a random port for each.

pub mod answer;
pub mod cache;
pub mod flight;
pub mod forwarder;
pub mod names;
pub mod question;
pub mod upstream;

/// The most bytes of a datagram in both directions, which no usual path cuts into fragments.
pub const UDP_SIZE: u16 = 1232;
/// Where name servers listen.
pub const PORT: u16 = 53;
