//! A container image as a stack of layers, looked at as overlayfs would merge it.
//!
//! Lookups stay inside the image: symbolic links are resolved against its root, and a climb above it stops there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::error::FileError;
use super::layer::{LayerTree, OPAQUE, is_whiteout};
use crate::identity::hex;
use crate::tree::{Content, InodeId, Kind, Metadata, Name, Tree};

const LINK_LIMIT: usize = 40;

/// Why a file of an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The path leads to no regular file.
    #[error("{path} is no regular file of the image")]
    NoFile {
        /// The path.
        path: String,
    },
    /// The file is longer than was asked for.
    #[error("{path} in the image is longer than {cap} bytes")]
    TooLong {
        /// The path.
        path: String,
        /// The most that is read.
        cap: u64,
    },
    /// The content cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A container image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// What identifies it: `sha256:` and 64 hex digits.
    pub digest: String,
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// 64 hex digits that identify its content: the diff id as a rule.
    pub id: String,
    /// Its files; removed names are character devices 0:0.
    pub tree: Tree,
}

/// The part of an OCI image configuration that says how to run it (image-spec, "Image Configuration").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the whole command if there is no entry point.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// User and group as written; see [`super::user::resolve_user`].
    pub user: Option<String>,
    /// Absolute path, if there is one.
    pub working_dir: Option<String>,
    /// A signal's name or number.
    pub stop_signal: Option<String>,
    /// Paths that are meant to be mounted.
    pub volumes: BTreeSet<String>,
    /// `PORT/PROTOCOL`.
    pub exposed_ports: BTreeSet<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Groups beside that of the user; only App Container images name any.
    pub additional_gids: Vec<u32>,
    /// What it limits itself to.
    pub limits: ImageLimits,
}

/// What an image limits itself to, unless the machine's file says otherwise; only App Container images do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageLimits {
    /// The memory limit in bytes.
    pub memory: Option<u64>,
    /// The processor limit in thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// Which of the default capabilities it can do without.
    pub capabilities: Option<CapabilityLimit>,
}

/// Which of the default capabilities an image keeps; it never gets more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CapabilityLimit {
    /// These alone, by full name.
    Retain(Vec<String>),
    /// All but these.
    Remove(Vec<String>),
}

impl CapabilityLimit {
    /// What is left of the default, and what the image asks for beyond it.
    pub fn narrow(&self, default: Vec<String>) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Remove(list) => {
                let left = default.into_iter().filter(|one| !list.contains(one));
                (left.collect(), Vec::new())
            }
            Self::Retain(list) => {
                let (left, beyond) = list
                    .iter()
                    .cloned()
                    .partition(|one: &String| default.contains(one));
                (left, beyond)
            }
        }
    }
}

impl Image {
    /// Puts an image together from layers as they were read, the lowest first, each with its diff id.
    ///
    /// A directory that a layer only implies takes its owner, mode and times from the layers below, and the lowest
    /// layer keeps no whiteouts: there is nothing below. A layer that is changed by this gets an id of its own.
    pub fn assemble(layers: Vec<(String, LayerTree)>, config: ImageConfig, digest: String) -> Self {
        let mut done: Vec<Layer> = Vec::with_capacity(layers.len());
        for (diff_id, layer) in layers {
            let LayerTree { mut tree, implied } = layer;
            let mut changes = Sha256::new();
            let mut changed = false;
            if done.is_empty() {
                changed |= strip_whiteouts(&mut tree);
            }
            for (path, id) in tree.walk() {
                if !implied.contains(&id) {
                    continue;
                }
                if let Some(below) = metadata_below(&done, &path) {
                    let opaque = tree.inode(id).metadata.xattrs.get(OPAQUE).cloned();
                    let mut metadata = below;
                    metadata.xattrs.remove(OPAQUE);
                    metadata.xattrs.extend(opaque.map(|v| (OPAQUE.to_vec(), v)));
                    if tree.inode(id).metadata != metadata {
                        changed = true;
                        changes.update(format!("{path:?} {metadata:?}\n"));
                        tree.inode_mut(id).metadata = metadata;
                    }
                }
            }
            let id = if changed {
                changes.update(&diff_id);
                hex(&changes.finalize())
            } else {
                diff_id
            };
            done.push(Layer { id, tree });
        }
        Self {
            layers: done,
            config,
            digest,
        }
    }

    /// The file at a path, looked up through all layers, symbolic links followed (also a last one).
    pub fn find(&self, path: &str) -> Option<(&Layer, InodeId)> {
        let (layer, id) = *self.resolve(path)?.last()?.parts.first()?;
        Some((&self.layers[layer], id))
    }

