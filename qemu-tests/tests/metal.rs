//! A machine of metal finds its disk and its network whatever they hang on: drivers are loaded as devices ask for them.

use anyhow::Result;
use qemu_tests::{Boot, BootFiles, Case, Coracle, DiskBus, Image, VmBuilder, seconds};

/// The kernel of real hardware is larger and slower than that of a virtual machine.
const BOOT_TIME: std::time::Duration = seconds(300);

const MACHINE: &str = r#"
name = "metal"

[hardware]
profile = "metal"

[state]
size = "32MiB"

[workload.w]
debian = ["busybox-static"]
command = ["busybox", "sleep", "3600"]
volumes = [{ name = "v", path = "/v" }]
"#;

#[test]
fn a_machine_boots_from_each_kind_of_disk_and_has_its_network() -> Result<()> {
    let case = Case::new("metal")?;
    let image = Image::open(Coracle::new(&case).build("metal", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    for (bus, network) in [
        (DiskBus::Nvme, "e1000"),
        (DiskBus::Ahci, "e1000e"),
        (DiskBus::Scsi, "virtio-net-pci"),
        (DiskBus::Usb, "rtl8139"),
    ] {
        let vm = VmBuilder::new(&case, &format!("{bus:?}"), image.path().to_owned());
        let vm = vm.disk_bus(bus).network(network).boot(Boot::Direct(&files));
        let mut vm = vm.start()?;
        vm.expect("stage state", BOOT_TIME)?;
        vm.expect("stage ready", BOOT_TIME)?;
        // Nothing waits for the network: it may have come before.
        if vm.refute("stage network").is_ok() {
            vm.expect("stage network", BOOT_TIME)?;
        }
        vm.refute("cannot load")?;
        vm.power_down()?;
    }
    Ok(())
}

#[test]
fn a_virtual_machine_boots_from_nvme_by_firmware_with_the_drivers_that_it_has_on_demand()
-> Result<()> {
    let case = Case::new("metal-vm-profile")?;
    let text = "name = \"cloud\"\n[workload.w]\ndebian = [\"busybox-static\"]\ncommand = [\"busybox\", \"sleep\", \"3600\"]\n";
    let image = Image::open(Coracle::new(&case).build("cloud", text)?)?;
    let vm = VmBuilder::new(&case, "nvme", image.path().to_owned());
    let mut vm = vm.disk_bus(DiskBus::Nvme).start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    vm.refute("cannot load")?;
    vm.power_down()
}
