//! What the runtime opens before the container's process exists: sources of bind mounts that a mapped root could not
//! reach, the root (of an overlay see `overlay`), and mounts whose ids are mapped, which takes privilege over the filesystem.
//!
//! The results are detached mounts; the container's process inherits the descriptors and attaches them. Refuses to
//! resolve anything inside the container's root: that is `tree`'s.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::mount::rootfs::{self, Root};
use crate::mount::{Mount, Source, open_bind, overlay};
use crate::spec::IdMapping;
use crate::sys;

/// Whose ids a mount's are mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapping {
    /// Given in the document.
    Ids {
        /// User ids.
        uid: Vec<IdMapping>,
        /// Group ids.
        gid: Vec<IdMapping>,
    },
    /// Those of an existing user namespace.
    Namespace(PathBuf),
}

/// How the ids of a mount are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// To what.
    pub mapping: Mapping,
    /// Whether the mounts below are mapped too.
    pub recursive: bool,
}

/// Detached mounts for the container's process, opened with the runtime's own privilege.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The root.
    pub(crate) root: Option<OwnedFd>,
    /// One for each entry of `mounts`, or none at all.
    mounts: Vec<Option<OwnedFd>>,
}

impl Sources {
    /// Opens what the container's process could not. With `mapped`, that process is in another user
    /// namespace, or in a mount namespace that may know other paths.
    ///
    /// Must be called in the mount namespace of the caller, before the process is made.
    pub(crate) fn open(root: &Root, mounts: &[Mount], cwd: &Path, mapped: bool) -> Result<Self> {
        if !mapped && mounts.iter().all(|mount| mount.id_map.is_none()) {
            return Ok(Self::default());
        }
        let mut namespaces = Vec::new();
        let propagation = rootfs::host_propagation(root, mounts);
        let opened = mounts
            .iter()
            .map(|mount| open_one(mount, mapped, propagation, &mut namespaces))
            .collect::<Result<_>>()?;
        let root = match &root.source {
            _ if !mapped => None,
            rootfs::Source::Directory => Some(open_apart(&root.path, true, propagation)?),
            rootfs::Source::Overlay(layers) => {
                let mapping = layers.id_map.as_ref().ok_or_else(no_mapping)?;
                let namespace = namespace_of(mapping, &mut namespaces)?;
                Some(match layers.single(mounts, cwd) {
                    Some(only) => overlay::open_mapped(only, namespace)?,
                    None => overlay::make_apart(&root.path, layers, namespace)?,
                })
            }
        };
        Ok(Self {
            root,
            mounts: opened,
        })
    }

    /// The mount that was opened for the entry of this number.
    pub(crate) fn take(&mut self, number: usize) -> Option<OwnedFd> {
        self.mounts.get_mut(number).and_then(Option::take)
    }
}

fn open_one<'a>(
    mount: &'a Mount,
    mapped: bool,
    propagation: Option<u64>,
    namespaces: &mut Vec<(&'a Mapping, OwnedFd)>,
) -> Result<Option<OwnedFd>> {
    let Source::Bind(path) = &mount.source else {
        return Ok(None);
    };
    if !mapped && mount.id_map.is_none() {
        return Ok(None);
    }
    let opened = open_apart(path, mount.options.bind == Some(true), propagation)?;
    if let Some(map) = &mount.id_map {
        let namespace = namespace_of(&map.mapping, namespaces)?;
        sys::mount_idmap(opened.as_fd(), map.recursive, namespace)
            .at("map the ids of mount source", path)?;
    }
    Ok(Some(opened))
}

/// The mounts of the caller's namespace may be shared with others: what the container mounts below must not appear
/// there.
fn open_apart(path: &Path, recursive: bool, propagation: Option<u64>) -> Result<OwnedFd> {
    let opened = open_bind(path, recursive)?;
    if let Some(flag) = propagation {
        sys::mount_setattr(opened.as_fd(), true, 0, 0, flag)
            .at("set propagation of source", path)?;
    }
    Ok(opened)
}

/// One namespace serves all mounts with the same mapping.
fn namespace_of<'a, 'b>(
    mapping: &'a Mapping,
    known: &'b mut Vec<(&'a Mapping, OwnedFd)>,
) -> Result<BorrowedFd<'b>> {
    let position = known.iter().position(|(other, _)| *other == mapping);
    let number = match position {
        Some(number) => number,
        None => {
            known.push((mapping, open_namespace(mapping)?));
            known.len() - 1
        }
    };
    Ok(known[number].1.as_fd())
}

fn open_namespace(mapping: &Mapping) -> Result<OwnedFd> {
    match mapping {
        Mapping::Namespace(path) => File::open(path)
            .map(OwnedFd::from)
            .at("open namespace", path),
        Mapping::Ids { uid, gid } => {
            let idle = sys::idle_in_user_namespace().during("make a user namespace")?;
            let directory = format!("/proc/{}", idle.pid());
            for (name, ids) in [("uid_map", uid), ("gid_map", gid)] {
                let path = format!("{directory}/{name}");
                std::fs::write(&path, table(ids)?).at("write", path)?;
            }
            let path = format!("{directory}/ns/user");
            File::open(&path)
                .map(OwnedFd::from)
                .at("open namespace", path)
        }
    }
}

/// As `uid_map` wants it (user_namespaces(7)).
fn table(ids: &[IdMapping]) -> Result<String> {
    if ids.is_empty() {
        return Err(no_mapping());
    }
    let line = |id: &IdMapping| format!("{} {} {}\n", id.container_id, id.host_id, id.size);
    Ok(ids.iter().map(line).collect())
}

fn no_mapping() -> Error {
    Error::Config("a user namespace without uidMappings and gidMappings maps no mount".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_become_lines_and_none_are_refused() {
        let mapping = |container_id, host_id, size| IdMapping {
            container_id,
            host_id,
            size,
        };
        let ids = [mapping(0, 100_000, 1000), mapping(1000, 5, 1)];
        assert_eq!(table(&ids).expect("valid"), "0 100000 1000\n1000 5 1\n");
        assert!(table(&[]).is_err());
    }
}
