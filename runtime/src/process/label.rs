//! The label that a security module gives the process at its execve: an AppArmor profile or an SELinux context.
//!
//! The attribute is opened while `/proc` is still the host's, and looked at: a file that is not procfs's would swallow
//! the label. It is written right before the execve, or before that of the first startContainer hook, which is a program
//! of the image like the command. A host without the module is an error before anything is made.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::spec;

/// A label to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    property: &'static str,
    attribute: &'static str,
    text: String,
}

/// An open attribute of this process, and what is to be written there.
#[derive(Debug)]
pub(crate) struct Pending(File, Label);

impl Label {
    /// The labels that the document asks for, if this host can give them.
    pub(crate) fn resolve(process: &spec::Process) -> Result<Vec<Self>> {
        let mut labels = Vec::new();
        let profile = process.apparmor_profile.as_deref().unwrap_or_default();
        // Without the module everything is unconfined.
        if !profile.is_empty() && (has_apparmor() || profile != "unconfined") {
            labels.push(Self {
                property: "process.apparmorProfile",
                attribute: "/proc/thread-self/attr/apparmor/exec",
                text: format!("exec {profile}"),
            });
        }
        let context = process.selinux_label.as_deref().unwrap_or_default();
        if !context.is_empty() {
            labels.push(Self {
                property: "process.selinuxLabel",
                attribute: "/proc/thread-self/attr/exec",
                text: context.to_owned(),
            });
        }
        for label in &labels {
            let (module, is_there) = match label.property {
                "process.apparmorProfile" => ("AppArmor", has_apparmor()),
                _ => ("SELinux", Path::new("/sys/fs/selinux").exists()),
            };
            if !is_there {
                let property = label.property;
                return Err(Error::Unsupported(format!(
                    "{property}: this host has no {module}"
                )));
            }
        }
        Ok(labels)
    }

    fn open(&self) -> Result<Pending> {
        let path = self.attribute;
        let file = File::options().write(true).open(path).at("open", path)?;
        if fstatfs(&file).at("inspect", path)?.f_type != PROC_SUPER_MAGIC {
            return Err(Errno::NODEV).at("take for an attribute of a process", path);
        }
        Ok(Pending(file, self.clone()))
    }
}

/// Opens the attributes of this process, to be called while `/proc` is the host's.
pub(crate) fn open(labels: &[Label]) -> Result<Vec<Pending>> {
    labels.iter().map(Label::open).collect()
}

impl Pending {
    /// From the next execve on this process has the label.
    pub(crate) fn write(&mut self) -> Result<()> {
        let Self(file, label) = self;
        file.write_all(label.text.as_bytes())
            .during(format!("set {} to {:?}", label.property, label.text))
    }
}

fn has_apparmor() -> bool {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.first() == Some(&b'Y'))
}
