//! `list`: all containers below `--root`.
//!
//! Refuses to fail for one container that is just being made or removed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::state::{Container, Status};

/// One container, as runc describes it, and with its members in the same order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: Status,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs: Option<PathBuf>,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

/// The containers as a table, as JSON, or with `quiet` only their ids.
pub fn list(root: &Path, json: bool, quiet: bool) -> Result<String> {
    let ids = ids(root).at("read state directory", root)?;
    if quiet {
        return Ok(ids.iter().fold(String::new(), |text, id| text + id + "\n"));
    }
    let mut rows = Vec::new();
    let mut entries: Vec<String> = Vec::new();
    for id in &ids {
        let container = Container::new(root, id)?;
        // It may be gone by now, or not be there yet.
        let Ok(Some(record)) = container.read() else {
            continue;
        };
        let state = container.document(&record);
        let owner = owner(container.directory());
        if json {
            let entry = Entry {
                oci_version: state.oci_version,
                id: state.id,
                pid: state.pid,
                status: state.status,
                bundle: state.bundle,
                rootfs: rootfs(&container, &record.bundle),
                created: state.created,
                annotations: state.annotations,
                owner,
            };
            // As text, since a value would lose the order of its members.
            entries.push(serde_json::to_string(&entry).map_err(|source| Error::Json {
                path: container.directory().to_owned(),
                source,
            })?);
        } else {
            rows.push([
                id.clone(),
                state.pid.to_string(),
                state.status.name().to_owned(),
                record.bundle.display().to_string(),
                record.created.clone(),
                owner,
            ]);
        }
    }
    Ok(match json {
        true => format!("[{}]\n", entries.join(",")),
        false => table(&rows),
    })
}

/// In the order of their names. No directory, no containers.
fn ids(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        ids.extend(
            name.ok()
                .filter(|id| is_directory && Container::new(root, id).is_ok()),
        );
    }
    ids.sort_unstable();
    Ok(ids)
}

/// The name of who made the container, else `#` and the user id.
fn owner(directory: &Path) -> String {
    let Ok(uid) = fs::metadata(directory).map(|metadata| metadata.uid()) else {
        return String::new();
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_name(&passwd, uid).unwrap_or_else(|| format!("#{uid}"))
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let is_it = fields.nth(1)?.parse() == Ok(uid);
        is_it.then(|| name.to_owned())
    })
}

fn rootfs(container: &Container, bundle: &Path) -> Option<PathBuf> {
    Some(bundle.join(container.config().ok()?.root?.path))
}

/// Columns as wide as their widest cell and three spaces, at least twelve.
fn table(rows: &[[String; 6]]) -> String {
    const MINIMUM: usize = 12;
    const GAP: usize = 3;
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let lines = || std::iter::once(&header).chain(rows);
    let width = |column: usize| {
        let widest = lines().map(|line| line[column].chars().count()).max();
        (widest.unwrap_or(0) + GAP).max(MINIMUM)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines() {
        for (cell, width) in line[..5].iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(text, "{cell:width$}");
        }
        text.push_str(&line[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = ["a-rather-long-name", "7", "running", "/b", "2020", "root"];
        let text = table(&[row.map(str::to_owned)]);
        let expected = "\
ID                   PID         STATUS      BUNDLE      CREATED     OWNER
a-rather-long-name   7           running     /b          2020        root
";
        assert_eq!(text, expected);
    }

    #[test]
    fn users_are_found_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:33:33::/:/\n";
        assert_eq!(user_name(passwd, 33).as_deref(), Some("web"));
        assert_eq!(user_name(passwd, 1), None);
    }
}
