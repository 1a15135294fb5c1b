//! Images in registries, by the OCI distribution specification 1.1.
//!
//! `resolve` asks what a reference means now, `pull` brings what a digest names: the manifest, the configuration and
//! the layers land in the cache by their digests, checked while they come, and are read from there like an image in a
//! file. What is in the cache already is not asked for. Refused by name: manifests of schema 1, indexes without
//! linux/amd64, documents that are index and manifest at once, anything whose digest or size is another.
//!
//! `ureq` is the HTTP client, with rustls and ring. The ready client of registries in Rust, `oci-client`, reads
//! answers of any length into memory, keeps no `Retry-After` and hides the redirects, and all of that would have to be
//! done around it, in an asynchronous runtime that nothing else here needs.

mod address;
mod challenge;
mod client;
mod credentials;
mod download;
mod error;
mod manifest;
mod signatures;
mod timing;
mod web;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use config::registry::Reference;

use super::cache::{Cache, CacheKind};
use super::image::Image;
use super::oci::{self, JSON_CAP, sha256_hex};
use super::store::Store;
use crate::progress::Progress;
use client::{Ask, Repository};
pub use credentials::LoginFiles;
use download::Wanted;
pub use error::RegistryError;
use manifest::Document;
pub use timing::Timing;
pub use web::Host;
use web::Web;

/// The most bytes of an index or a manifest; the specification asks registries for 4 MiB at least.
const MANIFEST_CAP: u64 = 4 << 20;
/// How many layers come at once.
const PARALLEL: usize = 4;
/// The platform of every image.
pub const PLATFORM: &str = "linux/amd64";

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Waits and tries.
    pub timing: Timing,
    /// Where logins are looked for.
    pub logins: LoginFiles,
    /// What the file says of some, by `HOST[:PORT]`.
    pub hosts: HashMap<String, Host>,
}

/// What a reference means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The index that the reference names, `sha256:HEX`, if it is one.
    pub index: Option<String>,
    /// The manifest of our platform, `sha256:HEX`.
    pub manifest: String,
}

/// All registries of a build.
#[derive(Debug)]
pub struct Registries<'a> {
    settings: Settings,
    web: Web,
    cache: &'a Cache,
    progress: &'a Progress,
}

impl<'a> Registries<'a> {
    /// Nothing is connected to yet.
    pub fn new(settings: Settings, cache: &'a Cache, progress: &'a Progress) -> Self {
        download::remove_stale(cache);
        Self {
            web: Web::new(settings.timing, settings.hosts.clone()),
            settings,
            cache,
            progress,
        }
    }

    fn note(&self, text: String) {
        self.progress.note(text);
    }

