//! What of the machine's own settings the confinement of its workloads needs: ports that are not root's, controllers
//! of cgroups, shares and maxima of disks.
//!
//! A disk's number is known at boot only, so the maxima are written here, when a workload has begun; all other limits
//! are the runtime's to set. Nothing here keeps a workload from running: what the kernel lacks is told.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use config::boot::{BootSpec, BootWorkload, Network};

use crate::console::Console;
use crate::mounts::{CGROUP_ROOT, WORKLOADS_CGROUP};

/// From this port on any user may listen (ip-sysctl).
const FIRST_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// The controllers that workloads' limits are made of.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Sets what is the machine's. Once, before the workloads run.
pub fn prepare(spec: &BootSpec, console: &mut Console) {
    let shares_network =
        |workload: &BootWorkload| workload.network == Network::Host && workload.first_id.is_some();
    // Root of a user namespace is nobody to the machine's network, but its workload may have the ports below 1024.
    if spec.workloads.iter().any(shares_network)
        && let Err(error) = fs::write(FIRST_PORT, "0")
    {
        console.say(format_args!("cannot write {FIRST_PORT}: {error}"));
    }
    let available =
        fs::read_to_string(format!("{CGROUP_ROOT}/cgroup.controllers")).unwrap_or_default();
    let missing = missing_controllers(&available);
    if !spec.workloads.is_empty() && !missing.is_empty() {
        console.say(format_args!(
            "the kernel has no cgroup controllers {}: their limits do not hold",
            missing.join(" ")
        ));
    }
    let weighed = |workload: &BootWorkload| workload.io.is_some_and(|io| io.weight.is_some());
    if spec.workloads.iter().any(weighed)
        && let Err(reason) = weigh_disks()
    {
        console.say(format_args!("cannot share disks by weight: {reason}"));
    }
}

fn missing_controllers(available: &str) -> Vec<&'static str> {
    let is_there = |name: &str| available.split_whitespace().any(|there| there == name);
    CONTROLLERS
        .into_iter()
        .filter(|name| !is_there(name))
        .collect()
}

/// Weights count on disks whose requests have a price (cgroup-v2, "io.cost.qos").
fn weigh_disks() -> Result<(), String> {
    let path = format!("{CGROUP_ROOT}/io.cost.qos");
    for disk in disks()? {
        fs::write(&path, format!("{disk} enable=1"))
            .map_err(|error| format!("write {path} for disk {disk}: {error}"))?;
    }
    Ok(())
}

/// Sets a workload's maxima on the disks of root and state.
///
/// # Errors
/// In words, at the first that the kernel refuses.
pub fn bound_disks(workload: &BootWorkload) -> Result<(), String> {
    let Some(maximum) = workload.io.and_then(|io| io.maximum()) else {
        return Ok(());
    };
    let path = format!("{WORKLOADS_CGROUP}/{}/io.max", workload.name);
    for disk in disks()? {
        fs::write(&path, format!("{disk} {maximum}"))
            .map_err(|error| format!("write {path} for disk {disk}: {error}"))?;
    }
    Ok(())
}

/// The numbers, `MAJOR:MINOR`, of the disks that what is mounted lies on.
fn disks() -> Result<BTreeSet<String>, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("read the mounts: {error}"))?;
    let devices = devices_of(&mounts);
    let mut disks = BTreeSet::new();
    for device in devices {
        find_disks(Path::new("/sys/dev/block"), &device, &mut disks)
            .map_err(|error| format!("find the disk of {device}: {error}"))?;
    }
    Ok(disks)
}

/// The third field of mountinfo (proc(5)) is the device; a major number of 0 is no disk's.
fn devices_of(mountinfo: &str) -> BTreeSet<String> {
    let device = |line: &str| line.split(' ').nth(2).map(str::to_owned);
    let is_disk = |device: &String| !device.starts_with("0:");
    mountinfo
        .lines()
        .filter_map(device)
        .filter(is_disk)
        .collect()
}

/// Goes from a device-mapper's device to those below it, and from a partition to its disk.
fn find_disks(all: &Path, device: &str, disks: &mut BTreeSet<String>) -> io::Result<()> {
    let folder = fs::canonicalize(all.join(device))?;
    let number = |folder: &Path| {
        fs::read_to_string(folder.join("dev")).map(|number| number.trim().to_owned())
    };
    let mut below = match fs::read_dir(folder.join("slaves")) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(_) => Vec::new(),
    };
    if let (true, Some(disk)) = (folder.join("partition").exists(), folder.parent()) {
        disks.insert(number(disk)?);
    } else if below.is_empty() {
        disks.insert(device.to_owned());
    }
    below
        .drain(..)
        .try_for_each(|lower| find_disks(all, &number(&lower.path())?, disks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_lacks_is_missing() {
        assert_eq!(
            missing_controllers("cpuset cpu io memory hugetlb pids"),
            [""; 0]
        );
        assert_eq!(missing_controllers("cpuset memory pids\n"), ["cpu", "io"]);
    }

    #[test]
    fn devices_are_those_of_disks() {
        let mounts = "1 0 254:0 / / ro - erofs /dev/dm-0 ro\n2 1 0:5 / /dev rw - devtmpfs none rw\n\
            3 1 254:3 / /state rw - ext4 /dev/vda3 rw\n";
        let expected = ["254:0", "254:3"].map(str::to_owned);
        assert_eq!(devices_of(mounts), BTreeSet::from(expected));
    }

    #[test]
    fn a_mapped_device_and_a_partition_lie_on_one_disk() {
        let root = std::env::temp_dir().join(format!("coracle-disks-{}", std::process::id()));
        let all = root.join("dev/block");
        fs::create_dir_all(&all).unwrap();
        for (number, folder) in [
            ("254:0", "devices/vda"),
            ("254:2", "devices/vda/vda2"),
            ("253:0", "devices/dm-0"),
        ] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("dev"), format!("{number}\n")).unwrap();
            std::os::unix::fs::symlink(&folder, all.join(number)).unwrap();
        }
        fs::write(root.join("devices/vda/vda2/partition"), "2\n").unwrap();
        fs::create_dir(root.join("devices/dm-0/slaves")).unwrap();
        let slave = root.join("devices/dm-0/slaves/vda2");
        std::os::unix::fs::symlink(root.join("devices/vda/vda2"), slave).unwrap();
        for device in ["253:0", "254:2", "254:0"] {
            let mut disks = BTreeSet::new();
            find_disks(&all, device, &mut disks).unwrap();
            assert_eq!(disks, BTreeSet::from(["254:0".to_owned()]), "{device}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
