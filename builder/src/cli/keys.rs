//! What is told to the command that makes keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `coracle keys`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a set of keys for Secure Boot: PK, KEK and db.
    New(NewKeys),
}

/// `coracle keys new`.
#[derive(Debug, Args)]
pub struct NewKeys {
    /// The folder that the files are written to.
    pub folder: PathBuf,
    /// Whose keys they are: the certificates' names begin with it.
    #[arg(long, value_name = "NAME", default_value = "Coracle", value_parser = parse_owner)]
    pub owner: String,
    /// The length of each key in bits.
    #[arg(long, value_name = "BITS", default_value = "2048", value_parser = ["2048", "3072"])]
    pub bits: String,
}

/// A certificate's name has a syntax of its own (RFC 4514), which nobody needs here.
fn parse_owner(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_alphanumeric() || " .-_".contains(c);
    if text.chars().all(plain) && text.trim() == text && (1..=40).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("letters, digits, `.`, `-`, `_` and spaces between them, at most 40".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_plain_names() {
        assert!(parse_owner("Example Inc.").is_ok());
        for bad in ["", "a,CN=b", " a", "a+b"] {
            assert!(parse_owner(bad).is_err(), "{bad}");
        }
    }
}
