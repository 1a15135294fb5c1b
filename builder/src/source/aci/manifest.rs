//! The image manifest of an App Container image (App Container specification 0.8, "Image Manifest Schema").
//!
//! Pure: bytes in, a manifest that holds to the schema out. Refused: other kinds, versions that the specification did
//! not have, names that are none, other operating systems and processors, what stands twice.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::app::App;

/// The newest version of the specification that is understood, major and minor.
const NEWEST: (u32, u32) = (0, 8);
/// Hex digits of SHA-512, and the fewest that name an image safely.
const ID_DIGITS: std::ops::RangeInclusive<usize> = 64..=128;

/// An image manifest that holds to the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The image's name.
    pub(super) name: String,
    /// Its labels.
    pub(super) labels: BTreeMap<String, String>,
    /// How it wants to be run; an image without one is only there for others.
    pub(super) app: Option<App>,
    /// What lies below it, the lowest first.
    pub(super) dependencies: Vec<Dependency>,
    /// The only paths that stay, without slashes at either end; none: all stay.
    pub(super) whitelist: BTreeSet<String>,
    /// Its annotations.
    pub(super) annotations: BTreeMap<String, String>,
}

/// An image that another one lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency {
    /// Its name.
    pub(super) name: String,
    /// The first hex digits of the SHA-512 of its uncompressed archive, at least 64.
    pub(super) id: Option<String>,
    /// Labels that it must have.
    pub(super) labels: BTreeMap<String, String>,
    /// The bytes of its file.
    pub(super) size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    ac_kind: String,
    ac_version: String,
    name: String,
    labels: Option<Vec<Pair>>,
    app: Option<super::app::Written>,
    dependencies: Option<Vec<WrittenDependency>>,
    path_whitelist: Option<Vec<String>>,
    annotations: Option<Vec<Pair>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDependency {
    image_name: String,
    #[serde(rename = "imageID")]
    image_id: Option<String>,
    labels: Option<Vec<Pair>>,
    size: Option<u64>,
}

/// A name and its value.
#[derive(Debug, Deserialize)]
pub(super) struct Pair {
    /// The name.
    pub(super) name: String,
    /// The value.
    pub(super) value: String,
}

impl Manifest {
    /// Reads a manifest; the error says what does not hold.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if written.ac_kind != "ImageManifest" {
            return Err(format!(
                "its acKind is {:?}, not an image's",
                written.ac_kind
            ));
        }
        check_version(&written.ac_version)?;
        check_identifier(&written.name)?;
        let labels = pairs("label", written.labels)?;
        check_platform(&labels)?;
        let dependencies = written.dependencies.unwrap_or_default();
        Ok(Self {
            name: written.name,
            labels,
            app: written.app.map(App::new).transpose()?,
            dependencies: dependencies
                .into_iter()
                .map(dependency)
                .collect::<Result<_, _>>()?,
            whitelist: whitelist(written.path_whitelist.unwrap_or_default())?,
            annotations: pairs("annotation", written.annotations)?,
        })
    }
}

impl Dependency {
    /// Whether an image of this name and these labels is meant; its id and size are checked apart.
    pub(super) fn names(&self, image: &Manifest) -> bool {
        let has = |(name, value): (&String, &String)| image.labels.get(name) == Some(value);
        // The specification compares labels only where there is no id.
        self.name == image.name && (self.id.is_some() || self.labels.iter().all(has))
    }
}

fn check_version(text: &str) -> Result<(), String> {
    let mut numbers = text
        .split(['.', '-', '+'])
        .map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) <= NEWEST => Ok(()),
        _ => Err(format!(
            "its acVersion is {text:?}; versions up to {}.{} are read",
            NEWEST.0, NEWEST.1
        )),
    }
}

/// An AC Identifier: lower-case letters and digits, joined by single `-._~/`.
fn check_identifier(name: &str) -> Result<(), String> {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if name.split(['-', '.', '_', '~', '/']).all(part) {
        return Ok(());
    }
    Err(format!("{name:?} is no name of an image"))
}

fn check_platform(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let is = |label: &str, wanted: &str| labels.get(label).is_none_or(|value| value == wanted);
    if is("os", "linux") && is("arch", "amd64") {
        return Ok(());
    }
    let value = |label: &str| labels.get(label).map_or("any", String::as_str);
    Err(format!(
        "it is for {}/{}, not for linux/amd64",
        value("os"),
        value("arch")
    ))
}

