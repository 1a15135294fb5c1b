//! `Contents`: what is in an image and where it came from, as a file in the image's own verified root.
//!
//! `inspect`, `verify` and `sbom` need nothing but a disk because of it. It has no times of its own, no paths of the
//! building host and nothing drawn at random: the same inputs give the same bytes. The root hash in the kernel image's
//! command line vouches for it, and it vouches for all of the kernel image but that hash. Refused when read: other
//! formats, and numbers that lead nowhere.

mod boot;
mod crates;
mod record;

use serde::{Deserialize, Serialize};

pub use boot::{BootContent, BootFile, BootFiles};

/// Where it is in the root.
pub const CONTENTS_PATH: &str = "/usr/lib/coracle/contents.json";
/// The format that this builder writes and reads. New keys do not change it.
pub const CONTENTS_FORMAT: u32 = 1;
/// The most bytes of it that are read.
pub const CONTENTS_CAP: u64 = 64 << 20;

/// Why a record is none.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// It is no record.
    #[error("the root's record of contents is damaged")]
    Json(#[from] serde_json::Error),
    /// Another version's.
    #[error("the root's record of contents has format {0}, this coracle reads {CONTENTS_FORMAT}")]
    OtherFormat(u32),
    /// A number in it leads to nothing.
    #[error("the root's record of contents is damaged: {0} that it does not have")]
    Dangling(&'static str),
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// [`CONTENTS_FORMAT`].
    pub format: u32,
    /// The version of the coracle that made the image.
    pub coracle: String,
    /// The machine's name.
    pub name: String,
    /// The machine's version.
    pub version: String,
    /// The time of the image's own files: seconds since 1970.
    pub epoch: i64,
    /// The kernel.
    pub kernel: Kernel,
    /// systemd-boot and its stub.
    pub loader: Loader,
    /// Our own programs.
    pub programs: Vec<Program>,
    /// Rust crates in them, ours left out.
    pub crates: Vec<Crate>,
    /// Debian packages that anything of the image comes from, each once.
    pub packages: Vec<Package>,
    /// Layers, each once however many workloads have it.
    pub layers: Vec<Layer>,
    /// The workloads in start order.
    pub workloads: Vec<Workload>,
    /// What lies outside of the root.
    pub boot: BootFiles,
}

/// The kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// Its package, by its place in [`Contents::packages`]; none for a file of the building host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<usize>,
}

/// systemd-boot and its stub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loader {
    /// Its version.
    pub version: String,
    /// As of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<usize>,
}

/// One of our own programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// `coracle-init`, `coracle-runtime`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of it.
    pub sha256: String,
}

/// A crate of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The registry's SHA-256 of it.
    pub sha256: String,
    /// An SPDX expression; empty where it gives none.
    pub license: String,
}

/// A Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// SHA-256 of the .deb.
    pub sha256: String,
    /// Size of the .deb in bytes.
    pub size: u64,
    /// Where the archive has it.
    pub filename: String,
}

/// A layer in the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// 64 hexadecimal digits that identify its content; its diff id as a rule.
    pub id: String,
    /// Its folder in the root.
    pub path: String,
    /// Names in it; a file with two names counts twice, here and below.
    pub names: u64,
    /// Bytes of its regular files.
    pub bytes: u64,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Where its root came from.
    #[serde(flatten)]
    pub source: Source,
    /// Its layers by their places in [`Contents::layers`], the lowest first.
    pub layers: Vec<usize>,
    /// Whether the topmost of them has the `files` of the machine's file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_layer: bool,
}

/// Where a workload's root came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An image.
    Image {
        /// As the machine's file has it.
        reference: String,
        /// What identifies it: `sha256:` and 64 hexadecimal digits.
        digest: String,
        /// The keys that signed it, where a policy asked for that: OpenPGP fingerprints, or `sha256:` of a public key.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        signed_by: Vec<String>,
    },
    /// Debian packages.
    Debian {
        /// As the machine's file has them.
        requested: Vec<String>,
        /// The release; `None`: that of the building host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suite: Option<String>,
        /// All that were unpacked, by their places in [`Contents::packages`].
        packages: Vec<usize>,
    },
}

