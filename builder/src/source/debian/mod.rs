//! Debian packages: a request is resolved to exact versions by the host's apt, pinned in the lock, fetched by digest
//! and unpacked to one layer, all without root and without running anything of a package.

mod accounts;
mod apt;
mod deb;
mod postinst;
mod script;
mod unpack;

use std::fs::{self, File};
use std::path::PathBuf;

pub use apt::AptError;
pub use deb::DebError;
pub use unpack::{UnpackError, Unpacked, read_package, unpack};

use super::blob::digest;
use super::cache::{Cache, CacheError, CacheKind};
use super::error::FileError;
use crate::lock::{Lock, LockError, Pinned, Request};
use crate::progress::Progress;
use apt::Apt;

/// Why packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// A name that is none.
    #[error("{text:?} is not the name of a Debian {what}")]
    Name {
        /// The text.
        text: String,
        /// `package` or `suite`.
        what: &'static str,
    },
    /// apt gave no answer.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// apt resolved a package and has no digest for it.
    #[error("the archive gives no SHA-256 for {package}")]
    NoDigest {
        /// Name and version.
        package: String,
    },
    /// A kernel's name leads to none or to several.
    #[error("{package} leads to {count} kernel packages, not to one", count = found.len())]
    Kernel {
        /// What was asked.
        package: String,
        /// What it leads to.
        found: Vec<String>,
    },
    /// The pinned version is gone.
    #[error("the mirrors no longer have {package}, which coracle.lock pins")]
    Gone {
        /// Name and version.
        package: String,
        /// apt's reason.
        #[source]
        source: AptError,
    },
    /// What came is something else.
    #[error("{package} was downloaded with another SHA-256 than the pinned {sha256}")]
    WrongDigest {
        /// Name and version.
        package: String,
        /// The pinned digest.
        sha256: String,
    },
    /// It is not pinned.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The network is not to be used, and the cache does not have it.
    #[error("{what} is not in the cache, and --offline fetches nothing")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// A package file is broken.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl DebianError {
    /// What the user may do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Gone { .. } => Some("run `coracle update` to pin what the mirrors have now"),
            Self::Lock(LockError::Missing { .. }) => {
                Some("build once without --locked, and keep coracle.lock with your sources")
            }
            Self::Offline { .. } => Some("build once without --offline"),
            Self::Apt(AptError::Missing { .. }) => {
                Some("Debian packages need a host with apt (Debian or Ubuntu)")
            }
            Self::Apt(AptError::Refused { .. }) => Some(
                "see whether `apt-get update` works on this host and the package's name is right",
            ),
            _ => None,
        }
    }
}

/// A request for packages and all that they depend on. Names are sorted, so their order means nothing.
pub fn request(packages: &[String], suite: Option<&str>, recommends: bool) -> Request {
    let mut packages = packages.to_vec();
    packages.sort();
    packages.dedup();
    Request {
        packages,
        suite: suite.map(str::to_owned),
        recommends,
        alone: false,
    }
}

/// The exact packages of a request: from the lock, else by apt, and then noted in the lock.
///
/// # Errors
/// [`DebianError`].
pub fn resolve(
    request: &Request,
    lock: &mut Lock,
    cache: &Cache,
    progress: &Progress,
) -> Result<Vec<Pinned>, DebianError> {
    check_names(request)?;
    if let Some(pins) = lock.debian(request)? {
        return Ok(pins.to_vec());
    }
    if cache.is_all_there_is() {
        return Err(DebianError::Offline {
            what: format!("what {} means now", request.packages.join(" ")),
        });
    }
    let apt = Apt::open(cache, request.suite.as_deref())?;
    // A mirror of the host may be down and the others suffice, so its error counts only if there is no answer.
    let updated = apt.update(progress);
    let _step = progress.step("choosing Debian packages", None);
    let pins = match (ask(&apt, request), updated) {
        (Ok(pins), Ok(())) => pins,
        (Ok(pins), Err(update)) => {
            progress.note(format!(
                "note: {update}; versions are chosen from the lists of an earlier time"
            ));
            pins
        }
        (Err(DebianError::Apt(_)), Err(update)) => return Err(update.into()),
        (Err(error), _) => return Err(error),
    };
    lock.set_debian(request.clone(), pins.clone());
    Ok(pins)
}

