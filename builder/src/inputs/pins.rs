//! What stands behind a workload's root, by the lock: found out, pinned, and refused where it is not what was pinned.

use std::collections::BTreeSet;
use std::fs::File;

use config::Diagnostic;
use config::manifest::{Spanned, Text};
use config::registry::Reference;
use config::spec::{Source, Workload};
use config::trust::Ruling;

use super::Sources;
use crate::failure::Failure;
use crate::lock::{Key, Lock, LockError, PinnedFile, PinnedImage};
use crate::source::blob;
use crate::source::debian;
use crate::source::error::FileError;
use crate::source::identify;
use crate::source::registry::{PLATFORM, RegistryError};

type Placed = (Reference, std::ops::Range<usize>);

impl Sources<'_> {
    /// The keys of what a workload is made of.
    pub(super) fn keys(&self, workload: &Workload) -> BTreeSet<Key> {
        let suite = self.file.spec.debian_suite.as_deref();
        BTreeSet::from([match &workload.source {
            Source::Image(text) => Key::File(text.get_ref().clone()),
            Source::Registry(reference) => Key::Image(reference.get_ref().to_string()),
            Source::Debian(packages) => {
                Key::Debian(debian::request(packages.get_ref(), suite, false))
            }
        }])
    }

    /// Pins what a workload is made of, without reading it.
    pub(super) fn pin_workload(&self, workload: &Workload, lock: &mut Lock) -> Result<(), Failure> {
        match &workload.source {
            Source::Image(text) => self.pin_local_image(text, &workload.name, lock).map(drop),
            Source::Registry(reference) => {
                let placed = (reference.get_ref().clone(), reference.span());
                self.pin_image(&placed, lock).map(drop)
            }
            Source::Debian(packages) => {
                let suite = self.file.spec.debian_suite.as_deref();
                let request = debian::request(packages.get_ref(), suite, false);
                debian::resolve(&request, lock, self.cache, self.progress)?;
                Ok(())
            }
        }
    }

    /// The digests of an image in a registry: the pinned ones, else what the registry says now.
    pub(super) fn pin_image(
        &self,
        (reference, span): &Placed,
        lock: &mut Lock,
    ) -> Result<PinnedImage, Failure> {
        let name = reference.to_string();
        let pinned = lock
            .image(&name)
            .map_err(|error| self.unpinned(span.clone(), &error))?;
        if let Some(pinned) = pinned {
            return Ok(pinned.clone());
        }
        let resolved = self
            .registries
            .resolve(reference)
            .map_err(|error| self.at_registry(span.clone(), &name, error))?;
        let pinned = PinnedImage {
            reference: name,
            platform: PLATFORM.to_owned(),
            index: resolved.index,
            manifest: resolved.manifest,
        };
        lock.set_image(pinned.clone());
        Ok(pinned)
    }

    /// Refuses a pin that does not hang together. A lock is a text that anybody may have edited, and a signature of the
    /// index says nothing of a manifest that is not in it.
    pub(super) fn check_pin(
        &self,
        reference: &Spanned<Reference>,
        pinned: &PinnedImage,
    ) -> Result<(), Failure> {
        let name = &pinned.reference;
        let wrong = |what: String| {
            let message = format!("image {name}: {what}");
            let hint = "restore coracle.lock, or let `coracle update` pin anew what the image's name means";
            let diagnostic = Diagnostic::at(reference.span(), message).hint(hint);
            self.file.failed_at(diagnostic)
        };
        let manifest = &pinned.manifest;
        let root = pinned.index.as_ref().unwrap_or(manifest);
        let named = reference.get_ref().digest.as_ref();
        if named.is_some_and(|digest| digest != root) {
            return Err(wrong(format!(
                "coracle.lock pins {root}, which is not what its name has"
            )));
        }
        let Some(index) = &pinned.index else {
            return Ok(());
        };
        let found = match self.registries.manifest_of(reference.get_ref(), index) {
            Ok(found) => found,
            // Nothing is said of the index: the manifest is what counts, and a registry may have dropped the other.
            Err(RegistryError::Offline { .. } | RegistryError::NotFound { .. })
                if named.is_none()
                    && !matches!(self.file.spec.trust.ruling(name), Ruling::Signed(_)) =>
            {
                return Ok(());
            }
            Err(error) => return Err(self.at_registry(reference.span(), name, error)),
        };
        if found == *manifest {
            return Ok(());
        }
        Err(wrong(format!(
            "coracle.lock pins the manifest {manifest}, but the pinned index {index} has {found} for {PLATFORM}"
        )))
    }

    /// An image in a file or a layout, and its digest. A folder (`dir:`) is source, which changes all day, and is not
    /// pinned.
    pub(super) fn pin_local_image(
        &self,
        text: &Text,
        workload: &str,
        lock: &mut Lock,
    ) -> Result<Option<String>, Failure> {
        let digest = identify(text.get_ref(), self.file.folder());
        let digest = digest.map_err(|error| self.at(text, error))?;
        if let Some(digest) = &digest {
            self.pin_digest(text, digest.clone(), Some(workload), lock)?;
        }
        Ok(digest)
    }

    /// A file of the machine itself: its kernel, its boot loader.
    pub(super) fn pin_file(&self, text: &Text, lock: &mut Lock) -> Result<(), Failure> {
        let path = self.file.folder().join(text.get_ref());
        let digest = File::open(&path).and_then(blob::digest);
        let read = FileError::of("read", &path);
        let (hex, _) = digest.map_err(|error| self.at(text, read(error)))?;
        self.pin_digest(text, format!("sha256:{hex}"), None, lock)
    }

    pub(super) fn pin_digest(
        &self,
        text: &Text,
        digest: String,
        workload: Option<&str>,
        lock: &mut Lock,
    ) -> Result<(), Failure> {
        let path = text.get_ref();
        let pinned = lock
            .file(path)
            .map_err(|error| self.unpinned(text.span(), &error))?;
        match pinned {
            Some(pinned) if pinned == digest => Ok(()),
            None => {
                lock.set_file(PinnedFile {
                    path: path.clone(),
                    digest,
                });
                Ok(())
            }
            Some(pinned) => {
                let message = format!("`{path}` is {digest} now, and coracle.lock pins {pinned}");
                let file = self.file.path.display();
                let only = workload.map_or(String::new(), |name| format!(" --workload {name}"));
                let hint = format!("`coracle update {file}{only}` pins what it is now");
                Err(self
                    .file
                    .failed_at(Diagnostic::at(text.span(), message).hint(hint)))
            }
        }
    }

    /// An error of the lock at the place in the file that it is about.
    fn unpinned(&self, span: std::ops::Range<usize>, error: &LockError) -> Failure {
        let hint = "build once without --locked, and keep coracle.lock with your sources";
        let diagnostic = Diagnostic::at(span, error.to_string()).hint(hint);
        self.file.failed_at(diagnostic)
    }

    /// An error of a registry at the place in the file that names the image.
    pub(super) fn at_registry(
        &self,
        span: std::ops::Range<usize>,
        name: &str,
        error: RegistryError,
    ) -> Failure {
        let hint = error.hint();
        let message = format!("image {name}: {:#}", anyhow::Error::new(error));
        let diagnostic = Diagnostic::at(span, message);
        self.file.failed_at(match hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        })
    }
}
