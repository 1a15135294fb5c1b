//! The text of a lock file, and what it means.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Key, LockError};

/// The version that is written.
pub(super) const VERSION: i64 = 2;
const HEADER: &str = "\
# What this directory's images are made of, pinned by digest. Written by `coracle build`; keep it with your sources.
# `coracle update` moves the pins to what archives, registries and files have now.
";
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

/// An image in a registry, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedImage {
    /// `HOST/NAME:TAG` or `HOST/NAME@DIGEST`.
    pub reference: String,
    /// `linux/amd64`.
    pub platform: String,
    /// The digest of the index that the reference names, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// The digest of the platform's manifest.
    pub manifest: String,
}

/// An image, a kernel or a boot loader in a file, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// As the manifest names it.
    pub path: String,
    /// Of an image the digest of its manifest, of a file its own.
    pub digest: String,
}

/// The whole file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    version: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) debian: Vec<DebianEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) image: Vec<PinnedImage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) file: Vec<PinnedFile>,
}

/// Something pinned.
pub(super) trait Entry: PartialEq {
    /// What it is found by.
    fn key(&self) -> Key;
    /// What is another than before, a line each.
    fn moved(&self, before: Option<&Self>) -> Vec<String>;
}

impl Entry for DebianEntry {
    fn key(&self) -> Key {
        Key::Debian(self.request())
    }

    fn moved(&self, before: Option<&Self>) -> Vec<String> {
        let Some(before) = before else {
            return vec![format!("{} packages", self.package.len())];
        };
        let find = |entry: &Self, name: &str| {
            let package = entry.package.iter().find(|package| package.name == name);
            package.map(|package| (package.version.clone(), package.sha256.clone()))
        };
        let mut names: Vec<&String> = self
            .package
            .iter()
            .chain(&before.package)
            .map(|p| &p.name)
            .collect();
        names.sort();
        names.dedup();
        let line = |name: &String| match (find(before, name), find(self, name)) {
            (Some(old), Some(new)) if old == new => None,
            (Some((old, _)), Some((new, _))) => Some(format!("{name} {old} → {new}")),
            (None, Some((new, _))) => Some(format!("{name} {new} (new)")),
            (Some((old, _)), None) => Some(format!("{name} {old} (gone)")),
            (None, None) => None,
        };
        names.into_iter().filter_map(line).collect()
    }
}

impl Entry for PinnedImage {
    fn key(&self) -> Key {
        Key::Image(self.reference.clone())
    }

    fn moved(&self, before: Option<&Self>) -> Vec<String> {
        from_to(
            before.map(|before| before.manifest.as_str()),
            &self.manifest,
        )
    }
}

impl Entry for PinnedFile {
    fn key(&self) -> Key {
        Key::File(self.path.clone())
    }

    fn moved(&self, before: Option<&Self>) -> Vec<String> {
        from_to(before.map(|before| before.digest.as_str()), &self.digest)
    }
}

impl Document {
    fn digests(&self) -> impl Iterator<Item = &str> {
        let images = self.image.iter();
        let images = images.flat_map(|image| image.index.iter().chain([&image.manifest]));
        images
            .chain(self.file.iter().map(|file| &file.digest))
            .map(String::as_str)
    }
}

fn from_to(from: Option<&str>, to: &str) -> Vec<String> {
    vec![match from {
        Some(from) => format!("{from} → {to}"),
        None => to.to_owned(),
    }]
}

/// A request with its answer, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DebianEntry {
    packages: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suite: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    recommends: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    alone: bool,
    pub(super) package: Vec<Pinned>,
}

impl DebianEntry {
    pub(super) fn new(request: Request, package: Vec<Pinned>) -> Self {
        Self {
            packages: request.packages,
            suite: request.suite,
            recommends: request.recommends,
            alone: request.alone,
            package,
        }
    }

    pub(super) fn request(&self) -> Request {
        Request {
            packages: self.packages.clone(),
            suite: self.suite.clone(),
            recommends: self.recommends,
            alone: self.alone,
        }
    }
}
/// The text of a lock file.
pub(super) fn render(document: &Document) -> String {
    let document = Document {
        version: VERSION,
        debian: document.debian.clone(),
        image: document.image.clone(),
        file: document.file.clone(),
    };
    let body = toml::to_string(&document).expect("a document of strings and numbers is TOML");
    format!("{HEADER}{body}")
}

/// What the text of a lock file says.
///
/// # Errors
/// [`LockError`], with the line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Document, LockError> {
    if text.is_empty() {
        return Ok(Document::default());
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
        // The first version had packages only.
        Some(1 | VERSION) => {}
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
    let debian = document.debian.iter().map(Entry::key);
    let others = document.image.iter().map(Entry::key);
    let others = others.chain(document.file.iter().map(Entry::key));
    let mut seen = std::collections::BTreeSet::new();
    for key in debian.chain(others) {
        let what = key.to_string();
        if !seen.insert(key) {
            // As a merge of two branches may leave it; which of the two is meant is not for a build to guess.
            let at = text.rfind(&format!("\"{what}\"")).unwrap_or(0);
            return Err(damaged(line_of(text, at), format!("it pins {what} twice")));
        }
    }
    for digest in document.digests() {
        if crate::source::sha256_hex(digest).is_none() {
            let at = text.find(&format!("\"{digest}\"")).unwrap_or(0);
            let reason = format!("{digest:?} is no SHA-256 digest");
            return Err(damaged(line_of(text, at), reason));
        }
    }
    Ok(document)
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
