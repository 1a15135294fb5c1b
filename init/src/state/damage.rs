//! A state partition that cannot be mounted: what is readable is kept, or it is made anew.
//!
//! `keep` writes nothing, not even the journal's replay: what is mounted is what was last written in its place, and
//! what only the journal has is missing. `reset` tells what is lost before it is.

use std::fs::{self, File};
use std::io;

use config::boot::BootState;
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::format;
use super::superblock::{self, Superblock};
use super::{FLAGS, State, StateError, mount_ext4, read_superblock};
use crate::describe;
use crate::disks::PartitionDevice;
use crate::gpt::Guid;

/// How many names are told of what is lost.
const NAMES: usize = 20;

/// Mounts read-only what can be read: by the superblock, or else by one of its copies.
pub(super) fn mount_readable(
    spec: &BootState,
    guid: Guid,
    device: &PartitionDevice,
    error: StateError,
    tell: &mut dyn FnMut(String),
) -> Result<State, StateError> {
    let how = mount_read_only(spec, guid, device).ok_or(error)?;
    tell(format!(
        "DAMAGED: {}; {how}: read-only, without what its journal has, and nothing of it is changed",
        "it cannot be mounted to be written"
    ));
    Ok(State {
        mount_point: spec.mount_point.clone(),
        read_only: true,
        can_grow: false,
        guid,
        has_projects: false,
    })
}

/// How it was mounted, in words.
fn mount_read_only(spec: &BootState, guid: Guid, device: &PartitionDevice) -> Option<String> {
    let flags = FLAGS | MountFlags::RDONLY;
    if mount_ext4(spec, device, flags, "noload").is_ok() {
        return Some("what is readable is mounted".to_owned());
    }
    copies(device, guid).find_map(|(group, copy)| {
        // The option counts in KiB, whatever the blocks are.
        let at = group * copy.group_blocks * copy.block_size / 1024;
        let options = format!("noload,sb={at}");
        mount_ext4(spec, device, flags, &options).ok()?;
        Some(format!(
            "what is readable by the superblock's copy in group {group} is mounted"
        ))
    })
}

/// Copies of the superblock that are of this very file system.
fn copies(device: &PartitionDevice, guid: Guid) -> impl Iterator<Item = (u64, Superblock)> {
    superblock::copies()
        .filter(|(_, at)| at + superblock::LEN as u64 <= device.size)
        .filter_map(move |(group, at)| {
            let copy = read_superblock(device, at).ok()??;
            // What an earlier file system left would be somebody else's data.
            let is_ours = Guid::from_text_order(copy.uuid) == guid;
            (is_ours
                && u64::from(copy.group) == group
                && copy.blocks * copy.block_size <= device.size)
                .then_some((group, copy))
        })
}

/// Makes the file system anew, empty.
pub(super) fn reset(
    spec: &BootState,
    device: &PartitionDevice,
    error: &StateError,
    tell: &mut dyn FnMut(String),
) -> Result<(), StateError> {
    tell(format!("DAMAGED: {}", describe(error)));
    let guid =
        Guid::parse(&spec.partition_uuid).ok_or_else(|| StateError::NoGuid(String::new()))?;
    let lost = match mount_read_only(spec, guid, device) {
        Some(_) => {
            let names = volume_names(&spec.mount_point);
            let _ = unmount(spec.mount_point.as_str(), UnmountFlags::empty());
            names
        }
        None => "nothing of it can be read".to_owned(),
    };
    tell(format!(
        "RESET by on_damage = \"reset\": everything on {} is lost ({lost}); it is made anew, empty",
        device.node.display()
    ));
    File::options()
        .write(true)
        .open(&device.node)
        .and_then(|file| format::write(&file, 0, device.size))
        .map_err(|source| StateError::Reset {
            node: device.node.display().to_string(),
            source,
        })
}

fn volume_names(mount_point: &str) -> String {
    let names: io::Result<Vec<String>> =
        fs::read_dir(format!("{mount_point}/volumes")).map(|all| {
            all.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .take(NAMES)
                .collect()
        });
    match names {
        Ok(mut names) if !names.is_empty() => {
            names.sort_unstable();
            format!("volumes {}", names.join(", "))
        }
        _ => "no volumes".to_owned(),
    }
}
