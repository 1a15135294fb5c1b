//! The mistakes of a file as they are found, so that the user sees all of them at once.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::manifest::Text;
use crate::value::Parsed;

/// Collects mistakes, so that the user sees all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<Diagnostic>);

impl Mistakes {
    /// The value, or `None` with its mistake kept.
    pub(crate) fn take<T>(&mut self, parsed: Parsed<T>) -> Option<T> {
        parsed.map_err(|mistake| self.0.push(mistake)).ok()
    }

    /// The values of all texts that parse.
    pub(crate) fn take_all<T>(
        &mut self,
        texts: &[Text],
        parse: impl Fn(&Text) -> Parsed<T>,
    ) -> Vec<T> {
        texts
            .iter()
            .filter_map(|text| self.take(parse(text)))
            .collect()
    }

    /// The value of an optional key, if it is there and parses.
    pub(crate) fn take_some<T>(
        &mut self,
        text: Option<&Text>,
        parse: impl Fn(&Text) -> Parsed<T>,
    ) -> Option<T> {
        text.and_then(|text| self.take(parse(text)))
    }

    pub(crate) fn push(&mut self, mistake: Diagnostic) {
        self.0.push(mistake);
    }

    /// The value, if nothing was wrong.
    pub(crate) fn none_or<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(Diagnostics(self.0))
        }
    }
}
