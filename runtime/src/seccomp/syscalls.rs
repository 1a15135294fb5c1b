//! System calls by name, for the three ways in which a process on x86-64 can make them.
//!
//! The table is packed when this is compiled: the names one after another without a pointer among them, and an
//! open hash table of small numbers, so that a lookup costs one hash and hardly ever a second comparison.

mod table;

use table::{SYSCALLS, X32};

/// Stands for a call that the ABI does not have.
pub(crate) const NONE: u16 = u16::MAX;

/// No number of any ABI reaches this.
pub(crate) const LIMIT: usize = 600;

/// A convention for system calls, with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    /// The machine's own, 64 bits.
    X86_64,
    /// 32 bits, by `int 0x80` and its like.
    I386,
    /// 64-bit registers with 32-bit pointers; its numbers carry a bit.
    X32,
}

const COUNT: usize = SYSCALLS.len();
const LENGTH: usize = packed_length();
const BUCKETS: usize = 1024;

static NAMES: [u8; LENGTH] = pack_names();
static STARTS: [u16; COUNT + 1] = pack_starts();
static NUMBERS: [[u16; 3]; COUNT] = pack_numbers();
/// One more than the index of a name, or 0.
static INDEX: [u16; BUCKETS] = pack_index();

/// The numbers of a call, to be indexed by [`Abi`]; `None` for a name that none of them has.
pub(crate) fn numbers(name: &str) -> Option<[u16; 3]> {
    let mut bucket = hash(name.as_bytes());
    loop {
        let index = usize::from(INDEX[bucket]).checked_sub(1)?;
        let known = usize::from(STARTS[index])..usize::from(STARTS[index + 1]);
        if NAMES[known] == *name.as_bytes() {
            return Some(NUMBERS[index]);
        }
        bucket = (bucket + 1) % BUCKETS;
    }
}

/// FNV-1a, folded to a bucket.
const fn hash(name: &[u8]) -> usize {
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 16)) as usize % BUCKETS
}

const fn packed_length() -> usize {
    let (mut length, mut at) = (0, 0);
    while at < COUNT {
        length += SYSCALLS[at].0.len();
        at += 1;
    }
    length
}

const fn pack_names() -> [u8; LENGTH] {
    let (mut names, mut end, mut at) = ([0; LENGTH], 0, 0);
    while at < COUNT {
        let (name, mut byte) = (SYSCALLS[at].0.as_bytes(), 0);
        while byte < name.len() {
            names[end] = name[byte];
            (byte, end) = (byte + 1, end + 1);
        }
        at += 1;
    }
    names
}

const fn pack_starts() -> [u16; COUNT + 1] {
    let (mut starts, mut at) = ([0; COUNT + 1], 0);
    while at < COUNT {
        starts[at + 1] = starts[at] + SYSCALLS[at].0.len() as u16;
        at += 1;
    }
    starts
}

const fn pack_numbers() -> [[u16; 3]; COUNT] {
    let (mut numbers, mut at) = ([[NONE; 3]; COUNT], 0);
    while at < COUNT {
        let (name, x86_64, i386) = SYSCALLS[at];
        let mut x32 = x86_64;
        let mut own = 0;
        while own < X32.len() {
            if same(X32[own].0.as_bytes(), name.as_bytes()) {
                x32 = X32[own].1;
            }
            own += 1;
        }
        numbers[at][Abi::X86_64 as usize] = x86_64;
        numbers[at][Abi::I386 as usize] = i386;
        numbers[at][Abi::X32 as usize] = x32;
        at += 1;
    }
    numbers
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn pack_index() -> [u16; BUCKETS] {
    let (mut index, mut at) = ([0; BUCKETS], 0);
    while at < COUNT {
        let mut bucket = hash(SYSCALLS[at].0.as_bytes());
        while index[bucket] != 0 {
            bucket = (bucket + 1) % BUCKETS;
        }
        index[bucket] = at as u16 + 1;
        at += 1;
    }
    index
}

/// What multiplexes a call on i386, if anything does: the number of the multiplexer, the mask that is laid on its
/// first argument, and what that must be then (`linux/net.h`, `linux/ipc.h`).
pub(crate) fn multiplexed(name: &str) -> Option<(u16, u64, u64)> {
    const SOCKETCALL: u16 = 102;
    const IPC: u16 = 117;
    let socket = |call| Some((SOCKETCALL, 0xffff_ffff, call));
    // The upper half of the word is a version.
    let ipc = |call| Some((IPC, 0xffff, call));
    match name {
        "socket" => socket(1),
        "bind" => socket(2),
        "connect" => socket(3),
        "listen" => socket(4),
        "accept" => socket(5),
        "getsockname" => socket(6),
        "getpeername" => socket(7),
        "socketpair" => socket(8),
        "send" => socket(9),
        "recv" => socket(10),
        "sendto" => socket(11),
        "recvfrom" => socket(12),
        "shutdown" => socket(13),
        "setsockopt" => socket(14),
        "getsockopt" => socket(15),
        "sendmsg" => socket(16),
        "recvmsg" => socket(17),
        "accept4" => socket(18),
        "recvmmsg" => socket(19),
        "sendmmsg" => socket(20),
        "semop" => ipc(1),
        "semget" => ipc(2),
        "semctl" => ipc(3),
        "semtimedop" => ipc(4),
        "msgsnd" => ipc(11),
        "msgrcv" => ipc(12),
        "msgget" => ipc(13),
        "msgctl" => ipc(14),
        "shmat" => ipc(21),
        "shmdt" => ipc(22),
        "shmget" => ipc(23),
        "shmctl" => ipc(24),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_has_no_number_twice() {
        assert!(SYSCALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for abi in [Abi::X86_64, Abi::I386, Abi::X32] {
            let numbers = NUMBERS.iter().map(|numbers| numbers[abi as usize]);
            let mut numbers: Vec<u16> = numbers.filter(|&number| number != NONE).collect();
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{abi:?}");
            assert!(usize::from(numbers[numbers.len() - 1]) < LIMIT);
        }
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for &(name, x86_64, i386) in SYSCALLS {
            let found = numbers(name).expect(name);
            assert_eq!((found[0], found[1]), (x86_64, i386), "{name}");
        }
        for name in ["", "rea", "readx", "READ", "arm_fadvise64_64", "read\0"] {
            assert_eq!(numbers(name), None, "{name:?}");
        }
    }

    #[test]
    fn numbers_agree_with_the_c_library() {
        let known = [
            ("read", libc::SYS_read),
            ("execve", libc::SYS_execve),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("futex_waitv", libc::SYS_futex_waitv),
        ];
        for (name, expected) in known {
            let number = numbers(name).map(|numbers| i64::from(numbers[0]));
            assert_eq!(number, Some(expected), "{name}");
        }
        assert_eq!(numbers("execve"), Some([59, 11, 520]));
        assert_eq!(numbers("socketcall"), Some([NONE, 102, NONE]));
    }
}
