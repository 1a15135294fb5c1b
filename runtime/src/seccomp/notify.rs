//! Handing the listening end of a filter to the agent that answers for it (config-linux.md, "Seccomp").
//!
//! From the moment the filter is loaded any system call of the container's process may wait for the agent, so the
//! process can send nothing that the agent's knowing depends on. Therefore it announces, before it loads, which
//! descriptor the listener will be; the runtime takes that descriptor out of it and sends it to the agent. The
//! process does not execute the command before the runtime allows it, so the descriptor does not close too early.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde::Serialize;

use super::{Filter, Listener};
use crate::error::{Context, Error, Result};
use crate::spec::OCI_VERSION;
use crate::state::State;
use crate::{report, sys};

/// Puts the filter on this process. `control` leads to the runtime, which then calls [`hand_over`].
pub(crate) fn load(filter: &Filter, control: &mut UnixStream) -> Result<()> {
    let load = || sys::load_seccomp(&filter.instructions, filter.flags);
    if filter.listener.is_none() {
        return load().during("load the seccomp filter").map(drop);
    }
    // The kernel gives the lowest number that is free, and there is no other thread to take it.
    let next = rustix::io::dup(&*control)
        .during("look for a free descriptor")?
        .as_raw_fd();
    report::send_listener(control, next).during("report to the runtime")?;
    let listener = load().during("load the seccomp filter")?;
    match listener {
        Some(listener) if listener.as_raw_fd() == next => {
            // It is close-on-exec, and until then the runtime may want it.
            std::mem::forget(listener);
            Ok(())
        }
        _ => Err(Error::Child(
            "the seccomp listener is not the descriptor it should be".into(),
        )),
    }
}

/// The container process state (config-linux.md, "The Container Process State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a State<'a>,
}

/// Takes the listener, which is or will be descriptor `number` of the process, and sends it to the agent. `pid` is
/// that process, which for `exec` is not the one of the state. If the process failed to load the filter, it tells
/// so by its next report, and nothing is sent.
pub(crate) fn hand_over(
    listener: &Listener,
    (pid, pidfd): (i32, BorrowedFd<'_>),
    (number, control): (RawFd, &UnixStream),
    state: &State<'_>,
) -> Result<()> {
    let Some(descriptor) = take(pidfd, number, control)? else {
        return Ok(());
    };
    let document = ContainerProcessState {
        oci_version: OCI_VERSION,
        fds: ["seccompFd"],
        pid,
        metadata: listener.metadata.as_deref(),
        state,
    };
    let text = serde_json::to_vec(&document).map_err(|source| Error::Json {
        path: listener.path.clone(),
        source,
    })?;
    send(listener, &text, &descriptor)
}

/// Waits for the descriptor to be there: the process is about to load its filter.
fn take(pidfd: BorrowedFd<'_>, number: RawFd, control: &UnixStream) -> Result<Option<OwnedFd>> {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000,
    };
    let mut last_try = false;
    loop {
        match pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()) {
            Ok(descriptor) => return Ok(Some(descriptor)),
            Err(Errno::BADF | Errno::SRCH) if last_try => return Ok(None),
            Err(Errno::BADF | Errno::SRCH) => {}
            Err(error) => return Err(error).during("take the seccomp listener"),
        }
        // A word from the process, or its end, comes after the descriptor or instead of it.
        let mut watched = [
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::new(control, PollFlags::IN),
        ];
        last_try = match poll(&mut watched, Some(&pause)) {
            Ok(ready) => ready > 0,
            Err(Errno::INTR) => false,
            Err(error) => return Err(error).during("wait for the seccomp listener"),
        };
    }
}

/// One state a connection, and the descriptor with its first bytes.
fn send(listener: &Listener, text: &[u8], descriptor: &OwnedFd) -> Result<()> {
    let path = &listener.path;
    let mut agent = UnixStream::connect(path).at("connect to seccomp listenerPath", path)?;
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let slices = [IoSlice::new(text)];
    let sent = sendmsg(&agent, &slices, &mut ancillary, SendFlags::NOSIGNAL)
        .at("send to seccomp listenerPath", path)?;
    agent
        .write_all(&text[sent..])
        .at("send to seccomp listenerPath", path)
}
