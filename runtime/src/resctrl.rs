//! `linux.intelRdt` (config-linux.md, "IntelRdt"): the container's class of service and its monitoring group, two
//! directories of a mounted resctrl filesystem (`Documentation/filesystems/resctrl.rst`).
//!
//! Refuses a class that exists with other schemata than the document's, and one that is only named and does not exist.
//! A class that the document names outlives the container; one named after the container goes with it, and so does the
//! monitoring group.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::spec::IntelRdt;

/// What the document asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Below the mount; empty for the root, which is the default class.
    name: String,
    /// Whether `closID` gives the name, else it is the container's.
    named: bool,
    /// Lines for the file `schemata`.
    schemata: Vec<String>,
    /// What the monitoring group is called, if there is one.
    group: Option<String>,
    /// Events that the host must be able to count.
    events: Vec<&'static str>,
}

/// Names that the filesystem has for itself.
const TAKEN: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];

impl Class {
    /// Refuses names that are no directory's, and schemata that are not one line each.
    pub(crate) fn resolve(asked: &IntelRdt, id: &str) -> Result<Self> {
        let closid = asked.clos_id.as_deref().filter(|name| !name.is_empty());
        let name = closid.unwrap_or(id);
        let is_root = closid == Some("/");
        if !is_root && (TAKEN.contains(&name) || name.contains(['/', '\n', '\0'])) {
            return Err(wrong("closID", format!("{name:?} names no class")));
        }
        let enable_cmt = asked.enable_cmt.then_some("llc_occupancy");
        let enable_mbm = asked.enable_mbm.then_some("mbm_");
        let events: Vec<_> = enable_cmt.into_iter().chain(enable_mbm).collect();
        let monitors = asked.enable_monitoring || !events.is_empty();
        Ok(Self {
            name: if is_root {
                String::new()
            } else {
                name.to_owned()
            },
            named: closid.is_some(),
            schemata: schemata(asked)?,
            group: monitors.then(|| id.to_owned()),
            events,
        })
    }
}

fn wrong(property: &str, text: String) -> Error {
    Error::Config(format!("linux.intelRdt.{property}: {text}"))
}

/// In the order of the specification: the cache, the bandwidth, then whatever else.
fn schemata(asked: &IntelRdt) -> Result<Vec<String>> {
    let bandwidth = asked.mem_bw_schema.iter().filter(|line| !line.is_empty());
    let bandwidth: Vec<_> = bandwidth.collect();
    let mut lines = Vec::new();
    for line in asked.l3_cache_schema.iter().flat_map(|text| text.lines()) {
        // The bandwidth has a property of its own, which wins.
        let replaced = !bandwidth.is_empty() && line.trim_start().starts_with("MB:");
        if !line.trim().is_empty() && !replaced {
            check_line("l3CacheSchema", line)?;
            lines.push(line.to_owned());
        }
    }
    for line in bandwidth {
        if !line.starts_with("MB:") {
            return Err(wrong("memBwSchema", format!("{line:?} is not MB:...")));
        }
        check_line("memBwSchema", line)?;
        lines.push(line.clone());
    }
    for line in asked.schemata.iter().flatten() {
        check_line("schemata", line)?;
        lines.push(line.clone());
    }
    Ok(lines)
}

fn check_line(property: &str, line: &str) -> Result<()> {
    if parse_line(line).is_some() && !line.contains(['\n', '\0']) {
        return Ok(());
    }
    Err(wrong(property, format!("{line:?} is no schema line")))
}

/// A resource, and the value for each of its domains: `L3:0=ff;1=f`.
type Line<'a> = (&'a str, Vec<(&'a str, &'a str)>);

fn parse_line(line: &str) -> Option<Line<'_>> {
    let (resource, domains) = line.trim().split_once(':')?;
    let domain = |text: &'_ str| -> Option<(usize, usize)> {
        let at = text.find('=')?;
        (at > 0 && at + 1 < text.len()).then_some((at, at + 1))
    };
    let domains = domains.split(';').map(|text| {
        let text = text.trim();
        domain(text).map(|(end, begin)| (&text[..end], &text[begin..]))
    });
    Some((resource.trim(), domains.collect::<Option<_>>()?))
}

/// Whether the file says what each line asks for. It may say more, and writes masks in its own way.
fn matches(file: &str, lines: &[String]) -> bool {
    let plain = |value: &str| value.trim().trim_start_matches('0').to_ascii_lowercase();
    let known: Vec<Line<'_>> = file.lines().filter_map(parse_line).collect();
    let has = |resource: &str, (domain, value): &(&str, &str)| {
        known.iter().any(|(name, domains)| {
            let same = |(other, set): &(&str, &str)| {
                other.trim() == domain.trim() && plain(set) == plain(value)
            };
            *name == resource && domains.iter().any(same)
        })
    };
    let asked = lines.iter().filter_map(|line| parse_line(line));
    asked.into_iter().all(|(resource, domains)| {
        let has = |domain: &(&str, &str)| has(resource, domain);
        domains.iter().all(has)
    })
}

