//! Who the process is and which file it executes: user, groups, capabilities, home directory, search in `PATH`.
//!
//! Works inside the finished root with the container's own files, and never through a C library's name service.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Gid, Uid, accessat};
use rustix::io::Errno;
use rustix::thread::{
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::error::{Context, Error, Result};
use crate::process::capabilities::Sets;

/// Searched when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is read of `/etc/passwd` at most.
const MAX_PASSWD_BYTES: u64 = 1024 * 1024;

/// The user of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All supplementary groups: those of the caller are given up.
    pub groups: Vec<u32>,
}

/// Becomes the user and gives up all capabilities but those of `sets`.
pub(crate) fn assume(user: &User, sets: &Sets) -> Result<()> {
    sets.drop_bounding()?;
    set_keep_capabilities(true).during("keep capabilities over the change of user")?;
    set_groups(&user.groups)?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).during(format!("become group {}", user.gid))?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).during(format!("become user {}", user.uid))?;
    set_keep_capabilities(false).during("no longer keep capabilities")?;
    sets.apply()
}

/// Becomes the user who owns what is made in a new or joined user namespace, without the groups of the host.
pub(crate) fn become_owner(uid: u32, gid: u32) -> Result<()> {
    set_groups(&[])?;
    let gid = Gid::from_raw(gid);
    set_thread_res_gid(gid, gid, gid).during("become the first group of the user namespace")?;
    let uid = Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid).during("become the first user of the user namespace")
}

/// A user namespace may forbid to give up groups (user_namespaces(7)); then there is none to add either.
fn set_groups(groups: &[u32]) -> Result<()> {
    let ids: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match set_thread_groups(&ids) {
        Err(Errno::PERM) if groups.is_empty() && are_groups_fixed() => Ok(()),
        other => other.during("set supplementary groups"),
    }
}

fn are_groups_fixed() -> bool {
    fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

/// Finds the file to execute: `name` itself if it has a slash, else the first match in `PATH`.
///
/// Fails as execvp does: EACCES if something was found that may not be executed, else ENOENT. The words of the errors
/// are those that engines look for.
pub(crate) fn find_program(name: &str, env: &[CString]) -> Result<CString> {
    if name.contains('/') {
        executable(Path::new(name)).map_err(|errno| unfit(name, errno))?;
        return CString::new(name)
            .map_err(|_| Errno::INVAL)
            .at("execute", name);
    }
    let path = variable(env, "PATH").unwrap_or(DEFAULT_PATH.as_bytes());
    let mut reason = Errno::NOENT;
    for directory in path.split(|&byte| byte == b':') {
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        let candidate = Path::new(OsStr::from_bytes(directory)).join(name);
        match executable(&candidate) {
            Ok(()) => {
                return CString::new(candidate.into_os_string().as_bytes())
                    .map_err(|_| Errno::INVAL)
                    .at("execute", name);
            }
            Err(Errno::ACCESS) => reason = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(match reason {
        Errno::NOENT => Error::Container(format!(
            "exec: {name:?}: executable file not found in $PATH"
        )),
        reason => unfit(name, reason),
    })
}

fn unfit(name: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::Container(format!("exec: {name:?}: no such file or directory")),
        Errno::ACCESS => Error::Container(format!("exec: {name:?}: permission denied")),
        errno => Error::System {
            operation: format!("exec: {name:?}"),
            source: errno.into(),
        },
    }
}

fn executable(path: &Path) -> Result<(), Errno> {
    let metadata =
        fs::metadata(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if !metadata.is_file() {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// The value of an environment variable; the first one wins, as in the C library.
pub(crate) fn variable<'a>(env: &'a [CString], name: &str) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| {
        entry
            .to_bytes()
            .strip_prefix(name.as_bytes())?
            .strip_prefix(b"=")
    })
}

/// The home directory that the container's `/etc/passwd` gives the user, else `/`.
pub(crate) fn home(uid: u32) -> PathBuf {
    let read = || {
        // An image may have anything at this path: a FIFO must not block us.
        let file = fs::File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open("/etc/passwd")
            .ok()?;
        file.metadata().ok()?.is_file().then_some(())?;
        let mut text = Vec::new();
        file.take(MAX_PASSWD_BYTES).read_to_end(&mut text).ok()?;
        home_in(&text, uid)
    };
    read().unwrap_or_else(|| PathBuf::from("/"))
}

fn home_in(passwd: &[u8], uid: u32) -> Option<PathBuf> {
    let wanted = uid.to_string();
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        match fields.as_slice() {
            [_, _, id, _, _, home, _] if *id == wanted.as_bytes() && home.starts_with(b"/") => {
                Some(PathBuf::from(OsStr::from_bytes(home)))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_found_by_number_only() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:33:33::/srv/web:\n1000:x:7:7::relative:\n";
        for (uid, expected) in [
            (0, Some("/root")),
            (33, Some("/srv/web")),
            (1000, None),
            (7, None),
        ] {
            assert_eq!(home_in(passwd, uid), expected.map(PathBuf::from), "{uid}");
        }
    }

    #[test]
    fn program_is_searched_as_execvp_does() {
        let env = |path: &str| vec![CString::new(format!("PATH={path}")).expect("no NUL")];
        let found = find_program("sh", &env("/nowhere:/etc:/bin")).expect("every Unix has it");
        assert_eq!(found.as_c_str(), c"/bin/sh");
        for (name, path) in [
            ("no-such-program", "/bin"),
            ("passwd", "/etc"),
            ("/etc", ""),
            ("/etc/passwd", "/"),
        ] {
            assert!(find_program(name, &env(path)).is_err(), "{name}");
        }
        assert!(find_program("sh", &[]).is_ok(), "there is a default PATH");
    }
}
