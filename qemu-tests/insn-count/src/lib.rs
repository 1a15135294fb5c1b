//! A QEMU TCG plugin that counts executed guest instructions, split at markers.
//!
//! Times of an emulated machine are noise; its instructions repeat. Load it by
//! `-plugin libinsn_count.so,out=FILE` with one vCPU and the TCG accelerator. It counts and never changes what the
//! guest does; it refuses unknown arguments. A block that a fault leaves half-way counts as a whole.

mod counter;
mod marker;
mod sys;
