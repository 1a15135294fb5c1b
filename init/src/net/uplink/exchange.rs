//! What both kinds of DHCP do alike: packets and time go to the client, and what it wants is done.

use std::net::UdpSocket;
use std::time::Duration;

use crate::net::netlink::Socket;

/// What is read of one link in one turn; the rest waits for the next.
const PACKETS_AT_ONCE: usize = 16;

/// A client with its socket.
pub trait Exchange {
    /// What a server says.
    type Reply;
    /// What the client wants done.
    type Output;

    /// To be waited for.
    fn socket(&self) -> &UdpSocket;

    /// What a packet says, if it is an answer to this client.
    fn parse(&self, packet: &[u8]) -> Option<Self::Reply>;

    /// The client hears an answer.
    fn hear(&mut self, reply: Self::Reply, now: Duration) -> Vec<Self::Output>;

    /// The client sees that time passed.
    fn pass(&mut self, now: Duration) -> Vec<Self::Output>;

    /// Does one thing.
    ///
    /// # Errors
    /// In words, what could not be done.
    fn act(&mut self, output: Self::Output, now: Duration, to: &mut Socket) -> Result<(), String>;

    /// `DHCP on eth0`: stands before what went wrong.
    fn describe(&self) -> String;

    /// Time passed.
    ///
    /// # Errors
    /// What could not be done; it is tried again by the client's own repetition.
    fn tick(&mut self, now: Duration, netlink: &mut Socket) -> Result<(), String> {
        let outputs = self.pass(now);
        self.perform(outputs, now, netlink)
    }

    /// There may be packets.
    ///
    /// # Errors
    /// As [`Exchange::tick`].
    fn receive(&mut self, now: Duration, netlink: &mut Socket) -> Result<(), String> {
        let mut packet = [0; 1500];
        for _ in 0..PACKETS_AT_ONCE {
            let Ok(size) = self.socket().recv(&mut packet) else {
                break;
            };
            if let Some(reply) = self.parse(&packet[..size]) {
                let outputs = self.hear(reply, now);
                self.perform(outputs, now, netlink)?;
            }
        }
        Ok(())
    }

    /// Does all that the client wants, whatever fails of it.
    ///
    /// # Errors
    /// The last thing that could not be done.
    fn perform(
        &mut self,
        outputs: Vec<Self::Output>,
        now: Duration,
        netlink: &mut Socket,
    ) -> Result<(), String> {
        let mut failed = None;
        for output in outputs {
            let result = self.act(output, now, netlink);
            failed = result.err().or(failed);
        }
        failed.map_or(Ok(()), |error| Err(format!("{}: {error}", self.describe())))
    }
}
