//! Takes from this process what it does not need, before it reads a packet of anybody's.
//!
//! Afterwards it is nobody, with the capabilities that it names and no way to others, sees one folder as the whole file
//! system, starts no process and has a bound on its memory. What is open stays open.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, chroot, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

use crate::sys;

/// The user that owns nothing.
const NOBODY: u32 = 65534;
/// What such a process may have of memory that is its own, in bytes: many times what it takes.
const MEMORY: u64 = 64 << 20;

/// Shuts this process in. `keep`: the capabilities that it goes on to have.
///
/// # Errors
/// The first thing that could not be taken away, with a name; the process is not to go on then.
pub fn confine(folder: &Path, keep: CapabilitySet) -> io::Result<()> {
    let named = |what: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
    };
    chroot(folder)
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|errno| named("cannot leave the file system")(errno.into()))?;
    limit(Resource::Nproc, 0);
    limit(Resource::Core, 0);
    limit(Resource::Data, MEMORY);
    set_keep_capabilities(true)?;
    sys::become_user(NOBODY).map_err(named("cannot become nobody"))?;
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
        .map_err(|errno| named("cannot drop capabilities")(errno.into()))?;
    set_no_new_privs(true).map_err(|errno| named("cannot renounce privileges")(errno.into()))
}

/// A second fence: that it cannot be put up is no reason to stop.
fn limit(resource: Resource, value: u64) {
    let limit = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    let _ = setrlimit(resource, limit);
}
