//! What the host's kernel makes of the images; only for root, so asked for by `--ignored`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::random::{Random, random_tree};
use crate::{
    COMPRESSIONS, MIB, assert_extracted, big_file, options_with, tool, write_erofs, write_ext4,
};

#[test]
#[ignore = "needs root, a loop device and EROFS in the host's kernel"]
fn linux_mounts_erofs_with_an_equal_tree() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let big = big_file(dir.path());
        let tree = random_tree(seed, 3000, &big, true);
        let image = dir.path().join("image");
        write_erofs(
            &image,
            &tree,
            &options_with(COMPRESSIONS[seed as usize % 3], 2),
        );
        let mount = Mounted::new(&image, &dir.path().join("mount"), "erofs", "loop,ro");
        assert_extracted(&tree, &mount.0, true);
        for (name, id) in tree.walk() {
            let path = mount.0.join(OsStr::from_bytes(&name));
            let expected = &tree.inode(id).metadata;
            let found = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(found.mode() & 0o7777, u32::from(expected.mode), "{path:?}");
            assert_eq!((found.uid(), found.gid()), (expected.uid, expected.gid));
            let time = (expected.mtime, i64::from(expected.mtime_nsec));
            assert_eq!((found.mtime(), found.mtime_nsec()), time, "{path:?}");
            let mut list = vec![0; 65536];
            let len = rustix::fs::llistxattr(&path, list.as_mut_slice()).unwrap();
            let listed = list[..len].iter().filter(|byte| **byte == 0).count();
            assert_eq!(listed, expected.xattrs.len(), "{path:?}");
            for (name, value) in &expected.xattrs {
                // Linux gives attributes of users away on files and directories only.
                if name.starts_with(b"user.") && !(found.is_file() || found.is_dir()) {
                    continue;
                }
                let mut found = vec![0; 65536];
                let name = OsStr::from_bytes(name);
                let len = rustix::fs::lgetxattr(&path, name, found.as_mut_slice()).unwrap();
                assert!(found[..len] == *value, "{path:?}: {name:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs root, loop devices and ext4 in the host's kernel"]
fn linux_fills_and_grows_ext4() {
    for (mib, grown) in [(16, 900), (64, 40 << 10), (256, 3000), (2100, 10_000)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = write_ext4(&path, mib * MIB);
        let at = dir.path().join("mount");
        {
            let mount = Mounted::new(&path, &at, "ext4", "loop");
            std::fs::create_dir(mount.0.join("d")).unwrap();
            for number in 0..300 {
                let name = mount.0.join(format!("d/{number}"));
                std::fs::write(name, Random(number).bytes(9000)).unwrap();
            }
        }
        tool("e2fsprogs", "e2fsck", &[&"-fn", &path]);
        file.set_len(grown * MIB).unwrap();
        tool("e2fsprogs", "resize2fs", &[&"-f", &path]);
        tool("e2fsprogs", "e2fsck", &[&"-fn", &path]);
        let mount = Mounted::new(&path, &at, "ext4", "loop");
        for number in 0..300 {
            let found = std::fs::read(mount.0.join(format!("d/{number}"))).unwrap();
            assert!(found == Random(number).bytes(9000));
        }
        let statistics = rustix::fs::statvfs(&mount.0).unwrap();
        let size = statistics.f_blocks * statistics.f_frsize;
        assert!(size > grown * MIB * 9 / 10, "{size} of {grown} MiB");
    }
}

/// A mount that ends with its value.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path, filesystem: &str, options: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        tool(
            "mount",
            "mount",
            &[&"-t", &filesystem, &"-o", &options, &image, &at],
        );
        Self(at.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
