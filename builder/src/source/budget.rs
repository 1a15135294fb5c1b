//! How much one build may unpack: a small archive can hold more than any disk has room for.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use config::manifest::Text;
use config::value;

/// The variable that sets the most, as a size.
pub const VARIABLE: &str = "CORACLE_UNPACK_LIMIT";
/// The most without it, in bytes.
const DEFAULT: u64 = 64 << 30;

/// What is left to unpack in this build, for all inputs together. What the cache has already costs nothing.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            used: AtomicU64::new(0),
        }
    }

    /// The budget that a text sets, a size as in the machine's file; without one the default.
    ///
    /// # Errors
    /// It is no size.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::new(DEFAULT));
        };
        value::size(&Text::new(0..0, text.to_owned()))
            .map(Self::new)
            .map_err(|mistake| format!("{VARIABLE}: {}", mistake.message))
    }

    /// Takes so many bytes of it.
    ///
    /// # Errors
    /// They are not left.
    pub fn take(&self, bytes: u64) -> io::Result<()> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        if used.saturating_add(bytes) <= self.most {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "this build unpacks more than {} bytes: if that is right, set {VARIABLE}",
            self.most
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_used_up_and_then_refuses() {
        let budget = Budget::parse(Some("1KiB")).unwrap();
        assert!(budget.take(1000).is_ok() && budget.take(24).is_ok());
        let error = budget.take(1).unwrap_err().to_string();
        assert!(
            error.contains("more than 1024 bytes") && error.contains(VARIABLE),
            "{error}"
        );
        assert!(Budget::parse(None).unwrap().take(DEFAULT).is_ok());
        assert!(Budget::parse(Some("")).unwrap().take(u64::MAX).is_err());
        assert!(Budget::parse(Some("much")).unwrap_err().contains("no size"));
    }
}
