//! Which kernel modules are needed for those that are wanted, in load order, from the modules' own `.modinfo`.
//!
//! Only files that are asked for are opened, by name; what was read of a package's modules is kept in the cache.
//! A missing module is an error with the name of who needs it; what is built in is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};

use super::blob::Compression;
use super::cache::{Cache, CacheError, CacheKind};
use super::error::FileError;
use super::image::read_content;
use super::kernel::{Kernel, ModuleFile};
use crate::tree::Content;

const MODULE_CAP: u64 = 256 << 20;

/// Where a softdep that is no module's name is looked for as an alias: algorithms of the kernel's crypto API.
const ALIAS_DIRECTORIES: [&str; 3] = ["kernel/crypto/", "kernel/arch/x86/crypto/", "kernel/lib/"];

/// Why modules could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The kernel has no such module.
    #[error("the kernel {release} has no module {module}, {need}")]
    Missing {
        /// The kernel's release.
        release: String,
        /// The module's name.
        module: String,
        /// Who needs it: `which ext4 depends on` or `which the image needs`.
        need: String,
    },
    /// A module's file is broken.
    #[error("the kernel {release} has a broken module {path}: {reason}")]
    Broken {
        /// The kernel's release.
        release: String,
        /// The module's file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Modules depend on each other.
    #[error("the kernel {release} has modules that depend on each other: {modules}")]
    Cycle {
        /// The kernel's release.
        release: String,
        /// Their names.
        modules: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A module to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name as `/proc/modules` shows it.
    pub name: String,
    /// Its file's name, without directories.
    pub file_name: String,
    /// The file as the kernel's package has it.
    pub content: Content,
}

/// A module that is loaded on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// Its name.
    pub name: String,
    /// The devices that it says it drives, as patterns of their `modalias`.
    pub aliases: Vec<String>,
    /// All it depends on, in load order, and itself at the end; nothing if it is built in.
    pub modules: Vec<Module>,
}

/// What a module says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Modinfo {
    depends: Vec<String>,
    soft: Vec<String>,
    /// Names that stand for it.
    aliases: Vec<String>,
    /// Patterns of devices that it drives.
    devices: Vec<String>,
}

/// The wanted modules and all they depend on, dependencies first, each once.
///
/// # Errors
/// [`ModuleError`].
pub fn resolve(
    kernel: &Kernel,
    wanted: &[&str],
    cache: &Cache,
) -> Result<Vec<Module>, ModuleError> {
    let mut resolver = Resolver::new(kernel, cache);
    for name in wanted {
        resolver.add(&normal(name), false)?;
    }
    resolver.save(cache)?;
    Ok(resolver.order)
}

/// For each name, the module and all it depends on, by itself.
///
/// # Errors
/// [`ModuleError`].
pub fn closures(
    kernel: &Kernel,
    names: &BTreeSet<String>,
    cache: &Cache,
) -> Result<Vec<Closure>, ModuleError> {
    let mut resolver = Resolver::new(kernel, cache);
    let mut closures = Vec::new();
    for name in names {
        resolver.add(name, false)?;
        resolver.done.clear();
        let modules = std::mem::take(&mut resolver.order);
        let aliases = match modules.last() {
            Some(_) => resolver.info(name)?.devices,
            None => Vec::new(),
        };
        closures.push(Closure {
            name: name.clone(),
            aliases,
            modules,
        });
    }
    resolver.save(cache)?;
    Ok(closures)
}

/// A module's name as the kernel has it.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

struct Resolver<'a> {
    kernel: &'a Kernel,
    known: BTreeMap<String, Modinfo>,
    learned: bool,
    done: BTreeSet<String>,
    /// The modules whose dependencies are being added.
    way: Vec<String>,
    order: Vec<Module>,
}

