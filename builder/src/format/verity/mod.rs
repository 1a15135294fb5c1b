//! dm-verity hash trees: on-disk format version 1 with superblock, SHA-256, data and hash blocks of 4096 bytes.
//!
//! The tree is the same with any number of threads. Memory holds one digest for each 128 data blocks, whatever
//! the data's length. Other algorithms, block sizes and forward error correction are not supported.

mod superblock;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::hex;
use super::region::Region;

/// Bytes of a data or hash block.
pub const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = BLOCK as usize;
const DIGEST_LEN: usize = 32;
/// Digests in a hash block.
const FAN_OUT: u64 = BLOCK / DIGEST_LEN as u64;
/// Hash blocks of the lowest level that a thread makes in one go: 1 MiB of data.
const STRIDE: u64 = 2;

/// A SHA-256 digest.
pub type Hash = [u8; DIGEST_LEN];

/// What a hash tree depends on besides the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Hashed before each block, 256 bytes at most.
    pub salt: Vec<u8>,
    /// The superblock's identifier.
    pub uuid: Uuid,
}

/// A superblock as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Salt and identifier.
    pub params: Params,
    /// Length of the data in bytes.
    pub data_len: u64,
}

/// Why a hash tree was not written, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The data or the tree does not read or write.
    #[error("cannot {operation} at byte {at}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Where, in the data or the tree's window.
        at: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The data is empty or no multiple of 4096 bytes.
    #[error("{len} bytes of data are no whole number of 4096-byte blocks")]
    BadLength {
        /// The data's length.
        len: u64,
    },
    /// The salt is too long.
    #[error("a salt of {len} bytes is longer than 256")]
    SaltTooLong {
        /// The salt's length.
        len: usize,
    },
    /// The superblock is missing or asks for what is not supported.
    #[error("dm-verity superblock: {reason}")]
    BadSuperblock {
        /// What is wrong.
        reason: &'static str,
    },
    /// A hash block differs from the one that the data gives.
    #[error("the hash tree differs from the data at hash block {block}")]
    TreeMismatch {
        /// The block's number; 0 is the superblock.
        block: u64,
    },
    /// The tree fits its data, but the root hash is another.
    #[error("the root hash is {found}, not {expected}")]
    RootMismatch {
        /// The one that the data gives, in hexadecimal digits.
        found: String,
        /// The one asked for, in hexadecimal digits.
        expected: String,
    },
}

/// Blocks of each level, the lowest first; empty for a single data block, whose hash is the root hash.
fn levels(data_len: u64) -> Vec<u64> {
    let mut blocks = data_len.div_ceil(BLOCK);
    let mut levels = Vec::new();
    while blocks > 1 {
        blocks = blocks.div_ceil(FAN_OUT);
        levels.push(blocks);
    }
    levels
}

/// Bytes that the superblock and the tree of `data_len` bytes take.
pub fn hash_tree_len(data_len: u64) -> u64 {
    (1 + levels(data_len).iter().sum::<u64>()) * BLOCK
}

/// Writes superblock and hash tree of the `data_len` bytes at `data_offset` of `data` to `out`, and returns the
/// root hash. All processors hash.
///
/// # Errors
/// [`VerityError`]; `out` is then in an unknown state.
pub fn write(
    data: &File,
    data_offset: u64,
    data_len: u64,
    out: &Region<'_>,
    params: &Params,
) -> Result<Hash, VerityError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    write_with(data, data_offset, data_len, out, params, threads)
}

/// Hashes data blocks where they are made, so that [`write_digests`] need not read them again.
#[derive(Debug, Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// For the trees of `params`.
    pub fn new(params: &Params) -> Self {
        Self(Sha256::new_with_prefix(&params.salt))
    }

    /// The digests of whole blocks, one after the other.
    pub fn blocks(&self, bytes: &[u8]) -> impl Iterator<Item = Hash> {
        bytes.chunks(BLOCK_LEN).map(|block| hash(&self.0, block))
    }
}

