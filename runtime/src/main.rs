//! The `coracle-runtime` program; see the library.
//!
//! The C library calls it without the preparations that Rust makes for a program: those look for the bounds of the stack,
//! among all mappings, to describe an overflow, which costs a container's start more than its cgroup. What of them
//! matters here the library does itself.
#![no_main]

mod sys {
    #![allow(unsafe_code, reason = "the name that the C library calls")]

    // SAFETY: no other function of this program has the name, and it takes and returns what the C library gives and
    // expects, of which it needs no arguments.
    #[unsafe(no_mangle)]
    extern "C" fn main() -> std::ffi::c_int {
        coracle_runtime::main().into()
    }
}
