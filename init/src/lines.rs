//! Output of workloads, cut into lines that are safe to show on a console.
//!
//! `\n` and `\r` end a line (`\r\n` ends one). Bytes that are not UTF-8 and control characters other than tab
//! are made visible, so no escape sequence reaches a terminal. A line longer than [`LINE_LIMIT`] bytes is cut
//! into several. Nothing is interpreted, and nothing is kept beyond the unfinished line.

use std::fmt::Write as _;

/// The longest line in bytes of output before it is cut.
///
/// Made visible it grows to at most four times this, and with what init puts around it stays below 4096 bytes:
/// readers of the console cut lines there, and what follows a cut could pass for a line of init's own.
pub const LINE_LIMIT: usize = 960;

/// Cuts one stream of bytes into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
    after_return: bool,
}

impl LineSplitter {
    /// Takes the next bytes of the stream and hands each line that they complete to `line`.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE_LIMIT - self.partial.len();
            let window = &rest[..rest.len().min(room)];
            match window
                .iter()
                .position(|&byte| byte == b'\n' || byte == b'\r')
            {
                Some(end) => {
                    self.end_line(&window[..end], window[end], &mut line);
                    rest = &rest[end + 1..];
                }
                None => {
                    self.after_return = false;
                    self.partial.extend_from_slice(window);
                    rest = &rest[window.len()..];
                    if self.partial.len() >= LINE_LIMIT {
                        self.cut_long_line(&mut line);
                    }
                }
            }
        }
    }

    /// The stream ended: hands over what was not finished by a line end.
    pub fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            line(&visible(&self.partial));
            self.partial.clear();
        }
        self.after_return = false;
    }

    fn end_line(&mut self, head: &[u8], end: u8, line: &mut impl FnMut(&str)) {
        // `\r\n` is one line end, and `\r` before any text (a progress bar's) shows nothing.
        let empty = head.is_empty() && self.partial.is_empty();
        let silent = empty && (end == b'\r' || self.after_return);
        self.after_return = end == b'\r';
        if silent {
            return;
        }
        self.partial.extend_from_slice(head);
        line(&visible(&self.partial));
        self.partial.clear();
    }

    /// Hands over the full buffer, but keeps the beginning of a character that is cut at its end.
    fn cut_long_line(&mut self, line: &mut impl FnMut(&str)) {
        let end = match std::str::from_utf8(&self.partial) {
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                error.valid_up_to()
            }
            _ => self.partial.len(),
        };
        line(&visible(&self.partial[..end]));
        self.partial.drain(..end);
    }
}

/// `bytes` as text without control characters but tab: `^[` for escape, `\x9b` for what is no character.
#[must_use]
pub fn visible(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_visible(&mut text, character);
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn push_visible(text: &mut String, character: char) {
    match character {
        '\t' => text.push('\t'),
        '\0'..='\x1f' => text.extend(['^', char::from(character as u8 + b'@')]),
        '\x7f' => text.push_str("^?"),
        // C1 controls, and what turns the direction of a terminal's text around.
        '\u{80}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
        }
        other => text.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line.to_owned()));
        }
        splitter.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_end_at_newline_return_or_the_end() {
        let cases: &[(&[&[u8]], &[&str])] = &[
            (&[b"one\ntwo\n"], &["one", "two"]),
            (&[b"par", b"tial\nrest"], &["partial", "rest"]),
            (&[b"dos\r\nline\r\n"], &["dos", "line"]),
            (&[b"dos\r", b"\nsplit\n"], &["dos", "split"]),
            (&[b"\r10%\r20%\r\n"], &["10%", "20%"]),
            (&[b"a\n\nb\n"], &["a", "", "b"]),
            (&[b""], &[]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(lines_of(chunks), *expected, "{chunks:?}");
        }
    }

    #[test]
    fn control_characters_are_made_visible() {
        let cases: &[(&[u8], &str)] = &[
            (b"\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
            (b"tab\tstays", "tab\tstays"),
            (b"nul\0bell\x07del\x7f", "nul^@bell^Gdel^?"),
            (b"bad \xff\xfe utf8", "bad \\xff\\xfe utf8"),
            ("c1 \u{9b}31m".as_bytes(), "c1 \\u{9b}31m"),
            ("turn \u{202e}around".as_bytes(), "turn \\u{202e}around"),
            ("\u{e4}\u{1f6f6} stays".as_bytes(), "\u{e4}\u{1f6f6} stays"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(lines_of(&[bytes]), [*expected]);
        }
    }

    #[test]
    fn a_return_cannot_forge_a_line_of_init() {
        for line in
            lines_of(&[b"hello\rcoracle: [1.000] stage ready\x1b[1A\x0bcoracle: x\x85coracle: y\n"])
        {
            assert!(!line.contains(['\r', '\n', '\x0b', '\x1b']), "{line:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = "\u{e4}".repeat(LINE_LIMIT);
        let odd = format!("x{text}");
        let lines = lines_of(&[odd.as_bytes()]);
        assert_eq!(lines.concat(), odd);
        assert!(lines.len() >= 2);
        assert!(lines.iter().all(|line| line.len() <= LINE_LIMIT));
    }

    #[test]
    fn no_visible_line_is_so_long_that_a_reader_of_the_console_cuts_it() {
        // The longest name, init's own words around a reason that it quotes, and a return.
        const AROUND: usize = 63 + 150;
        for bytes in [
            &b"\x80"[..],
            b"\x01",
            b"\x7f",
            "\u{80}".as_bytes(),
            "\u{2028}".as_bytes(),
            b"\x80\x01",
        ] {
            for line in lines_of(&[&bytes.repeat(LINE_LIMIT)]) {
                assert!(line.len() + AROUND < 4096, "{bytes:?}: {}", line.len());
            }
        }
    }

    #[test]
    fn a_long_line_of_no_characters_is_cut_as_well() {
        let lines = lines_of(&[&[0x80; 3 * LINE_LIMIT]]);
        assert_eq!(lines.len(), 3);
    }
}
