//! `linux.resources` as values for the files of control groups. Pure.
//!
//! Each controller is looked for in cgroup v2 first and in v1 then; one that neither has is an error that names
//! the property and the controller. Entries of `unified` are v2's, come last, and so win.

use super::devices::{self, Instruction};
use super::host::Host;
use super::{v1, v2};
use crate::error::{Error, Result};
use crate::spec::Resources;

/// What to do if a file cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is an error.
    Required,
    /// A kernel without the file has nothing to set; all else is an error.
    IfPresent,
    /// A later setting tells.
    Attempt,
}

/// A file in the cgroup, and what to write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) value: String,
    pub(super) mode: Mode,
    /// File and value where there is no such file.
    pub(super) otherwise: Option<(&'static str, String)>,
}

impl Setting {
    pub(super) fn new(file: &str, value: String) -> Self {
        Self {
            file: file.to_owned(),
            value,
            mode: Mode::Required,
            otherwise: None,
        }
    }

    pub(super) fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    pub(super) fn otherwise(self, file: &'static str, value: String) -> Self {
        let otherwise = Some((file, value));
        Self { otherwise, ..self }
    }
}

/// The resources of a document, checked as far as that needs no host.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    resources: Resources,
    devices: Option<Vec<Instruction>>,
}

/// The settings for one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// For cgroup v2, in order.
    pub(super) unified: Vec<Setting>,
    /// For v1: controllers with their settings.
    pub(super) legacy: Vec<(&'static str, Vec<Setting>)>,
}

type Translate = fn(&Resources) -> Result<Vec<Setting>>;

/// A part of the resources that one controller handles.
struct Part {
    property: &'static str,
    unified: (&'static str, Translate),
    legacy: (&'static str, Translate),
}

const fn part(
    property: &'static str,
    unified: (&'static str, Translate),
    legacy: (&'static str, Translate),
) -> Part {
    Part {
        property,
        unified,
        legacy,
    }
}

const PARTS: [Part; 9] = [
    part("memory", ("memory", v2::memory), ("memory", v1::memory)),
    part("cpu", ("cpu", v2::cpu), ("cpu", v1::cpu)),
    part(
        "cpu.cpus and cpu.mems",
        ("cpuset", v2::cpuset),
        ("cpuset", v2::cpuset),
    ),
    part("pids", ("pids", v2::pids), ("pids", v2::pids)),
    part("blockIO", ("io", v2::block_io), ("blkio", v1::block_io)),
    part(
        "hugepageLimits",
        ("hugetlb", v2::hugetlb),
        ("hugetlb", v1::hugetlb),
    ),
    part("rdma", ("rdma", v2::rdma), ("rdma", v2::rdma)),
    part(
        "network.classID",
        ("net_cls", v2::nothing),
        ("net_cls", v1::net_class),
    ),
    part(
        "network.priorities",
        ("net_prio", v2::nothing),
        ("net_prio", v1::net_priorities),
    ),
];

impl Limits {
    /// Checks the resources.
    pub fn resolve(resources: &Resources) -> Result<Self> {
        for file in resources.unified.keys() {
            check_file(file)?;
        }
        for limit in &resources.hugepage_limits {
            check_file(&limit.page_size)?;
        }
        Ok(Self {
            devices: devices::compile(&resources.devices)?,
            resources: resources.clone(),
        })
    }

    /// As in the document.
    pub(super) fn resources(&self) -> &Resources {
        &self.resources
    }

    /// As in the document, to be kept; none asks for no room.
    pub(super) fn saved(&self) -> Option<Box<Resources>> {
        let asks = self.resources != Resources::default();
        asks.then(|| Box::new(self.resources.clone()))
    }

    /// The program that guards access to devices, if any is forbidden.
    pub(super) fn devices(&self) -> Option<&[Instruction]> {
        self.devices.as_deref()
    }

    /// Whether nothing but access to devices is limited.
    pub(crate) fn is_empty(&self) -> bool {
        let without_devices = Resources {
            devices: Vec::new(),
            ..self.resources.clone()
        };
        without_devices == Resources::default()
    }

    /// Finds each controller on the host and translates for it.
    pub(super) fn settings(&self, host: &Host) -> Result<Settings> {
        let mut settings = Settings::default();
        for part in &PARTS {
            let (unified, legacy) = (part.unified.1, part.legacy.1);
            // The older words are the wider ones: what asks for nothing in them asks for nothing.
            if legacy(&self.resources)?.is_empty() {
                continue;
            }
            if host.has_unified(part.unified.0)? {
                settings.unified.extend(unified(&self.resources)?);
            } else if host.legacy(part.legacy.0)?.is_some() {
                settings
                    .legacy
                    .push((part.legacy.0, legacy(&self.resources)?));
            } else {
                return Err(missing(part.property, part.legacy.0));
            }
        }
        for (file, value) in &self.resources.unified {
            let controller = controller(file);
            if controller != "cgroup" && !host.has_unified(controller)? {
                let property = format!("unified: {file}");
                return Err(missing(&property, controller));
            }
            settings.unified.push(Setting::new(file, value.clone()));
        }
        if host.unified.is_none() {
            // No process may be without a cgroup of its own, and the freezer is the one that stops and kills.
            settings.legacy.insert(0, ("freezer", Vec::new()));
            let rules = v1::devices(&self.resources.devices);
            if !rules.is_empty() {
                settings.legacy.push(("devices", rules));
            }
        }
        Ok(settings)
    }
}

impl Settings {
    /// The controllers of cgroup v2 that the files belong to.
    pub(super) fn controllers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for setting in &self.unified {
            let name = controller(&setting.file);
            // Files of the core need no controller.
            if name != "cgroup" && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn controller(file: &str) -> &str {
    file.split('.').next().unwrap_or_default()
}

fn missing(property: &str, controller: &str) -> Error {
    Error::Unsupported(format!(
        "linux.resources.{property} on a host without the cgroup controller {controller}"
    ))
}

/// Refuses the first property that is asked for.
pub(super) fn none_of(host: &str, asked: &[(&str, bool)]) -> Result<()> {
    match asked.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(Error::Unsupported(format!(
            "linux.resources.{name} with {host}"
        ))),
        None => Ok(()),
    }
}

/// A file of the cgroup itself, never one elsewhere.
pub(super) fn check_file(name: &str) -> Result<()> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain {
        Ok(())
    } else {
        Err(Error::Config(format!(
            "linux.resources: {name:?} is no file of a cgroup"
        )))
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
