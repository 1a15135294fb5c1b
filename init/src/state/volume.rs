//! Volumes: directories on the state partition, each with its owner, its mode and a size that holds.
//!
//! The size holds by the file system's own count of a project's blocks. What a volume holds stays in it: the kernel
//! refuses to move or link a file to a directory of another project.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use config::boot::BootVolume;
use rustix::fs::{
    Dir, Gid, Mode, OFlags, RawMode, ResolveFlags, Uid, fchmod, fchown, fstat, mkdirat, openat,
    openat2, renameat,
};
use rustix::io::Errno;

use super::State;
use crate::sys;

const OPEN: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);
/// A volume may have one file for so many bytes of its size, so that empty files do not take all that there are.
const BYTES_PER_FILE: u64 = 4096;

pub(super) fn prepare(
    state: &State,
    volume: &BootVolume,
    tell: &mut dyn FnMut(String),
) -> Result<(), String> {
    let path = Path::new(&volume.path);
    let relative = path.strip_prefix(&state.mount_point).map_err(|_| {
        format!(
            "the volume {} is not below {}",
            volume.path, state.mount_point
        )
    })?;
    let explain = |error: io::Error| format!("cannot make the volume {}: {error}", volume.path);
    let directory = open_or_make(state, relative, volume).map_err(explain)?;
    if state.read_only {
        return Ok(());
    }
    if volume.enforce {
        set_owner(&directory, volume).map_err(explain)?;
    }
    match (state.has_projects, volume.size) {
        (true, _) => limit(&directory, volume, tell).map_err(explain),
        (false, Some(_)) => {
            tell(format!(
                "the size of {} does not hold: the file system was made by a version that counts no projects",
                volume.path
            ));
            Ok(())
        }
        (false, None) => Ok(()),
    }
}

/// Sets the most that may be in the volume. One with files that nobody counted is left to the child that counts them.
fn limit(directory: &OwnedFd, volume: &BootVolume, tell: &mut dyn FnMut(String)) -> io::Result<()> {
    if !sys::is_of_project(directory.as_fd(), volume.project, true)? {
        if is_empty(directory)? {
            sys::set_project(directory.as_fd(), volume.project, true)?;
        } else {
            tell(format!(
                "{} was not counted before: its files count once the machine is up",
                volume.path
            ));
        }
    }
    let bytes = volume.size.unwrap_or(0);
    sys::set_project_limits(
        directory.as_fd(),
        volume.project,
        bytes,
        bytes / BYTES_PER_FILE,
    )
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The volume's folder, without following links; `None`: there is none (yet).
pub(super) fn open(mount_point: &str, path: &str) -> io::Result<Option<OwnedFd>> {
    let outside = || io::Error::from(Errno::INVAL);
    let relative = Path::new(path).strip_prefix(mount_point);
    let relative = relative.map_err(|_| outside())?;
    let base = rustix::fs::open(mount_point, OPEN, Mode::empty())?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(&base, relative, OPEN, Mode::empty(), within) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Goes down component by component, without following links; the last one is made under another name first, so
/// that a power cut leaves either nothing or the finished directory.
fn open_or_make(state: &State, relative: &Path, volume: &BootVolume) -> io::Result<OwnedFd> {
    let mut parent = rustix::fs::open(&state.mount_point, OPEN, Mode::empty())?;
    let mut components = relative.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(Errno::INVAL.into());
        };
        let name = Path::new(name);
        parent = match openat(&parent, name, OPEN, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => {
                if components.peek().is_some() {
                    mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                } else {
                    make(state, &parent, name, volume)?;
                }
                openat(&parent, name, OPEN, Mode::empty())?
            }
            Err(errno) => return Err(errno.into()),
        };
    }
    Ok(parent)
}

