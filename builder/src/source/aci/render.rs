//! The order of an App Container image's dependencies and its path whitelists (specification 0.8, "Filesystem Setup").
//!
//! Pure. Images stay layers of their own, so that several workloads share them; only what a whitelist cuts is put
//! together into one.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::identity::hex;
use crate::source::layer::LayerTree;
use crate::tree::{Inode, InodeId, Kind, Tree};

type Part = Rc<(String, LayerTree)>;

/// Which images the first one needs, itself included; an error is one that needs itself.
pub(super) fn reachable(graph: &[Vec<usize>]) -> Result<Vec<bool>, usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        OnTheWay,
        Done,
    }
    let mut seen = vec![Seen::Not; graph.len()];
    // Each step is an image and how many of its dependencies are done.
    let mut way = vec![(0, 0)];
    seen[0] = Seen::OnTheWay;
    while let Some((at, done)) = way.pop() {
        let Some(next) = graph[at].get(done) else {
            seen[at] = Seen::Done;
            continue;
        };
        way.push((at, done + 1));
        match seen[*next] {
            Seen::OnTheWay => return Err(*next),
            Seen::Done => {}
            Seen::Not => {
                seen[*next] = Seen::OnTheWay;
                way.push((*next, 0));
            }
        }
    }
    Ok(seen.into_iter().map(|seen| seen == Seen::Done).collect())
}

/// The layers of the first image, the lowest first. `own` are the images' own files, each with what names it; the graph
/// has no circle.
pub(super) fn render(
    graph: &[Vec<usize>],
    own: Vec<(String, LayerTree)>,
    whitelists: &[&BTreeSet<String>],
) -> Vec<(String, LayerTree)> {
    let own: Vec<Part> = own.into_iter().map(Rc::new).collect();
    let mut known = HashMap::new();
    let parts = parts(0, graph, &own, whitelists, &mut known);
    drop((own, known));
    parts
        .into_iter()
        .map(|part| Rc::try_unwrap(part).unwrap_or_else(|shared| (*shared).clone()))
        .collect()
}

fn parts(
    at: usize,
    graph: &[Vec<usize>],
    own: &[Part],
    whitelists: &[&BTreeSet<String>],
    known: &mut HashMap<usize, Vec<Part>>,
) -> Vec<Part> {
    if let Some(parts) = known.get(&at) {
        return parts.clone();
    }
    let mut all = Vec::new();
    for below in &graph[at] {
        all.extend(parts(*below, graph, own, whitelists, known));
    }
    all.push(Rc::clone(&own[at]));
    let mut stack = uppermost(all);
    if !whitelists[at].is_empty() {
        stack = vec![Rc::new(cut(&stack, whitelists[at]))];
    }
    known.insert(at, stack.clone());
    stack
}

/// Of a layer that is laid twice only the upper place counts: it covers all that the lower one brought.
fn uppermost(parts: Vec<Part>) -> Vec<Part> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Part> = Vec::new();
    for part in parts.into_iter().rev() {
        if seen.insert(part.0.clone()) {
            kept.push(part);
        }
    }
    kept.reverse();
    kept
}

/// The layers in one, without what the whitelist does not name; the folders on the way to a named path stay.
fn cut(parts: &[Part], whitelist: &BTreeSet<String>) -> (String, LayerTree) {
    let mut id = Sha256::new();
    for part in parts {
        id.update(format!("{}\n", part.0));
    }
    for path in whitelist {
        id.update(format!("{path:?}\n"));
    }
    let mut wanted: BTreeSet<&[u8]> = BTreeSet::new();
    for path in whitelist {
        let slashes = path.match_indices('/').map(|(at, _)| at);
        wanted.extend(slashes.map(|at| &path.as_bytes()[..at]));
        wanted.insert(path.as_bytes());
    }
    let mut tree = Tree::new(
        parts[parts.len() - 1]
            .1
            .tree
            .inode(Tree::ROOT)
            .metadata
            .clone(),
    );
    for part in parts {
        lay(&part.1.tree, &mut tree, &wanted);
    }
    let tree = LayerTree {
        tree,
        implied: BTreeSet::new(),
    };
    (hex(&id.finalize()), tree)
}

