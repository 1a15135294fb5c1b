//! `pause` and `resume`: every process of the container stops, and goes on (the cgroup freezer).

use std::path::Path;

use crate::error::{Error, Result};
use crate::state::{Container, Record, Status};

/// Stops a container that is created or running. Returns when all of it has stopped.
pub fn pause(root: &Path, id: &str) -> Result<()> {
    change(
        root,
        id,
        "pause",
        &[Status::Created, Status::Running],
        |record| {
            record
                .cgroup
                .as_ref()
                .map_or(Ok(()), |cgroup| cgroup.freeze())
        },
    )
}

/// Lets a paused container go on.
pub fn resume(root: &Path, id: &str) -> Result<()> {
    change(root, id, "resume", &[Status::Paused], |record| {
        record
            .cgroup
            .as_ref()
            .map_or(Ok(()), |cgroup| cgroup.thaw())
    })
}

fn change(
    root: &Path,
    id: &str,
    operation: &str,
    fit: &[Status],
    act: impl FnOnce(&Record) -> Result<()>,
) -> Result<()> {
    let container = Container::new(root, id)?;
    let lock = container.lock()?;
    let record = container.record()?;
    let status = container.status_under_lock(&record, &lock);
    if !fit.contains(&status) {
        return Err(Error::Container(format!(
            "cannot {operation} container {id:?}: it is {}",
            status.name()
        )));
    }
    act(&record)
}
