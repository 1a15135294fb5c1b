//! Numbers that nobody else can know: without them nothing is asked that a forger could answer.

use rustix::rand::{GetRandomFlags, getrandom};

/// So many random bytes; waits at an early boot until the kernel has them.
pub(super) fn random<const SIZE: usize>() -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let size = getrandom(&mut bytes, GetRandomFlags::empty());
    assert_eq!(size, Ok(bytes.len()), "the kernel has random numbers");
    bytes
}
