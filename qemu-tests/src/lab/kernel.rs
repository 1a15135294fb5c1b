//! Debian's kernel for virtual machines, fetched once and kept unpacked in the target directory.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};

use crate::case::target_directory;
use crate::tool::run_tool;

const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The bootable image.
pub(super) fn image() -> Result<PathBuf> {
    let boot = unpacked()?.join("boot");
    let files = std::fs::read_dir(&boot).with_context(|| format!("read {}", boot.display()))?;
    let mut files = files.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|file| file.to_string_lossy().contains("/vmlinuz-"))
        .with_context(|| format!("{} has no kernel", boot.display()))
}

/// Files of modules that depend on no other.
pub(super) fn modules(names: &[&str]) -> Result<Vec<PathBuf>> {
    let root = unpacked()?;
    let name = |name: &&str| {
        let listing = run_tool("find", |find| {
            find.arg(&root).args(["-name", &format!("{name}.ko")])
        })?;
        let line = listing.lines().next();
        line.map(PathBuf::from)
            .with_context(|| format!("the kernel has no module {name}"))
    };
    names.iter().map(name).collect()
}

/// The folder of the unpacked package. Of several tests that want it the first fetches it.
fn unpacked() -> Result<PathBuf> {
    static FETCHING: Mutex<()> = Mutex::new(());
    let _guard = FETCHING.lock().map_err(|_| anyhow!("a fetch panicked"))?;
    let depends = run_tool("apt-cache", |apt| apt.args(["depends", META_PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("{META_PACKAGE} names no kernel:\n{depends}"))?;
    let folder = target_directory()?.join("qemu-tests-cache").join(package);
    if !folder.exists() {
        fetch(package, &folder)?;
    }
    Ok(folder)
}

/// Only what is complete gets the folder's name.
fn fetch(package: &str, folder: &Path) -> Result<()> {
    let partial = folder.with_extension(format!("partial-{}", std::process::id()));
    std::fs::create_dir_all(&partial)?;
    run_tool("apt-get", |apt| {
        let quiet = ["-qq", "-o", "APT::Sandbox::User=root", "download"];
        apt.args(quiet).arg(package).current_dir(&partial)
    })?;
    run_tool("sh", |sh| {
        let unpack = "dpkg-deb -x *.deb . && rm *.deb";
        sh.args(["-c", unpack]).current_dir(&partial)
    })?;
    match std::fs::rename(&partial, folder) {
        // Another process was faster.
        Err(_) if folder.exists() => Ok(std::fs::remove_dir_all(&partial)?),
        other => other.with_context(|| format!("make {}", folder.display())),
    }
}
