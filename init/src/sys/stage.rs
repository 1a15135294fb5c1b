//! The points of a boot that the instruction counter notes.

/// A point of the boot that the instruction counter notes; the value is the marker's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Running in the initramfs.
    Initramfs,
    /// The verified root is mounted.
    Root,
    /// The root's own mounts are done.
    System,
    /// The state partition is mounted.
    State,
    /// An address is bound.
    Network,
    /// Every workload is ready.
    Ready,
    /// The machine is going down.
    Stopping,
    /// Everything is unmounted.
    PowerOff,
    /// One more workload is ready.
    WorkloadReady,
}

/// `nop dword ptr [rax + 0x0C0AC100 + N]`: touches no memory, changes no register, and is found by its
/// bytes (`0f 1f 80 imm32`) when an emulator translates it.
macro_rules! marker {
    ($offset:literal) => {
        // SAFETY: a `nop` with a memory operand computes no access; it has no effect at all.
        unsafe {
            std::arch::asm!(
                concat!("nop dword ptr [rax + ", $offset, "]"),
                options(nomem, nostack, preserves_flags)
            )
        }
    };
}

/// Executes the marker of `stage` once.
#[inline(never)]
pub fn mark(stage: Stage) {
    match stage {
        Stage::Initramfs => marker!("0x0C0AC101"),
        Stage::Root => marker!("0x0C0AC102"),
        Stage::System => marker!("0x0C0AC103"),
        Stage::State => marker!("0x0C0AC104"),
        Stage::Network => marker!("0x0C0AC105"),
        Stage::Ready => marker!("0x0C0AC106"),
        Stage::Stopping => marker!("0x0C0AC107"),
        Stage::PowerOff => marker!("0x0C0AC108"),
        Stage::WorkloadReady => marker!("0x0C0AC109"),
    }
}
