//! Lets the program begin at `sys::start`, before the C library does.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--entry=coracle_runtime_start");
}
