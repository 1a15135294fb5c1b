//! `linux.namespaces`: which to make, which to join; and what belongs to them: id mappings and time offsets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::spec::{IdMapping, Linux, Namespace, TimeOffset};

/// The namespaces of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// `CLONE_NEW*` of those to make, the cgroup namespace included.
    pub new: i32,
    /// `CLONE_NEW*` and path of those to join.
    pub join: Vec<(i32, PathBuf)>,
    /// What `uid_map` of the new user namespace will be.
    pub uid_mappings: Vec<IdMapping>,
    /// What `gid_map` of the new user namespace will be.
    pub gid_mappings: Vec<IdMapping>,
    /// What is written to `timens_offsets` of the new time namespace; empty leaves the clocks alone.
    pub time_offsets: String,
}

impl Namespaces {
    /// Refuses a type named twice, unknown types, and mappings or offsets without the namespace they are for.
    pub(super) fn resolve(linux: &Linux) -> Result<Self> {
        let mut result = Self::list(&linux.namespaces)?;
        result.take_mappings(linux)?;
        result.time_offsets = time_offsets(&linux.time_offsets)?;
        if !result.time_offsets.is_empty() && result.new & libc::CLONE_NEWTIME == 0 {
            let text = "linux.timeOffsets need a new time namespace";
            return Err(Error::Config(text.into()));
        }
        Ok(result)
    }

    /// An id that has no mapping would be nobody's: the process could not even be started.
    pub(super) fn check_user(&self, uid: u32, gids: impl Iterator<Item = u32>) -> Result<()> {
        if self.new & libc::CLONE_NEWUSER == 0 {
            return Ok(());
        }
        for (mut ids, mappings, property) in [
            (
                Box::new([uid].into_iter()) as Box<dyn Iterator<Item = u32>>,
                &self.uid_mappings,
                "uid",
            ),
            (Box::new(gids) as Box<_>, &self.gid_mappings, "gid"),
        ] {
            if let Some(id) = ids.find(|&id| !is_mapped(mappings, id)) {
                return Err(Error::Config(format!(
                    "process.user: {id} is not in linux.{property}Mappings"
                )));
            }
        }
        Ok(())
    }

    fn list(list: &[Namespace]) -> Result<Self> {
        let mut result = Self::default();
        for namespace in list {
            let flag = flag(&namespace.kind)?;
            if result.has(flag) {
                return Err(Error::Config(format!(
                    "linux.namespaces: {:?} twice",
                    namespace.kind
                )));
            }
            match namespace
                .path
                .as_ref()
                .filter(|path| !path.as_os_str().is_empty())
            {
                None => result.new |= flag,
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

    fn take_mappings(&mut self, linux: &Linux) -> Result<()> {
        let own = self.new & libc::CLONE_NEWUSER != 0;
        for (name, mappings) in [
            ("uidMappings", &linux.uid_mappings),
            ("gidMappings", &linux.gid_mappings),
        ] {
            if own && mappings.is_empty() {
                return Err(Error::Config(format!(
                    "linux.{name} are required for a new user namespace"
                )));
            }
            // Engines repeat the mappings beside a namespace to join, which has its own.
            if !self.has(libc::CLONE_NEWUSER) && !mappings.is_empty() {
                return Err(Error::Config(format!("linux.{name} need a user namespace")));
            }
            if mappings.iter().any(|mapping| mapping.size == 0) {
                return Err(Error::Config(format!("linux.{name}: a size of 0")));
            }
        }
        if own {
            self.uid_mappings.clone_from(&linux.uid_mappings);
            self.gid_mappings.clone_from(&linux.gid_mappings);
        }
        Ok(())
    }

    /// The path of the mount namespace, if that is to be joined.
    pub fn joined_mounts(&self) -> Option<&Path> {
        let mut joined = self.join.iter();
        let found = joined.find(|(flag, _)| *flag == libc::CLONE_NEWNS);
        found.map(|(_, path)| path.as_path())
    }

    /// Whether the container does not share the caller's namespace of this type.
    pub fn has(&self, flag: i32) -> bool {
        self.new & flag != 0 || self.join.iter().any(|(joined, _)| *joined == flag)
    }
}

fn is_mapped(mappings: &[IdMapping], id: u32) -> bool {
    mappings.iter().any(|mapping| {
        id.checked_sub(mapping.container_id)
            .is_some_and(|offset| offset < mapping.size)
    })
}

/// time_namespaces(7): a line for each clock.
fn time_offsets(offsets: &BTreeMap<String, TimeOffset>) -> Result<String> {
    let mut text = String::new();
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") || offset.nanosecs >= 1_000_000_000 {
            return Err(Error::Config(format!(
                "linux.timeOffsets: {clock:?} with {} ns",
                offset.nanosecs
            )));
        }
        text.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    Ok(text)
}

fn flag(kind: &str) -> Result<i32> {
    Ok(match kind {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "mount" => libc::CLONE_NEWNS,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "user" => libc::CLONE_NEWUSER,
        "time" => libc::CLONE_NEWTIME,
        other => {
            return Err(Error::Config(format!(
                "linux.namespaces: unknown type {other:?}"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn resolve(linux: Value) -> Result<Namespaces> {
        Namespaces::resolve(&serde_json::from_value(linux).expect("well formed"))
    }

    fn of(types: &[&str]) -> Value {
        types.iter().map(|kind| json!({ "type": kind })).collect()
    }

    #[test]
    fn mappings_and_offsets_belong_to_new_namespaces() {
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
        let user = of(&["mount", "user"]);
        let joined = json!([{ "type": "mount" }, { "type": "user", "path": "/x" }]);
        let offset = json!({ "monotonic": { "secs": -5, "nanosecs": 1 } });
        for (linux, good) in [
            (
                json!({ "namespaces": user, "uidMappings": map, "gidMappings": map }),
                true,
            ),
            (json!({ "namespaces": user, "uidMappings": map }), false),
            (
                json!({ "namespaces": of(&["mount"]), "uidMappings": map }),
                false,
            ),
            (json!({ "namespaces": joined, "uidMappings": map }), true),
            (
                json!({ "namespaces": of(&["mount", "time"]), "timeOffsets": offset }),
                true,
            ),
            (
                json!({ "namespaces": of(&["mount"]), "timeOffsets": offset }),
                false,
            ),
            (
                json!({ "namespaces": of(&["mount", "time"]), "timeOffsets": { "realtime": {} } }),
                false,
            ),
        ] {
            assert_eq!(resolve(linux.clone()).is_ok(), good, "{linux}");
        }
        let linux = json!({ "namespaces": of(&["mount", "time"]), "timeOffsets": offset });
        assert_eq!(
            resolve(linux).expect("valid").time_offsets,
            "monotonic -5 1\n"
        );
    }

    #[test]
    fn only_mapped_ids_can_be_the_process() {
        let map = json!([{ "containerID": 1, "hostID": 1000, "size": 10 }]);
        let user = of(&["mount", "user"]);
        let linux = json!({ "namespaces": user, "uidMappings": map, "gidMappings": map });
        let namespaces = resolve(linux).expect("valid");
        for (uid, gid, good) in [(1, 10, true), (0, 1, false), (1, 11, false), (11, 1, false)] {
            let checked = namespaces.check_user(uid, [gid].into_iter());
            assert_eq!(checked.is_ok(), good, "{uid}:{gid}");
        }
    }
}
