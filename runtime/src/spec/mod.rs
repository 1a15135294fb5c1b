//! The types of `config.json` (OCI runtime-spec 1.2), as far as Linux is concerned.
//!
//! Field names and meaning are the specification's. Unknown properties are ignored, as it demands
//! (config.md, "Extensibility"), and `null` stands for what is left out, since that is how engines written in Go say
//! it. Refuses nothing but what cannot be read: whether it makes sense is `plan`'s to say.

mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::error::{Context, Error, Result};

pub use linux::{
    Device, IntelRdt, Linux, MemoryPolicy, Namespace, NetDevice, Personality, TimeOffset,
};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoPriority, Process, Rlimit, Scheduler, User,
};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma,
    Resources, ThrottleDevice, WeightDevice,
};
pub use seccomp::{Seccomp, SeccompArg, SeccompSyscall};

/// The version of the specification that this runtime implements.
pub const OCI_VERSION: &str = "1.2.1";

/// A document larger than this is refused unread.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// Reads and parses `config.json` of a bundle.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    parse(&read(&path)?, &path)
}

/// Reads a JSON document, if it is no larger than any real one.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).at("open", path)?;
    let length = file.metadata().at("inspect", path)?.len();
    let mut text = Vec::with_capacity(length.min(MAX_CONFIG_BYTES) as usize + 1);
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut text)
        .at("read", path)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        let path = path.display();
        return Err(Error::Config(format!(
            "{path} is larger than {MAX_CONFIG_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// Parses a document or a part of one; `path` is named in the error, with line and column.
pub fn parse<'a, T: Deserialize<'a>>(text: &'a [u8], path: &Path) -> Result<T> {
    // Known to be UTF-8 as a whole, the text need not be examined string by string.
    let text = std::str::from_utf8(text)
        .map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
    serde_json::from_str(text).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })
}

/// `null` is what is not there.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The whole of `config.json` (config.md).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Spec {
    pub oci_version: String,
    pub root: Option<Root>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    #[serde(default, deserialize_with = "nullable")]
    pub hooks: Hooks,
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    pub linux: Linux,
}

/// config.md, "Root".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Root {
    pub path: PathBuf,
    #[serde(default, deserialize_with = "nullable")]
    pub readonly: bool,
}

/// config.md, "Mounts".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub source: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub options: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
}

/// config.md, "POSIX-platform Hooks": each list in the order of its execution.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Hooks {
    #[serde(default, deserialize_with = "nullable")]
    pub prestart: Vec<Hook>,
    #[serde(default, deserialize_with = "nullable")]
    pub create_runtime: Vec<Hook>,
    #[serde(default, deserialize_with = "nullable")]
    pub create_container: Vec<Hook>,
    #[serde(default, deserialize_with = "nullable")]
    pub start_container: Vec<Hook>,
    #[serde(default, deserialize_with = "nullable")]
    pub poststart: Vec<Hook>,
    #[serde(default, deserialize_with = "nullable")]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// Whether there is none of any kind.
    pub fn is_empty(&self) -> bool {
        [
            &self.prestart,
            &self.create_runtime,
            &self.create_container,
            &self.start_container,
            &self.poststart,
            &self.poststop,
        ]
        .iter()
        .all(|hooks| hooks.is_empty())
    }
}

/// One hook. `timeout` is in seconds; without `env` the environment is the runtime's own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct Hook {
    pub path: String,
    #[serde(default, deserialize_with = "nullable")]
    pub args: Vec<String>,
    pub env: Option<Vec<String>>,
    pub timeout: Option<i64>,
}

/// config-linux.md, "User namespace mappings": `size` ids from each of the two on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the specification's"
)]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

#[cfg(test)]
mod tests;
