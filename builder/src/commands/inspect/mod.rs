//! `coracle inspect`: what a disk image holds, drawn to scale, and whether its root fits its hash.

mod bar;
mod draw;
mod report;

use crate::cli::Inspect;
use crate::failure::Failure;
use crate::image::{DiskImage, ImageError};
use crate::streams::give;
use crate::terminal::Style;

use report::Report;

/// Prints what is in the image; a root that does not fit its hash is a failure.
pub(super) fn inspect(arguments: &Inspect) -> Result<(), Failure> {
    let image = open(&arguments.disk)?;
    let uki = image.uki()?;
    let root_hash = uki.root_hash().unwrap_or_default();
    let verdict = image.verify(&root_hash)?;
    let spec = image.boot_spec();
    let contents = image.contents();
    let report = Report::new(&arguments.disk, &image, &uki, verdict.is_ok())?
        .with_machine(spec.as_ref().ok(), contents.ok())?;
    if arguments.json {
        give(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        give(&draw::draw(&report, Style::of_stdout()))?;
    }
    verdict.map_err(|error| {
        let hint = "the image is damaged or was changed: build it again; `coracle verify` names each damage"
            .to_owned();
        Failure::work_with_hint(
            anyhow::Error::new(error).context("the root does not fit its hash"),
            Some(hint),
        )
    })?;
    spec.map(drop).map_err(Failure::work)
}

/// Opens a disk; the command line names what is not there, as for every other command.
pub(super) fn open(disk: &std::path::Path) -> Result<DiskImage, Failure> {
    DiskImage::open(disk).map_err(|error| match &error {
        ImageError::Open { source, .. } => Failure::Input(format!("error: {error}: {source}")),
        _ => Failure::work(error),
    })
}
