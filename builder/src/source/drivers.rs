//! Drivers that are loaded on demand: which modules an image carries for the hardware it may meet, and the tables
//! by which init finds them (`modules.alias` and `modules.dep`, modules.dep(5)).
//!
//! The profile `vm` has what virtual machines are made of beside virtio, `cloud` what the machines of clouds are, and
//! `metal` servers and PCs. A name of a profile that the kernel does not have is passed over; one that the file names is not.

use std::collections::BTreeSet;

use config::spec::HardwareProfile;

use super::cache::Cache;
use super::kernel::Kernel;
use super::modules::{self, Module, ModuleError};

/// What QEMU, VirtualBox and the like offer beside virtio.
const VM: &[&str] = &[
    "ahci",
    "e1000",
    "e1000e",
    "i6300esb",
    "nvme",
    "sd_mod",
    "virtio_balloon",
    "virtio_console",
    "virtio_scsi",
];

/// Disks and networks of clouds and of their hypervisors.
const CLOUD: &[&str] = &[
    "ena",
    "gve",
    "hv_balloon",
    "hv_netvsc",
    "hv_storvsc",
    "hv_utils",
    "hv_vmbus",
    "ixgbevf",
    "mana",
    "mptspi",
    "nvme",
    "sd_mod",
    "virtio_balloon",
    "virtio_scsi",
    "vmw_pvscsi",
    "vmxnet3",
    "xen_blkfront",
    "xen_netfront",
];

/// What is not in one of [`METAL_FOLDERS`].
const METAL: &[&str] = &[
    "aacraid",
    "acpi_cpufreq",
    "arcmsr",
    "ehci_pci",
    "fan",
    "hid_generic",
    "hpsa",
    "iTCO_wdt",
    "i6300esb",
    "ipmi_si",
    "megaraid_sas",
    "mmc_block",
    "mpi3mr",
    "mpt3sas",
    "mptsas",
    "mptspi",
    "nvme",
    "ohci_pci",
    "processor_thermal_device_pci",
    "r8152",
    "sd_mod",
    "sdhci_acpi",
    "sdhci_pci",
    "smartpqi",
    "sp5100_tco",
    "thermal",
    "uas",
    "uhci_hcd",
    "usb_storage",
    "usbhid",
    "virtio_scsi",
    "xhci_pci",
];

/// Folders of which a machine of metal may want anything.
const METAL_FOLDERS: &[&str] = &[
    "kernel/drivers/ata/",
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/phy/",
];

/// Where the drivers are that may lead to the disk of the root.
const STORAGE_FOLDERS: &[&str] = &[
    "kernel/drivers/ata/",
    "kernel/drivers/block/",
    "kernel/drivers/hv/",
    "kernel/drivers/message/fusion/",
    "kernel/drivers/mmc/",
    "kernel/drivers/nvme/host/",
    "kernel/drivers/scsi/",
    "kernel/drivers/usb/host/",
    "kernel/drivers/usb/storage/",
];

/// Modules with the tables that lead to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drivers {
    /// The modules, what they depend on included, each once.
    pub modules: Vec<Module>,
    /// `modules.alias`.
    pub alias: String,
    /// `modules.dep`.
    pub dep: String,
}

/// The drivers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriverSets {
    /// Those that may lead to the root's disk, for the initrd.
    pub storage: Drivers,
    /// All of them, for the root.
    pub all: Drivers,
}

/// Chooses the drivers of a profile and those that the file names.
///
/// # Errors
/// [`ModuleError`]: a named driver is missing, or a module is broken.
pub fn choose(
    kernel: &Kernel,
    profile: HardwareProfile,
    named: &[String],
    cache: &Cache,
) -> Result<DriverSets, ModuleError> {
    let mut names: BTreeSet<String> = named.iter().map(|name| modules::normal(name)).collect();
    names.extend(of_profile(kernel, profile));
    if names.is_empty() {
        return Ok(DriverSets::default());
    }
    let closures = modules::closures(kernel, &names, cache)?;
    let is_storage = |name: &str| {
        let file = kernel.modules.files.get(name);
        file.is_some_and(|file| STORAGE_FOLDERS.iter().any(|f| file.path.starts_with(f)))
    };
    let storage = closures.iter().filter(|closure| is_storage(&closure.name));
    Ok(DriverSets {
        storage: collect(storage),
        all: collect(closures.iter()),
    })
}

