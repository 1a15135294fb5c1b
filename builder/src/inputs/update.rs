//! The pins of `coracle.lock` moved to what there is now.

use config::spec::Workload;

use super::{Sources, cache};
use crate::failure::Failure;
use crate::lock::{Change, LOCK_FILE, Lock, Pins};
use crate::machine_file::MachineFile;
use crate::progress::Progress;

/// Moves the pins of a file, or of one of its workloads, to what there is now; nothing is built.
///
/// # Errors
/// An unknown workload, or the first input that cannot be had.
pub fn update(
    file: &MachineFile,
    workload: Option<&str>,
    progress: &Progress,
) -> Result<Vec<Change>, Failure> {
    let cache = cache(false)?;
    let sources = Sources::new(file, &cache, progress);
    let all = &file.spec.workloads;
    let chosen: Vec<&Workload> = match workload {
        None => all.iter().collect(),
        Some(name) => vec![all.iter().find(|w| w.name == name).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|w| w.name.as_str()).collect();
            Failure::Input(format!(
                "error: {} has no workload `{name}`\nhint: it has {}",
                file.path.display(),
                names.join(", ")
            ))
        })?],
    };
    let pins = match workload {
        None => Pins::Move,
        Some(_) => Pins::MoveOnly(chosen.iter().flat_map(|w| sources.keys(w)).collect()),
    };
    let mut lock = Lock::open(&file.folder().join(LOCK_FILE), pins)?;
    if workload.is_none() {
        sources.pin_kernel(&mut lock)?;
        sources.pin_efi(&mut lock)?;
    }
    for workload in chosen {
        sources.pin_workload(workload, &mut lock)?;
    }
    let changes = lock.changes().to_vec();
    lock.save()?;
    Ok(changes)
}
