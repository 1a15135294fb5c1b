//! `linux.namespaces`: which to make, which to join.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::spec::Namespace;

/// The namespaces of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// `CLONE_NEW*` of those to make, the cgroup namespace included.
    pub new: i32,
    /// `CLONE_NEW*` and path of those to join.
    pub join: Vec<(i32, PathBuf)>,
}

impl Namespaces {
    /// Refuses a type named twice, unknown types, and what is not supported yet.
    pub(super) fn resolve(list: &[Namespace]) -> Result<Self> {
        let mut result = Self::default();
        for namespace in list {
            let flag = flag(&namespace.kind)?;
            if result.has(flag) {
                return Err(Error::Config(format!(
                    "linux.namespaces: {:?} twice",
                    namespace.kind
                )));
            }
            match &namespace.path {
                None => result.new |= flag,
                Some(path) if flag == libc::CLONE_NEWNS => {
                    return Err(Error::Unsupported(format!(
                        "joining the mount namespace {}",
                        path.display()
                    )));
                }
                Some(path) if path.is_absolute() => result.join.push((flag, path.clone())),
                Some(path) => {
                    return Err(Error::Config(format!(
                        "linux.namespaces: {} is not absolute",
                        path.display()
                    )));
                }
            }
        }
        if result.has(libc::CLONE_NEWNS) {
            Ok(result)
        } else {
            Err(Error::Unsupported(
                "a container without a mount namespace".into(),
            ))
        }
    }

    /// Whether the container does not share the caller's namespace of this type.
    pub fn has(&self, flag: i32) -> bool {
        self.new & flag != 0 || self.join.iter().any(|(joined, _)| *joined == flag)
    }
}

fn flag(kind: &str) -> Result<i32> {
    Ok(match kind {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "mount" => libc::CLONE_NEWNS,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "user" | "time" => return Err(Error::Unsupported(format!("{kind} namespaces"))),
        other => {
            return Err(Error::Config(format!(
                "linux.namespaces: unknown type {other:?}"
            )));
        }
    })
}
