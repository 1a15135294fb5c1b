//! A workload's root: its image or its packages, the file's own `files` on top, and who owns what.

use std::sync::Arc;

use config::Diagnostic;
use config::boot::{BootSecret, BootVolume};
use config::manifest::{Spanned, Text};
use config::registry::Reference;
use config::spec::{File, FileContent, SECRETS_PATH, Source, Spec, Workload};

use super::{Sources, WorkloadInput, limits, process};
use crate::bundle::VOLUMES_DIR;
use crate::failure::Failure;
use crate::identity::project_id;
use crate::lock::{Lock, PinnedImage};
use crate::overlay_files::file_layer;
use crate::source::image::{Image, ImageConfig, Layer};
use crate::source::origin::Origin;
use crate::source::registry::RegistryError;
use crate::source::trust::Signer;
use crate::source::user::{User, resolve_user};
use crate::source::{debian, load_checked, trust};

impl Sources<'_> {
    pub(super) fn workload(
        &self,
        spec: &Spec,
        workload: &Workload,
        lock: &mut Lock,
    ) -> Result<WorkloadInput, Failure> {
        let (mut image, origin) = match &workload.source {
            Source::Image(reference) => {
                let pinned = self.pin_local_image(reference, &workload.name, lock)?;
                self.local_image(spec, reference, pinned.as_deref())?
            }
            Source::Registry(reference) => self.registry_image(reference, lock)?,
            Source::Debian(packages) => {
                self.debian(packages.get_ref(), spec.debian_suite.as_deref(), lock)?
            }
        };
        let own_layer = self.files(workload, &image)?;
        let has_own_layer = own_layer.is_some();
        image.layers.extend(own_layer);
        let user = self.user(workload, &image)?;
        let (workload, beyond) = limits::limited(workload, &image.config.limits, user.uid);
        if let Some(beyond) = beyond {
            self.progress.note(beyond);
        }
        Ok(WorkloadInput {
            process: process::process(&workload, &image, &user)?,
            volumes: self.volumes(spec, &workload, &image, &user)?,
            secrets: secrets(&workload, &user),
            stop_signal: process::stop_signal(&workload, &image),
            workload,
            layers: image.layers,
            own_layer: has_own_layer,
            origin,
        })
    }

    /// An image in files, signed as the file asks. What is read is what was checked and pinned, whatever becomes of the
    /// files meanwhile.
    fn local_image(
        &self,
        spec: &Spec,
        reference: &Text,
        pinned: Option<&str>,
    ) -> Result<(Image, Origin), Failure> {
        let (name, base) = (reference.get_ref(), self.file.folder());
        let checked = trust::check_local(&spec.trust, name, base).map_err(|error| {
            let diagnostic = Diagnostic::at(reference.span(), error.reason).hint(error.hint);
            self.file.failed_at(diagnostic)
        })?;
        for signer in &checked.signers {
            self.progress.note(format!("image {name}: {signer}"));
        }
        let (image, identity) = load_checked(name, base, &checked, self.cache, self.progress)
            .map_err(|error| self.at(reference, error))?;
        if identity.as_deref() != pinned {
            let message = format!("image {name:?}: it changed while it was read");
            let diagnostic = Diagnostic::at(reference.span(), message);
            let hint = "build again once nothing writes to it";
            return Err(self.file.failed_at(diagnostic.hint(hint)));
        }
        let origin = Origin::Image {
            reference: name.clone(),
            // As it is pinned, so that the record can be held against a lock.
            digest: identity.unwrap_or_else(|| image.digest.clone()),
            signers: checked.signers,
        };
        Ok((image, origin))
    }

    /// The image that the lock pins, or that the registry has now.
    fn registry_image(
        &self,
        reference: &Spanned<Reference>,
        lock: &mut Lock,
    ) -> Result<(Image, Origin), Failure> {
        let placed = (reference.get_ref().clone(), reference.span());
        let pinned = self.pin_image(&placed, lock)?;
        self.check_pin(reference, &pinned)?;
        let signers = self.check_signatures(reference, &pinned)?;
        let image = self
            .registries
            .pull(reference.get_ref(), &pinned.manifest)
            .map_err(|error| self.at_registry(reference.span(), &pinned.reference, error))?;
        let origin = Origin::Image {
            reference: pinned.reference,
            digest: pinned.manifest,
            signers,
        };
        Ok((image, origin))
    }

    /// Refuses an image of a registry that is not signed as the file asks, before any layer of it comes. The signature
    /// may be that of the index or that of the manifest.
    fn check_signatures(
        &self,
        reference: &Spanned<Reference>,
        pinned: &PinnedImage,
    ) -> Result<Vec<Signer>, Failure> {
        let name = &pinned.reference;
        let refused = |error: trust::TrustError| {
            let diagnostic = Diagnostic::at(reference.span(), error.reason).hint(error.hint);
            self.file.failed_at(diagnostic)
        };
        let asked = trust::requirement(&self.file.spec.trust, name, self.file.folder());
        let Some(asked) = asked.map_err(refused)? else {
            return Ok(Vec::new());
        };
        let digests: Vec<String> = pinned
            .index
            .iter()
            .chain([&pinned.manifest])
            .cloned()
            .collect();
        let mut signatures = Vec::new();
        let mut lacking = None;
        for digest in &digests {
            match self.registries.signatures(reference.get_ref(), digest) {
                Ok(found) => signatures.extend(found),
                // As a rule one of the two is signed, and the cache has the signatures of that one only.
                Err(error @ RegistryError::Offline { .. }) => lacking = lacking.or(Some(error)),
                Err(error) => return Err(self.at_registry(reference.span(), name, error)),
            }
        }
        if let (true, Some(error)) = (signatures.is_empty(), lacking) {
            return Err(self.at_registry(reference.span(), name, error));
        }
        let signer = asked
            .check_cosign(name, &digests, &signatures)
            .map_err(refused)?;
        self.progress.note(format!("image {name}: {signer}"));
        Ok(vec![signer])
    }

    /// A root of Debian packages, as an image of one layer that says nothing of how to run it.
    fn debian(
        &self,
        packages: &[String],
        suite: Option<&str>,
        lock: &mut Lock,
    ) -> Result<(Image, Origin), Failure> {
        let request = debian::request(packages, suite, false);
        let pins = debian::resolve(&request, lock, self.cache, self.progress).map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            Failure::work_with_hint(error, hint)
        })?;
        let unpacked = debian::unpack(&pins, suite, self.cache, self.progress)?;
        if !unpacked.uncovered.is_empty() {
            self.progress.note(format!(
                "note: nothing of a package is run; these have maintainer scripts that may do more: {}",
                unpacked.uncovered.join(" ")
            ));
        }
        let digest = format!("sha256:{}", unpacked.layer.id);
        let image = Image {
            layers: vec![unpacked.layer],
            config: ImageConfig::default(),
            digest,
        };
        let origin = Origin::Debian {
            requested: packages.to_vec(),
            suite: suite.map(str::to_owned),
            packages: pins,
        };
        Ok((image, origin))
    }

    /// The layer of the file's own `files` and of the links to secrets at other places, if there are any.
    fn files(&self, workload: &Workload, image: &Image) -> Result<Option<Layer>, Failure> {
        let links = workload.secrets.iter().filter_map(link_to_secret);
        let files: Vec<File> = workload.files.iter().cloned().chain(links).collect();
        if files.is_empty() {
            return Ok(None);
        }
        let read = |text: &Text| {
            let path = self.file.folder().join(text.get_ref());
            std::fs::read(&path)
                .map(Arc::from)
                .map_err(|error| self.at(text, error))
        };
        let mut contents = Vec::new();
        for file in &files {
            contents.push(match &file.content {
                FileContent::Host(text) => Some(read(text)?),
                FileContent::Text(text) => Some(Arc::from(text.as_bytes())),
                FileContent::Link(_) => None,
            });
        }
        file_layer(image, &files, contents)
            .map(Some)
            .map_err(|error| {
                Failure::work(
                    anyhow::Error::new(error).context(format!("workload {}", workload.name)),
                )
            })
    }

    fn user(&self, workload: &Workload, image: &Image) -> Result<User, Failure> {
        match (&workload.user, &image.config.user) {
            (Some(text), _) => self.named_user(text, image),
            (None, Some(text)) if !text.is_empty() => {
                let mut user = resolve_user(image, text).map_err(|error| {
                    Failure::work(
                        anyhow::Error::new(error)
                            .context(format!("the image of workload {}", workload.name)),
                    )
                })?;
                user.add_groups(&image.config.additional_gids);
                Ok(user)
            }
            _ => resolve_user(image, "0").map_err(Failure::work),
        }
    }

    /// A new volume takes the owner and mode of the image's own directory there, else those of the workload's user;
    /// what the file says goes before both.
    fn volumes(
        &self,
        spec: &Spec,
        workload: &Workload,
        image: &Image,
        user: &User,
    ) -> Result<Vec<BootVolume>, Failure> {
        let volume = |volume: &config::spec::Volume| {
            let directory = image
                .find(&volume.path)
                .filter(|(layer, id)| layer.tree.entries(*id).is_some())
                .map(|(layer, id)| &layer.tree.inode(id).metadata);
            let (mut uid, mut gid, mode) = directory.map_or((user.uid, user.gid, 0o755), |meta| {
                (meta.uid, meta.gid, meta.mode)
            });
            if let Some(owner) = &volume.owner {
                let owner = self.named_user(owner, image)?;
                (uid, gid) = (owner.uid, owner.gid);
            }
            Ok(BootVolume {
                path: format!("{VOLUMES_DIR}/{}", volume.name),
                uid,
                gid,
                mode: u32::from(volume.mode.unwrap_or(mode)),
                enforce: volume.owner.is_some() || volume.mode.is_some(),
                read_only: volume.read_only,
                project: project_id(&volume.name),
                size: size_of_volume(spec, &volume.name),
            })
        };
        workload.volumes.iter().map(volume).collect()
    }

    /// The user that a text of the file names.
    fn named_user(&self, text: &Text, image: &Image) -> Result<User, Failure> {
        resolve_user(image, text.get_ref()).map_err(|error| {
            let message = format!("{:#}", anyhow::Error::new(error));
            self.file.mistake(Diagnostic::at(text.span(), message))
        })
    }
}

/// What any workload says of the volume's size: those that share it need not repeat it.
fn size_of_volume(spec: &Spec, name: &str) -> Option<u64> {
    let volumes = spec.workloads.iter().flat_map(|w| &w.volumes);
    volumes.filter(|v| v.name == name).find_map(|v| v.size)
}

/// A secret belongs to the user that the workload starts as. It lies on a tmpfs, whose ids no mount maps on every
/// kernel, so its owner is who that user is on the machine.
fn secrets(workload: &Workload, user: &User) -> Vec<BootSecret> {
    let secret = |secret: &config::spec::Secret| BootSecret {
        name: secret.name.clone(),
        uid: workload.first_id.unwrap_or(0) + user.uid,
        gid: workload.first_id.unwrap_or(0) + user.gid,
        mode: secret.mode.into(),
        optional: secret.optional,
    };
    workload.secrets.iter().map(secret).collect()
}

/// An optional secret that has not come leaves a link to nothing.
fn link_to_secret(secret: &config::spec::Secret) -> Option<File> {
    Some(File {
        path: secret.path.clone()?,
        content: FileContent::Link(format!("{SECRETS_PATH}/{}", secret.name)),
        mode: 0o777,
    })
}
