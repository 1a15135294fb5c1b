//! `linux.netDevices` (config-linux.md, "Network Devices"): devices of the host that move into the container's network
//! namespace, with their permanent global addresses, and are brought up there.
//!
//! Refuses a name that the namespace already has. Nothing is moved back when the container ends: the devices belong to
//! the namespace then. A container that could not be made gives them back.

mod netlink;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::{Context, Error, Result};
use crate::spec::NetDevice;
use netlink::Socket;

/// `IFNAMSIZ` without the NUL.
const MAX_NAME_BYTES: usize = 15;
/// At the end of a name: the lowest number that makes it unique.
const TEMPLATE: &str = "%d";

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name in the namespace of the runtime.
    pub name: String,
    /// Its name in the container, perhaps with `%d` at the end.
    pub inside: String,
}

/// Refuses names that no device can have.
pub(crate) fn resolve(devices: &BTreeMap<String, NetDevice>) -> Result<Vec<Device>> {
    let mut result: Vec<Device> = Vec::new();
    for (name, device) in devices {
        let inside = device.name.as_ref().filter(|name| !name.is_empty());
        let inside = inside.unwrap_or(name).clone();
        let plain = inside.strip_suffix(TEMPLATE).unwrap_or(&inside);
        if let Some(wrong) = [name.as_str(), plain]
            .into_iter()
            .find(|name| !is_name(name))
        {
            return Err(Error::Config(format!(
                "linux.netDevices: {wrong:?} cannot name a device"
            )));
        }
        if inside == *plain && result.iter().any(|other| other.inside == inside) {
            return Err(Error::Config(format!("linux.netDevices: {inside:?} twice")));
        }
        result.push(Device {
            name: name.clone(),
            inside,
        });
    }
    Ok(result)
}

fn is_name(name: &str) -> bool {
    let strange = |byte: u8| byte <= b' ' || byte >= 0x7f || b"/:%".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !matches!(name, "." | ".." | "all" | "default" | "lo")
        && !name.bytes().any(strange)
}

/// Devices that have been moved, to be given back unless they are kept.
#[derive(Debug)]
pub(crate) struct Moved {
    host: End,
    container: End,
    /// Outer and inner name.
    devices: Vec<(String, String)>,
}

/// A network namespace, and a socket in it.
#[derive(Debug)]
struct End {
    namespace: OwnedFd,
    socket: Socket,
}

impl Moved {
    /// Moves the devices into the network namespace `inside`. Those that were moved before one fails are given back.
    pub(crate) fn move_into(inside: OwnedFd, devices: &[Device]) -> Result<Self> {
        let path = "/proc/self/ns/net";
        let own = OwnedFd::from(File::open(path).at("open", path)?);
        let host = End {
            socket: Socket::open().during("open a netlink socket")?,
            namespace: own,
        };
        enter(inside.as_fd())?;
        let socket = Socket::open().during("open a netlink socket in the container");
        enter(host.namespace.as_fd())?;
        let mut moved = Self {
            host,
            container: End {
                namespace: inside,
                socket: socket?,
            },
            devices: Vec::new(),
        };
        for device in devices {
            let inside = moved.name_for(&device.inside)?;
            transfer(&moved.host, &moved.container, &device.name, &inside).during(format!(
                "move network device {:?} into the container as {inside:?}",
                device.name
            ))?;
            moved.devices.push((device.name.clone(), inside));
        }
        Ok(moved)
    }

    /// They stay where they are.
    pub(crate) fn keep(mut self) {
        self.devices.clear();
    }

    /// A name that is free in the container.
    fn name_for(&self, name: &str) -> Result<String> {
        let is_free = |name: &str| match name_to_index(&self.container.socket, name) {
            Ok(_) => Ok(false),
            Err(Errno::NODEV) => Ok(true),
            Err(error) => Err(error).during("look for a network device in the container"),
        };
        let Some(stem) = name.strip_suffix(TEMPLATE) else {
            return match is_free(name)? {
                true => Ok(name.to_owned()),
                false => Err(Error::Container(format!(
                    "linux.netDevices: the container has a device {name:?} already"
                ))),
            };
        };
        for number in 0.. {
            let name = format!("{stem}{number}");
            if name.len() > MAX_NAME_BYTES {
                break;
            }
            if is_free(&name)? {
                return Ok(name);
            }
        }
        Err(Error::Container(format!(
            "linux.netDevices: no name like {name:?} is free in the container"
        )))
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (outer, inner) in self.devices.drain(..) {
            // The error that led here is the one to tell.
            let _ = transfer(&self.container, &self.host, &inner, &outer);
        }
    }
}

fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    move_into_thread_name_spaces(namespace, ThreadNameSpaceType::NETWORK)
        .during("enter the network namespace for linux.netDevices")
}

/// Its addresses are lost when it leaves its namespace, so they are read before and set again. What cannot be set up in
/// the other namespace goes back.
fn transfer(from: &End, to: &End, name: &str, new_name: &str) -> std::io::Result<()> {
    let index = name_to_index(&from.socket, name)?;
    let addresses = from.socket.addresses(index)?;
    let namespace = to.namespace.as_fd();
    from.socket.rename_into(index, namespace, new_name)?;
    set_up(&to.socket, new_name, &addresses).inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = give_back(to, from, (new_name, name), &addresses);
    })
}

fn give_back(
    from: &End,
    to: &End,
    (name, old_name): (&str, &str),
    addresses: &[netlink::Address],
) -> std::io::Result<()> {
    let index = name_to_index(&from.socket, name)?;
    let namespace = to.namespace.as_fd();
    from.socket.rename_into(index, namespace, old_name)?;
    set_up(&to.socket, old_name, addresses)
}

fn set_up(socket: &Socket, name: &str, addresses: &[netlink::Address]) -> std::io::Result<()> {
    let index = name_to_index(socket, name)?;
    socket.bring_up(index)?;
    let add = |address: &netlink::Address| socket.add_address(index, address);
    addresses.iter().try_for_each(add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(devices: &[(&str, Option<&str>)]) -> Option<Vec<(String, String)>> {
        let device = |(name, inside): &(&str, Option<&str>)| {
            let name_inside = inside.map(str::to_owned);
            ((*name).to_owned(), NetDevice { name: name_inside })
        };
        let devices = resolve(&devices.iter().map(device).collect()).ok()?;
        let pair = |device: Device| (device.name, device.inside);
        Some(devices.into_iter().map(pair).collect())
    }

    #[test]
    fn devices_keep_their_name_or_get_one_that_a_device_can_have() {
        for (devices, expected) in [
            (&[("eth0", None)][..], Some(vec![("eth0", "eth0")])),
            (
                &[("eth0", Some("")), ("a", Some("b"))],
                Some(vec![("a", "b"), ("eth0", "eth0")]),
            ),
            (
                &[("a", Some("x%d")), ("b", Some("x%d"))],
                Some(vec![("a", "x%d"), ("b", "x%d")]),
            ),
            (&[("a", Some("x")), ("b", Some("x"))], None),
            (&[("", None)], None),
            (&[("lo", None)], None),
            (&[("a", Some("0123456789abcdef"))], None),
            (&[("a", Some("x%dy"))], None),
            (&[("a", Some("%d"))], None),
            (&[("a", Some("x y"))], None),
            (&[("a/b", None)], None),
            (&[("a", Some("x\0"))], None),
        ] {
            let owned = |pairs: Vec<(&str, &str)>| -> Vec<(String, String)> {
                let pairs = pairs.into_iter();
                pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
            };
            assert_eq!(names(devices), expected.map(owned), "{devices:?}");
        }
    }
}
