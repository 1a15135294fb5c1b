//! Where a workload's root came from, exactly: goes into the image's record of contents.

use super::trust::Signer;
use crate::lock::Pinned;

/// A root's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A container image.
    Image {
        /// As the machine's file has it.
        reference: String,
        /// What identifies it: `sha256:` and 64 hexadecimal digits.
        digest: String,
        /// Who signed it, where a policy asks for that.
        signers: Vec<Signer>,
    },
    /// Debian packages.
    Debian {
        /// As the machine's file has them.
        requested: Vec<String>,
        /// The release; `None`: the host's own.
        suite: Option<String>,
        /// All that were unpacked.
        packages: Vec<Pinned>,
    },
}
