//! The unified kernel image (UAPI group specification "Unified Kernel Image"): systemd's stub with the machine's
//! kernel, initrd and command line as sections.

use super::DiskError;
use crate::format::{cpio, pe, verity};
use crate::identity::hex;
use crate::plan::Plan;
use crate::tree::Tree;

/// What the kernel unpacks as its first root.
pub(super) fn initrd(tree: &Tree) -> Result<Vec<u8>, DiskError> {
    let mut bytes = Vec::new();
    cpio::write(&mut bytes, tree)?;
    Ok(bytes)
}

/// The image for a root of this hash.
pub(super) fn uki(
    plan: &Plan,
    stub: &[u8],
    kernel: &[u8],
    initrd: &[u8],
    hash: &verity::Hash,
) -> Result<Vec<u8>, DiskError> {
    let command_line = plan.command_line(&hex(hash));
    let sections: [(&str, &[u8]); 5] = [
        (".osrel", plan.os_release.as_bytes()),
        (".cmdline", command_line.as_bytes()),
        (".uname", plan.kernel_release.as_bytes()),
        (".initrd", initrd),
        (".linux", kernel),
    ];
    Ok(pe::append_sections(stub, &sections)?)
}
