//! Drivers on demand: what the devices of this machine ask for, out of a folder of modules with its tables.
//!
//! In the initramfs this leads to the disk of the root, in the root to everything else; there a child of PID 1 does
//! it, so that no table stays in PID 1's memory and no slow device holds it up. What the folder has no module for is
//! not driven; nobody is told, since most devices of a machine need none.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use config::boot::DRIVERS_PATH;

use super::alias::{Index, Tables, name_of};
use super::{ModuleError, load};
use crate::describe;

/// The most of a device's `modalias` that is believed, in bytes.
const MODALIAS_LIMIT: usize = 4096;

/// A folder of modules with its tables, and what was already loaded from it.
#[derive(Debug)]
pub struct Modprobe {
    folder: PathBuf,
    alias: String,
    dep: String,
    asked: BTreeSet<String>,
    loaded: BTreeSet<String>,
}

impl Modprobe {
    /// Reads a folder's tables. A folder that is not there has no drivers.
    ///
    /// # Errors
    /// When a table is there and cannot be read.
    pub fn open(folder: &str) -> io::Result<Self> {
        let read = |name: &str| match fs::read_to_string(Path::new(folder).join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            result => result,
        };
        Ok(Self {
            folder: folder.into(),
            alias: read("modules.alias")?,
            dep: read("modules.dep")?,
            asked: BTreeSet::new(),
            loaded: BTreeSet::new(),
        })
    }

    /// Loads what drives these devices, each module with what it needs before it; returns what did not load.
    /// A device that was asked for before costs nothing.
    pub fn load_for(&mut self, modaliases: impl IntoIterator<Item = String>) -> Vec<ModuleError> {
        let index = Index::new(Tables {
            alias: &self.alias,
            dep: &self.dep,
        });
        let mut failed = Vec::new();
        for modalias in modaliases {
            if !self.asked.insert(modalias.clone()) {
                continue;
            }
            for module in index.modules_for(&modalias) {
                for file in index.files_of(module) {
                    if self.loaded.insert((*file).to_owned()) && !is_in_kernel(file) {
                        let path = self.folder.join(file);
                        failed.extend(load(&path.to_string_lossy()).err());
                    }
                }
            }
        }
        failed
    }

    /// Loads what drives the devices that are there now; devices behind them are told by uevents.
    pub fn coldplug(&mut self) -> Vec<ModuleError> {
        if self.alias.is_empty() {
            return Vec::new();
        }
        self.load_for(modaliases_of(Path::new("/sys/bus")))
    }
}

/// Whether the kernel has the module already, so that its file need not be read.
fn is_in_kernel(file: &str) -> bool {
    name_of(file).is_some_and(|name| Path::new("/sys/module").join(name).exists())
}

/// The `modalias` of each device on a bus. Devices without one (or gone meanwhile) are left out.
fn modaliases_of(buses: &Path) -> BTreeSet<String> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let devices = entries(buses).flat_map(|bus| entries(&bus.path().join("devices")));
    let texts =
        devices.filter_map(|device| fs::read_to_string(device.path().join("modalias")).ok());
    texts
        .map(|text| text.trim_end().to_owned())
        .filter(|text| !text.is_empty() && text.len() <= MODALIAS_LIMIT)
        .collect()
}

/// What the child `modprobe [MODALIAS…]` does, without a device for all that are there; returns the exit status.
/// What does not load goes to the kernel's log, and by it to the console.
#[must_use]
pub fn run(modaliases: &[String]) -> i32 {
    let mut modprobe = match Modprobe::open(DRIVERS_PATH) {
        Ok(modprobe) => modprobe,
        Err(error) => {
            tell(&format!("cannot read the drivers' tables: {error}"));
            return 1;
        }
    };
    let failed = if modaliases.is_empty() {
        modprobe.coldplug()
    } else {
        modprobe.load_for(modaliases.iter().cloned())
    };
    for error in &failed {
        tell(&describe(error));
    }
    i32::from(!failed.is_empty())
}

/// One line at the level of a warning.
fn tell(text: &str) {
    if let Ok(mut log) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<4>coracle: {text}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_tables_drives_nothing() {
        let mut modprobe = Modprobe::open("/no/such/folder").unwrap();
        assert!(modprobe.coldplug().is_empty());
        assert!(modprobe.load_for(["pci:v1".to_owned()]).is_empty());
    }

    #[test]
    fn a_module_that_does_not_load_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("modules.alias"), "alias pci:* gone\n").unwrap();
        fs::write(folder.path().join("modules.dep"), "gone.ko: before.ko\n").unwrap();
        let mut modprobe = Modprobe::open(folder.path().to_str().unwrap()).unwrap();
        let failed = modprobe.load_for(["pci:a".to_owned(), "usb:b".to_owned()]);
        let paths: Vec<_> = failed.iter().map(|error| &error.path).collect();
        assert!(paths[0].ends_with("/before.ko") && paths[1].ends_with("/gone.ko"));
        assert!(modprobe.load_for(["pci:c".to_owned()]).is_empty());
    }

    #[test]
    fn every_device_on_a_bus_is_asked_for() {
        let buses = tempfile::tempdir().unwrap();
        for (device, modalias) in [
            ("pci/devices/1", "pci:v1\n"),
            ("usb/devices/2", "usb:v2\n"),
            ("usb/devices/3", ""),
        ] {
            let path = buses.path().join(device);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("modalias"), modalias).unwrap();
        }
        fs::create_dir_all(buses.path().join("empty/devices/4")).unwrap();
        let found: Vec<_> = modaliases_of(buses.path()).into_iter().collect();
        assert_eq!(found, ["pci:v1", "usb:v2"]);
    }
}
