//! What a workload may use.

use toml::Spanned;

use crate::diagnostic::Diagnostic;
use crate::manifest::Text;
use crate::value::{self, Parsed};

/// The least memory limit, in bytes: below it no process starts.
const LEAST_MEMORY: u64 = 1 << 20;

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
    u32::try_from(*pids.get_ref())
        .ok()
        .filter(|n| (1..=4_194_304).contains(n))
        .ok_or_else(|| {
            Diagnostic::at(
                pids.span(),
                format!("`{}` processes are out of range", pids.get_ref()),
            )
            .hint("from 1 to 4194304")
        })
}