/// The exact package of a kernel: `name` is one, or a metapackage that depends on one. Its dependencies are left out.
///
/// # Errors
/// [`DebianError`].
pub fn resolve_alone(
    name: &str,
    suite: Option<&str>,
    lock: &mut Lock,
    cache: &Cache,
    progress: &Progress,
) -> Result<Pinned, DebianError> {
    let request = Request {
        alone: true,
        ..request(&[name.to_owned()], suite, false)
    };
    let mut pins = resolve(&request, lock, cache, progress)?;
    match (pins.pop(), pins.len()) {
        (Some(pin), 0) => Ok(pin),
        (last, _) => Err(DebianError::Kernel {
            package: name.to_owned(),
            found: pins.into_iter().chain(last).map(|p| p.name).collect(),
        }),
    }
}

fn ask(apt: &Apt, request: &Request) -> Result<Vec<Pinned>, DebianError> {
    let mut found = apt.simulate(&request.packages, request.recommends)?;
    if request.alone {
        found = pick_alone(&request.packages[0], found)?;
    }
    let names: Vec<String> = found
        .iter()
        .map(|[name, version, _]| format!("{name}={version}"))
        .collect();
    let records = apt.show(&names)?;
    let pin = |[name, version, architecture]: &[String; 3]| {
        let record = records.iter().find(|r| {
            r.get("Package") == Some(name)
                && r.get("Version") == Some(version)
                && r.get("Architecture") == Some(architecture)
        });
        let pinned = record.and_then(|r| {
            Some(Pinned {
                name: name.clone(),
                version: version.clone(),
                architecture: architecture.clone(),
                sha256: r.get("SHA256")?.to_ascii_lowercase(),
                size: r.get("Size")?.parse().ok()?,
                filename: r.get("Filename")?.to_owned(),
            })
        });
        pinned
            .filter(|pin| is_sha256(&pin.sha256))
            .ok_or_else(|| DebianError::NoDigest {
                package: format!("{name} {version}"),
            })
    };
    found.iter().map(pin).collect()
}

