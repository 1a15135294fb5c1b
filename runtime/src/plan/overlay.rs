//! The root: `root` of the document, and the annotations that ask for an overlay.
//!
//! `org.coracle.rootfs.lower` lists absolute layer directories, top first, separated by `:` (`\:` and `\\` stand
//! for the characters themselves). `org.coracle.rootfs.upper-size` is the size in bytes of the tmpfs that takes
//! the container's writes; without it, or with `root.readonly`, the root is read-only. With a user namespace the ids of
//! the layers' files are those of the container.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::mount::options;
use crate::mount::rootfs::{Layers, Root, Source};
use crate::spec::Spec;

const LOWER: &str = "org.coracle.rootfs.lower";
const UPPER_SIZE: &str = "org.coracle.rootfs.upper-size";

/// Overlayfs takes no more (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;

pub(super) fn root(spec: &Spec, bundle: &Path) -> Result<Root> {
    let root = spec
        .root
        .as_ref()
        .ok_or_else(|| Error::Config("root is required".into()))?;
    let propagation = spec
        .linux
        .rootfs_propagation
        .as_deref()
        .filter(|name| !name.is_empty());
    let propagation = propagation
        .map(|name| {
            options::propagation(name).ok_or_else(|| {
                Error::Config(format!("linux.rootfsPropagation: unknown value {name:?}"))
            })
        })
        .transpose()?;
    let upper_size = spec
        .annotations
        .get(UPPER_SIZE)
        .map(|text| parse_size(text))
        .transpose()?;
    let (source, readonly) = match spec.annotations.get(LOWER) {
        Some(list) => {
            let upper_size = upper_size.filter(|_| !root.readonly);
            (
                Source::Overlay(Layers {
                    lower: parse_layers(list)?,
                    upper_size,
                    id_map: super::mounts::container_mapping(spec),
                }),
                upper_size.is_none(),
            )
        }
        None if upper_size.is_some() => {
            return Err(Error::Config(format!("{UPPER_SIZE} without {LOWER}")));
        }
        None => (Source::Directory, root.readonly),
    };
    Ok(Root {
        path: bundle.join(&root.path),
        source,
        readonly,
        propagation,
        pivot: true,
        joined: false,
    })
}

fn parse_size(text: &str) -> Result<u64> {
    match text.parse() {
        // A tmpfs of size 0 has no limit.
        Ok(0) | Err(_) => Err(Error::Config(format!(
            "{UPPER_SIZE}: {text:?} is not a number of bytes above 0"
        ))),
        Ok(size) => Ok(size),
    }
}

fn parse_layers(list: &str) -> Result<Vec<PathBuf>> {
    let mut layers = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        let layer = layers.last_mut().expect("starts with one and only grows");
        match character {
            ':' => layers.push(String::new()),
            '\\' => match characters.next() {
                Some(escaped @ (':' | '\\')) => layer.push(escaped),
                _ => {
                    return Err(Error::Config(format!(
                        "{LOWER}: a backslash must precede ':' or '\\'"
                    )));
                }
            },
            other => layer.push(other),
        }
    }
    if let Some(wrong) = layers
        .iter()
        .find(|layer| !layer.starts_with('/') || layer.contains('\0'))
    {
        return Err(Error::Config(format!(
            "{LOWER}: {wrong:?} is not an absolute path"
        )));
    }
    if layers.len() > MAX_LAYERS {
        return Err(Error::Config(format!(
            "{LOWER}: {} layers, at most {MAX_LAYERS}",
            layers.len()
        )));
    }
    Ok(layers.into_iter().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_at_colons_that_are_not_escaped() {
        let layers = parse_layers(r"/a:/b\:c\\:/d").expect("valid");
        assert_eq!(layers, ["/a", r"/b:c\", "/d"].map(PathBuf::from));
        for wrong in ["", "/a:", "relative", r"/a\n", r"/a\"] {
            assert!(parse_layers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_plain_numbers() {
        assert_eq!(parse_size("1048576").expect("valid"), 1_048_576);
        for wrong in ["0", "-1", "1M", " 1", "0x10", "99999999999999999999"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