fn make(state: &State, parent: &OwnedFd, name: &Path, volume: &BootVolume) -> io::Result<()> {
    let unfinished = format!(".{}.new", name.display());
    match mkdirat(parent, unfinished.as_str(), Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let directory = openat(parent, unfinished.as_str(), OPEN, Mode::empty())?;
    if state.has_projects {
        sys::set_project(directory.as_fd(), volume.project, true)?;
    }
    set_owner(&directory, volume)?;
    Ok(renameat(parent, unfinished.as_str(), parent, name)?)
}

/// Sets owner and mode, where they differ.
fn set_owner(directory: &OwnedFd, volume: &BootVolume) -> io::Result<()> {
    let found = fstat(directory)?;
    if (found.st_uid, found.st_gid) != (volume.uid, volume.gid) {
        let (uid, gid) = (Uid::from_raw(volume.uid), Gid::from_raw(volume.gid));
        fchown(directory, Some(uid), Some(gid))?;
    }
    let mode = volume.mode as RawMode & 0o7777;
    if found.st_mode & 0o7777 != mode {
        fchmod(directory, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::Guid;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn volume(path: &Path) -> BootVolume {
        let own = fs::metadata("/proc/self").unwrap();
        BootVolume {
            path: path.display().to_string(),
            uid: own.uid(),
            gid: own.gid(),
            mode: 0o2750,
            enforce: false,
            read_only: false,
            project: 7,
            size: None,
        }
    }

    fn scratch(name: &str) -> State {
        let directory =
            std::env::temp_dir().join(format!("coracle-init-state-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        State {
            mount_point: directory.display().to_string(),
            read_only: false,
            can_grow: false,
            guid: Guid::from_text_order([1; 16]),
            has_projects: false,
        }
    }

    #[test]
    fn a_volume_is_made_once_and_then_left_alone() {
        let state = scratch("once");
        let path = Path::new(&state.mount_point).join("volumes/db");
        prepare(&state, &volume(&path), &mut |_| ()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2750);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        prepare(&state, &volume(&path), &mut |_| ()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn a_half_made_volume_is_finished() {
        let state = scratch("half");
        let path = Path::new(&state.mount_point).join("volumes/db");
        fs::create_dir_all(path.with_file_name(".db.new")).unwrap();
        prepare(&state, &volume(&path), &mut |_| ()).unwrap();
        assert!(path.exists() && !path.with_file_name(".db.new").exists());
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn a_volume_elsewhere_or_through_a_link_is_refused() {
        let state = scratch("link");
        let base = Path::new(&state.mount_point);
        std::os::unix::fs::symlink("/tmp", base.join("volumes")).unwrap();
        for path in [
            base.join("volumes/db"),
            base.join("../escaped"),
            Path::new("/elsewhere/db").to_owned(),
        ] {
            assert!(
                prepare(&state, &volume(&path), &mut |_| ()).is_err(),
                "{path:?}"
            );
        }
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn a_volume_is_opened_without_links_and_below_the_mount_point() {
        let state = scratch("open");
        let base = Path::new(&state.mount_point);
        fs::create_dir_all(base.join("volumes/db")).unwrap();
        std::os::unix::fs::symlink("volumes", base.join("link")).unwrap();
        let open = |path: &str| open(&state.mount_point, &base.join(path).display().to_string());
        assert!(open("volumes/db").unwrap().is_some() && open("volumes/new").unwrap().is_none());
        for path in ["link/db", "../escaped", "/elsewhere"] {
            assert!(open(path).is_err(), "{path}");
        }
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn owner_and_mode_of_the_file_hold_for_an_existing_volume() {
        let state = scratch("enforce");
        let path = Path::new(&state.mount_point).join("volumes/db");
        fs::create_dir_all(&path).unwrap();
        let mut wanted = volume(&path);
        wanted.enforce = true;
        prepare(&state, &wanted, &mut |_| ()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2750);
        fs::remove_dir_all(&state.mount_point).unwrap();
    }

    #[test]
    fn a_size_that_cannot_hold_is_told_and_keeps_nothing_from_running() {
        let state = scratch("size");
        let path = Path::new(&state.mount_point).join("volumes/db");
        let mut wanted = volume(&path);
        wanted.size = Some(1 << 20);
        let mut told = Vec::new();
        prepare(&state, &wanted, &mut |line| told.push(line)).unwrap();
        assert!(
            told.len() == 1 && told[0].contains("does not hold"),
            "{told:?}"
        );
        fs::remove_dir_all(&state.mount_point).unwrap();
    }
}
