//! Device nodes and links in the container's `/dev`: the specification's default devices (config-linux.md,
//! "Default Devices") and those of `linux.devices`.
//!
//! Nodes are made with mknod; where that is not permitted, the host's node is bound over an empty file. What the
//! image has at such a path must be that very device, else it is refused: a symlink there could redirect what the
//! runtime binds later.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, openat,
    statat, symlinkat,
};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::mount;
use crate::mount::tree::{Missing, Tree};
use crate::spec;

/// A device node to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// In the container.
    pub path: PathBuf,
    /// Character device, block device or FIFO.
    pub kind: FileType,
    /// As `makedev` makes it; 0 for a FIFO.
    pub number: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The default devices, then those of the document. A path named there replaces the default.
pub fn plan(devices: &[spec::Device]) -> Result<Vec<Device>> {
    let asked = devices.iter().map(resolve).collect::<Result<Vec<_>>>()?;
    let mut all: Vec<Device> = DEFAULTS
        .iter()
        .map(|&(path, major, minor)| Device {
            path: path.into(),
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            owner: (0, 0),
        })
        .filter(|default| asked.iter().all(|device| device.path != default.path))
        .collect();
    all.extend(asked);
    Ok(all)
}

fn resolve(device: &spec::Device) -> Result<Device> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => {
            return Err(Error::Config(format!(
                "linux.devices: unknown type {other:?} of {}",
                device.path
            )));
        }
    };
    if !device.path.starts_with('/') {
        return Err(Error::Config(format!(
            "linux.devices: path {:?} is not absolute",
            device.path
        )));
    }
    let number = |value: i64| {
        u32::try_from(value).map_err(|_| {
            let path = &device.path;
            Error::Config(format!(
                "linux.devices: {value} is no device number, of {path}"
            ))
        })
    };
    let number = if kind == FileType::Fifo {
        0
    } else {
        makedev(number(device.major)?, number(device.minor)?)
    };
    Ok(Device {
        path: (&device.path).into(),
        kind,
        number,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
    })
}

/// Makes all nodes and links. The file mode creation mask must be 0.
pub(crate) fn populate(tree: &Tree, devices: &[Device]) -> Result<()> {
    let dev = tree.ensure_without_symlinks(Path::new("/dev"), Missing::Directory)?;
    for device in devices {
        match (device.path.parent(), device.path.file_name()) {
            (Some(parent), Some(name)) if parent == Path::new("/dev") => {
                make(tree, dev.as_fd(), Path::new(name), device)?
            }
            _ => {
                let (parent, name) = tree.ensure_parent(&device.path)?;
                make(tree, parent.as_fd(), &name, device)?;
            }
        }
    }
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            // An image may have its own; what it names is resolved inside the container only.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at("make link in /dev", name),
        }
    }
    Ok(())
}

/// Opens the container's null device, if there is one, and makes sure that it is one.
pub(crate) fn open_null(tree: &Tree) -> Result<Option<OwnedFd>> {
    let path = Path::new("/dev/null");
    let Ok(found) = tree.find_without_symlinks(path) else {
        return Ok(None);
    };
    let stat = fstat(&found).at("inspect", path)?;
    let is_null = is_device(
        stat.st_mode,
        stat.st_rdev,
        FileType::CharacterDevice,
        makedev(1, 3),
    );
    if is_null {
        Ok(Some(found))
    } else {
        Err(Errno::NODEV).at("take for the null device", path)
    }
}

/// Under its name in its directory, which the caller has found.
fn make(tree: &Tree, parent: BorrowedFd<'_>, name: &Path, device: &Device) -> Result<()> {
    let path = &device.path;
    match mknodat(
        parent,
        name,
        device.kind,
        Mode::from_raw_mode(device.mode),
        device.number,
    ) {
        Ok(()) if device.owner == (0, 0) => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(device.owner.0), Gid::from_raw(device.owner.1));
            chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .at("change owner of device", path)
        }
        Err(Errno::EXIST) => {
            let stat =
                statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).at("inspect device", path)?;
            match is_device(stat.st_mode, stat.st_rdev, device.kind, device.number) {
                true => Ok(()),
                false => Err(Errno::EXIST).at("refuse what the image has in place of device", path),
            }
        }
        Err(Errno::PERM) => bind_from_host(tree, device),
        Err(errno) => Err(errno).at("make device", path),
    }
}

fn bind_from_host(tree: &Tree, device: &Device) -> Result<()> {
    let path = &device.path;
    let host = openat(
        CWD,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at("open device of the host", path)?;
    let stat = fstat(&host).at("inspect device of the host", path)?;
    if !is_device(stat.st_mode, stat.st_rdev, device.kind, device.number) {
        return Err(Errno::NODEV).at("find the same device on the host at", path);
    }
    let copy = mount::clone_mount(host.as_fd(), false).at("bind device of the host", path)?;
    let target = tree.ensure(path, Missing::File)?;
    mount::attach(copy.as_fd(), target.as_fd()).at("mount device on", path)
}

fn is_device(mode: u32, number: u64, kind: FileType, expected: u64) -> bool {
    FileType::from_raw_mode(mode) == kind && (kind == FileType::Fifo || number == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, kind: &str) -> spec::Device {
        let (path, kind) = (path.into(), kind.into());
        spec::Device {
            path,
            kind,
            major: 10,
            minor: 229,
            file_mode: Some(0o600),
            uid: Some(1),
            gid: None,
        }
    }

    #[test]
    fn a_device_of_the_document_replaces_the_default_at_its_path() {
        let planned = plan(&[
            device("/dev/tty", "c"),
            device("/dev/fuse", "u"),
            device("/run/pipe", "p"),
        ])
        .expect("valid");
        let paths: Vec<_> = planned
            .iter()
            .map(|device| device.path.to_str().expect("ASCII"))
            .collect();
        let expected = [
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty",
            "/dev/fuse",
            "/run/pipe",
        ];
        assert_eq!(paths, expected);
        assert_eq!(
            (planned[5].number, planned[5].mode, planned[5].owner),
            (makedev(10, 229), 0o600, (1, 0))
        );
        assert_eq!(planned[7].number, 0);
    }

    #[test]
    fn unknown_types_and_relative_paths_are_refused() {
        assert!(plan(&[device("/dev/x", "x")]).is_err());
        assert!(plan(&[device("dev/x", "c")]).is_err());
    }
}
