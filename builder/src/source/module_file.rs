//! A kernel module's file as it goes into the image: unpacked, and without its signature unless it is asked for.
//!
//! The image itself is what vouches for a module: the initrd is part of the UKI, and the root is checked by dm-verity
//! under a hash in that same UKI. A second check of each module costs the guest a SHA-256 of the file and an RSA
//! operation, a tenth of a small machine's boot. A kernel that is locked down, as under Secure Boot, or told to
//! enforce signatures refuses modules without one, so there they must stay. Unpacking is the build's work as well.

use std::io::Read;
use std::sync::Arc;

use super::blob::Compression;
use super::error::FileError;
use super::image::read_content;
use super::modules::Module;
use crate::tree::Content;

/// The most bytes of an unpacked module.
const CAP: u64 = 256 << 20;
/// What a signed module ends with (`MODULE_SIG_STRING` of linux/module_signature.h).
const MAGIC: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`: five bytes of kinds and lengths, three of padding, and a length of 32 bits.
const TRAILER_LEN: usize = 12;

/// Why a module's file could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum ModuleFileError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not unpack, or its signature has impossible lengths.
    #[error("the kernel module {name} is broken: {reason}")]
    Broken {
        /// The module.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// The module with its file unpacked and, unless they are to be kept, its signature cut off.
///
/// # Errors
/// [`ModuleFileError`].
pub fn prepare(module: Module, keep_signature: bool) -> Result<Module, ModuleFileError> {
    let broken = |reason: String| ModuleFileError::Broken {
        name: module.name.clone(),
        reason,
    };
    let raw = read_content(&module.content)?;
    let mut bytes = Vec::new();
    Compression::sniff(&raw)
        .reader(&raw[..])
        .take(CAP)
        .read_to_end(&mut bytes)
        .map_err(|error| broken(error.to_string()))?;
    if !keep_signature {
        let len = unsigned_len(&bytes)
            .ok_or_else(|| broken("its signature is longer than the file".to_owned()))?;
        bytes.truncate(len);
    }
    let plain_name = module
        .file_name
        .rfind(".ko")
        .map_or(module.file_name.len(), |at| at + ".ko".len());
    Ok(Module {
        file_name: module.file_name[..plain_name].to_owned(),
        content: Content::Bytes(Arc::from(bytes)),
        name: module.name,
    })
}

/// Whether a prepared module has a signature, by whomever.
pub fn is_signed(module: &Module) -> bool {
    match &module.content {
        Content::Bytes(bytes) => bytes.ends_with(MAGIC),
        Content::Range { .. } => false,
    }
}

/// The module's length without a signature; `None` if the signature's lengths do not fit.
fn unsigned_len(bytes: &[u8]) -> Option<usize> {
    let Some(signed) = bytes.strip_suffix(MAGIC) else {
        return Some(bytes.len());
    };
    let (rest, trailer) = signed.split_last_chunk::<TRAILER_LEN>()?;
    let [_, _, _, signer, key, _, _, _, length @ ..] = trailer;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.len()
        .checked_sub(length + usize::from(*signer) + usize::from(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(bytes: &[u8]) -> Module {
        Module {
            name: "m".into(),
            file_name: "m.ko.xz".into(),
            content: Content::Bytes(Arc::from(bytes)),
        }
    }

    fn signed(signature: &[u8], claimed: u32) -> Vec<u8> {
        let mut bytes = b"module".to_vec();
        bytes.extend_from_slice(signature);
        bytes.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&claimed.to_be_bytes());
        bytes.extend_from_slice(MAGIC);
        bytes
    }

    fn content(module: &Module) -> &[u8] {
        match &module.content {
            Content::Bytes(bytes) => bytes,
            Content::Range { .. } => panic!("it is in memory"),
        }
    }

    #[test]
    fn the_signature_is_cut_off_unless_it_is_to_stay() {
        let bytes = signed(b"sig", 3);
        let plain = prepare(module(&bytes), false).unwrap();
        assert_eq!(
            (content(&plain), plain.file_name.as_str()),
            (&b"module"[..], "m.ko")
        );
        assert_eq!(content(&prepare(module(&bytes), true).unwrap()), bytes);
    }

    #[test]
    fn a_module_without_a_signature_stays_as_it_is() {
        for bytes in [&b"module"[..], b"", &MAGIC[1..]] {
            assert_eq!(content(&prepare(module(bytes), false).unwrap()), bytes);
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for bytes in [signed(b"sig", 10), signed(b"", u32::MAX), MAGIC.to_vec()] {
            let error = prepare(module(&bytes), false).unwrap_err().to_string();
            assert!(error.contains("module m is broken"), "{error}");
        }
    }
}
