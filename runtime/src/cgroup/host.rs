//! Which control group hierarchies this host has mounted: cgroup v2 by itself, beside v1, or v1 alone.
//!
//! Looks only when asked, so that a host with v2 alone costs one `statfs`.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::error::{Context, Error, Result};

/// Where cgroup v2 is mounted: by itself, or beside v1.
const MOUNT_POINTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// The hierarchies of this host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// The mount of cgroup v2.
    pub(super) unified: Option<PathBuf>,
    controllers: OnceCell<String>,
    legacy: OnceCell<Vec<(String, PathBuf)>>,
}

impl Host {
    /// Looks for cgroup v2.
    pub(super) fn look() -> Self {
        let is_cgroup2 =
            |path: &&&str| statfs(**path).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC);
        Self {
            unified: MOUNT_POINTS.iter().find(is_cgroup2).map(PathBuf::from),
            ..Self::default()
        }
    }

    /// Whether cgroup v2 has the controller.
    pub(super) fn has_unified(&self, controller: &str) -> Result<bool> {
        let Some(mount) = &self.unified else {
            return Ok(false);
        };
        let list = match self.controllers.get() {
            Some(list) => list,
            None => {
                let path = mount.join("cgroup.controllers");
                let text = fs::read_to_string(&path).at("read", &path)?;
                self.controllers.get_or_init(|| text)
            }
        };
        Ok(list.split_whitespace().any(|name| name == controller))
    }

    /// The mount of a v1 controller.
    pub(super) fn legacy(&self, controller: &str) -> Result<Option<&Path>> {
        let mounts = match self.legacy.get() {
            Some(mounts) => mounts,
            None => {
                let path = Path::new("/proc/self/mountinfo");
                let text = fs::read_to_string(path).at("read", path)?;
                self.legacy.get_or_init(|| parse_mountinfo(&text))
            }
        };
        let found = mounts.iter().find(|(name, _)| name == controller);
        Ok(found.map(|(_, path)| path.as_path()))
    }

    /// A host without either cannot hold a container.
    pub(super) fn require_any(&self) -> Result<()> {
        if self.unified.is_none() && self.legacy("freezer")?.is_none() {
            return Err(Error::Unsupported(
                "a host with neither cgroup v2 at /sys/fs/cgroup nor the freezer of cgroup v1"
                    .into(),
            ));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn invented(unified: Option<&str>, legacy: &[&str]) -> Self {
        let host = Self {
            unified: unified.map(|_| PathBuf::from("/sys/fs/cgroup")),
            ..Self::default()
        };
        host.controllers
            .get_or_init(|| unified.unwrap_or_default().to_owned());
        host.legacy.get_or_init(|| {
            let mount = |name: &&str| ((*name).to_owned(), Path::new("/v1").join(name));
            legacy.iter().map(mount).collect()
        });
        host
    }
}

/// Controllers with their mounts (proc(5), `/proc/PID/mountinfo`): those of a v1 mount are among its super options.
pub fn parse_mountinfo(text: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let mut filesystem = filesystem.split(' ');
        if filesystem.next() != Some("cgroup") {
            continue;
        }
        let (Some(path), Some(options)) = (mount.split(' ').nth(4), filesystem.nth(1)) else {
            continue;
        };
        for name in options
            .split(',')
            .filter(|name| !matches!(*name, "rw" | "ro"))
        {
            found.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_in_the_super_options() {
        let text = "\
            24 1 0:21 / / rw - ext4 /dev/vda rw\n\
            30 24 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
            31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
            32 24 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let found = parse_mountinfo(text);
        let path = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(found[0], ("cpu".into(), path.clone()));
        assert_eq!(found[1], ("cpuacct".into(), path));
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