    /// The path of a directory without symbolic links. What of it does not exist yet is kept as it is; `None` if
    /// something on the way exists and is no directory.
    pub fn real_path(&self, path: &str) -> Option<String> {
        let mut real = String::new();
        let mut rest = path.split('/').filter(|name| !name.is_empty());
        while let Some(name) = rest.next() {
            let next = format!("{real}/{name}");
            if let Some(way) = self.resolve(&next) {
                let (layer, id) = *way.last()?.parts.first()?;
                self.layers[layer].tree.entries(id)?;
                let names = way[1..]
                    .iter()
                    .map(|step| String::from_utf8_lossy(&step.name));
                real = names.map(|name| format!("/{name}")).collect();
                continue;
            }
            let parent = self.resolve(&real)?;
            if !self
                .merged_child(&parent.last()?.parts, name.as_bytes())
                .is_empty()
            {
                return None;
            }
            return Some(rest.fold(next, |path, name| format!("{path}/{name}")));
        }
        Some(if real.is_empty() { "/".into() } else { real })
    }

    /// The steps from the root to what a path leads to, links followed; `None` if it leads nowhere.
    fn resolve(&self, path: &str) -> Option<Vec<Step>> {
        let mut todo: Vec<Vec<u8>> = components(path.as_bytes());
        let mut way = vec![Step {
            name: Vec::new(),
            parts: self.root(),
        }];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let parts = self.merged_child(&way.last()?.parts, &name);
            let (layer, id) = *parts.first()?;
            match &self.layers[layer].tree.inode(id).kind {
                Kind::Directory(_) => way.push(Step { name, parts }),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    todo.extend(components(target));
                }
                _ if todo.is_empty() => way.push(Step { name, parts }),
                _ => return None,
            }
        }
        Some(way)
    }

    /// The content of the regular file at a path, `cap` bytes at most.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read(&self, path: &str, cap: u64) -> Result<Vec<u8>, ImageError> {
        let no_file = || ImageError::NoFile { path: path.into() };
        let (layer, id) = self.find(path).ok_or_else(no_file)?;
        match &layer.tree.inode(id).kind {
            Kind::File(content) if content.len() > cap => Err(ImageError::TooLong {
                path: path.into(),
                cap,
            }),
            Kind::File(content) => Ok(read_content(content)?),
            _ => Err(no_file()),
        }
    }

    fn root(&self) -> Vec<(usize, InodeId)> {
        let mut parts = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().rev() {
            parts.push((index, Tree::ROOT));
            if is_opaque(&layer.tree, Tree::ROOT) {
                break;
            }
        }
        parts
    }

    /// What a name in a merged directory is: one file, or the directories that are merged; nothing if it is removed.
    fn merged_child(&self, directory: &[(usize, InodeId)], name: &[u8]) -> Vec<(usize, InodeId)> {
        let mut found = Vec::new();
        for (layer, part) in directory {
            let tree = &self.layers[*layer].tree;
            let Some(id) = tree.child(*part, name) else {
                continue;
            };
            let is_directory = tree.entries(id).is_some();
            if is_whiteout(tree.inode(id)) || (!is_directory && !found.is_empty()) {
                break;
            }
            found.push((*layer, id));
            if !is_directory || is_opaque(tree, id) {
                break;
            }
        }
        found
    }
}

/// A step on the way to a file.
struct Step {
    /// Its name; empty for the root.
    name: Vec<u8>,
    /// A merged directory's parts in the layers, top first; or one file.
    parts: Vec<(usize, InodeId)>,
}

/// Reads a file's bytes into memory.
///
/// # Errors
/// [`FileError`], if the range cannot be read whole.
pub fn read_content(content: &Content) -> Result<Vec<u8>, FileError> {
    match content {
        Content::Bytes(bytes) => Ok(bytes.to_vec()),
        Content::Range { path, offset, len } => {
            let read = || {
                let mut bytes = vec![0; usize::try_from(*len).unwrap_or(usize::MAX)];
                File::open(path.as_path())?.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes)
            };
            read().map_err(FileError::of("read", path))
        }
    }
}

fn is_opaque(tree: &Tree, id: InodeId) -> bool {
    tree.inode(id).metadata.xattrs.contains_key(OPAQUE)
}

