//! A directory tree that is not trusted: every path is resolved inside it, whatever its symlinks say.
//!
//! A [`Tree`] is the root of the container before it becomes `/`. Paths from `config.json` and the image are only
//! ever resolved here: by `openat2` with `RESOLVE_IN_ROOT`, or, where something must be made, one component at a
//! time from descriptor to descriptor. The results are descriptors, and mounting goes by descriptor too
//! (`move_mount`), so a component that is swapped for a symlink meanwhile leads nowhere else. Refuses magic links.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, mkdirat, openat,
    openat2, readlinkat,
};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// As many symlinks as the kernel follows in one path.
const MAX_SYMLINKS: usize = 40;
/// openat2 answers EAGAIN when something was renamed while it looked; after so many times somebody does it on
/// purpose.
const MAX_RETRIES: usize = 128;

/// What to make at the end of a path if nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0644.
    File,
}

/// An open directory that paths cannot leave.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    /// The root itself.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Finds what is at `path` now, following symlinks inside the tree. The descriptor is `O_PATH`.
    pub(crate) fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(
            path,
            OFlags::PATH,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// The same, but a symlink anywhere in the path is an error (ELOOP).
    pub(crate) fn find_without_symlinks(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(
            path,
            OFlags::PATH,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// Finds what is at `path`, or makes it, with the directories on the way.
    pub(crate) fn ensure(&self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        let found = match self.find(path) {
            Err(Errno::NOENT) => self.make(path, missing),
            other => other,
        };
        check_kind(found.at("find or make mount point", path)?, path, missing)
    }

    /// The same, but a symlink anywhere in the path is refused, also one that comes while it is made.
    pub(crate) fn ensure_without_symlinks(&self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        let found = match self.find_without_symlinks(path) {
            Err(Errno::NOENT) => {
                self.make(path, missing).at("make mount point", path)?;
                self.find_without_symlinks(path)
            }
            other => other,
        };
        match found {
            Err(Errno::LOOP) => Err(Errno::LOOP).at("refuse the symlink in the image at", path),
            other => check_kind(other.at("find mount point", path)?, path, missing),
        }
    }

    /// The directory of `path`, made if need be, and the last component.
    pub(crate) fn ensure_parent(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let name = path
            .file_name()
            .ok_or(Errno::INVAL)
            .at("take the name of", path)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.ensure(parent, Missing::Directory)?, name.into()))
    }

    fn resolve(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        for _ in 0..MAX_RETRIES {
            match openat2(
                &self.root,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Walks from descriptor to descriptor. `..` goes back to a descriptor that was walked through, never up by
    /// name, so no rename can lead out.
    fn make(&self, path: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
        let mut walked: Vec<OwnedFd> = vec![self.root.try_clone().map_err(|_| Errno::MFILE)?];
        let mut left = components(path);
        let mut symlinks = 0;
        while let Some(name) = left.pop_front() {
            match name {
                Step::Root => walked.truncate(1),
                Step::Up => walked.truncate(walked.len().saturating_sub(1).max(1)),
                Step::Down(name) => {
                    let parent = walked.last().expect("the root stays in the list");
                    let here = step(parent.as_fd(), &name, left.is_empty().then_some(missing))?;
                    if FileType::from_raw_mode(fstat(&here)?.st_mode) != FileType::Symlink {
                        walked.push(here);
                        continue;
                    }
                    symlinks += 1;
                    // Those of procfs are magic, or stay where nothing can be made.
                    let magic = fstatfs(&here)?.f_type == PROC_SUPER_MAGIC;
                    if magic || symlinks > MAX_SYMLINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(&here, c"", Vec::new())?;
                    let mut steps = components(Path::new(&OsString::from_vec(target.into_bytes())));
                    steps.append(&mut left);
                    left = steps;
                }
            }
        }
        Ok(walked.pop().expect("the root stays in the list"))
    }
}

/// Refuses a directory where a file is wanted, and the other way round.
fn check_kind(found: OwnedFd, path: &Path, wanted: Missing) -> Result<OwnedFd> {
    let is_directory = fstat(&found)
        .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        .at("inspect mount point", path)?;
    match (wanted, is_directory) {
        (Missing::Directory, false) => Err(Errno::NOTDIR).at("use as mount point", path),
        (Missing::File, true) => Err(Errno::ISDIR).at("use as mount point", path),
        _ => Ok(found),
    }
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

fn components(path: &Path) -> VecDeque<Step> {
    let step = |component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

/// Opens one component without following it; makes it if it is missing: a directory, or at the end of the path
/// what `last` says.
fn step(parent: BorrowedFd<'_>, name: &OsString, last: Option<Missing>) -> Result<OwnedFd, Errno> {
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, look, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    if last == Some(Missing::File) {
        let create =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        return match openat(parent, name, create, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(Errno::EXIST) => openat(parent, name, look, Mode::empty()),
            error => error,
        };
    }
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => openat(parent, name, look, Mode::empty()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// `root/` is the tree; `outside/` lies next to it and must stay empty.
    fn with_tree(test: impl FnOnce(&Tree, &Path)) {
        let base = std::env::temp_dir().join(format!(
            "tree-{:?}-{}",
            std::thread::current().id(),
            std::process::id()
        ));
        let (root, outside) = (base.join("root"), base.join("outside"));
        fs::create_dir_all(&root).expect("temporary directory");
        fs::create_dir_all(&outside).expect("temporary directory");
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree =
            Tree::new(openat(rustix::fs::CWD, &root, open, Mode::empty()).expect("it exists"));
        test(&tree, &root);
        assert_eq!(
            fs::read_dir(&outside).expect("it exists").count(),
            0,
            "something was made outside"
        );
        fs::remove_dir_all(base).expect("it is ours");
    }

    fn same(made: &OwnedFd, path: &Path) -> bool {
        let stat = fstat(made).expect("open");
        fs::metadata(path)
            .is_ok_and(|expected| (expected.ino(), expected.dev()) == (stat.st_ino, stat.st_dev))
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        with_tree(|tree, root| {
            let made = tree
                .ensure(Path::new("/a/b/c"), Missing::Directory)
                .expect("made");
            assert!(same(&made, &root.join("a/b/c")));
            let made = tree
                .ensure(Path::new("/a/d/file"), Missing::File)
                .expect("made");
            assert!(same(&made, &root.join("a/d/file")) && root.join("a/d/file").is_file());
            assert!(
                tree.ensure(Path::new("/a/d/file"), Missing::Directory)
                    .is_err()
            );
            assert!(tree.ensure(Path::new("/a"), Missing::File).is_err());
        });
    }

    #[test]
    fn symlinks_are_followed_inside_and_never_lead_out() {
        with_tree(|tree, root| {
            symlink("/../../outside", root.join("absolute")).expect("made");
            symlink("../outside", root.join("relative")).expect("made");
            symlink("/gone/away", root.join("dangling")).expect("made");
            let made = tree
                .ensure(Path::new("/absolute/x"), Missing::Directory)
                .expect("made");
            assert!(same(&made, &root.join("outside/x")));
            let made = tree
                .ensure(Path::new("/relative/../../../y"), Missing::File)
                .expect("made");
            assert!(same(&made, &root.join("y")));
            let made = tree
                .ensure(Path::new("/dangling"), Missing::File)
                .expect("made");
            assert!(same(&made, &root.join("gone/away")));
            assert_eq!(
                tree.find_without_symlinks(Path::new("/relative")).err(),
                Some(Errno::LOOP)
            );
        });
    }

    #[test]
    fn a_loop_of_symlinks_is_an_error() {
        with_tree(|tree, root| {
            symlink("b", root.join("a")).expect("made");
            symlink("a", root.join("b")).expect("made");
            assert!(tree.ensure(Path::new("/a/x"), Missing::Directory).is_err());
        });
    }

    /// Ends the thread that swaps, even if the test fails.
    struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// A component is a directory now and a symlink to the outside then, whenever the tree looks.
    #[test]
    fn ten_thousand_swaps_of_a_component_lead_nowhere() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use std::sync::atomic::{AtomicBool, Ordering};
        with_tree(|tree, root| {
            let (place, link) = (root.join("place"), root.join("link"));
            fs::create_dir(&place).expect("made");
            symlink("../outside", &link).expect("made");
            let inside = format!("{}/", root.display());
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let stop = Stop(&done);
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        renameat_with(CWD, &place, CWD, &link, RenameFlags::EXCHANGE)
                            .expect("swapped");
                        // Else openat2 would hardly ever come to an end.
                        std::thread::sleep(std::time::Duration::from_micros(20));
                    }
                });
                let mut made = 0;
                for number in 0..10_000 {
                    let path = format!("/place/{}/file", number % 64);
                    let Ok(file) = tree.ensure(Path::new(&path), Missing::File) else {
                        continue;
                    };
                    made += 1;
                    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                    let real = fs::read_link(link).expect("open");
                    let real = real.to_str().expect("ASCII");
                    assert!(real.starts_with(&inside), "{real}");
                    // Some tries find it, others make it anew.
                    if number % 8 == 0 {
                        let _ = fs::remove_dir_all(Path::new(real).parent().expect("it has"));
                    }
                }
                drop(stop);
                assert!(made > 0, "no try succeeded");
            });
        });
    }
}
