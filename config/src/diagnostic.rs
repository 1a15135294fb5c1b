//! What is wrong with the file, where, and how to mend it.
//!
//! The file may come from anybody: nothing of it reaches the terminal that would steer the terminal, and neither a
//! long line nor a host of mistakes is told at full length.

use std::fmt::Write as _;
use std::ops::Range;

/// The most mistakes that are told one by one.
const MOST_TOLD: usize = 20;
/// The most characters of a message or a hint.
const MOST_MESSAGE: usize = 400;
/// The most characters of a line in an excerpt, and how many of them stand before the offending part.
const MOST_LINE: usize = 160;
const LINE_LEAD: usize = 40;

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

    /// Where the offending part begins in `text`: line and column, both from 1; columns count characters.
    pub fn place(&self, text: &str) -> Option<(usize, usize)> {
        let start = floor_char(text, self.span.as_ref()?.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        Some((line, before[line_start..].chars().count() + 1))
    }

    /// The text for a terminal: message, `file:line:column`, the line with the offending part marked, the hint.
    pub fn render(&self, file: &str, text: &str) -> String {
        let mut out = format!("error: {}\n", plain_message(&self.message));
        match &self.span {
            Some(span) => {
                let place = self.place(text).unwrap_or((1, 1));
                render_excerpt(&mut out, file, text, span, place);
            }
            None => writeln!(out, " --> {file}").unwrap_or_default(),
        }
        if let Some(hint) = &self.hint {
            writeln!(out, "hint: {}", plain_message(hint)).unwrap_or_default();
        }
        out
    }
}

/// Writes the place and the marked line; columns count characters from 1.
fn render_excerpt(
    out: &mut String,
    file: &str,
    text: &str,
    span: &Range<usize>,
    (number, column): (usize, usize),
) {
    let start = floor_char(text, span.start);
    let end = floor_char(text, span.end.max(span.start));
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let end_in_line = end.min(line_start + line.len()).max(start);
    let width = text[start..end_in_line].chars().count().max(1);
    let margin = " ".repeat(number.to_string().len());
    let (line, before, width) = window(line, column - 1, width);
    // A tab before the mark stays a tab below it, so that the mark stands under its text.
    let lead: String = line
        .chars()
        .take(before)
        .chain(std::iter::repeat(' '))
        .take(before)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let marks = "^".repeat(width);
    writeln!(
        out,
        "{margin}--> {file}:{number}:{column}\n{margin} |\n{number} | {line}\n{margin} | {lead}{marks}"
    )
    .unwrap_or_default();
}

/// The part of a line around its offending part, safe to print, with the number of characters before that part and
/// of its own.
fn window(line: &str, before: usize, width: usize) -> (String, usize, usize) {
    let plain = |c: char| {
        if steers(c) && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    let chars: Vec<char> = line.chars().map(plain).collect();
    if chars.len() <= MOST_LINE {
        return (chars.into_iter().collect(), before, width);
    }
    let start = before.saturating_sub(LINE_LEAD).min(chars.len());
    let end = (start + MOST_LINE).min(chars.len());
    let mut shown: String = chars[start..end].iter().collect();
    if start > 0 {
        shown.insert(0, '…');
    }
    if end < chars.len() {
        shown.push('…');
    }
    let lead = before - start + usize::from(start > 0);
    (shown, lead, width.min(end.saturating_sub(before)).max(1))
}

/// A text that quotes the file, safe to print and of a readable length.
fn plain_message(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == MOST_MESSAGE {
            out.push('…');
            break;
        }
        if steers(c) && c != '\n' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal obeys a character instead of showing it: controls, and those that turn the writing direction
/// or break the line (Unicode Standard Annex #9).
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
        let mut rendered: Vec<_> = sorted
            .iter()
            .take(MOST_TOLD)
            .map(|d| d.render(file, text))
            .collect();
        if let Some(more) = sorted.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
            rendered.push(format!("error: {more} more mistakes\n"));
        }
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
    fn nothing_of_the_file_steers_the_terminal() {
        let text = "a = 1 # \u{1b}[31m \u{9b}2J \u{202e}\r x\n";
        let quoted = "`\u{1b}]0;x\u{7}` is no name\u{202e}";
        let shown = Diagnostic::at(0..1, quoted).hint(quoted).render("f", text);
        assert!(!shown.chars().any(|c| steers(c) && c != '\n'), "{shown:?}");
        assert!(shown.contains(r"`\u{1b}]0;x\u{7}` is no name"), "{shown}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_offending_part() {
        let text = format!("{}BAD{}\n", "a".repeat(5000), "z".repeat(5000));
        let shown = Diagnostic::at(5000..5003, "x".repeat(5000)).render("f", &text);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|l| l.chars().count() < 500), "{shown}");
        assert_eq!(lines[1], " --> f:1:5001");
        let at = lines[4].find('^').unwrap();
        assert_eq!(lines[4].matches('^').count(), 3);
        let above: String = lines[3].chars().skip(at).take(3).collect();
        assert_eq!(above, "BAD", "{shown}");
        let shown = Diagnostic::at(0..text.len(), "x").render("f", &text);
        assert!(shown.lines().all(|l| l.chars().count() < 200), "{shown}");
    }

    #[test]
    fn a_host_of_mistakes_is_counted() {
        let all = vec![Diagnostic::at(0..1, "bad"); 100_000];
        let shown = Diagnostics(all).render("f", "x\n");
        assert_eq!(shown.matches("error: bad").count(), MOST_TOLD);
        assert!(shown.ends_with("\nerror: 99980 more mistakes\n"), "{shown}");
    }

    #[test]
    fn suggestions_are_near_or_complete() {
        assert_eq!(suggest("imgae", ["image", "env"]), "did you mean `image`?");
        assert_eq!(suggest("zzzz", ["image", "env"]), "one of `image`, `env`");
    }
}
