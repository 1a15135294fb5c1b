//! What a workload may use.

use toml::Spanned;

use crate::boot::BootIo;
use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed};

/// The least memory limit, in bytes: below it no process starts.
const LEAST_MEMORY: u64 = 1 << 20;
/// The most processes and threads if the file does not say: far above what a service needs, far below what a machine
/// of little memory can bear.
pub(super) const DEFAULT_PROCESSES: u32 = 4096;

pub(super) fn memory(text: &Text) -> Parsed<u64> {
    let size = value::size(text)?;
    if size < LEAST_MEMORY {
        return Err(
            Diagnostic::at(text.span(), format!("`{}` is too small", text.get_ref()))
                .hint("1MiB is the least"),
        );
    }
    Ok(size)
}

/// From 0.01 (the kernel's least quota) to 1024 processors, in thousandths.
pub(super) fn cpu_millis(cpus: &Spanned<f64>) -> Parsed<u64> {
    let value = *cpus.get_ref();
    if !(0.01..=1024.0).contains(&value) {
        return Err(Diagnostic::at(
            cpus.span(),
            format!("`{value}` processors are out of range"),
        )
        .hint("from 0.01 to 1024.0, as in cpus = 1.5"));
    }
    // In range, so the product is a small positive number.
    Ok((value * 1000.0).round() as u64)
}

pub(super) fn process_limit(pids: &Spanned<i64>) -> Parsed<u32> {
    within(pids, "processes", 1, 4_194_304)
}

/// From what a process needs to begin to the kernel's own limit for one that asks for no more.
pub(super) fn open_files(files: &Spanned<i64>) -> Parsed<u32> {
    within(files, "open files", 16, 524_288)
}

/// Weight and maxima; at least one of them.
pub(super) fn io(from: &manifest::Io, mistakes: &mut Mistakes) -> BootIo {
    let count = |number: &Option<Spanned<i64>>, what, least, most, mistakes: &mut Mistakes| {
        let number = number.as_ref()?;
        mistakes.take(within(number, what, least, most))
    };
    BootIo {
        weight: count(&from.weight, "shares of the disk", 1, 10_000, mistakes),
        read: mistakes.take_some(from.read.as_ref(), rate),
        write: mistakes.take_some(from.write.as_ref(), rate),
        read_ops: count(&from.read_ops, "requests a second", 1, u32::MAX, mistakes).map(u64::from),
        write_ops: count(&from.write_ops, "requests a second", 1, u32::MAX, mistakes)
            .map(u64::from),
    }
}

/// Bytes a second: less than a page would stop it.
fn rate(text: &Text) -> Parsed<u64> {
    let bytes = value::size(text)?;
    if bytes < 4096 {
        let what = format!("`{}` a second is too little", text.get_ref());
        return Err(Diagnostic::at(text.span(), what).hint("4KiB is the least"));
    }
    Ok(bytes)
}

fn within(number: &Spanned<i64>, what: &str, least: u32, most: u32) -> Parsed<u32> {
    let value = *number.get_ref();
    u32::try_from(value)
        .ok()
        .filter(|count| (least..=most).contains(count))
        .ok_or_else(|| {
            Diagnostic::at(number.span(), format!("`{value}` {what} are out of range"))
                .hint(format!("from {least} to {most}"))
        })
}
