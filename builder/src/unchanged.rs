//! Whether an image is there already: a build of the same plan by the same program at the same place need not write it.
//!
//! Beside each image that was written the cache keeps a stamp: the fingerprint of what it was made of, and the state of
//! its file. The fingerprint is over the whole plan as data, this program, and length, times and inode of each file of
//! the host that the plan refers to, as `make` and `git` go by. Whatever differs, or is not known for sure, is built.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Write};
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::disk::Written;
use crate::format::gpt;
use crate::identity::hex;
use crate::plan::Plan;
use crate::source::cache::Cache;
use crate::tree::{Content, Kind};

/// What an image was made of, and where the cache notes it.
#[derive(Debug)]
pub struct Stamp {
    place: PathBuf,
    target: PathBuf,
    fingerprint: String,
}

impl Stamp {
    /// For a plan that has not been written yet. `None`: something cannot be told, so the image is built.
    pub fn new(cache: &Cache, target: &Path, plan: &Plan) -> Option<Self> {
        // What signs, a key or a program, is not shown by the plan.
        if plan.secure_boot.is_some() {
            return None;
        }
        let target = std::path::absolute(target).ok()?;
        let name = hex(&Sha256::digest(target.as_os_str().as_bytes()));
        Some(Self {
            place: cache.directory("built").ok()?.join(name),
            fingerprint: fingerprint(plan)?,
            target,
        })
    }

    /// What is at the target, if it is what a build would write.
    pub fn find(&self) -> Option<Written> {
        let noted = fs::read_to_string(&self.place).ok()?;
        let (root_hash, rest) = noted.split_once('\n')?;
        if rest != self.rest(&fs::metadata(&self.target).ok()?) {
            return None;
        }
        let table = gpt::read(&File::open(&self.target).ok()?).ok()?;
        Some(Written {
            root_hash: root_hash.to_owned(),
            table,
        })
    }

    /// Notes what was written, and the state of the file that it was written to: what has its name by now may be another
    /// build's. Where that fails the image is built anew next time, nothing worse.
    pub fn note(&self, written: &Written, file: &Metadata) {
        let text = format!("{}\n{}", written.root_hash, self.rest(file));
        let _ = fs::write(&self.place, text);
    }

    fn rest(&self, file: &Metadata) -> String {
        format!("{}\n{}\n", self.fingerprint, state(file))
    }
}

/// What changes when a file does.
fn state(found: &Metadata) -> String {
    format!(
        "{}:{} {} {}.{:09} {}.{:09}",
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec()
    )
}

fn fingerprint(plan: &Plan) -> Option<String> {
    let mut hash = Hashing(Sha256::new());
    hash.0.update(fs::read("/proc/self/exe").ok()?);
    hash.say(plan);
    for path in host_files(plan) {
        hash.say(path);
        hash.say(&state(&fs::metadata(path).ok()?));
    }
    Some(hex(&hash.0.finalize()))
}

/// The files of the host that the plan refers to.
fn host_files(plan: &Plan) -> BTreeSet<&Path> {
    let own = [&plan.kernel, &plan.stub, &plan.loader];
    let of_trees = plan.root.inodes().chain(plan.initramfs.inodes());
    let of_trees = of_trees.filter_map(|inode| match &inode.kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    let contents = own.into_iter().chain(of_trees);
    let paths = contents.filter_map(|content| match content {
        Content::Range { path, .. } => Some(path.as_path()),
        Content::Bytes(_) => None,
    });
    paths.collect()
}

/// Takes the text of values without keeping it. Contents in memory are said by their digest.
struct Hashing(Sha256);

impl Hashing {
    fn say(&mut self, value: &(impl Debug + ?Sized)) {
        // A hash takes all text.
        let _ = writeln!(self, "{value:?}");
    }
}

impl Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use std::io::Write as _;

    fn stamp(folder: &Path, fingerprint: &str) -> Stamp {
        Stamp {
            place: folder.join("stamp"),
            target: folder.join("a.img"),
            fingerprint: fingerprint.to_owned(),
        }
    }

    fn write(folder: &Path, root_hash: &str) -> (Written, Metadata) {
        let table = gpt::Table {
            disk_guid: uuid::Uuid::from_u128(1),
            disk_len: 1 << 20,
            partitions: Vec::new(),
        };
        let output = Output::create(&folder.join("a.img")).unwrap();
        output.file().set_len(table.disk_len).unwrap();
        gpt::write(output.file(), &table).unwrap();
        let written = Written {
            root_hash: root_hash.to_owned(),
            table,
        };
        (written, output.commit().unwrap())
    }

    #[test]
    fn an_image_is_known_until_it_or_what_it_is_made_of_changes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(stamp(folder, "one").find().is_none());
        let (written, state) = write(folder, "aa");
        stamp(folder, "one").note(&written, &state);
        assert_eq!(stamp(folder, "one").find().unwrap().root_hash, "aa");
        assert!(stamp(folder, "two").find().is_none());
        let mut image = File::options()
            .write(true)
            .open(folder.join("a.img"))
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        image.write_all(&[0]).unwrap();
        assert!(stamp(folder, "one").find().is_none());
    }

    #[test]
    fn the_image_of_another_build_that_ended_at_once_is_not_taken_for_ours() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (ours, our_state) = write(folder, "aa");
        let (theirs, their_state) = write(folder, "bb");
        stamp(folder, "theirs").note(&theirs, &their_state);
        stamp(folder, "ours").note(&ours, &our_state);
        assert!(stamp(folder, "ours").find().is_none());
    }
}
