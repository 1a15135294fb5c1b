//! The record of contents against a lock: whether what is in the image is what is pinned now.

use crate::contents::{Contents, Source};
use crate::lock::Lock;

use super::{Check, What};

/// Each package of the image against the lock's.
pub(super) fn lock(contents: &Contents, lock: &Lock) -> Check {
    let mut problems = Vec::new();
    for package in &contents.packages {
        let mut pinned = lock.packages().filter(|pin| pin.name == package.name);
        if pinned.clone().any(|pin| pin.sha256 == package.sha256) {
            continue;
        }
        let (name, version) = (&package.name, &package.version);
        problems.push(match pinned.next() {
            None => format!("{name} {version} is not in the lock"),
            Some(pin) if pin.version == *version => {
                format!("{name} {version} has another digest in the lock")
            }
            Some(pin) => format!("{name} is {version}, the lock has {}", pin.version),
        });
    }
    let mut images = 0;
    for workload in &contents.workloads {
        if let Source::Image {
            reference, digest, ..
        } = &workload.source
        {
            images += 1;
            problems.extend(image_problem(lock, reference, digest));
        }
    }
    let note = format!("{} packages, {images} images", contents.packages.len());
    Check::new(What::Lock, note, problems)
}

/// What the lock has against an image; folders are not pinned.
fn image_problem(lock: &Lock, reference: &str, digest: &str) -> Option<String> {
    if reference.starts_with("dir:") {
        return None;
    }
    let of_registry = lock
        .images()
        .iter()
        .find(|image| image.reference == reference);
    let of_file = || lock.files().iter().find(|file| file.path == reference);
    let pinned = of_registry
        .map(|image| &image.manifest)
        .or_else(|| of_file().map(|file| &file.digest));
    match pinned {
        None => Some(format!("{reference} is not in the lock")),
        Some(pinned) if pinned != digest => {
            Some(format!("{reference} is {digest}, the lock has {pinned}"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{PinnedFile, Pins};

    #[test]
    fn an_image_that_the_lock_does_not_have_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = Lock::open(&folder.path().join("coracle.lock"), Pins::Keep).unwrap();
        let digest = "sha256:aa";
        let told = |lock: &Lock| image_problem(lock, "oci:web", digest);
        assert_eq!(told(&lock).unwrap(), "oci:web is not in the lock");
        assert_eq!(image_problem(&lock, "dir:web", digest), None);
        for (pinned, fits) in [("sha256:bb", false), (digest, true)] {
            lock.set_file(PinnedFile {
                path: "oci:web".to_owned(),
                digest: pinned.to_owned(),
            });
            assert_eq!(told(&lock).is_none(), fits, "{pinned}");
        }
    }
}
