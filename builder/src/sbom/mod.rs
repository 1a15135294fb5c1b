//! A bill of materials: what an image is made of, from its record of contents, in the two common formats.
//!
//! Components are Debian packages, images, our own programs and the crates in them. Nothing is drawn at random: the
//! document's identifiers follow from the root hash, its time is that of the image. What nobody knows is left out or
//! said to be unknown, never guessed.

pub mod cyclonedx;
mod purl;
pub mod spdx;

use crate::contents::{Contents, Source};

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Debian package.
    Package,
    /// A container image.
    Image,
    /// One of our programs.
    Program,
    /// A Rust crate.
    Crate,
    /// A file of the building host whose origin nobody knows.
    File,
}

/// Something that an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// An identifier of letters, digits, `.` and `-`, unique in the document.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Package URL, where there is a type for it.
    pub purl: Option<String>,
    /// SHA-256 in hexadecimal.
    pub sha256: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
}

/// A workload, by the places of its components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// As of a component.
    pub id: String,
    /// The workload's name.
    pub name: String,
    /// What it is made of.
    pub components: Vec<usize>,
}

/// A bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// The machine's name.
    pub name: String,
    /// The machine's version.
    pub version: String,
    /// The root hash: identifies the image, and the document.
    pub root_hash: String,
    /// The version of the coracle that made the image.
    pub maker: String,
    /// The image's time.
    pub epoch: i64,
    /// All components, each once.
    pub components: Vec<Component>,
    /// The workloads.
    pub workloads: Vec<Part>,
}

impl Bill {
    /// The bill of an image.
    pub fn of(contents: &Contents, root_hash: &str) -> Self {
        let mut components: Vec<Component> = contents.packages.iter().map(package).collect();
        components.extend(unpackaged(contents));
        components.extend(contents.programs.iter().map(program));
        components.extend(contents.crates.iter().map(krate));
        let mut workloads = Vec::new();
        for (number, workload) in contents.workloads.iter().enumerate() {
            let made_of = match &workload.source {
                Source::Debian { packages, .. } => packages.clone(),
                Source::Image {
                    reference, digest, ..
                } => {
                    vec![place_of_image(&mut components, reference, digest)]
                }
            };
            workloads.push(Part {
                id: format!("workload-{number}-{}", identifier(&workload.name)),
                name: workload.name.clone(),
                components: made_of,
            });
        }
        Self {
            name: contents.name.clone(),
            version: contents.version.clone(),
            root_hash: root_hash.to_owned(),
            maker: contents.coracle.clone(),
            epoch: contents.epoch,
            components,
            workloads,
        }
    }
}

fn package(package: &crate::contents::Package) -> Component {
    Component {
        id: format!(
            "deb-{}-{}-{}",
            identifier(&package.name),
            identifier(&package.version),
            &package.sha256.get(..8).unwrap_or_default()
        ),
        kind: Kind::Package,
        name: package.name.clone(),
        version: package.version.clone(),
        purl: Some(purl::debian(
            &package.name,
            &package.version,
            &package.architecture,
        )),
        sha256: Some(package.sha256.clone()),
        license: None,
    }
}

/// Kernel and boot loader that came as files.
fn unpackaged(contents: &Contents) -> Vec<Component> {
    let file = |name: &str, version: &str| Component {
        id: format!("file-{name}"),
        kind: Kind::File,
        name: name.to_owned(),
        version: version.to_owned(),
        purl: None,
        sha256: None,
        license: None,
    };
    let kernel = contents.kernel.package.is_none();
    let loader = contents.loader.package.is_none();
    [
        kernel.then(|| file("linux", &contents.kernel.release)),
        loader.then(|| file("systemd-boot", &contents.loader.version)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn program(program: &crate::contents::Program) -> Component {
    Component {
        id: format!("program-{}", identifier(&program.name)),
        kind: Kind::Program,
        name: program.name.clone(),
        version: program.version.clone(),
        purl: None,
        sha256: Some(program.sha256.clone()),
        license: Some(env!("CARGO_PKG_LICENSE").to_owned()),
    }
}

fn krate(krate: &crate::contents::Crate) -> Component {
    Component {
        id: format!(
            "crate-{}-{}",
            identifier(&krate.name),
            identifier(&krate.version)
        ),
        kind: Kind::Crate,
        name: krate.name.clone(),
        version: krate.version.clone(),
        purl: Some(purl::cargo(&krate.name, &krate.version)),
        sha256: Some(krate.sha256.clone()),
        // Older crates write `MIT/Apache-2.0`.
        license: (!krate.license.is_empty()).then(|| krate.license.replace('/', " OR ")),
    }
}

/// The place of an image's component; two workloads may have one image.
fn place_of_image(components: &mut Vec<Component>, reference: &str, digest: &str) -> usize {
    let same = |one: &Component| one.kind == Kind::Image && one.version == digest;
    if let Some(place) = components.iter().position(same) {
        return place;
    }
    components.push(Component {
        id: format!("image-{}", identifier(digest)),
        kind: Kind::Image,
        name: reference.to_owned(),
        version: digest.to_owned(),
        purl: purl::image(reference, digest),
        sha256: digest.strip_prefix("sha256:").map(str::to_owned),
        license: None,
    });
    components.len() - 1
}

/// A text of letters, digits, `.` and `-` (SPDX 2.3, clause 7.2). Underscores and all else become a hyphen.
fn identifier(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    text.chars().map(plain).collect()
}

/// Seconds since 1970 as RFC 3339 has it, in UTC.
fn timestamp(epoch: i64) -> String {
    let (days, seconds) = (epoch.div_euclid(86_400), epoch.rem_euclid(86_400));
    // Days since the first of March of a year 0, so that leap days come last (Howard Hinnant's "civil_from_days").
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::tests::example;

    #[test]
    fn a_bill_has_each_component_once_and_with_an_identifier_of_its_own() {
        let bill = Bill::of(&example(), &"ab".repeat(32));
        let mut ids: Vec<&str> = bill.components.iter().map(|one| one.id.as_str()).collect();
        ids.extend(bill.workloads.iter().map(|workload| workload.id.as_str()));
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        let legal = |id: &str| {
            id.chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        };
        assert!(ids.iter().all(|id| legal(id)), "{ids:?}");
        let image = &bill.components[bill.workloads[2].components[0]];
        assert_eq!(
            image.purl.as_deref(),
            Some(&*format!("pkg:oci/three@sha256%3A{}", "0d".repeat(32)))
        );
        assert_eq!(bill.workloads[1].components, [1, 2]);
        // The loader of the example is a file.
        assert!(bill.components.iter().any(|one| one.name == "systemd-boot"));
    }

    #[test]
    fn times_are_utc() {
        for (epoch, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_294_967_295, "2106-02-07T06:28:15Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(epoch), want);
        }
    }
}
