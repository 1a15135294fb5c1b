//! Sending an open descriptor to another process over a Unix socket (unix(7), `SCM_RIGHTS`).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// One message: the descriptor, and as data a name, without which no message would be sent.
pub(crate) fn send(
    socket: &UnixStream,
    descriptor: BorrowedFd<'_>,
    name: &[u8],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        socket,
        &[IoSlice::new(name)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map(drop)
}

/// One message: its data, up to the length of `data`, and the descriptor if there is one. Nothing at all if the
/// other side has ended.
pub(crate) fn receive(
    socket: &UnixStream,
    data: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(data)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_arrives_on_the_other_side() {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        send(&theirs, theirs.as_fd(), b"name").expect("sent");
        drop(theirs);
        let mut data = [0; 8];
        let (size, descriptor) = receive(&ours, &mut data).expect("received");
        assert_eq!((&data[..size], descriptor.is_some()), (&b"name"[..], true));
        // It is a copy of the other side's end.
        drop(descriptor);
        let (size, descriptor) = receive(&ours, &mut data).expect("the end");
        assert_eq!((size, descriptor.is_some()), (0, false));
    }
}
