//! The `coracle-init` binary; see the library for what it does.

fn main() {
    coracle_init::initramfs::run();
}
