//! `linux.memoryPolicy` (config-linux.md, "Memory policy"): from which NUMA nodes the process gets its memory.
//!
//! Refuses nodes for a mode that has none, no nodes for one that needs them, and flags that exclude each other. The
//! rest is the kernel's to say (`set_mempolicy(2)`), in an error that names the property.

use super::attributes::numbers;
use crate::error::{Context, Error, Result};
use crate::spec;
use crate::sys;

/// By number (`linux/mempolicy.h`).
pub(crate) const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];
/// The kernel is built for no more.
const MAX_NODES: usize = 1024;

/// Names of the flags.
pub(crate) fn flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, _)| *name).collect()
}

/// The policy, as the system call takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// With the flags.
    mode: i32,
    /// A bit for each node.
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    pub(super) fn resolve(asked: &spec::MemoryPolicy) -> Result<Self> {
        let wrong = |text: String| Error::Config(format!("linux.memoryPolicy: {text}"));
        let name = asked.mode.as_str();
        let mode = MODES.iter().position(|known| *known == name);
        let mode = mode.ok_or_else(|| wrong(format!("unknown mode {name:?}")))?;
        let flags = asked.flags.iter().try_fold(0, |flags, name| {
            let known = FLAGS.iter().find(|(known, _)| known == name);
            let (_, bit) = known.ok_or_else(|| wrong(format!("unknown flag {name:?}")))?;
            Ok(flags | bit)
        })?;
        let list = asked.nodes.as_deref().filter(|list| !list.is_empty());
        match (list, name) {
            (Some(_), "MPOL_DEFAULT" | "MPOL_LOCAL") => {
                return Err(wrong(format!("{name} has no nodes")));
            }
            (None, "MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED") | (Some(_), _) => {}
            (None, _) => return Err(wrong(format!("{name} needs nodes"))),
        }
        const EXCLUSIVE: i32 = 3 << 14;
        if flags & EXCLUSIVE == EXCLUSIVE {
            return Err(wrong("static nodes cannot be relative".into()));
        }
        let nodes = numbers(list.unwrap_or("0"), MAX_NODES);
        let nodes = nodes.ok_or_else(|| wrong(format!("{list:?} is no list of nodes")))?;
        Ok(Self {
            mode: mode as i32 | flags,
            nodes: list.map_or_else(Vec::new, |_| mask(&nodes)),
        })
    }

    /// Puts it on this process, once that is in its cgroup, which may limit the nodes.
    pub(super) fn apply(&self) -> Result<()> {
        sys::set_memory_policy(self.mode, &self.nodes).during("set linux.memoryPolicy")
    }
}

fn mask(nodes: &[usize]) -> Vec<u64> {
    let highest = nodes.iter().max().copied().unwrap_or(0);
    let mut mask = vec![0; highest / 64 + 1];
    nodes
        .iter()
        .for_each(|node| mask[node / 64] |= 1 << (node % 64));
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_take_the_nodes_and_flags_that_they_have() {
        for (mode, nodes, flags, expected) in [
            ("MPOL_DEFAULT", "", &[][..], Some((0, vec![]))),
            ("MPOL_PREFERRED", "", &[], Some((1, vec![]))),
            (
                "MPOL_BIND",
                "0-1,65",
                &["MPOL_F_STATIC_NODES"],
                Some((2 | 1 << 15, vec![3, 2])),
            ),
            ("MPOL_WEIGHTED_INTERLEAVE", "3", &[], Some((6, vec![8]))),
            ("MPOL_LOCAL", "0", &[], None),
            ("MPOL_INTERLEAVE", "", &[], None),
            ("MPOL_BIND", "x", &[], None),
            ("MPOL_BIND", "1024", &[], None),
            ("MPOL_BIND", "0", &["MPOL_F_NONE"], None),
            (
                "MPOL_BIND",
                "0",
                &["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"],
                None,
            ),
            ("MPOL_NONE", "0", &[], None),
        ] {
            let asked = spec::MemoryPolicy {
                mode: mode.into(),
                nodes: Some(nodes.into()),
                flags: flags.iter().map(|&flag| flag.into()).collect(),
            };
            let policy = MemoryPolicy::resolve(&asked).ok();
            let policy = policy.map(|policy| (policy.mode, policy.nodes));
            assert_eq!(policy, expected, "{mode} {nodes:?} {flags:?}");
        }
    }
}
