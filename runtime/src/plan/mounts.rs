//! `mounts`, and the device nodes that go with them.

use std::path::Path;

use super::Namespaces;
use crate::error::{Error, Result};
use crate::mount::devices::{self, Device};
use crate::mount::idmap::{IdMap, Mapping};
use crate::mount::{Mount, Source, options};
use crate::spec::{self, Spec};

/// Filesystems whose files take their SELinux label from the option `context`.
const LABELLED: [&str; 4] = ["tmpfs", "devpts", "ramfs", "overlay"];

/// Resolves the mounts in the order of the document.
pub(super) fn resolve(spec: &Spec, bundle: &Path, namespaces: &Namespaces) -> Result<Vec<Mount>> {
    let label = mount_label(spec)?;
    let container = container_mapping(spec);
    let resolve = |mount| resolve_one(mount, bundle, label, container.as_ref(), namespaces);
    spec.mounts.iter().map(resolve).collect()
}

/// What a bind mount cannot be given, as mount(2) does not.
pub(super) fn warnings(mounts: &[Mount]) -> Vec<String> {
    let ignored = |mount: &&Mount| !mount.options.ignored.is_empty();
    let tell = |mount: &Mount| {
        format!(
            "bind mount {}: options without effect: {}",
            mount.destination.display(),
            mount.options.ignored.join(", ")
        )
    };
    mounts.iter().filter(ignored).map(tell).collect()
}

/// The mapping of the container's user namespace, if it has one that differs from the caller's.
pub(super) fn container_mapping(spec: &Spec) -> Option<Mapping> {
    let user = |namespace: &&spec::Namespace| namespace.kind == "user";
    let namespace = spec.linux.namespaces.iter().find(user)?;
    let path = namespace.path.as_ref();
    Some(match path.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Mapping::Namespace(path.clone()),
        None => Mapping::Ids {
            uid: spec.linux.uid_mappings.clone(),
            gid: spec.linux.gid_mappings.clone(),
        },
    })
}

fn mount_label(spec: &Spec) -> Result<Option<&str>> {
    let label = spec.linux.mount_label.as_deref();
    let Some(label) = label.filter(|label| !label.is_empty()) else {
        return Ok(None);
    };
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Error::Unsupported(format!(
            "linux.mountLabel {label:?} on a host without SELinux"
        )));
    }
    Ok(Some(label))
}

fn resolve_one(
    mount: &spec::Mount,
    bundle: &Path,
    label: Option<&str>,
    container: Option<&Mapping>,
    namespaces: &Namespaces,
) -> Result<Mount> {
    let name = &mount.destination;
    let destination = Path::new("/").join(name);
    if destination.components().count() < 2 || name.contains('\0') {
        return Err(Error::Config(format!("mounts: cannot mount on {name:?}")));
    }
    let mut options = options::parse(mount.kind.as_deref(), &mount.options)?;
    let source = source(mount, &options, bundle)?;
    if let (Some(label), Source::Filesystem { kind, .. }) = (label, &source)
        && LABELLED.contains(&kind.as_str())
        && !options.remount
    {
        let context = ("context".to_owned(), Some(label.to_owned()));
        options.parameters.push(context);
    }
    Ok(Mount {
        substitute: substitute(&source, namespaces),
        id_map: id_map(mount, &options, &source, container)?,
        destination,
        source,
        options,
    })
}

fn source(mount: &spec::Mount, options: &options::Options, bundle: &Path) -> Result<Source> {
    let name = &mount.destination;
    let kind = mount.kind.as_deref().filter(|kind| !kind.is_empty());
    Ok(match (&options.bind, kind, &mount.source) {
        _ if options.remount => Source::Existing,
        (Some(_), _, Some(source)) if !source.is_empty() => Source::Bind(bundle.join(source)),
        (Some(_), _, _) => {
            return Err(Error::Config(format!(
                "mounts: the bind mount {name} has no source"
            )));
        }
        (None, Some("cgroup" | "cgroup2"), _) => Source::Cgroup,
        (None, Some(kind), name) => Source::Filesystem {
            kind: kind.to_owned(),
            name: name.clone().filter(|name| !name.is_empty()),
        },
        (None, None, _) => return Err(Error::Config(format!("mounts: {name} has no type"))),
    })
}

