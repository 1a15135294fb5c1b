//! The `files` of a workload as a layer of their own on top of its image.
//!
//! A directory on the way to a file is merged with the image's by overlayfs, which takes owner and mode from the
//! upper one: so each is copied from the image. Symbolic links on the way are followed inside the image, as the
//! workload itself would.

use std::sync::Arc;

use config::spec::{File, FileContent};
use sha2::{Digest, Sha256};

use crate::identity::hex;
use crate::source::image::{Image, Layer};
use crate::tree::{Content, Inode, InodeId, Kind, Metadata, Tree, TreeError};

/// Why a file cannot be laid over the image.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Something on the way is no directory, or the file itself is one in the image.
    #[error("file {path}: {reason}")]
    Blocked {
        /// The file's path.
        path: String,
        /// What is in its way.
        reason: &'static str,
    },
    /// Two files of the layer are in each other's way.
    #[error("file {path}: {source}")]
    Tree {
        /// The file's path.
        path: String,
        /// Why.
        source: TreeError,
    },
}

/// Lays the files over the image; `contents` has the bytes of each that is no link.
///
/// # Errors
/// [`FilesError`].
pub fn file_layer(
    image: &Image,
    files: &[File],
    contents: Vec<Option<Arc<[u8]>>>,
) -> Result<Layer, FilesError> {
    let mut tree = Tree::default();
    copy_metadata(image, "/", &mut tree, Tree::ROOT);
    let mut digest = Sha256::new();
    for (file, bytes) in files.iter().zip(contents) {
        let path = real_path(image, file)?;
        let inode = inode(file, bytes);
        digest.update(format!(
            "{path}\0{:o}\0{:?}\0",
            inode.metadata.mode,
            kind_name(&inode.kind)
        ));
        if let Kind::File(Content::Bytes(bytes)) = &inode.kind {
            digest.update(Sha256::digest(bytes));
        }
        put(image, &mut tree, &path, inode).map_err(|source| FilesError::Tree { path, source })?;
    }
    for (path, id) in tree.walk() {
        digest.update(format!(
            "{}\0{:?}",
            String::from_utf8_lossy(&path),
            tree.inode(id).metadata
        ));
    }
    Ok(Layer {
        id: hex(&digest.finalize()),
        tree,
    })
}

fn inode(file: &File, bytes: Option<Arc<[u8]>>) -> Inode {
    match (&file.content, bytes) {
        (FileContent::Link(target), _) => Inode {
            metadata: Metadata::with_mode(0o777),
            kind: Kind::Symlink(target.clone().into_bytes()),
        },
        (_, bytes) => Inode {
            metadata: Metadata::with_mode(file.mode),
            kind: Kind::File(Content::Bytes(bytes.unwrap_or_default())),
        },
    }
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Symlink(target) => format!("link {}", String::from_utf8_lossy(target)),
        _ => "file".to_owned(),
    }
}

/// Where the file will really be: its folder's links followed as far as the folder exists in the image.
fn real_path(image: &Image, file: &File) -> Result<String, FilesError> {
    let blocked = |reason| FilesError::Blocked {
        path: file.path.clone(),
        reason,
    };
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let folder = image
        .real_path(folder)
        .ok_or_else(|| blocked("something on its way is no directory in the image"))?;
    let path = format!("{}/{name}", folder.trim_end_matches('/'));
    let is_directory = |(layer, id): (&Layer, InodeId)| layer.tree.entries(id).is_some();
    if image.find(&path).is_some_and(is_directory) && !matches!(file.content, FileContent::Link(_))
    {
        return Err(blocked("the image has a directory there"));
    }
    Ok(path)
}

/// Puts an inode, making its folders like the image's.
fn put(image: &Image, tree: &mut Tree, path: &str, inode: Inode) -> Result<(), TreeError> {
    let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at = String::new();
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        at = format!("{at}/{part}");
        if tree.lookup(&at).is_none() {
            let id = tree.make_directories(&at)?;
            copy_metadata(image, &at, tree, id);
        }
    }
    tree.put(path, inode).map(drop)
}

fn copy_metadata(image: &Image, path: &str, tree: &mut Tree, id: InodeId) {
    if let Some((layer, from)) = image.find(path)
        && layer.tree.entries(from).is_some()
    {
        let mut metadata = layer.tree.inode(from).metadata.clone();
        metadata
            .xattrs
            .retain(|name, _| !name.starts_with(b"trusted.overlay."));
        tree.inode_mut(id).metadata = metadata;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::image::ImageConfig;

    fn image() -> Image {
        let mut tree = Tree::default();
        let etc = tree.make_directories("usr/etc").unwrap();
        tree.inode_mut(etc).metadata = Metadata {
            mode: 0o750,
            uid: 7,
            ..Metadata::default()
        };
        tree.put(
            "etc",
            Inode {
                metadata: Metadata::default(),
                kind: Kind::Symlink(b"usr/etc".to_vec()),
            },
        )
        .unwrap();
        tree.put_file("usr/file", 0o644, Content::Bytes(Arc::from(&b""[..])))
            .unwrap();
        Image {
            layers: vec![Layer {
                id: "a".into(),
                tree,
            }],
            config: ImageConfig::default(),
            digest: String::new(),
        }
    }

    fn file(path: &str) -> File {
        File {
            path: path.into(),
            content: FileContent::Text("x".into()),
            mode: 0o640,
        }
    }

    fn lay(path: &str) -> Result<Layer, FilesError> {
        file_layer(&image(), &[file(path)], vec![Some(Arc::from(&b"x"[..]))])
    }

    #[test]
    fn folders_keep_the_images_owner_and_links_are_followed() {
        let layer = lay("/etc/conf.d/a").unwrap();
        let etc = layer.tree.lookup("usr/etc").unwrap();
        assert_eq!(
            (
                layer.tree.inode(etc).metadata.mode,
                layer.tree.inode(etc).metadata.uid
            ),
            (0o750, 7)
        );
        let a = layer.tree.lookup("usr/etc/conf.d/a").unwrap();
        assert_eq!(layer.tree.inode(a).metadata.mode, 0o640);
        assert!(
            layer.tree.lookup("etc").is_none(),
            "the image's link is not hidden"
        );
    }

    #[test]
    fn a_file_in_the_way_is_refused() {
        assert!(matches!(
            lay("/usr/file/a"),
            Err(FilesError::Blocked { .. })
        ));
        assert!(matches!(lay("/usr"), Err(FilesError::Blocked { .. })));
    }

    #[test]
    fn another_content_is_another_layer() {
        let other = file_layer(&image(), &[file("/a")], vec![Some(Arc::from(&b"y"[..]))]).unwrap();
        assert_ne!(lay("/a").unwrap().id, other.id);
        assert_eq!(lay("/a").unwrap().id, lay("/a").unwrap().id);
    }
}
