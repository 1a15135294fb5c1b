//! What a confined child cannot do any more, by the children that one process of the test is forked into. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use coracle_init::net::confine::confine;
use coracle_init::sys;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::CapabilitySet;

/// The number of the first claim that does not hold, from 1 on; 0 if all do.
fn claims() -> i32 {
    let refused = Some(Errno::PERM);
    let clock = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let realtime = rustix::time::ClockId::Realtime;
    let claims = [
        fs::read_to_string("/facts.json").is_ok_and(|text| text == "{}"),
        !fs::exists("/etc").unwrap_or(true),
        fs::write("/facts.json", "other").is_err(),
        UdpSocket::bind("127.0.0.1:0").is_ok(),
        UdpSocket::bind("[::1]:0").is_ok() || UdpSocket::bind("127.0.0.1:0").is_ok(),
        socket(AddressFamily::UNIX, SocketType::STREAM, None).err() == refused,
        socket(AddressFamily::NETLINK, SocketType::RAW, None).err() == refused,
        UdpSocket::bind("127.0.0.1:53").is_err(),
        sys::fork(|| 0).is_err(),
        sys::unshare(libc::CLONE_NEWUSER).is_err(),
        sys::kill(1, 0).is_err(),
        rustix::process::chroot("/").err() == refused,
        rustix::time::clock_settime(realtime, clock).err() == refused,
        sys::become_user(0).is_err(),
    ];
    let first = claims.iter().position(|holds| !holds);
    first.map_or(0, |index| i32::try_from(index).unwrap() + 1)
}

#[test]
fn a_confined_process_has_sockets_and_one_folder_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can confine itself");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("facts.json"), "{}").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let child = sys::fork(|| match confine(folder.path(), CapabilitySet::empty()) {
        Ok(()) => claims(),
        Err(_) => 100,
    });
    let status = sys::wait_for(child.unwrap(), Duration::from_secs(60));
    assert_eq!(
        status,
        Some(0),
        "the number of the claim that does not hold"
    );
}