/// Lays what is wanted of a layer over a tree.
fn lay(layer: &Tree, tree: &mut Tree, wanted: &BTreeSet<&[u8]>) {
    let mut made: HashMap<InodeId, InodeId> = HashMap::new();
    let mut todo = vec![(Vec::new(), Tree::ROOT, Tree::ROOT)];
    while let Some((path, from, to)) = todo.pop() {
        for (name, id) in layer.entries(from).into_iter().flatten() {
            let mut below: Vec<u8> = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name);
            if !wanted.contains(below.as_slice()) {
                continue;
            }
            let inode = layer.inode(*id);
            let is_directory = matches!(inode.kind, Kind::Directory(_));
            let there = tree
                .child(to, name)
                .filter(|there| is_directory && tree.entries(*there).is_some());
            let kept = "a layer's names are good in another tree";
            let target = match (there, made.get(id)) {
                (Some(there), _) => {
                    tree.inode_mut(there).metadata = inode.metadata.clone();
                    there
                }
                (None, Some(first)) => {
                    tree.link(to, name, *first).expect(kept);
                    continue;
                }
                (None, None) => {
                    let kind = match &inode.kind {
                        Kind::Directory(_) => Kind::Directory(Default::default()),
                        other => other.clone(),
                    };
                    let metadata = inode.metadata.clone();
                    let new = tree.insert(to, name, Inode { metadata, kind }).expect(kept);
                    made.insert(*id, new);
                    new
                }
            };
            if is_directory {
                todo.push((below, *id, target));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;
    use std::sync::Arc;

    fn layer(id: &str, files: &[&str]) -> (String, LayerTree) {
        let mut tree = Tree::default();
        for file in files {
            let content = Content::Bytes(Arc::from(id.as_bytes()));
            tree.put_file(file, 0o644, content).unwrap();
        }
        let implied = BTreeSet::new();
        (id.to_owned(), LayerTree { tree, implied })
    }

    fn ids(graph: &[Vec<usize>], names: &[&str]) -> Vec<String> {
        let own = names.iter().map(|name| layer(name, &["x"])).collect();
        let none = BTreeSet::new();
        let layers = render(graph, own, &vec![&none; names.len()]);
        layers.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn dependencies_lie_below_in_their_order_and_depth_first() {
        // The specification's own examples.
        let graph = [vec![1, 2], vec![], vec![3], vec![]];
        assert_eq!(ids(&graph, &["A", "B", "C", "D"]), ["B", "D", "C", "A"]);
        let graph = [vec![1, 2], vec![3], vec![3], vec![]];
        assert_eq!(ids(&graph, &["A", "B", "C", "D"]), ["B", "D", "C", "A"]);
    }

    #[test]
    fn circles_and_what_nobody_needs_are_seen() {
        assert_eq!(reachable(&[vec![1], vec![0]]), Err(0));
        assert_eq!(reachable(&[vec![1], vec![1]]), Err(1));
        assert_eq!(reachable(&[vec![], vec![]]), Ok(vec![true, false]));
        assert_eq!(reachable(&[vec![1, 2], vec![2], vec![]]), Ok(vec![true; 3]));
    }

    #[test]
    fn a_chain_of_diamonds_takes_no_time() {
        let mut graph: Vec<Vec<usize>> = (0..200).map(|at| vec![at + 1, at + 1]).collect();
        graph.push(vec![]);
        assert!(reachable(&graph).is_ok());
        let names: Vec<String> = (0..=200).map(|at| at.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(ids(&graph, &names).len(), 201);
    }

    #[test]
    fn a_whitelist_is_the_complete_set_of_paths() {
        let own = vec![
            layer("top", &["bin/x", "etc/x.conf", "etc/y.conf"]),
            layer("base", &["bin/x", "lib/a", "lib/b"]),
        ];
        let whitelist: BTreeSet<String> = ["bin/x", "lib", "etc/y.conf", "none/here"]
            .map(str::to_owned)
            .into();
        let layers = render(&[vec![1], vec![]], own, &[&whitelist, &BTreeSet::new()]);
        let [(_, LayerTree { tree, .. })] = &layers[..] else {
            panic!("one layer");
        };
        let paths: Vec<String> = tree
            .walk()
            .into_iter()
            .map(|(path, _)| String::from_utf8(path).unwrap())
            .collect();
        assert_eq!(paths, ["", "bin", "bin/x", "etc", "etc/y.conf", "lib"]);
        let id = tree.lookup("bin/x").unwrap();
        assert!(
            matches!(&tree.inode(id).kind, Kind::File(Content::Bytes(bytes)) if &**bytes == b"top")
        );
    }
}
