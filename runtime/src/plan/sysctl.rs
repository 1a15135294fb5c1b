//! `linux.sysctl`: only what belongs to a namespace of the container may be set.
//!
//! A namespace that is joined counts unless it is the caller's own, which the path does not tell: so that one thing
//! is looked up.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::Namespaces;
use crate::error::{Error, Result};

/// Which namespace a parameter belongs to, by its beginning; an entry that ends with a slash covers all below.
const NAMESPACED: &[(&str, i32)] = &[
    ("kernel/msgmax", libc::CLONE_NEWIPC),
    ("kernel/msgmnb", libc::CLONE_NEWIPC),
    ("kernel/msgmni", libc::CLONE_NEWIPC),
    ("kernel/sem", libc::CLONE_NEWIPC),
    ("kernel/shmall", libc::CLONE_NEWIPC),
    ("kernel/shmmax", libc::CLONE_NEWIPC),
    ("kernel/shmmni", libc::CLONE_NEWIPC),
    ("kernel/shm_rmid_forced", libc::CLONE_NEWIPC),
    ("fs/mqueue/", libc::CLONE_NEWIPC),
    ("net/", libc::CLONE_NEWNET),
    ("kernel/domainname", libc::CLONE_NEWUTS),
];

/// Parameters as files relative to /proc/sys.
pub(super) fn resolve(
    list: &BTreeMap<String, String>,
    namespaces: &Namespaces,
) -> Result<Vec<(PathBuf, String)>> {
    let is_apart = |flag: i32| {
        namespaces.new & flag != 0
            || namespaces
                .join
                .iter()
                .any(|(joined, path)| *joined == flag && !is_callers(flag, path))
    };
    list.iter()
        .map(|(key, value)| Ok((file(key, is_apart)?, value.clone())))
        .collect()
}

/// Whether the namespace at `path` is that of this process. What cannot be opened fails when it is joined.
fn is_callers(flag: i32, path: &Path) -> bool {
    let own = match flag {
        libc::CLONE_NEWIPC => "/proc/self/ns/ipc",
        libc::CLONE_NEWNET => "/proc/self/ns/net",
        _ => "/proc/self/ns/uts",
    };
    match (std::fs::metadata(path), std::fs::metadata(own)) {
        (Ok(theirs), Ok(own)) => (theirs.dev(), theirs.ino()) == (own.dev(), own.ino()),
        _ => false,
    }
}

/// As sysctl(8): if the first separator is a slash, dots are part of names; else dots separate.
fn file(key: &str, is_apart: impl Fn(i32) -> bool) -> Result<PathBuf> {
    let slashes = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key.to_owned(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    };
    let plain = !slashes.contains("//")
        && Path::new(&slashes)
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
    let covers = |prefix: &str| {
        if prefix.ends_with('/') {
            slashes.starts_with(prefix)
        } else {
            slashes == prefix
        }
    };
    let namespaced = NAMESPACED
        .iter()
        .any(|&(prefix, flag)| covers(prefix) && is_apart(flag));
    if plain && namespaced && !slashes.contains('\0') {
        Ok(PathBuf::from(slashes))
    } else {
        Err(Error::Config(format!(
            "linux.sysctl: {key:?} does not belong to a namespace of the container"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_own_namespaces_are_allowed() {
        let is_apart = |flag| matches!(flag, libc::CLONE_NEWIPC | libc::CLONE_NEWNET);
        for (key, expected) in [
            ("kernel.msgmax", Some("kernel/msgmax")),
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                Some("net/ipv4/conf/eth0.1/forwarding"),
            ),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                Some("net/ipv4/conf/eth0.1/forwarding"),
            ),
            ("kernel.domainname", None),
            ("kernel.core_pattern", None),
            ("kernel.msgmax.x", None),
            ("net/../kernel/core_pattern", None),
            ("net.ipv4.//.//.x", None),
            ("fs.mqueue.../.../kernel/core_pattern", None),
            ("vm.swappiness", None),
        ] {
            assert_eq!(
                file(key, is_apart).ok(),
                expected.map(PathBuf::from),
                "{key}"
            );
        }
    }

    #[test]
    fn joining_the_callers_own_namespace_allows_nothing() {
        let own = Path::new("/proc/self/ns/net");
        let namespaces = Namespaces {
            join: vec![(libc::CLONE_NEWNET, own.into())],
            ..Namespaces::default()
        };
        let asked = [("net.ipv4.ip_forward".to_owned(), "1".to_owned())];
        assert!(resolve(&asked.into(), &namespaces).is_err());
        assert!(!is_callers(libc::CLONE_NEWNET, Path::new("/not/there")));
    }
}
