//! What an entry is found by, and what became of it.

use std::fmt;

use super::Request;

/// What a manifest asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Packages of a Debian archive.
    Debian(Request),
    /// An image in a registry, by its reference.
    Image(String),
    /// An image, a kernel or a boot loader in a file, as the manifest names it.
    File(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(request) => {
                write!(f, "debian {}", request.packages.join(" "))?;
                match &request.suite {
                    Some(suite) => write!(f, " ({suite})"),
                    None => Ok(()),
                }
            }
            Self::Image(name) | Self::File(name) => f.write_str(name),
        }
    }
}

/// An entry that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub key: Key,
    /// There was none.
    pub new: bool,
    /// From what to what, a line each.
    pub lines: Vec<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.key, if self.new { " (new)" } else { "" })?;
        for line in &self.lines {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}
