//! `coracle.lock`: which exact packages stand behind what a manifest asks for, as Cargo.lock does for crates.
//!
//! One file a directory, shared by the manifests in it; entries are found by the request. It is written whole, by
//! rename, and only if it says something new. A damaged file or one of a newer version is an error: it is never
//! silently replaced.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file's name, beside the manifest.
pub const LOCK_FILE: &str = "coracle.lock";
const VERSION: i64 = 1;
const HEADER: &str = "\
# What this directory's images are made of, pinned by digest. Written by `coracle build`; keep it with your sources.
# `coracle build --update` moves the pins to what the archive has now.
";

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no lock file.
    #[error("{}:{line}: the lock file is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A later Coracle wrote it.
    #[error("{}:{line}: the lock file has version {found}, this coracle knows {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The version it says.
        found: i64,
    },
}

/// What is asked of a Debian archive; the key of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Package names as written, sorted.
    pub packages: Vec<String>,
    /// The release; `None`: the host's own.
    pub suite: Option<String>,
    /// Recommended packages too.
    pub recommends: bool,
    /// Only the package itself, without what it depends on (kernels, boot loaders).
    pub alone: bool,
}

/// A package of an archive, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// SHA-256 of the .deb, 64 hex digits.
    pub sha256: String,
    /// Size of the .deb in bytes.
    pub size: u64,
    /// Where the archive has it, for the reader.
    pub filename: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    debian: Vec<DebianEntry>,
}

/// A request with its answer, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DebianEntry {
    packages: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suite: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    recommends: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    alone: bool,
    package: Vec<Pinned>,
}

impl DebianEntry {
    fn new(request: Request, package: Vec<Pinned>) -> Self {
        Self {
            packages: request.packages,
            suite: request.suite,
            recommends: request.recommends,
            alone: request.alone,
            package,
        }
    }

    fn request(&self) -> Request {
        Request {
            packages: self.packages.clone(),
            suite: self.suite.clone(),
            recommends: self.recommends,
            alone: self.alone,
        }
    }
}

/// A lock file in memory.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    update: bool,
    entries: Vec<DebianEntry>,
    /// Requests answered in this build; with `update` only these are trusted.
    fresh: Vec<Request>,
    changed: bool,
}

impl Lock {
    /// Reads the file; a missing one is empty. With `update` what it says is not used, only replaced.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn open(path: &Path, update: bool) -> Result<Self, LockError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(LockError::File {
                    operation: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            update,
            entries: parse(path, &text)?,
            fresh: Vec::new(),
            changed: false,
        })
    }

    /// The pins of a request, if there are any to be used.
    pub fn get(&self, request: &Request) -> Option<&[Pinned]> {
        if self.update && !self.fresh.contains(request) {
            return None;
        }
        let entry = self.entries.iter().find(|e| e.request() == *request)?;
        Some(&entry.package)
    }

    /// Pins a request.
    pub fn set(&mut self, request: Request, package: Vec<Pinned>) {
        self.fresh.push(request.clone());
        match self.entries.iter_mut().find(|e| e.request() == request) {
            Some(entry) if entry.package == package => return,
            Some(entry) => entry.package = package,
            None => self.entries.push(DebianEntry::new(request, package)),
        }
        self.changed = true;
    }

    /// Writes the file, if it says anything new. Entries that another build added meanwhile are kept.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn save(&mut self) -> Result<(), LockError> {
        if !self.changed {
            return Ok(());
        }
        for entry in Self::open(&self.path, false)?.entries {
            if !self.entries.iter().any(|e| e.request() == entry.request()) {
                self.entries.push(entry);
            }
        }
        self.entries.sort_by_key(DebianEntry::request);
        let text = render(&mut self.entries);
        self.write(&text).map_err(|source| LockError::File {
            operation: "write",
            path: self.path.clone(),
            source,
        })?;
        self.changed = false;
        Ok(())
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".coracle.lock-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(parent)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_data()?;
        file.persist(&self.path)?;
        Ok(())
    }
}

fn render(entries: &mut Vec<DebianEntry>) -> String {
    let document = Document {
        version: VERSION,
        debian: std::mem::take(entries),
    };
    let body = toml::to_string(&document).expect("a document of strings and numbers is TOML");
    *entries = document.debian;
    format!("{HEADER}{body}")
}

fn parse(path: &Path, text: &str) -> Result<Vec<DebianEntry>, LockError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let damaged = |line: usize, reason: String| LockError::Damaged {
        path: path.to_owned(),
        line,
        reason,
    };
    let toml_error = |e: &toml::de::Error| {
        let at = e.span().map_or(0, |span| span.start);
        damaged(line_of(text, at), e.message().to_owned())
    };
    // The version first: a newer file may well have other keys.
    let table: toml::Table = toml::from_str(text).map_err(|e| toml_error(&e))?;
    let line = text.lines().position(|l| l.starts_with("version"));
    let line = line.map_or(1, |index| index + 1);
    match table.get("version").and_then(toml::Value::as_integer) {
        Some(VERSION) => {}
        Some(found) if found > VERSION => {
            return Err(LockError::Newer {
                path: path.to_owned(),
                line,
                found,
            });
        }
        _ => return Err(damaged(line, "it has no valid version".into())),
    }
    let document: Document = toml::from_str(text).map_err(|e| toml_error(&e))?;
    for pin in document.debian.iter().flat_map(|e| &e.package) {
        if let Some((value, reason)) = pin.mistake() {
            let at = text.find(&format!("\"{value}\"")).unwrap_or(0);
            return Err(damaged(line_of(text, at), reason));
        }
    }
    Ok(document.debian)
}