/// A path's components, the last first.
fn components(path: &[u8]) -> Vec<Name> {
    path.split(|b| *b == b'/')
        .rev()
        .filter(|c| !c.is_empty() && *c != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

/// Removes whiteouts and opaque marks; says whether there were any.
fn strip_whiteouts(tree: &mut Tree) -> bool {
    let mut changed = false;
    for (_, id) in tree.walk() {
        let metadata = &mut tree.inode_mut(id).metadata;
        changed |= metadata.xattrs.remove(OPAQUE).is_some();
        let gone: Vec<Name> = tree.entries(id).map_or_else(Vec::new, |entries| {
            let removed = |(_, child): &(&Name, &InodeId)| is_whiteout(tree.inode(**child));
            entries
                .iter()
                .filter(removed)
                .map(|(n, _)| n.clone())
                .collect()
        });
        for name in gone {
            tree.remove(id, &name);
            changed = true;
        }
    }
    changed
}

/// The metadata of the directory at a plain path in the layers below.
fn metadata_below(layers: &[Layer], path: &[u8]) -> Option<Metadata> {
    for layer in layers.iter().rev() {
        let mut at = Tree::ROOT;
        let mut missing = false;
        for name in path.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
            match layer.tree.child(at, name) {
                Some(id) if layer.tree.entries(id).is_some() => at = id,
                Some(_) => return None,
                None if is_opaque(&layer.tree, at) => return None,
                None => {
                    missing = true;
                    break;
                }
            }
        }
        if !missing {
            return Some(layer.tree.inode(at).metadata.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Inode;
    use std::sync::Arc;

    fn text(text: &str) -> Content {
        Content::Bytes(Arc::from(text.as_bytes()))
    }

    fn node(kind: Kind) -> Inode {
        Inode {
            metadata: Metadata::with_mode(0o644),
            kind,
        }
    }

    fn whiteout() -> Inode {
        node(Kind::CharDevice { major: 0, minor: 0 })
    }

    fn layer(tree: Tree) -> LayerTree {
        LayerTree {
            tree,
            implied: BTreeSet::new(),
        }
    }

    fn image(trees: Vec<Tree>) -> Image {
        let layers = trees.into_iter().enumerate();
        Image::assemble(
            layers.map(|(i, t)| (i.to_string(), layer(t))).collect(),
            ImageConfig::default(),
            String::new(),
        )
    }

    #[test]
    fn lookups_see_what_overlayfs_shows() {
        let mut low = Tree::default();
        for path in [
            "etc/a",
            "etc/gone",
            "var/hidden/x",
            "srv/file",
            "usr/bin/sh",
        ] {
            low.put_file(path, 0o644, text("low")).unwrap();
        }
        low.put("bin", node(Kind::Symlink(b"usr/bin".to_vec())))
            .unwrap();
        low.put("loop", node(Kind::Symlink(b"/loop".to_vec())))
            .unwrap();
        low.put("up", node(Kind::Symlink(b"../../../etc".to_vec())))
            .unwrap();
        let mut top = Tree::default();
        top.put_file("etc/b", 0o644, text("top")).unwrap();
        top.put("etc/gone", whiteout()).unwrap();
        let var = top.make_directories("var").unwrap();
        top.inode_mut(var)
            .metadata
            .xattrs
            .insert(OPAQUE.to_vec(), b"y".to_vec());
        top.put_file("srv", 0o644, text("file over directory"))
            .unwrap();
        let image = image(vec![low, top]);
        let read = |path: &str| {
            image
                .read(path, 100)
                .ok()
                .map(|b| String::from_utf8(b).unwrap())
        };
        for (path, want) in [
            ("/etc/a", Some("low")),
            ("etc/b", Some("top")),
            ("/etc/gone", None),
            ("/var/hidden/x", None),
            ("/srv", Some("file over directory")),
            ("/srv/file", None),
            ("/bin/sh", Some("low")),
            ("/bin/../bin/sh", Some("low")),
            ("/loop/x", None),
            ("/up/b", Some("top")),
            ("/etc", None),
        ] {
            assert_eq!(read(path).as_deref(), want, "{path}");
        }
        assert!(matches!(
            image.read("etc/a", 2),
            Err(ImageError::TooLong { .. })
        ));
        assert!(image.find("/").is_some());
    }

    #[test]
    fn implied_directories_keep_what_the_layer_below_says() {
        let mut low = Tree::default();
        let tmp = low.make_directories("tmp").unwrap();
        low.inode_mut(tmp).metadata.mode = 0o1777;
        let mut top = Tree::default();
        top.put_file("tmp/x", 0o644, text("")).unwrap();
        let implied = BTreeSet::from([Tree::ROOT, top.lookup("tmp").unwrap()]);
        let image = Image::assemble(
            vec![
                ("a".into(), layer(low)),
                ("b".into(), LayerTree { tree: top, implied }),
            ],
            ImageConfig::default(),
            String::new(),
        );
        let (top, id) = image.find("/tmp").unwrap();
        assert_eq!(top.tree.inode(id).metadata.mode, 0o1777);
        assert_eq!(image.layers[0].id, "a");
        assert_ne!(top.id, "b");
    }

    #[test]
    fn lowest_layer_has_no_whiteouts() {
        let mut low = Tree::default();
        low.put("etc/gone", whiteout()).unwrap();
        low.put_file("etc/a", 0o644, text("a")).unwrap();
        let image = image(vec![low]);
        assert!(image.layers[0].tree.lookup("etc/gone").is_none());
        assert!(image.layers[0].tree.lookup("etc/a").is_some());
    }
}
