//! What a boot leaves for the next one's random numbers.
//!
//! Saved when the machine ends, and from time to time. At boot it is stirred in, then replaced on the medium by a
//! new one, and only then counted as entropy: one that is counted is never there to be counted again, whatever cuts
//! the power. A copy of a disk has the same seed: two machines from one copy must not both rely on it alone, so the
//! built image has none.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::own;
use crate::sys;

const NAME: &str = "random-seed";
const LEN: usize = 64;
/// What the kernel's generator needs; a seed is of the generator itself, so it is worth that.
const BITS: u32 = 256;

/// Replaces the seed by a new one.
///
/// # Errors
/// When there are no random numbers yet, or it cannot be written.
pub(super) fn save(mount_point: &str) -> io::Result<()> {
    let mut bytes = [0_u8; LEN];
    getrandom(&mut bytes, GetRandomFlags::NONBLOCK)?;
    own::write(mount_point, NAME, &bytes)
}

/// Uses the seed, if there is one, and replaces it. `true`: it was counted.
///
/// # Errors
/// When it cannot be replaced: then it is not counted.
pub(super) fn use_once(mount_point: &str) -> io::Result<bool> {
    let old = own::read(mount_point, NAME).unwrap_or_default();
    if old.len() == LEN {
        sys::add_entropy(&old, 0)?;
        // Not before the generator has begun; then it takes what was stirred in when it does.
        let _ = sys::reseed();
    }
    let mut new = [0_u8; LEN];
    // Its worth is the old one's, which is in the pool by now, and whatever else there is.
    getrandom(&mut new, GetRandomFlags::INSECURE)?;
    own::write(mount_point, NAME, &new)?;
    if old.len() != LEN {
        return Ok(false);
    }
    sys::add_entropy(&old, BITS)?;
    Ok(true)
}
