//! How far the kernel reads ahead on the verified root.
//!
//! Every byte that is read is hashed, wanted or not, and a boot reads here and there: pages of programs and of
//! libraries. So the window is small until all workloads are ready, and the kernel's own afterwards, for those that
//! read large files. A kernel that does not take the setting is only slower, so nothing is told of it.

use std::fs;

/// The window during boot, in KiB: 4 would hash a little less, but make slow disks seek for each page.
pub const AT_BOOT_KIB: u32 = 8;
/// The kernel's default window, in KiB (`VM_READAHEAD_PAGES`).
pub const AFTERWARDS_KIB: u32 = 128;

/// Sets the window of the device-mapper device with this minor number.
pub fn set(minor: u32, kib: u32) {
    let setting = format!("/sys/block/dm-{minor}/queue/read_ahead_kb");
    let _ = fs::write(setting, kib.to_string());
}

/// Sets the window of the device that the root is mounted from.
pub fn set_for_root(kib: u32) {
    if let Ok(root) = rustix::fs::stat("/") {
        set(rustix::fs::minor(root.st_dev), kib);
    }
}
