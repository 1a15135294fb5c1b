//! The id mappings of a new user namespace: written by the runtime, or for an ordinary user by newuidmap(1) and
//! newgidmap(1), which know what ids it has been lent (subuid(5)).
//!
//! An ordinary user may map its own id alone by itself, and then gives up changing groups in there
//! (user_namespaces(7)).

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{getegid, geteuid};

use crate::error::{Context, Error, Result};
use crate::spec::IdMapping;
use crate::sys;

/// Whose ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::User => "uid_map",
            Self::Group => "gid_map",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::User => "newuidmap",
            Self::Group => "newgidmap",
        }
    }

    fn own(self) -> u32 {
        match self {
            Self::User => geteuid().as_raw(),
            Self::Group => getegid().as_raw(),
        }
    }
}

/// Maps the ids of the user namespace that the process is in. None are none to map.
pub(super) fn write(pid: i32, kind: Kind, mappings: &[IdMapping]) -> Result<()> {
    if mappings.is_empty() {
        return Ok(());
    }
    if !geteuid().is_root() {
        if !is_only(mappings, kind.own()) {
            return ask_program(pid, kind, mappings);
        }
        if kind == Kind::Group {
            let path = format!("/proc/{pid}/setgroups");
            fs::write(&path, "deny").at("write", path)?;
        }
    }
    // One write, as the kernel wants it.
    let path = format!("/proc/{pid}/{}", kind.file());
    fs::write(&path, lines(mappings)).at("map the ids of the user namespace in", path)
}

/// Whether nothing but this id is mapped.
fn is_only(mappings: &[IdMapping], id: u32) -> bool {
    matches!(mappings, [IdMapping { host_id, size: 1, .. }] if *host_id == id)
}

fn ask_program(pid: i32, kind: Kind, mappings: &[IdMapping]) -> Result<()> {
    let name = kind.program();
    let mut command = Command::new(name);
    command.arg(pid.to_string()).stdin(Stdio::null());
    command.args(numbers(mappings).flatten().map(|number| number.to_string()));
    sys::spawn_clean(&mut command);
    let output = command.output();
    let output = output.during(format!("execute {name}, to map more ids than one's own"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Container(format!(
        "{name} maps no ids: {}",
        said.trim()
    )))
}

fn numbers(mappings: &[IdMapping]) -> impl Iterator<Item = [u32; 3]> {
    let row = |mapping: &IdMapping| [mapping.container_id, mapping.host_id, mapping.size];
    mappings.iter().map(row)
}

/// user_namespaces(7): the file's form.
fn lines(mappings: &[IdMapping]) -> String {
    let line = |[container, host, size]: [u32; 3]| format!("{container} {host} {size}\n");
    numbers(mappings).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_own_id_can_be_mapped_without_help() {
        let map = |host_id, size| IdMapping {
            container_id: 0,
            host_id,
            size,
        };
        for (mappings, expected) in [
            (vec![map(1000, 1)], true),
            (vec![map(1000, 2)], false),
            (vec![map(1001, 1)], false),
            (vec![map(1000, 1), map(100_000, 1)], false),
        ] {
            assert_eq!(is_only(&mappings, 1000), expected, "{mappings:?}");
        }
        assert_eq!(lines(&[map(5, 2), map(9, 1)]), "0 5 2\n0 9 1\n");
    }
}
