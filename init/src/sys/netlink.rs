//! Options of netlink sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Switches on an option of the level `SOL_NETLINK`, e.g. `NETLINK_EXT_ACK`.
///
/// # Errors
/// `ENOPROTOOPT` from a kernel that does not know it.
pub fn set_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    set(socket, libc::SOL_NETLINK, option, 1)
}

/// Lets the socket send so many bytes at once, whatever the limits of the machine.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`.
pub fn force_send_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("an int is small");
    // SAFETY: the descriptor is open, and the kernel reads `size` bytes, which is what `value` has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
