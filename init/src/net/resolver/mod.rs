//! The name server of workloads with networks of their own: `coracle-init resolver`.
//!
//! It listens on the machine's workload-side addresses, answers for the names of workloads ([`names`]), and forwards the
//! rest to the name servers that the network's facts tell, with a cache before them. What it decides is in
//! [`forwarder`], which does no input or output; [`server`] is the loop around it. Everything is bounded: the answers that
//! are kept, the questions under way, each client's share of them, connections and what is buffered for them.
//!
//! It is a forwarder (RFC 9499 §6) and checks no signatures: it passes them on to clients that ask for them, and never
//! says that it has checked any. Names are not put in random case towards the name servers: some give back another
//! case, and each question has a random number and a random port.

pub mod answer;
pub mod cache;
pub mod connection;
pub mod flight;
pub mod forwarder;
pub mod frames;
pub mod names;
pub mod question;
pub mod run;
pub mod server;
pub mod settings;
pub mod socket;
pub mod stub;
pub mod upstream;

/// The most bytes of a datagram in both directions, which no usual path cuts into fragments.
pub const UDP_SIZE: u16 = 1232;
/// Where name servers listen.
pub const PORT: u16 = 53;
