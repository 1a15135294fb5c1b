//! The address of before, kept on the state partition over reboots: one line an interface.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::conflict::show;
use crate::net::dhcp::client::Known;
use crate::net::netlink::link::HardwareAddress;
use crate::replace::replace;

/// The folder below the state's mount point.
const FOLDER: &str = ".leases";
/// The longest file that is read.
const LONGEST: u64 = 128;

/// Where an interface's lease is kept.
#[derive(Debug)]
pub struct LeaseFile(PathBuf);

impl LeaseFile {
    /// Of the interface `label` of a machine whose state is mounted there.
    #[must_use]
    pub fn new(mount_point: &Path, label: &str) -> Self {
        Self(mount_point.join(FOLDER).join(label))
    }

    /// What is known; nothing of another hardware address, and nothing that is torn.
    #[must_use]
    pub fn read(&self, hardware: HardwareAddress) -> Option<Known> {
        if fs::metadata(&self.0).ok()?.len() > LONGEST {
            return None;
        }
        parse(&fs::read_to_string(&self.0).ok()?, hardware)
    }

    /// Keeps it. A lost one costs a second at the next boot, so nothing waits for the disk.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn write(&self, known: Known, hardware: HardwareAddress) -> io::Result<()> {
        if self.read(hardware) == Some(known) {
            return Ok(());
        }
        replace(&self.0, render(known, hardware))
    }

    /// Forgets it.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn render(known: Known, hardware: HardwareAddress) -> String {
    let (word, address) = match known {
        Known::Held(address) => ("held", address),
        Known::Released(address) => ("released", address),
    };
    format!("{word} {address} {}\n", show(hardware))
}

fn parse(text: &str, hardware: HardwareAddress) -> Option<Known> {
    let fields: Vec<&str> = text.strip_suffix('\n')?.split(' ').collect();
    let [word, address, of] = fields[..] else {
        return None;
    };
    let address: Ipv4Addr = address.parse().ok().filter(|_| of == show(hardware))?;
    match word {
        "held" => Some(Known::Held(address)),
        "released" => Some(Known::Released(address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_back_for_the_same_hardware_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = LeaseFile::new(folder.path(), "uplink");
        let hardware = [0x52, 0x54, 0, 0, 0, 1];
        assert_eq!(file.read(hardware), None);
        let address = Ipv4Addr::new(10, 0, 2, 15);
        for known in [Known::Held(address), Known::Released(address)] {
            file.write(known, hardware).unwrap();
            assert_eq!(file.read(hardware), Some(known));
            assert_eq!(file.read([0; 6]), None);
        }
        file.remove();
        assert_eq!(file.read(hardware), None);
    }

    #[test]
    fn torn_lines_are_nothing() {
        for text in [
            "",
            "held 10.0.2.15 00:00:00:00:00:00",
            "held x 00:00:00:00:00:00\n",
            "held 10.0.2.15\n",
        ] {
            assert_eq!(parse(text, [0; 6]), None, "{text:?}");
        }
    }
}
