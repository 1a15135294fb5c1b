//! A workload's `secrets`: names by which something outside hands them over, and where the workload finds them.

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed, wrong};

/// The folder in which every workload finds its secrets, by their names.
pub const SECRETS_PATH: &str = "/run/secrets";
/// QEMU's fw_cfg has 55 characters for a name, and 27 of them are the convention's prefix.
const LONGEST_NAME: usize = 28;

/// A secret of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Another place where the workload finds it, as a link; `None`: only in [`SECRETS_PATH`].
    pub path: Option<String>,
    /// Permission bits.
    pub mode: u16,
    /// The workload starts without it, too.
    pub optional: bool,
}

/// The secrets of a workload.
pub(crate) fn secrets(from: &manifest::Workload, mistakes: &mut Mistakes) -> Vec<Secret> {
    let mut seen = BTreeSet::new();
    for secret in &from.secrets {
        if !seen.insert(secret.name.get_ref()) {
            mistakes.push(wrong(
                &secret.name,
                "is there already",
                "name each secret once",
            ));
        }
    }
    let all = from.secrets.iter();
    all.filter_map(|secret| mistakes.take(parse(secret)))
        .collect()
}

fn parse(from: &manifest::Secret) -> Parsed<Secret> {
    let name = secret_name(&from.name)?;
    let path = from.path.as_ref().map(|path| place(path, &name));
    Ok(Secret {
        path: path.transpose()?.flatten(),
        mode: match &from.mode {
            Some(mode) => permissions(mode)?,
            None => 0o400,
        },
        optional: from.optional,
        name,
    })
}

/// 1 to 28 letters, digits, `.`, `_` and `-`, and no dot at the beginning.
pub(crate) fn secret_name(text: &Text) -> Parsed<String> {
    let name = text.get_ref();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let valid = (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(known)
        && !name.starts_with('.');
    if valid {
        return Ok(name.clone());
    }
    let hint = "1 to 28 letters, digits, dots, hyphens and underscores, as in \"db-password\"";
    Err(wrong(text, "is no name of a secret", hint))
}

/// `None`: where it is anyway.
fn place(text: &Text, name: &str) -> Parsed<Option<String>> {
    let path = value::absolute_path(text)?;
    if path == format!("{SECRETS_PATH}/{name}") {
        return Ok(None);
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    if ["proc", "sys", "dev"].contains(&first)
        || path == SECRETS_PATH
        || path.starts_with(&format!("{SECRETS_PATH}/"))
    {
        let message = format!("no secret can be at `{path}`");
        let hint = format!("it is at {SECRETS_PATH}/{name} if `path` is left out");
        return Err(Diagnostic::at(text.span(), message).hint(hint));
    }
    Ok(Some(path))
}

/// Nobody writes or executes a secret.
fn permissions(text: &Text) -> Parsed<u16> {
    let mode = value::mode(text)?;
    if mode & !0o444 == 0 {
        return Ok(mode);
    }
    let hint = "a secret is read only: \"0400\", \"0440\" or \"0444\"";
    Err(wrong(text, "is no mode for a secret", hint))
}
