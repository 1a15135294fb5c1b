//! What a workload sees beside its root: volumes and laid-over files.

use std::collections::BTreeSet;

use super::command::without_nul;
use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed};

/// The least size of a volume, in bytes.
const LEAST_VOLUME: u64 = 64 << 10;

/// A named volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name on the state partition, a DNS label.
    pub name: String,
    /// Where the workload sees it.
    pub path: String,
    /// It cannot be written there.
    pub read_only: bool,
    /// `USER[:GROUP]` by name or number that it belongs to; `None`: as the image's directory.
    pub owner: Option<Text>,
    /// Its permission bits; `None`: as the image's directory.
    pub mode: Option<u16>,
    /// The most bytes that it may hold.
    pub size: Option<u64>,
}

/// A file laid over the root.
#[derive(Debug, Clone)]
pub struct File {
    /// Where the workload sees it.
    pub path: String,
    /// What it is.
    pub content: FileContent,
    /// Permission bits (of no meaning for a link).
    pub mode: u16,
}

/// What a laid-over file is.
#[derive(Debug, Clone)]
pub enum FileContent {
    /// This text.
    Text(String),
    /// A file of the host, relative to the file's folder.
    Host(Text),
    /// A symbolic link to this target.
    Link(String),
}

pub(super) fn volume(from: &manifest::Volume) -> Parsed<Volume> {
    let path = value::absolute_path(&from.path)?;
    // What every workload has there would be hidden, and with it what is masked.
    if let Some(taken) = ["proc", "sys", "dev"]
        .into_iter()
        .find(|first| path.split('/').nth(1) == Some(first))
    {
        return Err(Diagnostic::at(
            from.path.span(),
            format!("no volume can be at `{path}`: /{taken} is the kernel's"),
        )
        .hint("mount it elsewhere, as in path = \"/data\""));
    }
    Ok(Volume {
        name: value::dns_label(&from.name, "volume name")?,
        path,
        read_only: from.read_only,
        owner: from.owner.clone(),
        mode: from.mode.as_ref().map(value::mode).transpose()?,
        size: from.size.as_ref().map(volume_size).transpose()?,
    })
}

/// At least what an empty directory takes, with some room.
fn volume_size(text: &Text) -> Parsed<u64> {
    let size = value::size(text)?;
    if size < LEAST_VOLUME {
        return Err(
            Diagnostic::at(text.span(), format!("`{}` is too small", text.get_ref()))
                .hint("64KiB is the least"),
        );
    }
    Ok(size)
}

pub(super) fn file(from: &manifest::File) -> Parsed<File> {
    let path = value::absolute_path(&from.path)?;
    let content = match (&from.content, &from.source, &from.link) {
        (Some(text), None, None) => FileContent::Text(text.get_ref().clone()),
        (None, Some(source), None) => FileContent::Host(source.clone()),
        (None, None, Some(link)) if !link.get_ref().is_empty() => {
            FileContent::Link(without_nul(link)?)
        }
        _ => {
            return Err(Diagnostic::at(
                from.path.span(),
                format!("file `{path}` needs one of `content`, `source` and `link`"),
            )
            .hint("as in { path = \"/etc/motd\", content = \"hello\\n\" }"));
        }
    };
    let mode = from
        .mode
        .as_ref()
        .map(value::mode)
        .transpose()?
        .unwrap_or(0o644);
    Ok(File {
        path,
        content,
        mode,
    })
}

/// No two volumes, files, secrets or sockets of a workload at one path.
pub(super) fn check_unique_paths(from: &manifest::Workload, mistakes: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for path in from
        .volumes
        .iter()
        .map(|v| &v.path)
        .chain(from.files.iter().map(|f| &f.path))
        .chain(from.secrets.iter().filter_map(|s| s.path.as_ref()))
        .chain(from.connect.values())
    {
        if !seen.insert(path.get_ref()) {
            mistakes.push(
                Diagnostic::at(
                    path.span(),
                    format!("`{}` is taken already", path.get_ref()),
                )
                .hint("give each volume, file, secret and socket its own path"),
            );
        }
    }
}
