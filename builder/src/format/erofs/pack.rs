//! The pass over all files' bytes: read, compressed, hashed and written by several threads, in the order of the tree.
//!
//! The work is cut into jobs of about [`JOB`] bytes: a part of a large file, or some small ones. A thread takes the
//! next job, makes its blocks in a buffer of its own, waits until all jobs before it have their place, takes the
//! blocks behind theirs and writes. So neither places nor bytes depend on how many threads there are, and no more is
//! in memory than a job for each of them.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::compress::{CLUSTER, Compression};
use super::index::{self, Clusters};
use super::layout::{Node, Place, path_of};
use super::{BLOCK, BLOCK_LEN, ErofsError, Hashing};
use crate::format::content::Copier;
use crate::format::region::Region;
use crate::format::verity;
use crate::tree::{Content, Kind, Tree};

/// Bytes of a job, a multiple of a cluster.
const JOB: u64 = 1 << 20;
/// The longest compressed end of a file that is stored behind its index.
const MOST_INLINE: usize = 3072;

/// What the pass reads and where it writes.
pub(super) struct Packing<'a> {
    pub(super) tree: &'a Tree,
    pub(super) nodes: &'a [Node],
    /// For each node, an earlier one with the same content.
    pub(super) same: &'a [Option<usize>],
    pub(super) compression: Option<Compression>,
    pub(super) hashing: Hashing<'a>,
    pub(super) out: &'a Region<'a>,
}

/// What the pass has found out.
pub(super) struct Packed {
    /// Where each node's content is; what is in no block stays [`Place::Beside`].
    pub(super) places: Vec<Place>,
    /// The first block behind all files.
    pub(super) end: u64,
    /// Of each block from the first of the pass on.
    pub(super) digests: Vec<verity::Hash>,
}

/// Bytes `from..from + len` of each of `nodes`; more than one only if they are whole.
#[derive(Debug)]
struct Job {
    nodes: Range<usize>,
    from: u64,
    len: u64,
}

/// What a job has made of one file, its blocks counted from the job's first.
struct Piece {
    node: usize,
    place: Place,
}

/// What all threads know, in the order of the jobs.
struct Sequence {
    turn: usize,
    failed: bool,
    packed: Packed,
}

impl Packing<'_> {
    /// Packs all files from block `first` on.
    pub(super) fn run(&self, first: u64, workers: usize) -> Result<Packed, ErofsError> {
        let jobs = self.jobs();
        let sequence = Mutex::new(Sequence {
            turn: 0,
            failed: false,
            packed: Packed {
                places: vec![Place::Beside; self.nodes.len()],
                end: first,
                digests: Vec::new(),
            },
        });
        let line = Line {
            jobs: &jobs,
            next: AtomicUsize::new(0),
            sequence: &sequence,
            moved: Condvar::new(),
        };
        let workers = workers.min(jobs.len()).max(1);
        std::thread::scope(|scope| {
            let worker = || line.work(self);
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(worker)).collect();
            let own = worker();
            let join = |other: std::thread::ScopedJoinHandle<'_, _>| {
                other.join().expect("a packing thread does not panic")
            };
            // All are waited for before the first failure is told.
            let results: Vec<_> = others.into_iter().map(join).collect();
            results.into_iter().fold(own, Result::and)
        })?;
        Ok(sequence
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .packed)
    }

    fn content(&self, node: usize) -> Option<&Content> {
        match &self.tree.inode(self.nodes[node].id).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    fn jobs(&self) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut gathered = 0;
        for (index, node) in self.nodes.iter().enumerate() {
            let compressible = self.compression.is_some() && node.size > 0;
            let needed = compressible || node.in_blocks() > 0;
            if self.content(index).is_none() || self.same[index].is_some() || !needed {
                continue;
            }
            if node.size > JOB {
                let len = |from| JOB.min(node.size - from);
                jobs.extend((0..node.size).step_by(JOB as usize).map(|from| Job {
                    nodes: index..index + 1,
                    from,
                    len: len(from),
                }));
                gathered = 0;
                continue;
            }
            match jobs
                .last_mut()
                .filter(|_| gathered > 0 && gathered + node.size <= JOB)
            {
                Some(job) => job.nodes.end = index + 1,
                None => {
                    gathered = 0;
                    jobs.push(Job {
                        nodes: index..index + 1,
                        from: 0,
                        len: u64::MAX,
                    });
                }
            }
            gathered += node.size;
        }
        jobs
    }
}

