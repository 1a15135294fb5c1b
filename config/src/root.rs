//! `[root]`: how the read-only root file system is written.

use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest;
use crate::mistakes::Mistakes;

/// How the root's files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootCompression {
    /// Not at all.
    None,
    /// LZ4, quick to make.
    Lz4,
    /// LZ4 with a longer search: smaller, and read as quickly.
    Lz4Hc {
        /// From 2 to 12.
        level: u8,
    },
}

/// What is written where the file says nothing.
const DEFAULT: RootCompression = RootCompression::None;
/// Higher ones gain 2 % more for twice the time and more.
const DEFAULT_LEVEL: u8 = 3;
const LEVELS: std::ops::RangeInclusive<i64> = 2..=12;

impl RootCompression {
    pub(crate) fn new(root: &manifest::Root, mistakes: &mut Mistakes) -> Self {
        let level = root.level.as_ref();
        let level_of = |mistakes: &mut Mistakes| {
            let Some(level) = level else {
                return DEFAULT_LEVEL;
            };
            let text = format!("`{}` is no level of lz4hc", level.get_ref());
            if !LEVELS.contains(level.get_ref()) {
                mistakes.push(
                    Diagnostic::at(level.span(), text)
                        .hint("levels go from 2 to 12; 3 is the default"),
                );
            }
            u8::try_from(*level.get_ref()).unwrap_or(DEFAULT_LEVEL)
        };
        let word = root
            .compression
            .as_ref()
            .map(|word| word.get_ref().as_str());
        let compression = match word {
            None => DEFAULT,
            Some("none") => Self::None,
            Some("lz4") => Self::Lz4,
            Some("lz4hc") => {
                return Self::Lz4Hc {
                    level: level_of(mistakes),
                };
            }
            Some(other) => {
                let span = root.compression.as_ref().map_or(0..0, |word| word.span());
                mistakes.push(
                    Diagnostic::at(span, format!("`{other}` is no compression of the root"))
                        .hint(suggest(other, ["none", "lz4", "lz4hc"])),
                );
                return DEFAULT;
            }
        };
        if let Some(level) = level {
            mistakes.push(
                Diagnostic::at(
                    level.span(),
                    "`level` without a compression that has levels",
                )
                .hint("write compression = \"lz4hc\" beside it, or remove it"),
            );
        }
        compression
    }
}
