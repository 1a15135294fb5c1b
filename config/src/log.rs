//! `[log]`: how much is kept of what the workloads print, and the names that are the log's own.

use crate::boot::BootLog;
use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed};

/// The log's own streams beside those of the workloads: the kernel's messages and init's lines.
pub const OWN_STREAMS: [&str; 2] = ["kernel", "coracle"];

/// Without `size`, in bytes.
const DEFAULT_SIZE: u64 = 16 << 20;
/// Without `memory`, in bytes.
const DEFAULT_MEMORY: u64 = 64 << 10;
/// The least of both: what is read of a workload at once must fit in, with each byte made visible as four.
const LEAST: u64 = 64 << 10;
/// The most of `memory`: the memory of all workloads lies in one file.
const MOST_MEMORY: u64 = 64 << 20;
/// The most of `size`.
const MOST_SIZE: u64 = 1 << 40;

/// The bounds of the log.
pub(crate) fn bounds(log: &manifest::Log, mistakes: &mut Mistakes) -> BootLog {
    let size = mistakes.take_some(log.size.as_ref(), |text| bound(text, MOST_SIZE, "1TiB"));
    let memory = mistakes.take_some(log.memory.as_ref(), |text| {
        bound(text, MOST_MEMORY, "64MiB")
    });
    BootLog {
        size: size.unwrap_or(DEFAULT_SIZE),
        memory: memory.unwrap_or(DEFAULT_MEMORY),
    }
}

fn bound(text: &Text, most: u64, most_text: &str) -> Parsed<u64> {
    let size = value::size(text)?;
    let mistake = |what: &str, hint: String| {
        let message = format!("`{}` is {what} for a log", text.get_ref());
        Err(Diagnostic::at(text.span(), message).hint(hint))
    };
    match size {
        0..LEAST => mistake("too small", "64KiB is the least".to_owned()),
        size if size > most => mistake("too large", format!("the most is {most_text}")),
        size => Ok(size),
    }
}

/// A workload with the name of one of the log's own streams would write into it.
pub(crate) fn workload_name(name: &Text) -> Parsed<String> {
    let label = value::dns_label(name, "workload name")?;
    if OWN_STREAMS.contains(&label.as_str()) {
        let message = format!("`{label}`: this name is taken in the log");
        return Err(Diagnostic::at(name.span(), message).hint("choose another name"));
    }
    Ok(label)
}
