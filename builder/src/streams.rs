//! The two streams of the command: results on standard output, all else on standard error.
//!
//! Neither may be there any more (`coracle … | head`, a closed terminal), and that ends nothing: a machine that runs
//! still has to be shut down cleanly. So nothing here panics, as `println!` would.

use std::io::{self, Write};

use crate::failure::Failure;

/// Writes a result to standard output, as it is. A reader that has gone has had enough.
///
/// # Errors
/// Standard output cannot be written: the disk behind it is full, for one.
pub fn give(text: &str) -> Result<(), Failure> {
    match write_all(&mut io::stdout().lock(), text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::work(
            anyhow::Error::new(error).context("cannot write to standard output"),
        )),
        _ => Ok(()),
    }
}

/// Writes to standard output what was made of a file of somebody else's: nothing in it steers the terminal.
///
/// # Errors
/// As [`give`].
pub fn show(text: &str) -> Result<(), Failure> {
    give(&plain(text))
}

/// The text with whatever steers a terminal written out.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if config::steers(c) && c != '\n' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Writes to standard error, as it is; if nobody can hear it, so be it.
pub fn tell(text: &str) {
    let _ = write_all(&mut io::stderr().lock(), text);
}

/// Writes a line to standard error; if nobody can hear it, so be it.
pub fn tell_line(text: &str) {
    tell(&format!("{text}\n"));
}

fn write_all(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_does_not_steer_the_terminal() {
        assert_eq!(
            plain("é \u{1b}[31m\n\u{9b}\u{202e}\t"),
            "é \\u{1b}[31m\n\\u{9b}\\u{202e}\\t"
        );
    }
}