/// A user namespace may make these for namespaces of its own only. What the host has is the same then, but for the
/// devices of a network namespace that was joined.
fn substitute(source: &Source, namespaces: &Namespaces) -> Option<&'static str> {
    let Source::Filesystem { kind, .. } = source else {
        return None;
    };
    match kind.as_str() {
        "proc" if !namespaces.has(libc::CLONE_NEWPID) => Some("/proc"),
        "sysfs" if namespaces.new & libc::CLONE_NEWNET == 0 => Some("/sys"),
        "mqueue" if !namespaces.has(libc::CLONE_NEWIPC) => Some("/dev/mqueue"),
        _ => None,
    }
}

/// config.md, "Mounts": own mappings come before those of the container's user namespace.
fn id_map(
    mount: &spec::Mount,
    options: &options::Options,
    source: &Source,
    container: Option<&Mapping>,
) -> Result<Option<IdMap>> {
    let name = &mount.destination;
    let (uid, gid) = (&mount.uid_mappings, &mount.gid_mappings);
    let mapping = match (uid.is_empty(), gid.is_empty(), options.id_map, container) {
        (true, true, None, _) => return Ok(None),
        (true, true, Some(_), Some(container)) => container.clone(),
        (true, true, Some(_), None) => {
            return Err(Error::Config(format!(
                "mount {name}: idmap needs uidMappings and gidMappings, or a user namespace"
            )));
        }
        (false, false, _, _) => Mapping::Ids {
            uid: uid.clone(),
            gid: gid.clone(),
        },
        _ => {
            return Err(Error::Config(format!(
                "mount {name}: uidMappings and gidMappings need each other"
            )));
        }
    };
    if !matches!(source, Source::Bind(_)) {
        return Err(Error::Unsupported(format!(
            "uidMappings of mount {name}, which is no bind mount"
        )));
    }
    let recursive = options.id_map == Some(true);
    Ok(Some(IdMap { mapping, recursive }))
}

/// A `/dev` that is bound from the host has its devices.
pub(super) fn devices(spec: &Spec, mounts: &[Mount]) -> Result<Option<Vec<Device>>> {
    let bound = mounts.iter().any(|mount| {
        mount.destination == Path::new("/dev") && matches!(mount.source, Source::Bind(_))
    });
    if bound {
        Ok(None)
    } else {
        devices::plan(&spec.linux.devices).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_filesystem_serves_only_where_its_namespace_does() {
        let pid_and_net = Namespaces {
            new: libc::CLONE_NEWPID | libc::CLONE_NEWNET,
            ..Namespaces::default()
        };
        let none = Namespaces::default();
        for (kind, namespaces, expected) in [
            ("proc", &none, Some("/proc")),
            ("proc", &pid_and_net, None),
            ("sysfs", &none, Some("/sys")),
            ("sysfs", &pid_and_net, None),
            ("mqueue", &pid_and_net, Some("/dev/mqueue")),
            ("tmpfs", &none, None),
        ] {
            let kind = kind.to_owned();
            let source = Source::Filesystem { kind, name: None };
            assert_eq!(substitute(&source, namespaces), expected, "{source:?}");
        }
    }

    #[test]
    fn label_without_selinux_is_refused_by_name() {
        if Path::new("/sys/fs/selinux/enforce").exists() {
            eprintln!("skipped: the host has SELinux");
            return;
        }
        let mut spec = Spec::default();
        spec.linux.mount_label = Some("system_u:object_r:container_file_t:s0".into());
        let error = mount_label(&spec).expect_err("refused").to_string();
        assert!(error.contains("linux.mountLabel"), "{error}");
        spec.linux.mount_label = Some(String::new());
        assert_eq!(mount_label(&spec).expect("nothing asked"), None);
    }
}
