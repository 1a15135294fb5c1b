//! The kernel command line, parsed as the kernel does: words split at spaces, double quotes keep spaces.
//!
//! Pure: takes text, gives values. Anything but `roothash=` and `coracle.failure=` is left to the kernel.

use config::ending::{FAILURE_WORD, FailurePolicy};

/// The SHA-256 root hash of the verified root.
pub type RootHash = [u8; 32];

/// Why the command line names no root.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// There is no `roothash=`.
    #[error("the kernel command line has no roothash=")]
    Missing,
    /// The value is not 64 hexadecimal digits.
    #[error("roothash={0} on the kernel command line is not 64 hexadecimal digits")]
    NoHash(String),
    /// Two different values: neither can be trusted more than the other.
    #[error("the kernel command line has two different roothash= values")]
    Ambiguous,
}

/// The value of `roothash=`.
///
/// # Errors
/// [`CmdlineError`]; a repeated equal value is none.
pub fn root_hash(cmdline: &str) -> Result<RootHash, CmdlineError> {
    let mut found = None;
    for word in words(cmdline) {
        let Some(value) = word.strip_prefix("roothash=") else {
            continue;
        };
        let hash = parse_hash(value)
            .ok_or_else(|| CmdlineError::NoHash(value.chars().take(80).collect()))?;
        if found.is_some_and(|earlier| earlier != hash) {
            return Err(CmdlineError::Ambiguous);
        }
        found = Some(hash);
    }
    found.ok_or(CmdlineError::Missing)
}

/// The policy of `coracle.failure=`; the last one counts.
///
/// # Errors
/// The word whose value is no policy.
pub fn failure_policy(cmdline: &str) -> Result<Option<FailurePolicy>, String> {
    let of_policy = |word: &String| {
        let value = word.strip_prefix(FAILURE_WORD)?.strip_prefix('=')?;
        Some(
            value
                .parse()
                .map_err(|_| word.chars().take(80).collect::<String>()),
        )
    };
    words(cmdline).iter().rev().find_map(of_policy).transpose()
}

/// The words before a lone `--`, which ends the kernel's part; quotes are taken off.
fn words(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in cmdline.trim_end().chars().chain([' ']) {
        match character {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    let end = words
        .iter()
        .position(|word| word == "--")
        .unwrap_or(words.len());
    words.truncate(end);
    words
}

fn parse_hash(text: &str) -> Option<RootHash> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn the_root_hash_is_found_among_other_words() {
        for line in [
            format!("console=ttyS0 quiet roothash={HASH} panic=10\n"),
            format!("roothash=\"{HASH}\""),
            format!("a=\"x roothash=no y\" roothash={}", HASH.to_uppercase()),
            format!("roothash={HASH} roothash={HASH}"),
        ] {
            assert_eq!(root_hash(&line).unwrap()[..3], [0x00, 0x11, 0x22], "{line}");
        }
    }

    #[test]
    fn the_last_policy_counts() {
        let policy = |line: &str| failure_policy(line).map(|found| found.map(|p| p.to_string()));
        let cases = [
            ("quiet xcoracle.failure=halt,1s", Ok(None)),
            ("coracle.failure=halt,1s quiet", Ok(Some("halt,1s"))),
            (
                "coracle.failure=halt,1s coracle.failure=reboot,2s",
                Ok(Some("reboot,2s")),
            ),
            ("coracle.failure=never", Err("coracle.failure=never")),
        ];
        for (line, expected) in cases {
            let found = policy(line);
            assert_eq!(
                found.as_ref().map(Option::as_deref).map_err(String::as_str),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let other = HASH.replace("00", "01");
        let cases = [
            (String::new(), CmdlineError::Missing),
            (format!("xroothash={HASH}"), CmdlineError::Missing),
            (format!("quiet -- roothash={HASH}"), CmdlineError::Missing),
            ("roothash=".to_owned(), CmdlineError::NoHash(String::new())),
            (
                format!("roothash={}", &HASH[1..]),
                CmdlineError::NoHash(HASH[1..].to_owned()),
            ),
            (
                format!("roothash={HASH} roothash={other}"),
                CmdlineError::Ambiguous,
            ),
        ];
        for (line, error) in cases {
            assert_eq!(root_hash(&line), Err(error), "{line}");
        }
        let signed = format!("roothash=+{}", &HASH[1..]);
        assert!(matches!(root_hash(&signed), Err(CmdlineError::NoHash(_))));
    }
}
