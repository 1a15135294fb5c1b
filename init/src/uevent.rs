//! Uevents of the kernel over netlink: devices that appear, and dm-verity's corrupted blocks.
//!
//! Messages are taken from the kernel only; those of another sender, and malformed ones, are dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use rustix::time::Timespec;

/// The multicast group of the kernel's own messages (udev sends to 2).
const KERNEL_GROUP: u32 = 1;

/// Something the kernel told, as far as init cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uevent {
    /// A block device or a partition appeared.
    BlockAdded,
    /// An input device appeared; its node below `/dev`, e.g. `input/event0`.
    InputAdded(String),
    /// A device appeared that a module may drive; its `modalias`.
    DeviceAdded(String),
    /// dm-verity read a block that does not match its hash.
    Corrupted(CorruptBlock),
    /// Anything else.
    Other,
}

/// The block that dm-verity found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorruptBlock {
    /// The device mapper's name of the device.
    pub device: String,
    /// `data` or `metadata` (the hash tree).
    pub kind: &'static str,
    /// Its number, in blocks of 4096 bytes of that device.
    pub block: u64,
}

/// The socket on which the kernel tells.
#[derive(Debug)]
pub struct UeventSocket(OwnedFd);

impl UeventSocket {
    /// Subscribes from now on.
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            flags,
            Some(KOBJECT_UEVENT),
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// The next event that waits already; `None` when none does. A message that was lost because the socket
    /// was full counts as [`Uevent::BlockAdded`]: whoever waits for a device looks again.
    pub fn next(&self) -> Option<Uevent> {
        let mut buffer = [0_u8; 8192];
        loop {
            match recvfrom(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((size, _, sender)) if is_from_kernel(sender.as_ref()) => {
                    return Some(parse(&buffer[..size.min(8192)]));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => return Some(Uevent::BlockAdded),
                Err(_) => return None,
            }
        }
    }

    /// Waits for the next event, at most for `limit`.
    pub fn wait(&self, limit: Duration) -> Option<Uevent> {
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).ok()?,
            tv_nsec: limit.subsec_nanos().into(),
        };
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout));
        self.next()
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_from_kernel(sender: Option<&rustix::net::SocketAddrAny>) -> bool {
    sender
        .and_then(|address| SocketAddrNetlink::try_from(address.clone()).ok())
        .is_some_and(|address| address.pid() == 0)
}

/// `ACTION@DEVPATH`, then `KEY=VALUE`, each ended by a zero byte.
fn parse(message: &[u8]) -> Uevent {
    let Ok(text) = std::str::from_utf8(message) else {
        return Uevent::Other;
    };
    let value_of = |key: &str| {
        let mut fields = text.split('\0').skip(1);
        fields.find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
    };
    if let Some(corrupted) = value_of("DM_VERITY_ERR_BLOCK_NR") {
        return parse_corruption(
            corrupted,
            value_of("DM_NAME").or_else(|| value_of("DEVNAME")),
        );
    }
    match (
        value_of("ACTION"),
        value_of("SUBSYSTEM"),
        value_of("DEVNAME"),
    ) {
        (Some("add"), Some("block"), _) => Uevent::BlockAdded,
        (Some("add"), Some("input"), Some(node)) if node.starts_with("input/event") => {
            Uevent::InputAdded(node.to_owned())
        }
        (Some("add"), ..) => match value_of("MODALIAS") {
            Some(modalias) => Uevent::DeviceAdded(modalias.to_owned()),
            None => Uevent::Other,
        },
        _ => Uevent::Other,
    }
}

/// `TYPE,BLOCK`, where type 0 is data and 1 is metadata.
fn parse_corruption(value: &str, device: Option<&str>) -> Uevent {
    let parsed = value.split_once(',').and_then(|(kind, block)| {
        let kind = if kind == "0" { "data" } else { "metadata" };
        Some((kind, block.parse().ok()?))
    });
    parsed.map_or(Uevent::Other, |(kind, block)| {
        Uevent::Corrupted(CorruptBlock {
            device: device.unwrap_or("?").to_owned(),
            kind,
            block,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_events() {
        let corrupt = |kind, block| {
            Uevent::Corrupted(CorruptBlock {
                device: "dm-0".to_owned(),
                kind,
                block,
            })
        };
        let cases = [
            (
                "add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=vda1\0",
                Uevent::BlockAdded,
            ),
            ("remove@/x\0ACTION=remove\0SUBSYSTEM=block\0", Uevent::Other),
            (
                "add@/x\0ACTION=add\0SUBSYSTEM=usb\0MODALIAS=usb:v1d2\0",
                Uevent::DeviceAdded("usb:v1d2".to_owned()),
            ),
            ("add@/x\0ACTION=add\0SUBSYSTEM=usb\0", Uevent::Other),
            (
                "remove@/x\0ACTION=remove\0SUBSYSTEM=usb\0MODALIAS=usb:v1d2\0",
                Uevent::Other,
            ),
            (
                "add@/x\0ACTION=add\0SUBSYSTEM=input\0DEVNAME=input/event3\0",
                Uevent::InputAdded("input/event3".to_owned()),
            ),
            (
                "add@/x\0ACTION=add\0SUBSYSTEM=input\0DEVNAME=input/mouse0\0",
                Uevent::Other,
            ),
            (
                "change@/x\0ACTION=change\0DEVNAME=dm-0\0DM_VERITY_ERR_BLOCK_NR=0,17\0",
                corrupt("data", 17),
            ),
            (
                "change@/x\0DEVNAME=dm-0\0DM_VERITY_ERR_BLOCK_NR=1,3\0",
                corrupt("metadata", 3),
            ),
            ("change@/x\0DM_VERITY_ERR_BLOCK_NR=1\0", Uevent::Other),
            ("change@/x\0DM_VERITY_ERR_BLOCK_NR=0,-1\0", Uevent::Other),
            ("DM_VERITY_ERR_BLOCK_NR=0,1", Uevent::Other),
            ("", Uevent::Other),
        ];
        for (message, event) in cases {
            assert_eq!(parse(message.as_bytes()), event, "{message:?}");
        }
        assert_eq!(parse(&[0xff; 40]), Uevent::Other);
    }
}
