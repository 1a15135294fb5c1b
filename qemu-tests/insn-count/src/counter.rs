//! What the counter writes, and where.
//!
//! Lines of `insn-count: marker NUMBER COUNT` as each marker is executed, `insn-count: total COUNT` at the end; a
//! count is the number of guest instructions from power-on, the marker itself included.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

/// The plugin's arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The file that the counts go to.
    pub(crate) out: PathBuf,
}

impl Settings {
    /// Takes `out=PATH`, which is required, and refuses everything else.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut out = None;
        for argument in arguments {
            match argument.split_once('=') {
                Some(("out", path)) if !path.is_empty() => out = Some(PathBuf::from(path)),
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        let out = out.ok_or("the argument out=PATH is missing")?;
        Ok(Self { out })
    }
}

static OUT: OnceLock<Mutex<File>> = OnceLock::new();

/// Makes the file that the counts go to.
pub(crate) fn open(settings: Settings) -> Result<(), String> {
    let path = settings.out;
    let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    OUT.set(Mutex::new(file))
        .map_err(|_| "loaded twice".to_owned())
}

/// A marker's number and the number of instructions behind it in its block, in the one word that QEMU hands back.
pub(crate) fn pack(number: u8, behind: usize) -> usize {
    behind << 8 | usize::from(number)
}

fn unpack(data: usize) -> (u8, u64) {
    ((data & 0xff) as u8, (data >> 8) as u64)
}

/// Writes a marker's line. `total` has the whole of the marker's block in it, and loses what is behind the marker.
pub(crate) fn write_marker(data: usize, total: u64) {
    let (number, behind) = unpack(data);
    write_line(&format!("marker {number} {}", total - behind));
}

/// Writes the last line.
pub(crate) fn write_total(total: u64) {
    write_line(&format!("total {total}"));
}

/// A count that cannot be written is told on QEMU's standard error: the guest goes on.
fn write_line(text: &str) {
    let Some(out) = OUT.get() else { return };
    let mut file = out
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Err(error) = writeln!(file, "insn-count: {text}") {
        eprintln!("insn-count: {text} ({error})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_out_and_nothing_else() {
        let parse = |list: &[&str]| Settings::parse(list.iter().map(ToString::to_string));
        assert_eq!(parse(&["out=/x"]).unwrap().out, PathBuf::from("/x"));
        for bad in [&[][..], &["out="], &["out"], &["out=/x", "more=1"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn packed_words_come_back() {
        for (number, behind) in [(1, 0), (255, 511), (9, 1)] {
            assert_eq!(unpack(pack(number, behind)), (number, behind as u64));
        }
    }
}
