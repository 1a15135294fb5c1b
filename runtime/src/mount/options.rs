//! The options of a mount, from the strings of `config.json` to what the kernel takes.
//!
//! Pure. Names are those of the specification (config.md, "Linux mount options"): attributes of the mount, in
//! the recursive form with an `r` in front, propagation, flags of the filesystem, and for filesystems whatever
//! else is left as its own parameters. On a bind mount nothing may be left: an option that would have no effect
//! is an error.

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

/// Flags of the filesystem that the kernel takes by the same name; the second ones are its defaults.
const FILESYSTEM_FLAGS: &[&str] = &["sync", "dirsync", "lazytime", "mand"];
const FILESYSTEM_DEFAULTS: &[&str] = &[
    "async",
    "nolazytime",
    "nomand",
    "loud",
    "silent",
    "noiversion",
];

const UNSUPPORTED: &[&str] = &[
    "remount",
    "idmap",
    "ridmap",
    "tmpcopyup",
    "copy-up",
    "iversion",
];

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
    names.extend(
        FILESYSTEM_FLAGS
            .iter()
            .chain(FILESYSTEM_DEFAULTS)
            .map(|&name| name.to_owned()),
    );
    names.push("defaults".into());
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
    if result.bind.is_some()
        && let Some((name, _)) = result.parameters.first()
    {
        return Err(Error::Config(format!(
            "mount option {name:?} has no meaning on a bind mount"
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
    } else if matches!(option, "bind" | "rbind") {
        result.bind = Some(option == "rbind" || result.bind == Some(true));
    } else if UNSUPPORTED
        .iter()
        .any(|&name| option == name || option.starts_with(&format!("{name}=")))
    {
        return Err(Error::Unsupported(format!("mount option {option:?}")));
    } else if option == "defaults" || FILESYSTEM_DEFAULTS.contains(&option) {
        // What the kernel does anyway.
    } else {
        let parameter = match option.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (option.to_owned(), None),
        };
        result.parameters.push(parameter);
    }
    Ok(())
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
    fn options_without_effect_are_refused() {
        for (kind, option) in [
            (Some("bind"), "size=1"),
            (None, "remount"),
            (None, "idmap=0-1-2"),
            (None, "ridmap"),
        ] {
            assert!(options(kind, &["bind", option]).is_err(), "{option}");
        }
        assert_eq!(
            options(None, &["bind", "rbind"]).expect("valid").bind,
            Some(true)
        );
    }
}
