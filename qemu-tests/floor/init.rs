//! The floor of every boot: an init that powers the machine off and does nothing else.
//!
//! Compiled by the benchmark, not part of the workspace. Its marker is `ready`, as in Coracle's own init.

use std::arch::asm;

unsafe extern "C" {
    fn reboot(command: i32) -> i32;
}

/// `LINUX_REBOOT_CMD_POWER_OFF`
const POWER_OFF: i32 = 0x4321_fedc;

fn main() {
    // SAFETY: the instruction does nothing; the call takes no pointer.
    unsafe {
        asm!("nop dword ptr [rax + 0x0c0ac106]");
        reboot(POWER_OFF);
    }
}