impl<'a> Resolver<'a> {
    fn new(kernel: &'a Kernel, cache: &Cache) -> Self {
        Self {
            kernel,
            known: load_known(kernel, cache),
            learned: false,
            done: BTreeSet::new(),
            way: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Keeps what was read of the modules for the next build.
    fn save(&self, cache: &Cache) -> Result<(), ModuleError> {
        if self.learned {
            save_known(self.kernel, cache, &self.known)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, soft: bool) -> Result<(), ModuleError> {
        let modules = &self.kernel.modules;
        let name = match modules.files.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None if modules.builtin.contains(name) => return Ok(()),
            None if soft => match self.find_alias(name)? {
                Some(name) => name,
                None => return Ok(()), // soft dependencies may be missing (modprobe.d(5))
            },
            None => return Err(self.missing(name)),
        };
        if self.done.contains(&name) {
            return Ok(());
        }
        if self.way.contains(&name) {
            if soft {
                return Ok(());
            }
            return Err(ModuleError::Cycle {
                release: self.kernel.release.clone(),
                modules: self.way.join(", "),
            });
        }
        let info = self.info(&name)?;
        self.way.push(name.clone());
        for dependency in &info.soft {
            self.add(dependency, true)?;
        }
        for dependency in &info.depends {
            self.add(dependency, false)?;
        }
        self.way.pop();
        let file = &self.kernel.modules.files[&name];
        let file_name = file.path.rsplit('/').next().unwrap_or(&file.path);
        self.order.push(Module {
            file_name: file_name.to_owned(),
            content: file.content.clone(),
            name: name.clone(),
        });
        self.done.insert(name);
        Ok(())
    }

    fn missing(&self, name: &str) -> ModuleError {
        ModuleError::Missing {
            release: self.kernel.release.clone(),
            module: name.to_owned(),
            need: match self.way.last() {
                Some(by) => format!("which {by} depends on"),
                None => "which the image needs".to_owned(),
            },
        }
    }

    /// The module that has the name as an alias; the generic one of several, it runs on every processor.
    fn find_alias(&mut self, alias: &str) -> Result<Option<String>, ModuleError> {
        let candidates: Vec<String> = self
            .kernel
            .modules
            .files
            .iter()
            .filter(|(_, file)| ALIAS_DIRECTORIES.iter().any(|d| file.path.starts_with(d)))
            .map(|(name, _)| name.clone())
            .collect();
        let mut found = Vec::new();
        for name in candidates {
            if self.info(&name)?.aliases.iter().any(|a| a == alias) {
                found.push(name);
            }
        }
        let generic = found.iter().find(|name| name.ends_with("_generic"));
        Ok(generic.or(found.first()).cloned())
    }

    fn info(&mut self, name: &str) -> Result<Modinfo, ModuleError> {
        if let Some(info) = self.known.get(name) {
            return Ok(info.clone());
        }
        let file = &self.kernel.modules.files[name];
        let info = read_modinfo(file).map_err(|error| match error {
            ReadError::File(error) => error.into(),
            ReadError::Broken(reason) => ModuleError::Broken {
                release: self.kernel.release.clone(),
                path: file.path.clone(),
                reason,
            },
        })?;
        self.learned = true;
        self.known.insert(name.to_owned(), info.clone());
        Ok(info)
    }
}

enum ReadError {
    File(FileError),
    Broken(String),
}

fn read_modinfo(file: &ModuleFile) -> Result<Modinfo, ReadError> {
    let broken = |reason: &dyn std::fmt::Display| ReadError::Broken(reason.to_string());
    if file.content.len() > MODULE_CAP {
        return Err(broken(&"it is too large"));
    }
    let raw = read_content(&file.content).map_err(ReadError::File)?;
    let mut bytes = Vec::new();
    Compression::sniff(&raw)
        .reader(&raw[..])
        .take(MODULE_CAP)
        .read_to_end(&mut bytes)
        .map_err(|e| broken(&e))?;
    let elf = ElfFile64::<object::Endianness>::parse(&*bytes).map_err(|e| broken(&e))?;
    let section = elf.section_by_name(".modinfo");
    let section = section.ok_or_else(|| broken(&"it has no .modinfo"))?;
    Ok(parse_modinfo(section.data().map_err(|e| broken(&e))?))
}

/// NUL-separated `KEY=VALUE`.
fn parse_modinfo(bytes: &[u8]) -> Modinfo {
    let mut info = Modinfo::default();
    for record in bytes.split(|b| *b == 0) {
        let record = String::from_utf8_lossy(record);
        match record.split_once('=') {
            Some(("depends", list)) => {
                let names = list.split(',').map(str::trim).filter(|n| !n.is_empty());
                info.depends.extend(names.map(normal));
            }
            Some(("softdep", text)) => {
                let mut pre = false;
                for word in text.split_whitespace() {
                    match word {
                        "pre:" => pre = true,
                        "post:" => pre = false,
                        _ if pre => info.soft.push(normal(word)),
                        _ => {}
                    }
                }
            }
            Some(("alias", alias)) if alias.contains(char::is_whitespace) => {}
            Some(("alias", alias)) if alias.contains(['*', ':']) => {
                info.devices.push(alias.to_owned());
            }
            Some(("alias", alias)) => info.aliases.push(normal(alias)),
            _ => {}
        }
    }
    info
}

/// What earlier builds read of this package's modules; anything unreadable is read anew.
fn load_known(kernel: &Kernel, cache: &Cache) -> BTreeMap<String, Modinfo> {
    let digest = kernel.package.as_ref().map(|pin| &pin.sha256);
    digest
        .and_then(|digest| cache.get(CacheKind::Modinfo, digest))
        .and_then(|path| fs::read(path).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

fn save_known(
    kernel: &Kernel,
    cache: &Cache,
    known: &BTreeMap<String, Modinfo>,
) -> Result<(), ModuleError> {
    let Some(digest) = kernel.package.as_ref().map(|pin| &pin.sha256) else {
        return Ok(());
    };
    let json = serde_json::to_vec(known).expect("strings are JSON");
    cache.put(CacheKind::Modinfo, digest, |file| {
        file.write_all(&json)
            .map_err(FileError::of("write in", cache.root()))
            .map_err(CacheError::from)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kernel::ModuleTree;
    use std::sync::Arc;

    /// The smallest ELF that has a `.modinfo`: header, the section's bytes, names, three section headers.
    fn elf(modinfo: &str) -> Content {
        let info = modinfo.as_bytes();
        let names = b"\0.modinfo\0.shstrtab\0";
        let table = 64 + info.len() + names.len();
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        let half = |bytes: &mut Vec<u8>, values: &[u16]| {
            values
                .iter()
                .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
        };
        half(&mut bytes, &[1, 62, 1, 0]);
        for value in [0, 0, table as u64] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        half(&mut bytes, &[0, 0, 64, 0, 0, 64, 3, 2]);
        bytes.extend_from_slice(info);
        bytes.extend_from_slice(names);
        bytes.resize(bytes.len() + 64, 0);
        for (name, kind, offset, len) in [
            (1u32, 1u32, 64, info.len()),
            (10, 3, 64 + info.len(), names.len()),
        ] {
            bytes.extend_from_slice(&name.to_le_bytes());
            bytes.extend_from_slice(&kind.to_le_bytes());
            for value in [0, 0, offset as u64, len as u64, 0, 1, 0] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        Content::Bytes(Arc::from(bytes))
    }

    fn kernel(modules: &[(&str, &str)], builtin: &[&str]) -> Kernel {
        let files = modules.iter().map(|(path, info)| {
            let file = ModuleFile {
                path: (*path).to_owned(),
                content: elf(info),
            };
            (super::super::kernel::module_name(path).unwrap(), file)
        });
        Kernel {
            release: "6.99".into(),
            image: Content::Bytes(Arc::from(&b""[..])),
            config: None,
            modules: ModuleTree {
                files: files.collect(),
                builtin: builtin.iter().map(|b| (*b).to_owned()).collect(),
            },
            package: None,
        }
    }

    fn names(kernel: &Kernel, wanted: &[&str]) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        resolve(kernel, wanted, &cache)
            .map(|modules| modules.into_iter().map(|m| m.name).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let kernel = kernel(
            &[
                (
                    "kernel/fs/ext4.ko",
                    "license=GPL\0softdep=pre: crc32c post: x\0depends=jbd2,mb-cache,built\0",
                ),
                ("kernel/fs/jbd2.ko", "depends=mb_cache\0"),
                ("kernel/fs/mb-cache.ko", "depends=\0"),
                (
                    "kernel/crypto/crc32c_generic.ko",
                    "alias=crypto-crc32c\0alias=crc32c\0",
                ),
                ("kernel/arch/x86/crypto/crc32c-intel.ko", "alias=crc32c\0"),
            ],
            &["built", "loop"],
        );
        assert_eq!(
            names(&kernel, &["ext4", "jbd2", "loop"]).unwrap(),
            ["crc32c_generic", "mb_cache", "jbd2", "ext4"]
        );
    }

    #[test]
    fn missing_modules_are_told_with_who_needs_them() {
        let kernel = kernel(
            &[
                ("a.ko", "depends=gone\0"),
                ("b.ko", "softdep=pre: nothing\0"),
                ("c.ko", "depends=d\0"),
                ("d.ko", "depends=c\0"),
            ],
            &[],
        );
        let error = names(&kernel, &["a"]).unwrap_err();
        assert_eq!(
            error,
            "the kernel 6.99 has no module gone, which a depends on"
        );
        let error = names(&kernel, &["dm-verity"]).unwrap_err();
        assert!(error.contains("no module dm_verity, which the image needs"));
        assert_eq!(names(&kernel, &["b"]).unwrap(), ["b"]);
        assert!(names(&kernel, &["c"]).unwrap_err().contains("c, d"));
    }

    #[test]
    fn broken_modules_are_refused() {
        let mut kernel = kernel(&[("kernel/a.ko", "depends=\0")], &[]);
        let Content::Bytes(whole) = kernel.modules.files["a"].content.clone() else {
            panic!("bytes")
        };
        for cut in 0..whole.len() {
            let file = kernel.modules.files.get_mut("a").unwrap();
            file.content = Content::Bytes(Arc::from(&whole[..cut]));
            let error = names(&kernel, &["a"]).unwrap_err();
            assert!(error.contains("broken module kernel/a.ko"), "{error}");
        }
    }
}
