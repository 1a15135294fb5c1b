//! Into a workload's network, where its ports are.

use std::fs::{self, File};
use std::io;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use std::os::fd::AsFd;

/// Moves this process into the network namespace of another one, unless it is there already.
pub(super) fn join(pid: i32) -> io::Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    if fs::read_link(&path)? == fs::read_link("/proc/self/ns/net")? {
        return Ok(());
    }
    let namespace = File::open(&path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_network_needs_no_privilege_and_that_of_nobody_is_an_error() {
        let own = i32::try_from(std::process::id()).unwrap();
        join(own).unwrap();
        assert!(join(i32::MAX).is_err());
    }
}
