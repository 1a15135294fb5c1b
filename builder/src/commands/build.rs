//! `coracle build`: file → inputs → plan → disk.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cli::{Build, Choice};
use crate::disk::{self, Written};
use crate::export::direct::{self, Parts};
use crate::export::{self, Format};
use crate::failure::Failure;
use crate::image::DiskImage;
use crate::inputs;
use crate::lock::LOCK_FILE;
use crate::machine_file::MachineFile;
use crate::message::{Message, Part};
use crate::output::Output;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::source::cache::Cache;
use crate::streams::give;
use crate::unchanged::Stamp;

/// Builds and prints the image's path.
pub(super) fn build(arguments: &Build, progress: &Progress) -> Result<(), Failure> {
    let begun = Instant::now();
    let file = MachineFile::load(&arguments.file)?;
    let by_name = arguments.output.as_deref().map(Format::of_name);
    let format = arguments.format.or(by_name).unwrap_or(Format::Disk);
    let target = arguments
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}{}", file.spec.name, format.ending())));
    keep_inputs(&file, &target)?;
    let (written, is_new) = if format == Format::Disk {
        let stamp = |plan: &Plan| Stamp::new(&Cache::open(None).ok()?, &target, plan);
        build_raw(&file, &arguments.choice, &target, stamp, progress)?
    } else {
        let written = build_as(format, &file, &arguments.choice, &target, progress)?;
        (written, true)
    };
    let done = if is_new {
        format!("built {} in", target.display())
    } else {
        format!("{} is up to date, found in", target.display())
    };
    progress.note(format!(
        "{done} {:.1} s: {} MiB, root hash {}",
        begun.elapsed().as_secs_f64(),
        written.table.disk_len >> 20,
        written.root_hash
    ));
    if arguments.telling.json {
        return give(&artifact(&target, format, &written).line());
    }
    give(&format!("{}\n", target.display()))
}

/// The image as a message.
fn artifact<'a>(target: &Path, format: Format, written: &'a Written) -> Message<'a> {
    let partitions = written.table.partitions.iter();
    Message::Artifact {
        path: target.display().to_string(),
        format: format.name(),
        size: written.table.disk_len,
        root_hash: &written.root_hash,
        partitions: partitions
            .map(|partition| Part {
                name: &partition.name,
                start: partition.start,
                size: partition.len,
            })
            .collect(),
    }
}

/// Refuses to write the image over the file that describes it, or over its lock.
fn keep_inputs(file: &MachineFile, target: &Path) -> Result<(), Failure> {
    let lock = file.folder().join(LOCK_FILE);
    let is_target = |input: &Path| match (input.canonicalize(), target.canonicalize()) {
        (Ok(input), Ok(target)) => input == target,
        _ => false,
    };
    if is_target(&file.path) || is_target(&lock) {
        return Err(Failure::Input(format!(
            "error: -o {}: the image takes the place of what it is built from\nhint: give the image another name, as in -o {}.img",
            target.display(),
            file.spec.name
        )));
    }
    Ok(())
}

/// Builds the image of a file at `target`. No stamp is left in the cache: nobody builds at the place of a run again.
pub(super) fn build_image(
    file: &MachineFile,
    choice: &Choice,
    target: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    build_raw(file, choice, target, |_| None, progress).map(drop)
}

/// Builds a raw disk at `target`, unless it is there already, and says whether it was written; `stamp` makes what tells
/// whether it is there.
fn build_raw(
    file: &MachineFile,
    choice: &Choice,
    target: &Path,
    stamp: impl FnOnce(&Plan) -> Option<Stamp>,
    progress: &Progress,
) -> Result<(Written, bool), Failure> {
    // Refused early: nobody wants to wait for a build that has no place to go.
    let output = Output::create(target)?;
    let epoch = epoch()?;
    let inputs = inputs::gather(file, choice, progress)?;
    let mut plan = Plan::new(&file.spec, inputs, epoch.unwrap_or(0))?;
    if let Some(latest) = epoch {
        plan.root.clamp_times(latest);
    }
    let stamp = stamp(&plan);
    if let Some(written) = stamp.as_ref().and_then(Stamp::find) {
        return Ok((written, false));
    }
    let written = disk::write(output.file(), &mut plan, progress).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("cannot write {}", target.display()));
        let hint = full_disk_hint(&error);
        Failure::work_with_hint(error, hint)
    })?;
    let state = output.commit()?;
    if let Some(stamp) = stamp {
        stamp.note(&written, &state);
    }
    Ok((written, true))
}

/// Builds a raw disk in a place of its own, then brings it into another form.
fn build_as(
    format: Format,
    file: &MachineFile,
    choice: &Choice,
    target: &Path,
    progress: &Progress,
) -> Result<Written, Failure> {
    let cannot = |error: std::io::Error| {
        let error = anyhow::Error::new(error).context(format!("cannot write {}", target.display()));
        let hint = full_disk_hint(&error);
        Failure::work_with_hint(error, hint)
    };
    // Refused early, as above.
    let output = if format == Format::Direct {
        direct::check(target).map_err(cannot)?;
        None
    } else {
        Some(Output::create(target)?)
    };
    let folder = Cache::open(None)?;
    let folder = folder.scratch()?;
    let disk = folder.path().join("disk.img");
    let (written, _) = build_raw(file, choice, &disk, |_| None, progress)?;
    let _step = progress.step(format!("writing {}", target.display()), None);
    let raw = File::open(&disk)?;
    let exported = match &output {
        Some(output) => {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            let id = *written.table.disk_guid.as_bytes();
            export::write(
                format,
                &raw,
                written.table.disk_len,
                output.file(),
                id,
                &name,
            )
        }
        None => {
            let uki = DiskImage::open(&disk)?.uki()?;
            let parts = Parts {
                kernel: uki.section(".linux")?,
                initrd: uki.section(".initrd")?,
                command_line: &uki.command_line()?,
            };
            direct::write(target, &parts, &raw, &written.table)
        }
    };
    exported.map_err(cannot)?;
    if let Some(output) = output {
        output.commit()?;
    }
    Ok(written)
}

/// `SOURCE_DATE_EPOCH`, if it is set: the time of the image's own files, and the latest of those of workloads.
fn epoch() -> Result<Option<i64>, Failure> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let text = value.to_string_lossy();
    text.parse::<u32>().map(i64::from).map(Some).map_err(|_| {
        Failure::Input(format!(
            "error: SOURCE_DATE_EPOCH is `{text}`, not a number of seconds since 1970 (to 2106)"
        ))
    })
}

/// Where the file system is full, what to do.
fn full_disk_hint(error: &anyhow::Error) -> Option<String> {
    let causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    let is = |wanted| causes.clone().any(|kind| kind == wanted);
    if is(ErrorKind::FileTooLarge) {
        let hint = "a limit on the size of files (ulimit -f) is in the way: raise it; an earlier image is untouched";
        return Some(hint.to_owned());
    }
    is(ErrorKind::StorageFull).then(|| "the file system is full: make room or name another place with -o; an earlier image is untouched".to_owned())
}
