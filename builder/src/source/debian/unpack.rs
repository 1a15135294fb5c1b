//! Unpacks pinned packages to one layer: /usr merged, documentation left out, no script run.

use sha2::{Digest, Sha256};

use super::deb::{self, DebError};
use super::postinst;
use super::script::{self, Script};
use super::{DebianError, fetch};
use crate::identity::hex;
use crate::lock::Pinned;
use crate::progress::Progress;
use crate::source::cache::Cache;
use crate::source::error::FileError;
use crate::source::image::{Layer, read_content};
use crate::source::layer::{Dialect, LayerBuilder, LayerError, read_tar};
use crate::tree::{Content, Inode, Kind, Metadata, Tree, TreeError};

/// Directories at the root that are links into /usr.
pub(super) const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Moves when the same packages give another layer than before.
const FORMAT: u32 = 1;
const SCRIPT_CAP: u64 = 4 << 20;

/// Directories whose content is left out.
const DROPPED: &[&[u8]] = &[
    b"usr/share/man/",
    b"usr/share/info/",
    b"usr/share/locale/",
    b"usr/share/lintian/",
    b"usr/share/bash-completion/",
    b"usr/share/bug/",
    b"usr/share/apport/",
];

/// Why packages could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A package is not in the cache and cannot be fetched.
    #[error(transparent)]
    Debian(#[from] Box<DebianError>),
    /// A package file is broken.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A package's archive is broken.
    #[error("the package {package} is broken")]
    Archive {
        /// The package.
        package: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// Packages do not fit together.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Packages as one layer.
#[derive(Debug)]
pub struct Unpacked {
    /// The layer; its id depends on the pins only.
    pub layer: Layer,
    /// Packages whose maintainer scripts may do more than the layer has.
    pub uncovered: Vec<String>,
}

/// Fetches packages if need be and unpacks them.
///
/// # Errors
/// [`UnpackError`], naming the package.
pub fn unpack(
    pins: &[Pinned],
    suite: Option<&str>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Unpacked, UnpackError> {
    let files = fetch(pins, suite, cache, progress).map_err(Box::new)?;
    let step = progress.step(
        "unpacking Debian packages",
        Some(pins.iter().map(|pin| pin.size).sum()),
    );
    let mut builder = LayerBuilder::new(Dialect::Package);
    merge_usr(builder.tree_mut())?;
    let mut scripts = Vec::new();
    for (pin, file) in pins.iter().zip(&files) {
        let broken = |source| UnpackError::Archive {
            package: pin.name.clone(),
            source,
        };
        let deb = deb::open(file, &pin.sha256, cache, &step)?;
        let control = read_tar(&deb.control, &pin.sha256, cache)
            .map_err(broken)?
            .tree;
        scripts.push((pin.name.clone(), read_script(&control)?));
        builder
            .read(&deb.data, &pin.sha256, cache, keeps)
            .map_err(broken)?;
        keep_record(builder.tree_mut(), &pin.name, &control)?;
    }
    let mut tree = builder.finish().tree;
    let uncovered = postinst::apply(&mut tree, &scripts)?;
    Ok(Unpacked {
        layer: Layer {
            id: layer_id(pins),
            tree,
        },
        uncovered,
    })
}

/// The files of one package as they are, nothing merged or left out.
///
/// # Errors
/// [`UnpackError`].
pub fn read_package(
    pin: &Pinned,
    suite: Option<&str>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Tree, UnpackError> {
    let pins = std::slice::from_ref(pin);
    let files = fetch(pins, suite, cache, progress).map_err(Box::new)?;
    let step = progress.step(format!("unpacking {}", pin.name), Some(pin.size));
    let deb = deb::open(&files[0], &pin.sha256, cache, &step)?;
    let layer = read_tar(&deb.data, &pin.sha256, cache).map_err(|source| UnpackError::Archive {
        package: pin.name.clone(),
        source,
    })?;
    Ok(layer.tree)
}

fn merge_usr(tree: &mut Tree) -> Result<(), TreeError> {
    for name in MERGED {
        let target = format!("usr/{name}");
        tree.make_directories(&target)?;
        let kind = Kind::Symlink(target.into_bytes());
        let metadata = Metadata::with_mode(0o777);
        tree.put(name, Inode { metadata, kind })?;
    }
    Ok(())
}

fn read_script(control: &Tree) -> Result<Script, FileError> {
    let Some(id) = control.lookup("postinst") else {
        return Ok(Script::default());
    };
    match &control.inode(id).kind {
        Kind::File(content) if content.len() <= SCRIPT_CAP => {
            let text = read_content(content)?;
            Ok(script::read(&String::from_utf8_lossy(&text)))
        }
        _ => Ok(Script {
            does_more: true,
            ..Script::default()
        }),
    }
}

/// The package's record, one file each, where scanners for vulnerabilities look in images without dpkg.
fn keep_record(tree: &mut Tree, package: &str, control: &Tree) -> Result<(), TreeError> {
    let record = control.lookup("control").map(|id| &control.inode(id).kind);
    if let Some(Kind::File(content @ Content::Range { .. })) = record {
        let path = format!("var/lib/dpkg/status.d/{package}");
        tree.put_file(&path, 0o644, content.clone())?;
    }
    Ok(())
}

/// Documentation and translations stay out; copyright files and what links to them stay in.
fn keeps(path: &[u8]) -> bool {
    if let Some(rest) = path.strip_prefix(b"usr/share/doc/") {
        let mut parts = rest.split(|b| *b == b'/');
        let (_, file, more) = (parts.next(), parts.next(), parts.next());
        return match file {
            None => true, // a link to another package's directory
            Some(file) => more.is_none() && (file == b"copyright" || file.is_empty()),
        };
    }
    !DROPPED.iter().any(|dropped| path.starts_with(dropped))
}

fn layer_id(pins: &[Pinned]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("coracle debian layer {FORMAT}\n"));
    for pin in pins {
        hash.update(format!("{} {}\n", pin.name, pin.sha256));
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_is_dropped_and_copyright_kept() {
        for (path, want) in [
            ("usr/bin/x", true),
            ("usr/share/doc/a/copyright", true),
            ("usr/share/doc/a/", true),
            ("usr/share/doc/libgcc-s1", true),
            ("usr/share/doc/a/changelog.gz", false),
            ("usr/share/doc/a/examples/copyright", false),
            ("usr/share/man/man1/x.1.gz", false),
            ("usr/share/manual", true),
            ("usr/share/locale/de/LC_MESSAGES/x.mo", false),
        ] {
            assert_eq!(keeps(path.as_bytes()), want, "{path}");
        }
    }
}
