//! What standard output can show: its width, colours, and characters beyond ASCII.
//!
//! Where it is no terminal the width is always the same, so that what a script reads does not hang on where it runs.

use std::io::IsTerminal as _;

/// The width where nobody can tell.
const COLUMNS: usize = 100;
/// Widths beyond these are not used.
const LEAST: usize = 40;
const MOST: usize = 160;

/// How something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns.
    pub columns: usize,
    /// Whether the locale has UTF-8.
    pub unicode: bool,
    /// Whether there are colours.
    pub colour: bool,
}

/// A colour of eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// The terminal's own.
    Plain,
    /// What is wrong.
    Red,
    /// What is well.
    Green,
    /// One of several.
    Yellow,
    /// One of several.
    Blue,
    /// One of several.
    Cyan,
}

impl Style {
    /// What standard output can show.
    pub fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::of(
            stdout.is_terminal(),
            size.map(|size| usize::from(size.ws_col)),
            variable,
        )
    }

    /// By terminal, its columns, and the environment (locale(7), no-color.org).
    fn of(
        terminal: bool,
        columns: Option<usize>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let columns = columns.filter(|columns| terminal && *columns > 0);
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(&variable);
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let dumb = variable("TERM").is_none_or(|term| term == "dumb");
        Self {
            columns: columns.unwrap_or(COLUMNS).clamp(LEAST, MOST),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            colour: terminal && !dumb && variable("NO_COLOR").is_none(),
        }
    }

    /// A text in a colour, where there are colours.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Blue => 34,
            Colour::Cyan => 36,
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A size in the largest unit that keeps it above 1.
pub fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_terminal_gets_no_colour_and_always_the_same_width() {
        let environment = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                let pair = pairs.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| (*value).to_owned())
            }
        };
        let utf8 = environment(&[("LANG", "de_DE.UTF-8"), ("TERM", "xterm")]);
        let style = Style::of(true, Some(120), utf8);
        assert_eq!(
            style,
            Style {
                columns: 120,
                unicode: true,
                colour: true
            }
        );
        let piped = Style::of(false, Some(120), utf8);
        assert_eq!(
            piped,
            Style {
                columns: 100,
                unicode: true,
                colour: false
            }
        );
        for pairs in [
            &[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8"), ("TERM", "dumb")][..],
            &[("NO_COLOR", "1"), ("TERM", "xterm")],
        ] {
            let style = Style::of(true, Some(7), environment(pairs));
            assert_eq!(
                style,
                Style {
                    columns: 40,
                    unicode: false,
                    colour: false
                }
            );
        }
        assert_eq!(style.paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(piped.paint(Colour::Red, "x"), "x");
    }
}
