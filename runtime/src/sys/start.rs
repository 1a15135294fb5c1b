//! Where the program begins (`build.rs`): before the C library does.
//!
//! A program that will execute itself again for its protection (see `protect`) had better do so at once: what the C
//! library and Rust set up until `main` would be thrown away, and costs more than the execve. This is a short cut and
//! no more: whatever does not work here is left to `protect`, which decides, tries other ways and reports errors.
//!
//! In a static program nothing is relocated yet. So this reads no address from memory but those of the kernel, and
//! leaves the compiler nothing to make a call into the C library of: system calls are in line, strings are read byte
//! by byte as volatile, and buffers are not cleared.

use std::arch::{asm, global_asm};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

// The kernel gives the stack (System V ABI for AMD64, 3.4.1), and the dynamic linker in RDX what is to be called in the
// end. The C library's own start gets both as they were.
global_asm!(
    ".globl coracle_runtime_start",
    ".type coracle_runtime_start, @function",
    "coracle_runtime_start:",
    "mov rdi, rsp",
    "push rdx",
    "sub rsp, 8",
    "call {begin}",
    "add rsp, 8",
    "pop rdx",
    "jmp _start",
    ".size coracle_runtime_start, . - coracle_runtime_start",
    begin = sym begin,
);

static IS_SEALED: AtomicBool = AtomicBool::new(false);

/// Whether the program was found at its start to run from a file that takes no writes.
pub(crate) fn started_sealed() -> bool {
    IS_SEALED.load(Ordering::Relaxed)
}

/// The commands that enter a container, as [`short_word`] reads them.
const COMMANDS: [u64; 3] = [
    u64::from_le_bytes(*b"create\0\0"),
    u64::from_le_bytes(*b"run\0\0\0\0\0"),
    u64::from_le_bytes(*b"exec\0\0\0\0"),
];

/// Gets the address of the number of arguments. An option's value may look like a command, which does no harm.
unsafe extern "C" fn begin(stack: *const usize) {
    // SAFETY: there are the number of arguments, so many strings, a null pointer, and the environment likewise.
    unsafe {
        let count = stack.read();
        let arguments: *const *const u8 = stack.add(1).cast();
        let mut number = 1;
        while number < count {
            let word = short_word(arguments.add(number).read());
            if word == COMMANDS[0] || word == COMMANDS[1] || word == COMMANDS[2] {
                return execute_read_only(arguments, arguments.add(count + 1));
            }
            number += 1;
        }
    }
}

/// A string of up to eight bytes as a number; 0 if it is longer.
unsafe fn short_word(string: *const u8) -> u64 {
    let (mut word, mut length) = (0, 0);
    while length <= 8 {
        // SAFETY: the string has not ended before.
        let byte = unsafe { string.add(length).read_volatile() };
        if byte == 0 {
            return word;
        }
        word |= u64::from(byte).wrapping_shl(8 * length as u32);
        length += 1;
    }
    0
}

/// As `protect` does. Returns where there is no need to, or no way.
unsafe fn execute_read_only(arguments: *const *const u8, environment: *const *const u8) {
    let empty = c"".as_ptr() as usize;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let open = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let clone = libc::OPEN_TREE_CLONE as usize
        | libc::OPEN_TREE_CLOEXEC as usize
        | libc::AT_EMPTY_PATH as usize;
    let set = (&raw const attributes) as usize;
    let size = size_of::<libc::mount_attr>();
    let empty_path = libc::AT_EMPTY_PATH as usize;
    // SAFETY: strings end with a NUL and the structure lives through the calls; the descriptors are ours to close.
    unsafe {
        let path = c"/proc/self/exe".as_ptr() as usize;
        let file = call(libc::SYS_open, [path, open, 0, 0, 0]);
        if is_error(file) {
            return;
        }
        if takes_no_writes(file) {
            IS_SEALED.store(true, Ordering::Relaxed);
        } else {
            let view = call(libc::SYS_open_tree, [file, empty, clone, 0, 0]);
            if !is_error(view) {
                call(
                    libc::SYS_mount_setattr,
                    [view, empty, empty_path, set, size],
                );
                // Else the new image would do the same again, for ever.
                if takes_no_writes(view) {
                    let (words, variables) = (arguments as usize, environment as usize);
                    call(
                        libc::SYS_execveat,
                        [view, empty, words, variables, empty_path],
                    );
                }
                call(libc::SYS_close, [view, 0, 0, 0, 0]);
            }
        }
        call(libc::SYS_close, [file, 0, 0, 0, 0]);
    }
}

/// Whether nobody can write to a file through the mount of this descriptor, or at all.
fn takes_no_writes(file: usize) -> bool {
    // Their structures begin with words of 64 bits. `f_flags` is the eleventh (statfs(2)), `stx_attributes` the second
    // (statx(2)).
    let mut buffer = MaybeUninit::<[u64; 32]>::uninit();
    let words = buffer.as_mut_ptr().cast::<u64>();
    let address = words as usize;
    let (empty, empty_path) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
    // SAFETY: neither structure is larger, and each is filled in by the kernel unless that answers with an error.
    unsafe {
        let result = call(libc::SYS_fstatfs, [file, address, 0, 0, 0]);
        if !is_error(result) && words.add(10).read() & libc::ST_RDONLY != 0 {
            return true;
        }
        let result = call(libc::SYS_statx, [file, empty, empty_path, 0, address]);
        !is_error(result) && words.add(1).read() & libc::STATX_ATTR_VERITY as u64 != 0
    }
}

/// The kernel's results between -4095 and -1 are errors.
fn is_error(result: usize) -> bool {
    result > usize::MAX - 4095
}

/// A system call without the C library, which is not ready for one.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> usize {
    let [first, second, third, fourth, fifth] = arguments;
    let result;
    // SAFETY: the caller answers for the arguments; the kernel changes no registers but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_enter_a_container_are_known_by_their_whole_name() {
        for (word, expected) in [
            (c"run", true),
            (c"exec", true),
            (c"create", true),
            (c"", false),
            (c"ru", false),
            (c"runc", false),
            (c"creates", false),
            (c"delete", false),
            (c"exec\x01\x01\x01\x01\x01", false),
        ] {
            // SAFETY: it ends with a NUL.
            let number = unsafe { short_word(word.as_ptr().cast()) };
            assert_eq!(COMMANDS.contains(&number), expected, "{word:?}");
        }
    }
}