    fn repository<'b>(&'b self, reference: &Reference) -> Repository<'b> {
        Repository::new(self, &reference.registry, &reference.repository)
    }

    /// What a reference means: a digest is looked up in the cache first, a tag is asked for.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        let repository = self.repository(reference);
        let _step = self.progress.step(format!("asking for {reference}"), None);
        let (digest, document) = match &reference.digest {
            Some(digest) => (digest.clone(), self.document(&repository, digest, None)?),
            None => self.tagged(&repository, reference.wanted())?,
        };
        self.follow(&repository, digest, document)
    }

    /// The manifest of our platform in an index, by digest; from the cache, if it is there.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn manifest_of(&self, reference: &Reference, index: &str) -> Result<String, RegistryError> {
        let repository = self.repository(reference);
        let document = self.document(&repository, index, None)?;
        let resolved = self.follow(&repository, index.to_owned(), document)?;
        Ok(resolved.manifest)
    }

    /// From an index to the manifest of our platform.
    fn follow(
        &self,
        repository: &Repository<'_>,
        digest: String,
        document: Document,
    ) -> Result<Resolved, RegistryError> {
        let mut index = None;
        let (mut at, mut document) = (digest.clone(), document);
        for _ in 0..manifest::INDEX_DEPTH {
            let descriptors = match document {
                Document::Manifest => {
                    return Ok(Resolved {
                        index,
                        manifest: at,
                    });
                }
                Document::Index(descriptors) => descriptors,
            };
            index = Some(digest.clone());
            let chosen = manifest::choose(descriptors)?;
            document = self.document(repository, &chosen.digest, Some(chosen.size))?;
            at = chosen.digest;
        }
        Err(RegistryError::Document {
            host: repository.host().to_owned(),
            what: format!("the index {digest}"),
            reason: "its indexes are nested too deeply".to_owned(),
        })
    }

    /// The image that a manifest's digest names.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn pull(&self, reference: &Reference, manifest: &str) -> Result<Image, RegistryError> {
        let repository = self.repository(reference);
        let bytes = self.bytes(&repository, manifest, None)?;
        let origin = PathBuf::from(reference.to_string());
        let store = Store::cached(origin, self.cache.clone());
        let broken = |error| RegistryError::Image(Box::new(error));
        let parts = oci::parts(&store, manifest, &bytes).map_err(broken)?;
        let config = wanted(&repository, &parts.config.digest, parts.config.size)?;
        if config.size > JSON_CAP {
            return Err(RegistryError::TooLong {
                host: repository.host().to_owned(),
                what: parts.config.digest,
                cap: JSON_CAP,
            });
        }
        let silent = Progress::silent().step("", None);
        download::fetch(&repository, &config, self.cache, &silent)?;
        let diff_ids = oci::diff_ids(&store, &parts).map_err(broken)?;
        let mut missing = VecDeque::new();
        for (layer, diff_id) in parts.layers.iter().zip(&diff_ids) {
            let layer = wanted(&repository, &layer.digest, layer.size)?;
            if self.cache.get(CacheKind::Layer, diff_id).is_none() && !missing.contains(&layer) {
                missing.push_back(layer);
            }
        }
        self.download(&repository, missing)?;
        oci::assemble(&store, manifest, &parts, self.cache, self.progress).map_err(broken)
    }

    /// Several at once, each with its own bar; the first failure ends the others after what they are at.
    fn download(
        &self,
        repository: &Repository<'_>,
        missing: VecDeque<Wanted>,
    ) -> Result<(), RegistryError> {
        let workers = PARALLEL.min(missing.len());
        let queue = Mutex::new(missing);
        let failure = Mutex::new(None);
        let next = || {
            let failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
            let failed: &Option<RegistryError> = &failed;
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.pop_front().filter(|_| failed.is_none())
        };
        let work = || {
            while let Some(wanted) = next() {
                let what = format!("downloading {}", &wanted.hex[..12]);
                let step = self.progress.step(what, Some(wanted.size));
                if let Err(error) = download::fetch(repository, &wanted, self.cache, &step) {
                    let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// What a tag names now, and its digest; it lands in the cache.
    fn tagged(
        &self,
        repository: &Repository<'_>,
        tag: &str,
    ) -> Result<(String, Document), RegistryError> {
        let (bytes, promised) = repository.insist(|_| {
            let answer = repository.ask(Ask {
                path: &format!("manifests/{tag}"),
                accept: manifest::ACCEPT,
                from: 0,
            })?;
            let promised = answer.header("Docker-Content-Digest").map(str::to_owned);
            Ok((
                answer.read(&format!("the manifest of {tag}"), MANIFEST_CAP)?,
                promised,
            ))
        })?;
        let digest = format!("sha256:{}", sha256(&bytes));
        match promised.filter(|text| text.starts_with("sha256:")) {
            Some(promised) if promised != digest => {
                return Err(RegistryError::WrongDigest {
                    host: repository.host().to_owned(),
                    what: error::cleaned(&promised),
                    found: digest,
                });
            }
            _ => {}
        }
        let document = Document::parse(repository.host(), &digest, &bytes)?;
        self.keep(&digest, &bytes)?;
        Ok((digest, document))
    }

    fn document(
        &self,
        repository: &Repository<'_>,
        digest: &str,
        size: Option<u64>,
    ) -> Result<Document, RegistryError> {
        let bytes = self.bytes(repository, digest, size)?;
        Document::parse(repository.host(), digest, &bytes)
    }

    /// An index or a manifest by its digest, from the cache or the registry.
    fn bytes(
        &self,
        repository: &Repository<'_>,
        digest: &str,
        size: Option<u64>,
    ) -> Result<Vec<u8>, RegistryError> {
        let wanted = wanted(repository, digest, size.unwrap_or_default())?;
        if let Some(path) = self.cache.get(CacheKind::Blob, &wanted.hex) {
            let read = super::error::FileError::of("read", &path);
            return Ok(std::fs::read(&path).map_err(read)?);
        }
        let bytes = repository.insist(|_| {
            let answer = repository.ask(Ask {
                path: &format!("manifests/{digest}"),
                accept: manifest::ACCEPT,
                from: 0,
            })?;
            answer.read(digest, size.unwrap_or(MANIFEST_CAP).min(MANIFEST_CAP))
        })?;
        let found = sha256(&bytes);
        if found != wanted.hex {
            return Err(RegistryError::WrongDigest {
                host: repository.host().to_owned(),
                what: digest.to_owned(),
                found: format!("sha256:{found}"),
            });
        }
        self.keep(digest, &bytes)?;
        Ok(bytes)
    }

    fn keep(&self, digest: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let hex = sha256_hex(digest).expect("it was computed or checked");
        self.cache.put(CacheKind::Blob, hex, |file| {
            let path = PathBuf::from(digest);
            let written = std::io::Write::write_all(file, bytes);
            written.map_err(super::error::FileError::of("write", &path))?;
            Ok::<_, RegistryError>(())
        })?;
        Ok(())
    }
}

fn wanted(repository: &Repository<'_>, digest: &str, size: u64) -> Result<Wanted, RegistryError> {
    match sha256_hex(digest) {
        Some(hex) => Ok(Wanted {
            hex: hex.to_owned(),
            size,
        }),
        None => Err(RegistryError::Document {
            host: repository.host().to_owned(),
            what: "a manifest".to_owned(),
            reason: format!("the digest {:?} is not supported", error::cleaned(digest)),
        }),
    }
}

fn sha256(bytes: &[u8]) -> String {
    super::blob::digest(bytes)
        .expect("memory is read without error")
        .0
}