/// As [`write()`], from the digests of all data blocks.
///
/// # Errors
/// As [`write()`].
pub fn write_digests(
    digests: Vec<Hash>,
    out: &Region<'_>,
    params: &Params,
) -> Result<Hash, VerityError> {
    let data_len = digests.len() as u64 * BLOCK;
    let superblock = superblock::render(params, data_len)?;
    let put = |block: u64, bytes: &[u8]| {
        out.write_all_at(bytes, block * BLOCK)
            .map_err(|source| VerityError::Io {
                operation: "write the hash tree",
                at: block * BLOCK,
                source,
            })
    };
    put(0, &superblock)?;
    let salted = Sha256::new_with_prefix(&params.salt);
    build_levels(digests, 0, &levels(data_len), &salted, &put)
}

/// As [`write()`], with a given number of threads.
///
/// # Errors
/// As [`write()`].
pub fn write_with(
    data: &File,
    data_offset: u64,
    data_len: u64,
    out: &Region<'_>,
    params: &Params,
    threads: usize,
) -> Result<Hash, VerityError> {
    let superblock = superblock::render(params, data_len)?;
    let data = Region::new(data, data_offset, data_len);
    let put = |block: u64, bytes: &[u8]| {
        out.write_all_at(bytes, block * BLOCK)
            .map_err(|source| VerityError::Io {
                operation: "write the hash tree",
                at: block * BLOCK,
                source,
            })
    };
    put(0, &superblock)?;
    build(&data, &params.salt, threads, &put)
}