impl Pinned {
    /// What no archive would say, as the value and the reason. The file may come from anybody, and names and
    /// versions go to apt's command line, where `-o` would set any option.
    fn mistake(&self) -> Option<(&str, String)> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let (name, version) = (self.name.as_str(), self.version.as_str());
        if !is_plain(name, b"+-.") || name.ends_with('-') || name.contains(char::is_uppercase) {
            Some((name, format!("{name:?} is no package name")))
        } else if !is_plain(version, b"+-.~:") {
            Some((
                version,
                format!("{version:?} is no version of a Debian package"),
            ))
        } else if !["amd64", "all"].contains(&self.architecture.as_str()) {
            let reason = format!("{:?} is neither amd64 nor all", self.architecture);
            Some((&self.architecture, reason))
        } else if self.sha256.len() != 64 || !self.sha256.bytes().all(hex) {
            let reason = format!("the sha256 of {name} is no SHA-256 digest");
            Some((&self.sha256, reason))
        } else {
            None
        }
    }
}

/// Letters, digits and the `other` characters, a letter or digit first.
fn is_plain(text: &str, other: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || other.contains(&b);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(plain)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> Request {
        Request {
            packages: vec![name.into()],
            suite: None,
            recommends: false,
            alone: false,
        }
    }

    fn pinned(name: &str, version: &str) -> Pinned {
        Pinned {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256: "0a".repeat(32),
            size: 5,
            filename: format!("pool/{name}.deb"),
        }
    }

    #[test]
    fn pins_are_found_again_and_sorted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        let mut lock = Lock::open(&path, false).unwrap();
        let other = Request {
            suite: Some("trixie".into()),
            alone: true,
            ..request("a")
        };
        lock.set(request("b"), vec![pinned("b", "1"), pinned("libc6", "2")]);
        lock.set(other.clone(), vec![pinned("a", "3")]);
        lock.save().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with('#') && text.find("\"a\"") < text.find("\"b\""),
            "{text}"
        );
        let lock = Lock::open(&path, false).unwrap();
        assert_eq!(lock.get(&request("b")).unwrap()[1], pinned("libc6", "2"));
        assert_eq!(lock.get(&other).unwrap(), [pinned("a", "3")]);
        assert_eq!(lock.get(&request("a")), None);
    }

    #[test]
    fn update_ignores_old_pins_and_keeps_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        let mut lock = Lock::open(&path, false).unwrap();
        lock.set(request("a"), vec![pinned("a", "1")]);
        lock.set(request("b"), vec![pinned("b", "1")]);
        lock.save().unwrap();
        let mut lock = Lock::open(&path, true).unwrap();
        assert_eq!(lock.get(&request("a")), None);
        lock.set(request("a"), vec![pinned("a", "2")]);
        assert_eq!(lock.get(&request("a")).unwrap(), [pinned("a", "2")]);
        lock.save().unwrap();
        let lock = Lock::open(&path, false).unwrap();
        assert_eq!(lock.get(&request("a")).unwrap(), [pinned("a", "2")]);
        assert_eq!(lock.get(&request("b")).unwrap(), [pinned("b", "1")]);
    }

    #[test]
    fn unchanged_lock_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        let mut lock = Lock::open(&path, false).unwrap();
        lock.set(request("a"), vec![pinned("a", "1")]);
        lock.save().unwrap();
        let text = fs::read_to_string(&path).unwrap() + "# mine\n";
        fs::write(&path, &text).unwrap();
        let mut lock = Lock::open(&path, true).unwrap();
        lock.set(request("a"), vec![pinned("a", "1")]);
        lock.save().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn damaged_files_are_refused_with_their_line() {
        let path = Path::new("dir/coracle.lock");
        let package = "[[debian]]\npackages = [\"a\"]\n[[debian.package]]\nname = \"a\"\n";
        for (text, want) in [
            ("version = 1\nbroken", "dir/coracle.lock:2:"),
            (
                "# x\nversion = 2\nnew = 1\n",
                "coracle.lock:2: the lock file has version 2",
            ),
            ("x = 1\n", "no valid version"),
            ("version = 1\nx = 1\n", "coracle.lock:2:"),
            (
                &format!("version = 1\n{package}"),
                "coracle.lock:4: the lock file is damaged: missing field",
            ),
            (
                "version = 1\n[[debian]]\npackages = []\npackage = []\nnew = 1\n",
                "coracle.lock:5:",
            ),
            (
                &format!(
                    "version = 1\n{package}version = \"1\"\narchitecture = \"all\"\nsha256 = \"xy\"\nsize = 1\nfilename = \"f\"\n"
                ),
                "coracle.lock:8: the lock file is damaged: the sha256 of a",
            ),
        ] {
            let error = parse(path, text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn pins_that_apt_would_take_for_options_are_refused() {
        let good = pinned("libstdc++6", "1:12.2.0-14+deb12u1~x");
        let with = |change: &dyn Fn(&mut Pinned)| {
            let mut pin = good.clone();
            change(&mut pin);
            let request = request("a");
            let text = render(&mut vec![DebianEntry::new(request, vec![pin])]);
            parse(Path::new("coracle.lock"), &text)
        };
        assert!(with(&|_| {}).is_ok());
        for name in ["-oDir::Bin::gpg=x", "a b", "bash-", "", "Bash", "a/b", "x*"] {
            assert!(with(&|pin| pin.name = name.into()).is_err(), "{name}");
        }
        for version in ["", "-1", "1 2", "1/2", "1\n"] {
            let error = with(&|pin| pin.version = version.into()).unwrap_err();
            assert!(error.to_string().contains("coracle.lock:"), "{error}");
        }
        assert!(with(&|pin| pin.architecture = "../x".into()).is_err());
    }
}
