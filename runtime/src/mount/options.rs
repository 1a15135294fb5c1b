//! The options of a mount, from the strings of `config.json` to what the kernel takes.
//!
//! Pure. Names are those of the specification (config.md, "Linux mount options"): attributes of the mount, in
//! the recursive form with an `r` in front, propagation, flags of the filesystem, and for filesystems whatever
//! else is left as its own parameters. A bind mount has no parameters, as for mount(2): what is left there has no
//! effect, and is listed so that it can be told.

use crate::error::{Error, Result};

/// What the options of one mount ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `Some(recursive)` for a bind mount.
    pub bind: Option<bool>,
    /// `MOUNT_ATTR_*` for the mount itself.
    pub attributes: Attributes,
    /// `MOUNT_ATTR_*` for it and all mounts below.
    pub recursive: Attributes,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, and whether for all mounts below, in order.
    pub propagation: Vec<(u64, bool)>,
    /// Parameters of the filesystem: a name, with a value or alone.
    pub parameters: Vec<(String, Option<String>)>,
    /// Change what is mounted at the destination already, instead of mounting.
    pub remount: bool,
    /// Whether a new tmpfs begins with a copy of what the image has at the destination.
    pub copy_up: bool,
    /// `Some(recursive)` if the mount's ids are to be mapped.
    pub id_map: Option<bool>,
    /// Options that have no effect on a bind mount.
    pub ignored: Vec<String>,
}

/// Attributes to set and to clear, as `mount_setattr` takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// To set.
    pub set: u64,
    /// To clear.
    pub clear: u64,
}

impl Attributes {
    /// Later options win over earlier ones.
    fn merge(&mut self, later: Attributes) {
        self.set = self.set & !later.clear | later.set;
        self.clear = self.clear & !later.set | later.clear;
    }

    /// Whether nothing is asked for.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// Option, bits to set, bits to clear. The access time is a field, not a bit: it is cleared before it is set.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("noatime", libc::MOUNT_ATTR_NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", 0, ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
];

const PROPAGATION: &[(&str, u64)] = &[
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Flags of the filesystem, which fsconfig(2) takes by the same name.
const FILESYSTEM_FLAGS: &[&str] = &[
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
];

/// What needs no doing: `silent` and `loud` are about the kernel's log only, access control lists are there wherever a
/// filesystem has them, and one that counts versions of inodes does so whatever is asked for since Linux 6.0.
const WITHOUT_EFFECT: &[&str] = &[
    "defaults",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "acl",
    "noacl",
    "notmpcopyup",
    "nocopyup",
];

/// Names of what this module handles by itself.
const OWN: &[&str] = &["remount", "idmap", "ridmap", "tmpcopyup"];

/// All option names understood, for `features`.
pub fn known() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|entry| entry.0);
    let propagation = PROPAGATION.iter().map(|entry| entry.0);
    let mut names: Vec<String> = attributes
        .chain(propagation)
        .chain(["bind"])
        .map(str::to_owned)
        .collect();
    names.extend(names.clone().into_iter().map(|name| format!("r{name}")));
    let others = FILESYSTEM_FLAGS.iter().chain(WITHOUT_EFFECT).chain(OWN);
    names.extend(others.map(|&name| name.to_owned()));
    names.sort();
    names
}

/// The flag of a propagation type with an optional `r` in front, and whether that was there.
pub fn propagation(name: &str) -> Option<(u64, bool)> {
    let find = |name: &str| {
        PROPAGATION
            .iter()
            .find(|entry| entry.0 == name)
            .map(|entry| entry.1)
    };
    find(name)
        .map(|flag| (flag, false))
        .or_else(|| find(name.strip_prefix('r')?).map(|flag| (flag, true)))
}

/// Resolves the options of one mount. `kind` is the mount's type; `bind` there means the same as the option.
pub fn parse(kind: Option<&str>, options: &[String]) -> Result<Options> {
    let mut result = Options {
        bind: (kind == Some("bind")).then_some(false),
        ..Options::default()
    };
    for option in options {
        parse_one(option, &mut result)?;
    }
    if result.bind.is_some() {
        let ignored = std::mem::take(&mut result.parameters);
        result.ignored = ignored.into_iter().map(|(name, _)| name).collect();
    }
    if result.copy_up && kind != Some("tmpfs") {
        let kind = kind.unwrap_or("none");
        return Err(Error::Config(format!(
            "mount option tmpcopyup is for tmpfs, not for {kind}"
        )));
    }
    Ok(result)
}