impl Contents {
    /// The record as it lies in the root.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a record is plain data")
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`ContentsError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentsError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        // The format first: another one may well have other keys.
        let Versioned { format } = serde_json::from_slice(bytes)?;
        if format != CONTENTS_FORMAT {
            return Err(ContentsError::OtherFormat(format));
        }
        let contents: Self = serde_json::from_slice(bytes)?;
        contents.check()?;
        Ok(contents)
    }

    /// The packages at these places.
    pub fn packages_at<'a>(&'a self, places: &'a [usize]) -> impl Iterator<Item = &'a Package> {
        places.iter().filter_map(|place| self.packages.get(*place))
    }

    /// The workloads that have a layer.
    pub fn sharers(&self, layer: usize) -> impl Iterator<Item = &Workload> {
        let has = move |workload: &&Workload| workload.layers.contains(&layer);
        self.workloads.iter().filter(has)
    }

    fn check(&self) -> Result<(), ContentsError> {
        let no_package = |place: &usize| *place >= self.packages.len();
        let mut named: Vec<usize> = Vec::new();
        named.extend(self.kernel.package);
        named.extend(self.loader.package);
        for workload in &self.workloads {
            if let Source::Debian { packages, .. } = &workload.source {
                named.extend(packages);
            }
            if workload
                .layers
                .iter()
                .any(|place| *place >= self.layers.len())
            {
                return Err(ContentsError::Dangling("a layer"));
            }
        }
        if named.iter().any(no_package) {
            return Err(ContentsError::Dangling("a package"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine with two workloads that share a layer.
    pub(crate) fn example() -> Contents {
        let package = |name: &str, version: &str| Package {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256: "0a".repeat(32),
            size: 5,
            filename: format!("pool/main/{name}.deb"),
        };
        let layer = |id: &str, names, bytes| Layer {
            id: id.repeat(32),
            path: format!("/usr/lib/coracle/layers/{}", id.repeat(12)),
            names,
            bytes,
        };
        let debian = |name: &str, layers: &[usize]| Workload {
            name: name.into(),
            source: Source::Debian {
                requested: vec!["busybox".into()],
                suite: None,
                packages: vec![1, 2],
            },
            layers: layers.to_vec(),
            own_layer: layers.len() > 1,
        };
        Contents {
            format: CONTENTS_FORMAT,
            coracle: "0.1.0".into(),
            name: "web".into(),
            version: "1.0.0".into(),
            epoch: 1_700_000_000,
            kernel: Kernel {
                release: "6.1.0-1-cloud-amd64".into(),
                package: Some(0),
            },
            loader: Loader {
                version: "252.1-1".into(),
                package: None,
            },
            programs: vec![Program {
                name: "coracle-init".into(),
                version: "0.1.0".into(),
                size: 9,
                sha256: "0b".repeat(32),
            }],
            crates: vec![Crate {
                name: "libc".into(),
                version: "0.2.1".into(),
                sha256: "0c".repeat(32),
                license: "MIT OR Apache-2.0".into(),
            }],
            packages: vec![
                package("linux-image-6.1.0-1-cloud-amd64", "6.1.1-1"),
                package("busybox", "1:1.35.0-4+b3"),
                package("libc6", "2.36-9+deb12u10"),
            ],
            layers: vec![layer("1a", 100, 70_000), layer("2b", 1, 20)],
            workloads: vec![
                debian("one", &[0]),
                debian("two", &[0, 1]),
                Workload {
                    name: "three".into(),
                    source: Source::Image {
                        reference: "oci:images/three:latest".into(),
                        digest: format!("sha256:{}", "0d".repeat(32)),
                        signed_by: vec!["0123ABCD".into()],
                    },
                    layers: vec![1],
                    own_layer: false,
                },
            ],
            boot: BootFiles::default(),
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let contents = example();
        assert_eq!(
            Contents::parse(contents.json().as_bytes()).unwrap(),
            contents
        );
    }

    #[test]
    fn records_of_other_formats_and_with_numbers_that_lead_nowhere_are_refused() {
        let with = |change: &dyn Fn(&mut Contents)| {
            let mut contents = example();
            change(&mut contents);
            Contents::parse(contents.json().as_bytes())
                .unwrap_err()
                .to_string()
        };
        for (error, want) in [
            (with(&|c| c.format = 2), "has format 2"),
            (with(&|c| c.kernel.package = Some(3)), "a package"),
            (with(&|c| c.workloads[0].layers.push(2)), "a layer"),
        ] {
            assert!(error.contains(want), "{error}");
        }
        assert!(Contents::parse(b"{").is_err());
    }
}
