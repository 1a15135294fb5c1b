//! What the networks tell the machine: name servers, search domains, time servers, its name. `uplink` writes it,
//! `resolver` and `ntp` read it when they start and on SIGHUP.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::replace::replace;

/// Where the file is.
pub const FACTS: &str = "/run/coracle/net/facts.json";

/// What is known now; what the machine's file fixes stands in place of what is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Name servers, best first: addresses, one that holds on a link only with `%` and its name behind it.
    pub dns: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Time servers, names or addresses.
    pub ntp: Vec<String>,
    /// The machine's name.
    pub hostname: Option<String>,
}

impl Facts {
    /// Reads the file; without one nothing is known yet.
    ///
    /// # Errors
    /// When it cannot be read, or is no such file.
    pub fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes the file: whoever reads it meanwhile has the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_back_and_without_a_file_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net/facts.json");
        assert_eq!(Facts::read(&path).unwrap(), Facts::default());
        let facts = Facts {
            dns: vec!["fe80::1%eth0".to_owned()],
            hostname: Some("web".to_owned()),
            ..Facts::default()
        };
        facts.write(&path).unwrap();
        facts.write(&path).unwrap();
        assert_eq!(Facts::read(&path).unwrap(), facts);
        fs::write(&path, "{").unwrap();
        assert!(Facts::read(&path).is_err());
    }
}
