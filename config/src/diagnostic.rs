//! What is wrong with the file, where, and how to mend it.

use std::fmt::Write as _;
use std::ops::Range;

/// One mistake in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The offending bytes of the text; `None` where the mistake is that something is absent altogether.
    pub span: Option<Range<usize>>,
    /// What is wrong, quoting the offending text.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The text for a terminal: message, `file:line:column`, the line with the offending part marked, the hint.
    pub fn render(&self, file: &str, text: &str) -> String {
        let mut out = format!("error: {}\n", self.message);
        match &self.span {
            Some(span) => render_excerpt(&mut out, file, text, span),
            None => writeln!(out, " --> {file}").unwrap_or_default(),
        }
        if let Some(hint) = &self.hint {
            writeln!(out, "hint: {hint}").unwrap_or_default();
        }
        out
    }
}

/// Writes the place and the marked line; columns count characters from 1.
fn render_excerpt(out: &mut String, file: &str, text: &str, span: &Range<usize>) {
    let start = floor_char(text, span.start);
    let end = floor_char(text, span.end.max(span.start));
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let number = text[..line_start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    let end_in_line = end.min(line_start + line.len()).max(start);
    let width = text[start..end_in_line].chars().count().max(1);
    let margin = " ".repeat(number.to_string().len());
    // A tab before the mark stays a tab below it, so that the mark stands under its text.
    let lead: String = text[line_start..start]
        .chars()
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let marks = "^".repeat(width);
    writeln!(
        out,
        "{margin}--> {file}:{number}:{column}\n{margin} |\n{number} | {line}\n{margin} | {lead}{marks}"
    )
    .unwrap_or_default();
}

/// The nearest character boundary at or before a byte offset.
fn floor_char(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// All mistakes found in one file, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The text for a terminal, in the order of the file.
    pub fn render(&self, file: &str, text: &str) -> String {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(|d| d.span.as_ref().map_or(0, |span| span.start));
        let rendered: Vec<_> = sorted.iter().map(|d| d.render(file, text)).collect();
        rendered.join("\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

/// The candidate most like `word`, if one is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        .filter(|(distance, c)| {
            *distance < word.len() && *distance <= 1 + word.len().min(c.len()) / 3
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// `did you mean …?`, or what there is to choose from.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(like) => format!("did you mean `{like}`?"),
        None => {
            let known: Vec<_> = candidates.into_iter().map(|c| format!("`{c}`")).collect();
            if known.is_empty() {
                "there is none".to_owned()
            } else {
                format!("one of {}", known.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_under_the_offending_text() {
        let text = "a = 1\n\tbéta = 22\n";
        let at = text.find("22").unwrap();
        let shown = Diagnostic::at(at..at + 2, "bad")
            .hint("mend")
            .render("f.toml", text);
        assert_eq!(
            shown,
            "error: bad\n --> f.toml:2:9\n  |\n2 | \tbéta = 22\n  | \t       ^^\nhint: mend\n"
        );
    }

    #[test]
    fn a_span_beyond_the_text_or_across_lines_is_cut() {
        for span in [0..100, 99..100, 2..4] {
            assert!(
                Diagnostic::at(span, "x")
                    .render("f", "é\nb")
                    .starts_with("error: x\n")
            );
        }
    }

    #[test]
    fn suggestions_are_near_or_complete() {
        assert_eq!(suggest("imgae", ["image", "env"]), "did you mean `image`?");
        assert_eq!(suggest("zzzz", ["image", "env"]), "one of `image`, `env`");
    }
}