/// Where a container's processes are in the resctrl filesystem; remembered with its state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Membership {
    /// The class.
    directory: PathBuf,
    /// Whether the class goes with the container.
    is_own: bool,
    /// The monitoring group.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<PathBuf>,
    /// Whether the class is new.
    #[serde(skip)]
    is_new: bool,
}

impl Membership {
    /// Makes what is missing, or finds that what is there fits. If that fails nothing is left.
    pub(crate) fn prepare(class: &Class) -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).at("read", path)?;
        let root = find_mount(&text).ok_or_else(|| {
            Error::Unsupported(
                "linux.intelRdt on a host without a mounted resctrl filesystem".into(),
            )
        })?;
        Self::prepare_below(&root, class)
    }

    fn prepare_below(root: &Path, class: &Class) -> Result<Self> {
        check_events(root, &class.events)?;
        let mut membership = Self {
            directory: root.join(&class.name),
            ..Self::default()
        };
        let made = membership.make(root, class);
        if made.is_err() {
            membership.undo();
        }
        made.map(|()| membership)
    }

    fn make(&mut self, root: &Path, class: &Class) -> Result<()> {
        let directory = &self.directory;
        if directory.is_dir() {
            let path = directory.join("schemata");
            if !class.schemata.is_empty() {
                let text = fs::read_to_string(&path).at("read", &path)?;
                if !matches(&text, &class.schemata) {
                    let text = format!("class {:?} exists with other schemata", class.name);
                    return Err(Error::Container(format!("linux.intelRdt: {text}")));
                }
            }
        } else if class.named && class.schemata.is_empty() {
            let text = format!(
                "closID {:?} does not exist, and no schemata make it",
                class.name
            );
            return Err(Error::Container(format!("linux.intelRdt: {text}")));
        } else {
            make_directory(root, directory)?;
            (self.is_new, self.is_own) = (true, !class.named);
            if !class.schemata.is_empty() {
                let lines = class.schemata.join("\n") + "\n";
                write(root, &directory.join("schemata"), &lines)?;
            }
        }
        if let Some(name) = &class.group {
            let group = directory.join("mon_groups").join(name);
            make_directory(root, &group)?;
            self.group = Some(group);
        }
        Ok(())
    }

    /// Puts a process in; what it forks follows. The class first: entering one leaves the groups of another.
    pub(crate) fn attach(&self, pid: i32) -> Result<()> {
        for directory in [Some(&self.directory), self.group.as_ref()]
            .into_iter()
            .flatten()
        {
            let path = directory.join("tasks");
            try_write(&path, &pid.to_string()).at("put the process into", &path)?;
        }
        Ok(())
    }

    /// Removes what goes with the container. Gone already is good.
    pub(crate) fn remove(&self) -> Result<()> {
        let own = self.is_own.then_some(&self.directory);
        for directory in self.group.iter().chain(own) {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).at("remove", directory);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// As though the container had never been: a class that is new goes too, unless others have come into it.
    pub(crate) fn undo(&self) {
        let _ = self.remove();
        let tasks = fs::read(self.directory.join("tasks"));
        if self.is_new && !tasks.is_ok_and(|tasks| !tasks.is_empty()) {
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// proc(5), `/proc/PID/mountinfo`.
fn find_mount(text: &str) -> Option<PathBuf> {
    let mut mounts = text.lines().filter_map(|line| line.split_once(" - "));
    let found = mounts.find(|(_, filesystem)| filesystem.starts_with("resctrl "));
    found?.0.split(' ').nth(4).map(PathBuf::from)
}

/// Which events are counted is the hardware's choice; there is no turning them on one by one.
fn check_events(root: &Path, events: &[&str]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let features = fs::read_to_string(root.join("info/L3_MON/mon_features")).unwrap_or_default();
    let has = |event: &&&str| features.lines().any(|feature| feature.starts_with(**event));
    match events.iter().find(|event| !has(event)) {
        Some(event) => Err(Error::Unsupported(format!(
            "linux.intelRdt: this host does not count {event} events (enableCMT, enableMBM)"
        ))),
        None => Ok(()),
    }
}

fn make_directory(root: &Path, path: &Path) -> Result<()> {
    fs::create_dir(path)
        .map_err(|error| explain(root, error))
        .at("make", path)
}

fn write(root: &Path, path: &Path, text: &str) -> Result<()> {
    try_write(path, text)
        .map_err(|error| explain(root, error))
        .at("write", path)
}

/// One write, as the files of the filesystem want it.
fn try_write(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// The filesystem says in a file why it refused the last command.
fn explain(root: &Path, error: io::Error) -> io::Error {
    let status = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    match status.trim() {
        "" | "ok" => error,
        status => io::Error::new(error.kind(), format!("{error} ({status})")),
    }
}

#[cfg(test)]
#[path = "resctrl_tests.rs"]
mod tests;