fn of_profile(kernel: &Kernel, profile: HardwareProfile) -> Vec<String> {
    let files = &kernel.modules.files;
    let (names, folders): (&[&str], &[&str]) = match profile {
        HardwareProfile::None => (&[], &[]),
        HardwareProfile::Vm => (VM, &[]),
        HardwareProfile::Cloud => (CLOUD, &[]),
        HardwareProfile::Metal => (METAL, METAL_FOLDERS),
    };
    let named = names.iter().filter(|name| files.contains_key(**name));
    let in_folders = files
        .iter()
        .filter(|(_, file)| folders.iter().any(|f| file.path.starts_with(f)));
    let mut all: Vec<String> = named.map(|name| (*name).to_owned()).collect();
    all.extend(in_folders.map(|(name, _)| name.clone()));
    all
}

/// One set of tables for several drivers; a module that several need is there once.
fn collect<'a>(closures: impl Iterator<Item = &'a modules::Closure>) -> Drivers {
    let mut drivers = Drivers::default();
    let mut seen = BTreeSet::new();
    for closure in closures {
        for alias in &closure.aliases {
            let line = format!("alias {alias} {}\n", closure.name);
            drivers.alias.push_str(&line);
        }
        let Some((own, needs)) = closure.modules.split_last() else {
            continue; // built in
        };
        drivers.dep.push_str(&file_name(own));
        drivers.dep.push(':');
        // What is loaded first stands last (modules.dep(5)).
        for needed in needs.iter().rev() {
            drivers.dep.push(' ');
            drivers.dep.push_str(&file_name(needed));
        }
        drivers.dep.push('\n');
        for module in &closure.modules {
            if seen.insert(module.name.clone()) {
                drivers.modules.push(module.clone());
            }
        }
    }
    drivers
}

/// The file's name in the image, where every module lies unpacked.
fn file_name(module: &Module) -> String {
    let end = module.file_name.rfind(".ko");
    let end = end.map_or(module.file_name.len(), |at| at + ".ko".len());
    module.file_name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;
    use std::sync::Arc;

    fn module(name: &str, file_name: &str) -> Module {
        Module {
            name: name.to_owned(),
            file_name: file_name.to_owned(),
            content: Content::Bytes(Arc::from(&b""[..])),
        }
    }

    #[test]
    fn tables_are_those_of_kmod_and_a_shared_module_is_there_once() {
        let bus = module("usb_core", "usb-core.ko.xz");
        let closures = [
            modules::Closure {
                name: "xhci_pci".to_owned(),
                aliases: vec!["pci:v*bc0C*".to_owned()],
                modules: vec![
                    bus.clone(),
                    module("xhci_hcd", "xhci-hcd.ko"),
                    module("xhci_pci", "xhci-pci.ko.xz"),
                ],
            },
            modules::Closure {
                name: "usb_storage".to_owned(),
                aliases: vec!["usb:*".to_owned(), "usb:v1*".to_owned()],
                modules: vec![bus, module("usb_storage", "usb-storage.ko")],
            },
            modules::Closure {
                name: "built_in".to_owned(),
                aliases: Vec::new(),
                modules: Vec::new(),
            },
        ];
        let drivers = collect(closures.iter());
        assert_eq!(
            drivers.alias,
            "alias pci:v*bc0C* xhci_pci\nalias usb:* usb_storage\nalias usb:v1* usb_storage\n"
        );
        assert_eq!(
            drivers.dep,
            "xhci-pci.ko: xhci-hcd.ko usb-core.ko\nusb-storage.ko: usb-core.ko\n"
        );
        let names: Vec<_> = drivers.modules.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["usb_core", "xhci_hcd", "xhci_pci", "usb_storage"]);
    }
}
