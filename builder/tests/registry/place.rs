//! A cache of a test's own, and the waits of a test.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use builder::progress::Progress;
use builder::source::cache::Cache;
use builder::source::image::Image;
use builder::source::registry::{Host, LoginFiles, Registries, RegistryError, Settings, Timing};
use config::manifest::Text;
use config::registry::{Reference, reference};

pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) cache: Cache,
    pub(crate) settings: Settings,
}

/// Waits of milliseconds where nothing depends on them, and generous deadlines.
pub(crate) fn timing() -> Timing {
    Timing {
        connect: Duration::from_secs(20),
        stall: Duration::from_secs(20),
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(50),
        tries: 4,
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&directory.path().join("cache"))).unwrap();
        let settings = Settings {
            timing: timing(),
            logins: LoginFiles::these(vec![directory.path().join("config.json")]),
            hosts: HashMap::new(),
        };
        Self {
            directory,
            cache,
            settings,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn log_in(&self, json: &str) {
        std::fs::write(self.path("config.json"), json).unwrap();
    }

    pub(crate) fn trust(&mut self, host: &str, ca: PathBuf) {
        let host = (
            host.to_owned(),
            Host {
                ca: Some(ca),
                insecure: false,
            },
        );
        self.settings.hosts.extend([host]);
    }

    pub(crate) fn pull(&self, name: &str) -> Result<Image, RegistryError> {
        let silent = Progress::silent();
        let registries = Registries::new(self.settings.clone(), &self.cache, &silent);
        let reference = named(name);
        let resolved = registries.resolve(&reference)?;
        registries.pull(&reference, &resolved.manifest)
    }

    /// Error and hint.
    pub(crate) fn refusal(&self, name: &str) -> String {
        match self.pull(name) {
            Ok(_) => panic!("it was taken"),
            Err(error) => format!("{error}\nhint: {}", error.hint().unwrap_or_default()),
        }
    }
}

pub(crate) fn named(name: &str) -> Reference {
    reference(&Text::new(0..name.len(), name.to_owned())).unwrap()
}