/// The package itself; for a kernel's metapackage the kernel (`linux-image-` and a version).
fn pick_alone(name: &str, found: Vec<[String; 3]>) -> Result<Vec<[String; 3]>, DebianError> {
    let is_kernel = |name: &str| {
        let rest = name.strip_prefix("linux-image-");
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let wants_kernel = name.starts_with("linux-image-") && !is_kernel(name);
    let kernels: Vec<_> = found
        .iter()
        .filter(|[n, ..]| is_kernel(n))
        .cloned()
        .collect();
    let picked = if wants_kernel && !kernels.is_empty() {
        kernels
    } else {
        found.into_iter().filter(|[n, ..]| n == name).collect()
    };
    if picked.len() == 1 {
        return Ok(picked);
    }
    Err(DebianError::Kernel {
        package: name.to_owned(),
        found: picked.into_iter().map(|[name, ..]| name).collect(),
    })
}

/// The files of pinned packages in the cache, in the same order; those that are missing are downloaded and checked.
///
/// # Errors
/// [`DebianError`].
pub fn fetch(
    pins: &[Pinned],
    suite: Option<&str>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Vec<PathBuf>, DebianError> {
    let missing: Vec<&Pinned> = pins
        .iter()
        .filter(|pin| cache.get(CacheKind::Blob, &pin.sha256).is_none())
        .collect();
    if let (Some(pin), true) = (missing.first(), cache.is_all_there_is()) {
        return Err(DebianError::Offline {
            what: format!("{} {}", pin.name, pin.version),
        });
    }
    if !missing.is_empty() {
        download(&missing, suite, cache, progress)?;
    }
    pins.iter()
        .map(|pin| {
            cache
                .get(CacheKind::Blob, &pin.sha256)
                .ok_or_else(|| DebianError::WrongDigest {
                    package: format!("{} {}", pin.name, pin.version),
                    sha256: pin.sha256.clone(),
                })
        })
        .collect()
}

/// Downloads into a scratch directory and adopts each file whose digest is wanted.
fn download(
    pins: &[&Pinned],
    suite: Option<&str>,
    cache: &Cache,
    progress: &Progress,
) -> Result<(), DebianError> {
    let apt = Apt::open(cache, suite)?;
    let scratch = cache.scratch()?;
    let total = pins.iter().map(|pin| pin.size).sum();
    let step = progress.step("downloading Debian packages", Some(total));
    let names: Vec<String> = pins
        .iter()
        .map(|pin| format!("{}={}", pin.name, pin.version))
        .collect();
    let mut told = 0;
    let mut tick = |have: u64| {
        step.advance(have.saturating_sub(told));
        told = told.max(have);
    };
    // The lists may be older than the pins (or missing): only then they are fetched anew.
    if apt.download(&names, scratch.path(), &mut tick).is_err() {
        let updated = apt.update(progress);
        if let Err(source) = apt.download(&names, scratch.path(), &mut tick) {
            updated?;
            return Err(gone(&apt, pins, source));
        }
    }
    let directory = fs::read_dir(scratch.path()).map_err(FileError::of("read", scratch.path()))?;
    for entry in directory.flatten() {
        let path = entry.path();
        let file = File::open(&path).map_err(FileError::of("open", &path))?;
        let (sha256, _) = digest(file).map_err(FileError::of("read", &path))?;
        if pins.iter().any(|pin| pin.sha256 == sha256) {
            cache.adopt(CacheKind::Blob, &sha256, &path)?;
        }
    }
    Ok(())
}

/// Finds out which package is the one that is gone.
fn gone(apt: &Apt, pins: &[&Pinned], source: AptError) -> DebianError {
    let unknown = pins
        .iter()
        .map(|pin| (pin, format!("{}={}", pin.name, pin.version)))
        .find(|(pin, name)| {
            let records = apt.show(std::slice::from_ref(name)).unwrap_or_default();
            !records
                .iter()
                .any(|r| r.get("Version") == Some(&pin.version))
        });
    match unknown {
        Some((pin, _)) => DebianError::Gone {
            package: format!("{} {}", pin.name, pin.version),
            source,
        },
        None => source.into(),
    }
}

/// Names go to apt's command line, where `-x`, `x-` and patterns have meanings of their own.
fn check_names(request: &Request) -> Result<(), DebianError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let is_name = |text: &str| {
        text.len() >= 2
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && !text.ends_with('-')
            && text.chars().all(plain)
    };
    if let Some(text) = request.packages.iter().find(|p| !is_name(p)) {
        return Err(DebianError::Name {
            text: text.clone(),
            what: "package",
        });
    }
    match &request.suite {
        Some(suite) if !is_name(suite) => Err(DebianError::Name {
            text: suite.clone(),
            what: "suite",
        }),
        _ => Ok(()),
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_apt_would_take_for_something_else_are_refused() {
        for (name, good) in [
            ("nginx-light", true),
            ("g++", true),
            ("libstdc++6", true),
            ("-oDir=/", false),
            ("bash-", false),
            ("Bash", false),
            ("ba*h", false),
            ("a b", false),
            ("./x.deb", false),
            ("x", false),
            ("", false),
        ] {
            let request = request(&[name.to_owned()], None, false);
            assert_eq!(check_names(&request).is_ok(), good, "{name}");
        }
        assert!(check_names(&request(&[], Some("../x"), false)).is_err());
    }

    #[test]
    fn kernel_metapackages_lead_to_one_kernel() {
        let inst = |name: &str| [name.to_owned(), "1".into(), "amd64".into()];
        let found = || {
            vec![
                inst("kmod"),
                inst("linux-image-6.1.0-1-amd64"),
                inst("linux-image-amd64"),
            ]
        };
        let picked = pick_alone("linux-image-amd64", found()).unwrap();
        assert_eq!(picked, [inst("linux-image-6.1.0-1-amd64")]);
        let picked = pick_alone("linux-image-6.1.0-1-amd64", found()).unwrap();
        assert_eq!(picked, [inst("linux-image-6.1.0-1-amd64")]);
        assert_eq!(pick_alone("kmod", found()).unwrap(), [inst("kmod")]);
        let two = vec![inst("linux-image-6.1-a"), inst("linux-image-6.2-a")];
        assert!(pick_alone("linux-image-amd64", two).is_err());
    }
}