fn parse_one(option: &str, result: &mut Options) -> Result<()> {
    if let Some(attributes) = attribute(option) {
        result.attributes.merge(attributes);
    } else if let Some(attributes) = option.strip_prefix('r').and_then(attribute) {
        result.recursive.merge(attributes);
    } else if let Some(propagation) = propagation(option) {
        result.propagation.push(propagation);
    } else {
        match option {
            "bind" | "rbind" => {
                result.bind = Some(option == "rbind" || result.bind == Some(true));
            }
            "remount" => result.remount = true,
            "idmap" | "ridmap" => result.id_map = Some(option == "ridmap"),
            "tmpcopyup" => result.copy_up = true,
            other if WITHOUT_EFFECT.contains(&other) || other.is_empty() => {}
            other => result.parameters.push(parameter(other)?),
        }
    }
    Ok(())
}

fn parameter(option: &str) -> Result<(String, Option<String>)> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (option, None),
    };
    if matches!(name, "idmap" | "ridmap") {
        return Err(Error::Unsupported(format!(
            "mount option {option:?}: name the mappings in uidMappings and gidMappings"
        )));
    }
    if option.contains('\0') {
        return Err(Error::Config(format!("mount option {option:?} has a NUL")));
    }
    Ok((name.to_owned(), value))
}

fn attribute(name: &str) -> Option<Attributes> {
    let &(_, set, clear) = ATTRIBUTES.iter().find(|entry| entry.0 == name)?;
    Some(Attributes { set, clear })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: Option<&str>, options: &[&str]) -> Result<Options> {
        parse(
            kind,
            &options
                .iter()
                .map(|&option| option.to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn attributes_propagation_and_parameters_are_told_apart() {
        let parsed = options(
            Some("tmpfs"),
            &[
                "nosuid", "ro", "rnoexec", "rslave", "size=64k", "noswap", "sync",
            ],
        );
        let expected = Options {
            bind: None,
            attributes: Attributes {
                set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY,
                clear: 0,
            },
            recursive: Attributes {
                set: libc::MOUNT_ATTR_NOEXEC,
                clear: 0,
            },
            propagation: vec![(libc::MS_SLAVE, true)],
            parameters: vec![
                ("size".into(), Some("64k".into())),
                ("noswap".into(), None),
                ("sync".into(), None),
            ],
            ..Options::default()
        };
        assert_eq!(parsed.expect("valid"), expected);
    }

    #[test]
    fn later_options_win() {
        let parsed = options(Some("bind"), &["ro", "rw", "noatime", "strictatime"]).expect("valid");
        let set = libc::MOUNT_ATTR_STRICTATIME;
        assert_eq!(
            parsed.attributes,
            Attributes {
                set,
                clear: libc::MOUNT_ATTR_RDONLY | ATIME
            }
        );
        assert_eq!(parsed.bind, Some(false));
    }

    #[test]
    fn relatime_is_an_attribute_and_not_a_recursive_elatime() {
        let parsed = options(None, &["relatime", "rrelatime"]).expect("valid");
        assert_eq!(parsed.attributes, parsed.recursive);
        assert_eq!(parsed.attributes.clear, ATIME);
    }

    #[test]
    fn options_that_a_bind_mount_cannot_have_are_listed() {
        let parsed = options(Some("bind"), &["size=1", "rprivate", "sync", "nosuid"]);
        let parsed = parsed.expect("valid");
        assert_eq!(parsed.ignored, ["size", "sync"]);
        assert!(parsed.parameters.is_empty());
        let recursive = options(None, &["bind", "rbind"]).expect("valid");
        assert_eq!(recursive.bind, Some(true));
    }

    #[test]
    fn what_is_no_parameter_never_reaches_the_filesystem() {
        let names = known();
        for option in &names {
            let parsed = options(Some("tmpfs"), &[option]).expect(option);
            let passed = FILESYSTEM_FLAGS.contains(&option.as_str());
            assert_eq!(parsed.parameters.is_empty(), !passed, "{option}");
        }
    }

    #[test]
    fn remount_copy_up_and_mapped_ids_are_asked_for_by_name() {
        let parsed = options(Some("tmpfs"), &["remount", "tmpcopyup", "ridmap"]).expect("valid");
        assert!(parsed.remount && parsed.copy_up);
        assert_eq!(parsed.id_map, Some(true));
        for (kind, wrong) in [
            ("proc", "tmpcopyup"),
            ("bind", "tmpcopyup"),
            ("bind", "idmap=uids=0-1-2"),
            ("tmpfs", "size=1\0"),
        ] {
            assert!(options(Some(kind), &[wrong]).is_err(), "{wrong}");
        }
    }
}
