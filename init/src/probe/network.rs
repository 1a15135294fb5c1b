//! Into a workload's network, where its ports are, and back.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace of a process; `None`: it is this process's own.
///
/// # Errors
/// When the process is gone.
pub(super) fn of_process(pid: i32) -> io::Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/ns/net");
    if fs::read_link(&path)? == fs::read_link("/proc/self/ns/net")? {
        return Ok(None);
    }
    Ok(Some(File::open(&path)?.into()))
}

/// The network namespace that this thread lives in.
#[derive(Debug)]
pub(super) struct Home(OwnedFd);

impl Home {
    /// Where this thread is now.
    pub(super) fn here() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// Does something in another namespace (`None`: at home). Who does not come home cannot go on.
    pub(super) fn within<T>(
        &self,
        namespace: Option<&OwnedFd>,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(namespace) = namespace else {
            return work();
        };
        enter(namespace)?;
        let result = work();
        enter(&self.0).map_or_else(|_| std::process::abort(), |()| result)
    }
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), kind)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_network_needs_no_privilege_and_that_of_nobody_is_an_error() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(of_process(own).unwrap().is_none());
        assert!(of_process(i32::MAX).is_err());
        let home = Home::here().unwrap();
        assert_eq!(home.within(None, || Ok(3)).unwrap(), 3);
    }
}