/// A list of names and values as a map; no name stands twice.
fn pairs(what: &str, list: Option<Vec<Pair>>) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    for Pair { name, value } in list.unwrap_or_default() {
        check_identifier(&name.to_ascii_lowercase())?;
        if map.insert(name.clone(), value).is_some() {
            return Err(format!("the {what} {name:?} stands twice"));
        }
    }
    Ok(map)
}

fn dependency(written: WrittenDependency) -> Result<Dependency, String> {
    check_identifier(&written.image_name)?;
    let id = written.image_id.filter(|id| !id.is_empty());
    let digits = id.map(|id| {
        let digits = id.strip_prefix("sha512-").unwrap_or_default();
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if ID_DIGITS.contains(&digits.len()) && digits.bytes().all(is_hex) {
            return Ok(digits.to_owned());
        }
        Err(format!(
            "{id:?} is no image ID: sha512- and 64 to 128 hex digits"
        ))
    });
    Ok(Dependency {
        name: written.image_name,
        id: digits.transpose()?,
        labels: pairs("label", written.labels)?,
        size: written.size.filter(|size| *size > 0),
    })
}

fn whitelist(paths: Vec<String>) -> Result<BTreeSet<String>, String> {
    let plain = |path: String| {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if !path.starts_with('/') || parts.iter().any(|part| [".", ".."].contains(part)) {
            return Err(format!(
                "pathWhitelist has {path:?}, which is no absolute path"
            ));
        }
        Ok(parts.join("/"))
    };
    paths.into_iter().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &str) -> Result<Manifest, String> {
        let text = format!(
            r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a"{extra}}}"#
        );
        Manifest::parse(text.as_bytes())
    }

    #[test]
    fn a_manifest_is_read_with_all_its_parts() {
        let id = "0a".repeat(64);
        let manifest = parse(&format!(
            r#","labels":[{{"name":"os","value":"linux"}},{{"name":"arch","value":"amd64"}}],
            "dependencies":[{{"imageName":"example.com/base","imageID":"sha512-{id}","size":5}},
              {{"imageName":"b","labels":[{{"name":"version","value":"1"}}]}}],
            "pathWhitelist":["/bin/x","/etc/systemd/system/"],
            "annotations":[{{"name":"homepage","value":"https://example.com"}}],"unknown":[1]"#
        ))
        .unwrap();
        assert_eq!(manifest.dependencies[0].id.as_deref(), Some(id.as_str()));
        assert_eq!(manifest.dependencies[0].size, Some(5));
        assert!(manifest.whitelist.contains("etc/systemd/system"));
        let mut other = parse(r#","labels":[{"name":"version","value":"1"}]"#).unwrap();
        other.name = "b".into();
        assert!(manifest.dependencies[1].names(&other));
        other.labels.insert("version".into(), "2".into());
        assert!(!manifest.dependencies[1].names(&other));
    }

    #[test]
    fn what_breaks_the_schema_is_refused_by_name() {
        for (extra, says) in [
            (
                r#","labels":[{"name":"os","value":"freebsd"}]"#,
                "freebsd/any",
            ),
            (
                r#","labels":[{"name":"os","value":"linux"},{"name":"arch","value":"aarch64"}]"#,
                "linux/aarch64",
            ),
            (
                r#","labels":[{"name":"a","value":"1"},{"name":"a","value":"1"}]"#,
                "stands twice",
            ),
            (
                r#","dependencies":[{"imageName":"../x"}]"#,
                "no name of an image",
            ),
            (
                r#","dependencies":[{"imageName":"x","imageID":"sha512-00"}]"#,
                "no image ID",
            ),
            (
                r#","dependencies":[{"imageName":"x","imageID":"md5-00"}]"#,
                "no image ID",
            ),
            (r#","pathWhitelist":["etc"]"#, "no absolute path"),
            (r#","pathWhitelist":["/a/../b"]"#, "no absolute path"),
            (r#","labels":5"#, "invalid type"),
        ] {
            let error = parse(extra).unwrap_err();
            assert!(error.contains(says), "{extra}: {error}");
        }
        for (from, to, says) in [
            ("ImageManifest", "PodManifest", "PodManifest"),
            ("0.8.11", "1.0.0", "1.0.0"),
            ("0.8.11", "0.9.0", "0.9.0"),
            ("0.8.11", "new", "\"new\""),
            ("example.com/a", "Example", "no name of an image"),
            ("}", "", "EOF"),
        ] {
            let text = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a"}"#;
            let error = Manifest::parse(text.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.contains(says), "{from}: {error}");
        }
    }
}