struct Line<'a> {
    jobs: &'a [Job],
    next: AtomicUsize,
    sequence: &'a Mutex<Sequence>,
    moved: Condvar,
}

impl Line<'_> {
    fn work(&self, packing: &Packing<'_>) -> Result<(), ErofsError> {
        let mut bench = Bench::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = self.jobs.get(number) else {
                return Ok(());
            };
            let done = bench.make(packing, job).and_then(|pieces| {
                let Some(at) = self.take_place(number, &mut bench, pieces) else {
                    return Ok(());
                };
                Ok(packing.out.write_all_at(&bench.blocks, at * BLOCK)?)
            });
            if let Err(error) = done {
                self.lock().failed = true;
                self.moved.notify_all();
                return Err(error);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sequence> {
        self.sequence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the job's turn and takes its blocks; `None` if another thread has failed.
    fn take_place(&self, number: usize, bench: &mut Bench, pieces: Vec<Piece>) -> Option<u64> {
        let mut sequence = self.lock();
        while sequence.turn != number && !sequence.failed {
            sequence = self
                .moved
                .wait(sequence)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if sequence.failed {
            return None;
        }
        let packed = &mut sequence.packed;
        let at = packed.end;
        packed.end += bench.blocks.len() as u64 / BLOCK;
        packed.digests.append(&mut bench.digests);
        for Piece { node, place } in pieces {
            packed.places[node].append(place, at);
        }
        sequence.turn += 1;
        self.moved.notify_all();
        Some(at)
    }
}

/// What a thread works with.
#[derive(Default)]
struct Bench {
    copier: Copier,
    plain: Vec<u8>,
    blocks: Vec<u8>,
    digests: Vec<verity::Hash>,
}

impl Bench {
    /// Makes the blocks of a job.
    fn make(&mut self, packing: &Packing<'_>, job: &Job) -> Result<Vec<Piece>, ErofsError> {
        self.blocks.clear();
        let mut pieces = Vec::with_capacity(job.nodes.len());
        for index in job.nodes.clone() {
            let node = &packing.nodes[index];
            let (Some(content), None) = (packing.content(index), packing.same[index]) else {
                continue;
            };
            let len = job.len.min(node.size);
            let whole = len == node.size;
            let made = match packing.compression {
                _ if len == 0 => continue,
                Some(compression) => self.compressed(content, node, job.from, len, compression),
                None if whole => self.plain(content, 0, node.in_blocks()),
                None => self.plain(content, job.from, len.min(node.in_blocks() - job.from)),
            };
            let place = made.map_err(|source| ErofsError::Content {
                path: path_of(packing.tree, node.id),
                source,
            })?;
            pieces.push(Piece { node: index, place });
        }
        if let Some(hasher) = packing.hashing {
            self.digests.extend(hasher.blocks(&self.blocks));
        }
        Ok(pieces)
    }

    /// Reads bytes as they are into blocks.
    fn plain(
        &mut self,
        content: &Content,
        from: u64,
        len: u64,
    ) -> Result<Place, crate::format::content::ContentError> {
        let start = self.blocks.len();
        if len == 0 {
            return Ok(Place::Beside);
        }
        self.blocks
            .resize(start + len.next_multiple_of(BLOCK) as usize, 0);
        self.copier
            .fill(content, from, &mut self.blocks[start..start + len as usize])?;
        Ok(Place::Blocks {
            first: start as u64 / BLOCK,
        })
    }

    /// Compresses a part of a file; what does not become smaller by it stays as it is.
    fn compressed(
        &mut self,
        content: &Content,
        node: &Node,
        from: u64,
        len: u64,
        compression: Compression,
    ) -> Result<Place, crate::format::content::ContentError> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(len as usize, 0);
        self.copier.fill(content, from, &mut plain)?;
        let start = self.blocks.len();
        let mut clusters = Clusters {
            first_block: start as u64 / BLOCK,
            ..Clusters::default()
        };
        let whole = len == node.size;
        for (number, bytes) in plain.chunks(CLUSTER as usize).enumerate() {
            let end = from + number as u64 * CLUSTER + bytes.len() as u64;
            self.cluster(bytes, compression, end == node.size, &mut clusters);
        }
        let beside = whole && node.tail == node.size;
        let place = match &clusters.inline {
            // A file that lies beside its inode anyway is compressed where that is worth the work of reading it.
            Some(inline) if beside => {
                let plain = node.head() + node.size;
                let packed = node.head()
                    + index::len(node.head() as usize, node.size) as u64
                    + inline.len() as u64;
                if packed * 4 > plain * 3 {
                    self.blocks.truncate(start);
                    Place::Beside
                } else {
                    Place::Clusters(clusters)
                }
            }
            None if beside => {
                self.blocks.truncate(start);
                Place::Beside
            }
            _ if whole && saves_nothing(&clusters, node) => {
                self.blocks.truncate(start);
                self.blocks.extend_from_slice(&plain);
                self.blocks.truncate(start + node.in_blocks() as usize);
                let end = self.blocks.len().next_multiple_of(BLOCK_LEN);
                self.blocks.resize(end, 0);
                Place::Blocks {
                    first: start as u64 / BLOCK,
                }
            }
            _ => Place::Clusters(clusters),
        };
        self.plain = plain;
        Ok(place)
    }

    /// Adds a cluster.
    fn cluster(
        &mut self,
        bytes: &[u8],
        compression: Compression,
        last: bool,
        clusters: &mut Clusters,
    ) {
        let start = self.blocks.len();
        let members = bytes.len().div_ceil(BLOCK_LEN);
        // One block less, or it is not worth it. The end of a file may lie behind its index instead.
        let room = match (members, last) {
            (1, true) => MOST_INLINE.min(bytes.len()),
            (members, _) => (members - 1) * BLOCK_LEN,
        };
        // The bytes go to the end of their blocks, so there is room for a whole block before them.
        self.blocks.resize(start + BLOCK_LEN + room, 0);
        let Some(used) = compression.compress(bytes, &mut self.blocks[start + BLOCK_LEN..]) else {
            self.blocks.truncate(start);
            self.blocks.extend_from_slice(bytes);
            self.blocks.resize(start + members * BLOCK_LEN, 0);
            clusters.blocks.push(0);
            return;
        };
        let packed = start + BLOCK_LEN..start + BLOCK_LEN + used;
        let count = used.div_ceil(BLOCK_LEN);
        clusters.blocks.push(count as u8);
        if last && used <= MOST_INLINE {
            clusters.inline = Some(self.blocks[packed].into());
            self.blocks.truncate(start);
            return;
        }
        let end = start + count * BLOCK_LEN;
        self.blocks.copy_within(packed, end - used);
        self.blocks[start..end - used].fill(0);
        self.blocks.truncate(end);
    }
}

/// Whether a file has no fewer blocks than it has as it is.
fn saves_nothing(clusters: &Clusters, node: &Node) -> bool {
    let plain = |counts: &[u8]| counts.iter().all(|count| *count == 0);
    let short_end = (1..=BLOCK).contains(&(node.size % CLUSTER)) && node.tail > 0;
    match (clusters.blocks.split_last(), &clusters.inline) {
        (Some((_, before)), Some(_)) => short_end && plain(before),
        _ => plain(&clusters.blocks),
    }
}