/// Checks superblock, tree and data against each other and against a root hash.
///
/// # Errors
/// [`VerityError`]; the mismatches say that something was changed.
pub fn verify(data: &Region<'_>, tree: &Region<'_>, root_hash: &Hash) -> Result<(), VerityError> {
    let superblock = read_superblock(tree)?;
    if superblock.data_len > data.len() {
        return Err(VerityError::BadSuperblock {
            reason: "it covers more than there is",
        });
    }
    let data = data
        .part(0, superblock.data_len)
        .map_err(|source| VerityError::Io {
            operation: "read the data",
            at: 0,
            source,
        })?;
    let compare = |block: u64, bytes: &[u8]| {
        let mut found = vec![0; bytes.len()];
        tree.read_exact_at(&mut found, block * BLOCK)
            .map_err(|source| VerityError::Io {
                operation: "read the hash tree",
                at: block * BLOCK,
                source,
            })?;
        let differs = found
            .chunks(BLOCK_LEN)
            .zip(bytes.chunks(BLOCK_LEN))
            .position(|(found, expected)| found != expected);
        match differs {
            Some(index) => Err(VerityError::TreeMismatch {
                block: block + index as u64,
            }),
            None => Ok(()),
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = build(&data, &superblock.params.salt, threads, &compare)?;
    if found != *root_hash {
        return Err(VerityError::RootMismatch {
            found: hex(&found),
            expected: hex(root_hash),
        });
    }
    Ok(())
}

/// Reads the superblock at the start of a tree's window.
///
/// # Errors
/// [`VerityError`], also for versions, algorithms and block sizes other than ours.
pub fn read_superblock(tree: &Region<'_>) -> Result<Superblock, VerityError> {
    let mut bytes = [0; 512];
    tree.read_exact_at(&mut bytes, 0)
        .map_err(|source| VerityError::Io {
            operation: "read the superblock",
            at: 0,
            source,
        })?;
    superblock::parse(&bytes).map_err(|reason| VerityError::BadSuperblock { reason })
}

/// Takes finished hash blocks: the number of the first, and their bytes.
type Emit<'a> = &'a (dyn Fn(u64, &[u8]) -> Result<(), VerityError> + Sync);

/// Hashes `data` and hands every hash block to `emit`; returns the root hash.
fn build(
    data: &Region<'_>,
    salt: &[u8],
    threads: usize,
    emit: Emit<'_>,
) -> Result<Hash, VerityError> {
    let salted = Sha256::new_with_prefix(salt);
    let levels = levels(data.len());
    if levels.is_empty() {
        let mut block = [0; BLOCK_LEN];
        read_data(data, &mut block, 0)?;
        return Ok(hash(&salted, &block));
    }
    let digests = lowest_level(data, &salted, threads, first_block(&levels, 0), emit)?;
    build_levels(digests, 1, &levels, &salted, emit)
}

/// Where a level begins: the levels follow the superblock from the root down, so each comes after all those above it.
fn first_block(levels: &[u64], level: usize) -> u64 {
    1 + levels[level + 1..].iter().sum::<u64>()
}

/// Makes the levels from `lowest` up, whose blocks hold `digests`; returns the root hash.
fn build_levels(
    mut digests: Vec<Hash>,
    lowest: usize,
    levels: &[u64],
    salted: &Sha256,
    emit: Emit<'_>,
) -> Result<Hash, VerityError> {
    for level in lowest..levels.len() {
        let mut above = Vec::with_capacity(digests.len() / FAN_OUT as usize + 1);
        for (index, group) in digests.chunks(FAN_OUT as usize).enumerate() {
            let mut block = [0; BLOCK_LEN];
            block[..group.len() * DIGEST_LEN].copy_from_slice(group.as_flattened());
            emit(first_block(levels, level) + index as u64, &block)?;
            above.push(hash(salted, &block));
        }
        digests = above;
    }
    Ok(digests[0])
}

/// Makes the lowest level's hash blocks on several threads and returns their digests in order.
fn lowest_level(
    data: &Region<'_>,
    salted: &Sha256,
    threads: usize,
    first_block: u64,
    emit: Emit<'_>,
) -> Result<Vec<Hash>, VerityError> {
    let strides = data.len().div_ceil(STRIDE * FAN_OUT * BLOCK);
    let next = AtomicU64::new(0);
    let worker = || {
        let mut buffer = vec![0; (STRIDE * FAN_OUT * BLOCK) as usize];
        let mut done = Vec::new();
        loop {
            let stride = next.fetch_add(1, Ordering::Relaxed);
            if stride >= strides {
                return Ok(done);
            }
            let blocks = hash_stride(data, salted, stride, &mut buffer)?;
            emit(first_block + stride * STRIDE, &blocks)?;
            let digests = blocks.chunks(BLOCK_LEN).map(|block| hash(salted, block));
            done.push((stride, digests.collect::<Vec<_>>()));
        }
    };
    let results: Vec<Result<_, VerityError>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        let own = worker();
        let join = |other: std::thread::ScopedJoinHandle<'_, _>| {
            other.join().expect("a hashing thread does not panic")
        };
        std::iter::once(own)
            .chain(others.into_iter().map(join))
            .collect()
    });
    let mut done = Vec::new();
    for result in results {
        done.extend(result?);
    }
    done.sort_unstable_by_key(|(stride, _)| *stride);
    Ok(done.into_iter().flat_map(|(_, digests)| digests).collect())
}

/// The hash blocks of one stride of data.
fn hash_stride(
    data: &Region<'_>,
    salted: &Sha256,
    stride: u64,
    buffer: &mut [u8],
) -> Result<Vec<u8>, VerityError> {
    let at = stride * buffer.len() as u64;
    let len = (buffer.len() as u64).min(data.len() - at) as usize;
    let bytes = &mut buffer[..len];
    read_data(data, bytes, at)?;
    let mut blocks = Vec::with_capacity(STRIDE as usize * BLOCK_LEN);
    for block in bytes.chunks(BLOCK_LEN) {
        blocks.extend(hash(salted, block));
    }
    blocks.resize(blocks.len().next_multiple_of(BLOCK_LEN), 0);
    Ok(blocks)
}

