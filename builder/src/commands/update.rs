//! `coracle update`: the pins move, and what moved is told; nothing is built.

use crate::cli::Update;
use crate::failure::Failure;
use crate::inputs;
use crate::machine_file::MachineFile;
use crate::progress::Progress;
use crate::streams::give;

/// Moves the pins and prints from what to what.
pub(super) fn update(arguments: &Update, progress: &Progress) -> Result<(), Failure> {
    let file = MachineFile::load(&arguments.file)?;
    let changes = inputs::update(&file, arguments.workload.as_deref(), progress)?;
    if changes.is_empty() {
        progress.note("coracle.lock: nothing moved");
        return Ok(());
    }
    let lines: Vec<String> = changes.iter().map(|change| format!("{change}\n")).collect();
    give(&lines.concat())
}
