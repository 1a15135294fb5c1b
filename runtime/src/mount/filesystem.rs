//! New instances of filesystems, and new options for those that are mounted.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
};

use super::options::Attributes;
use super::{Mount, open_bind, set};
use crate::error::{Context, Error, Result};

/// A name, with a value or alone.
type Parameter = (String, Option<String>);

/// fsconfig(2) takes no longer values.
const MAX_VALUE_BYTES: usize = 255;

/// Filesystems of the kernel's own. Others are opened read-only if they are mounted so: their device may be.
const VIRTUAL: [&str; 6] = ["tmpfs", "proc", "sysfs", "devpts", "mqueue", "ramfs"];

const RESTRICTIONS: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC;

/// A new instance as the mount wants it, or what stands for it in a user namespace.
pub(super) fn make(kind: &str, name: Option<&str>, mount: &Mount) -> Result<OwnedFd> {
    let parameters = parameters(kind, mount);
    match new_filesystem(kind, name, &parameters) {
        Err(error) => match (errno(&error), mount.substitute) {
            (Some(Errno::PERM), Some(path)) => substitute(path, mount),
            // The group that terminals belong to by custom need not exist in a user namespace.
            (Some(Errno::INVAL), _) if kind == "devpts" => {
                match without_unmapped_gid(&parameters) {
                    Some(parameters) => new_filesystem(kind, name, &parameters),
                    None => Err(error),
                }
            }
            _ => Err(error),
        },
        made => made,
    }
}

/// What the host has mounted below comes along, so it gets the same restrictions.
fn substitute(path: &'static str, mount: &Mount) -> Result<OwnedFd> {
    let copy = open_bind(Path::new(path), true)?;
    let restrictions = Attributes {
        set: mount.options.attributes.set & RESTRICTIONS,
        clear: 0,
    };
    set(copy.as_fd(), true, restrictions).at("restrict what is bound of", path)?;
    Ok(copy)
}

fn parameters(kind: &str, mount: &Mount) -> Vec<Parameter> {
    let mut parameters = mount.options.parameters.clone();
    if mount.options.attributes.set & libc::MOUNT_ATTR_RDONLY != 0 && !VIRTUAL.contains(&kind) {
        parameters.push(("ro".to_owned(), None));
    }
    parameters
}

fn errno(error: &Error) -> Option<Errno> {
    match error {
        Error::System { source, .. } => Errno::from_io_error(source),
        _ => None,
    }
}

/// The parameters without `gid`, if this user namespace does not have that group.
fn without_unmapped_gid(parameters: &[Parameter]) -> Option<Vec<Parameter>> {
    let is_gid = |(key, _): &&Parameter| key == "gid";
    let gid: u64 = parameters.iter().find(is_gid)?.1.as_ref()?.parse().ok()?;
    let table = std::fs::read_to_string("/proc/self/gid_map").ok()?;
    if is_mapped(&table, gid) {
        return None;
    }
    let others = parameters.iter().filter(|parameter| !is_gid(parameter));
    Some(others.cloned().collect())
}

fn is_mapped(table: &str, id: u64) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => (first..first + count).contains(&id),
            _ => false,
        }
    })
}

/// Changes the options of the filesystem whose mount `mounted` is.
pub(super) fn reconfigure(mounted: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    let parameters = &mount.options.parameters;
    if parameters.is_empty() {
        return Ok(());
    }
    let destination = &mount.destination;
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = fspick(mounted, c"", flags).at("open filesystem for remount", destination)?;
    configure(&context, None, parameters)
        .and_then(|()| {
            fsconfig_reconfigure(&context).map_err(|errno| ("reconfigure".to_owned(), errno))
        })
        .map_err(|failure| {
            let operation = format!("remount {}", destination.display());
            describe(&context, &operation, failure)
        })
}

/// A detached new filesystem. What the kernel says about bad parameters becomes part of the error.
pub(crate) fn new_filesystem(
    kind: &str,
    name: Option<&str>,
    parameters: &[Parameter],
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .during(format!("open filesystem type {kind:?}"))?;
    configure(&context, name, parameters)
        .and_then(|()| fsconfig_create(&context).map_err(|errno| ("create".to_owned(), errno)))
        .map_err(|failure| describe(&context, &format!("make filesystem {kind:?}"), failure))?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .during(format!("make a mount of filesystem {kind:?}"))
}

fn configure(
    context: &OwnedFd,
    name: Option<&str>,
    parameters: &[Parameter],
) -> Result<(), (String, Errno)> {
    if let Some(name) = name {
        fsconfig_set_string(context, "source", name)
            .map_err(|errno| ("source".to_owned(), errno))?;
    }
    for (key, value) in parameters {
        match value {
            Some(value) if key == "lowerdir" && value.len() > MAX_VALUE_BYTES => {
                add_layers(context, value)
            }
            Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context, key.as_str()),
        }
        .map_err(|errno| (format!("option {key:?}"), errno))?;
    }
    Ok(())
}

/// A list of layers that is longer than a value may be, one by one (`lowerdir+` of overlayfs, Linux 6.7).
fn add_layers(context: &OwnedFd, list: &str) -> Result<(), Errno> {
    let mut layer = String::new();
    let mut characters = list.chars();
    loop {
        match characters.next() {
            Some('\\') => layer.extend(characters.next()),
            Some(':') if layer.is_empty() => return Err(Errno::NAMETOOLONG),
            end @ (Some(':') | None) => {
                fsconfig_set_string(context, "lowerdir+", layer.as_str())?;
                if end.is_none() {
                    return Ok(());
                }
                layer.clear();
            }
            Some(other) => layer.push(other),
        }
    }
}

fn describe(context: &OwnedFd, operation: &str, (what, errno): (String, Errno)) -> Error {
    let said = kernel_message(context).map(|text| format!(" ({text})"));
    Error::System {
        operation: format!("{operation}: {what}{}", said.unwrap_or_default()),
        source: errno.into(),
    }
}

/// The context's log holds one message a read, as `e text`.
fn kernel_message(context: &OwnedFd) -> Option<String> {
    let mut file = std::fs::File::from(context.try_clone().ok()?);
    let mut buffer = [0; 512];
    let length = file.read(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    Some(text.trim().trim_start_matches("e ").to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_inside_the_ranges_only() {
        let table = "         0     100000          5\n 10 0 1\n";
        for (id, expected) in [(0, true), (4, true), (5, false), (10, true), (11, false)] {
            assert_eq!(is_mapped(table, id), expected, "{id}");
        }
    }
}