fn read_data(data: &Region<'_>, into: &mut [u8], at: u64) -> Result<(), VerityError> {
    data.read_exact_at(into, at)
        .map_err(|source| VerityError::Io {
            operation: "read the data",
            at,
            source,
        })
}

fn hash(salted: &Sha256, block: &[u8]) -> Hash {
    salted.clone().chain_update(block).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn file_of(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 4096) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        file
    }

    fn params() -> Params {
        Params {
            salt: vec![0xab; 32],
            uuid: Uuid::from_u128(3),
        }
    }

    fn tree_of(data: &File, len: u64, threads: usize) -> (Vec<u8>, Hash) {
        let tree = tempfile::tempfile().unwrap();
        let tree_len = hash_tree_len(len);
        let window = Region::new(&tree, 0, tree_len);
        let root = write_with(data, 0, len, &window, &params(), threads).unwrap();
        let mut bytes = vec![0; tree_len as usize];
        window.read_exact_at(&mut bytes, 0).unwrap();
        (bytes, root)
    }

    #[test]
    fn lengths_follow_the_fan_out() {
        for (blocks, tree) in [
            (1, 1),
            (2, 2),
            (128, 2),
            (129, 4),
            (128 * 128, 130),
            (128 * 128 + 1, 133),
        ] {
            assert_eq!(hash_tree_len(blocks * BLOCK), tree * BLOCK, "{blocks}");
        }
    }

    #[test]
    fn the_tree_is_the_same_with_any_number_of_threads() {
        let len = 700 * BLOCK;
        let data = file_of(len);
        let one = tree_of(&data, len, 1);
        for threads in [2, 3, 8] {
            assert!(tree_of(&data, len, threads) == one, "{threads}");
        }
    }

    #[test]
    fn digests_of_blocks_give_the_same_tree() {
        for blocks in [1, 2, 128, 129, 700] {
            let len = blocks * BLOCK;
            let data = file_of(len);
            let mut bytes = vec![0; len as usize];
            data.read_exact_at(&mut bytes, 0).unwrap();
            let digests = Hasher::new(&params()).blocks(&bytes).collect();
            let tree = tempfile::tempfile().unwrap();
            let window = Region::new(&tree, 0, hash_tree_len(len));
            let root = write_digests(digests, &window, &params()).unwrap();
            let mut found = vec![0; hash_tree_len(len) as usize];
            window.read_exact_at(&mut found, 0).unwrap();
            assert!((found, root) == tree_of(&data, len, 2), "{blocks}");
        }
    }

    #[test]
    fn any_flipped_byte_is_found() {
        let len = 300 * BLOCK;
        let data = file_of(len);
        let tree = tempfile::tempfile().unwrap();
        let window = Region::new(&tree, 0, hash_tree_len(len));
        let root = write(&data, 0, len, &window, &params()).unwrap();
        let all = Region::new(&data, 0, len);
        verify(&all, &window, &root).unwrap();
        assert!(matches!(
            verify(&all, &window, &[0; 32]),
            Err(VerityError::RootMismatch { .. })
        ));
        data.write_all_at(&[0xff], len - 1).unwrap();
        assert!(matches!(
            verify(&all, &window, &root),
            Err(VerityError::TreeMismatch { block: 4 })
        ));
    }

    #[test]
    fn lengths_and_salts_that_do_not_fit_are_refused() {
        let data = file_of(BLOCK);
        let window = Region::new(&data, 0, 0);
        for len in [0, 1, 4097] {
            let error = write(&data, 0, len, &window, &params()).unwrap_err();
            assert!(matches!(error, VerityError::BadLength { .. }));
        }
        let long = Params {
            salt: vec![0; 257],
            ..params()
        };
        let error = write(&data, 0, BLOCK, &window, &long).unwrap_err();
        assert!(matches!(error, VerityError::SaltTooLong { len: 257 }));
    }
}
