//! What the loop waits for, and what its children are for.

use crate::supervise::event::{Id, PodId};
use crate::workload::Stream;

/// What a descriptor in the loop belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Console,
    Signals,
    Uevents,
    Button(usize),
    Output(Id, Stream),
    /// A child that sees to the network.
    Network(usize),
    KernelLog,
    StateKeeper,
    Prober,
    Log,
    /// The sockets that start a workload.
    Socket(Id),
    /// What a workload says of itself.
    Notify(Id),
}

/// Far from the numbers of the others.
const LOG: u64 = 64;

/// What a child process was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Start(Id),
    Main(Id),
    Clean(Id),
    Probe(Id),
    /// It sees to the network.
    Network(usize),
    StateKeeper,
    Prober,
    Log,
    Modprobe,
    BootTimes,
    MakePod(PodId),
    RemovePod(PodId),
    /// The first process of its pid namespace, which ends with it.
    FirstOfPod(PodId),
}

impl Source {
    pub(super) const fn encode(self) -> u64 {
        let (kind, index) = match self {
            Self::Console => (0, 0),
            Self::Signals => (1, 0),
            Self::Uevents => (2, 0),
            Self::Button(index) => (3, index),
            Self::Output(id, Stream::Out) => (4, id),
            Self::Output(id, Stream::Error) => (5, id),
            Self::Network(index) => (6, index),
            Self::KernelLog => (7, 0),
            Self::StateKeeper => (12, 0),
            Self::Prober => (13, 0),
            Self::Log => (LOG, 0),
            Self::Socket(id) => (8, id),
            Self::Notify(id) => (9, id),
        };
        kind << 32 | index as u64
    }

    pub(super) fn decode(data: u64) -> Option<Self> {
        let index = usize::try_from(data & 0xffff_ffff).ok()?;
        Some(match data >> 32 {
            0 => Self::Console,
            1 => Self::Signals,
            2 => Self::Uevents,
            3 => Self::Button(index),
            4 => Self::Output(index, Stream::Out),
            5 => Self::Output(index, Stream::Error),
            6 => Self::Network(index),
            7 => Self::KernelLog,
            12 => Self::StateKeeper,
            13 => Self::Prober,
            LOG => Self::Log,
            8 => Self::Socket(index),
            9 => Self::Notify(index),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_way_through_epoll() {
        let sources = [
            Source::Console,
            Source::Signals,
            Source::Uevents,
            Source::Button(3),
            Source::Output(499, Stream::Out),
            Source::Output(0, Stream::Error),
            Source::Network(1),
            Source::KernelLog,
            Source::StateKeeper,
            Source::Prober,
            Source::Log,
            Source::Socket(2),
            Source::Notify(2),
        ];
        for source in sources {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(99 << 32), None);
    }
}
