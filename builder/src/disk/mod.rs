//! The disk: where each part lies, and the order in which they are written.
//!
//! The root comes first, because its dm-verity hash names the partitions and goes into the UKI's command line;
//! the ESP, which holds the UKI, comes last. Identifiers follow from the content or from the machine's name, so
//! the same plan gives the same bytes.

mod esp;
mod layout;
mod root;
mod uki;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::format::region::Region;
use crate::format::{cpio, erofs, ext4, fat, gpt, pe, verity};
use crate::identity::{hex, named_uuid};
use crate::plan::{Plan, state_options};
use crate::progress::Progress;
use crate::secure_boot::SecureBootError;
use crate::tree::{Content, TreeError};

pub use layout::types;

pub(crate) use esp::esp_options;
use esp::{esp_len, esp_tree, record, write_esp};
use layout::Layout;
use root::write_root;
use uki::{initrd, uki};

/// Why a disk was not written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The image file does not take what is written.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    /// The root file system.
    #[error("cannot write the root file system")]
    Erofs(#[from] erofs::ErofsError),
    /// The hash tree.
    #[error("cannot write the dm-verity tree")]
    Verity(#[from] verity::VerityError),
    /// The initrd.
    #[error("cannot write the initrd")]
    Cpio(#[from] cpio::CpioError),
    /// The UKI.
    #[error("cannot make the unified kernel image")]
    Pe(#[from] pe::PeError),
    /// The EFI system partition.
    #[error("cannot write the EFI system partition")]
    Fat(#[from] fat::FatError),
    /// A signature.
    #[error("cannot sign")]
    Sign(#[from] SecureBootError),
    /// The state file system.
    #[error("cannot write the state file system")]
    Ext4(#[from] ext4::Ext4Error),
    /// The partition table.
    #[error("cannot write the partition table")]
    Gpt(#[from] gpt::GptError),
    /// A boot file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file tree that does not fit together; never the user's doing.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The root hash, lower-case hexadecimal.
    pub root_hash: String,
    /// The partitions.
    pub table: gpt::Table,
}

/// Writes the whole disk into an empty file.
///
/// # Errors
/// [`DiskError`]; the file is then of no use.
pub fn write(file: &File, plan: &mut Plan, progress: &Progress) -> Result<Written, DiskError> {
    let initrd = {
        let _step = progress.step("packing the initrd", None);
        initrd(&plan.initramfs)?
    };
    let kernel = bytes(&plan.kernel)?;
    let stub = bytes(&plan.stub)?;
    let loader = bytes(&plan.loader)?;
    let uki_len = stub.len() + kernel.len() + initrd.len();
    let esp_len = esp_len(plan.esp_kernels, uki_len, loader.len());
    let mut layout = Layout::new(&plan.boot_spec.name, esp_len);
    // Its length is the same with any root hash, and the record in the root does without.
    let unhashed = uki(plan, &stub, &kernel, &initrd, &verity::Hash::default())?;
    let boot = record(&esp_tree(plan, loader.clone(), unhashed)?)?;
    plan.record(boot)?;
    let root = write_root(file, plan, &mut layout, progress)?;
    let state = plan.boot_spec.state.as_ref().zip(plan.state_size);
    if let Some((_, size)) = state {
        let region = layout.add(types::LINUX_GENERIC, plan.state_uuid(), "state", size);
        file.set_len(layout.disk_len()).map_err(DiskError::Write)?;
        let window = Region::new(file, region.start, region.len).fresh();
        ext4::write(&window, &state_options(&plan.boot_spec.name, plan.epoch))?;
    }
    let (loader, uki) = {
        let _step = progress.step("making the kernel image", None);
        let uki = uki(plan, &stub, &kernel, &initrd, &root.hash)?;
        (signed(plan, "loader", loader)?, signed(plan, "uki", uki)?)
    };
    let _step = progress.step("writing the EFI system partition", None);
    let esp = esp_tree(plan, loader, uki)?;
    write_esp(file, &layout.partitions[0], plan.epoch, &esp)?;
    let table = layout.table(disk_guid(plan, &root.hash));
    file.set_len(table.disk_len).map_err(DiskError::Write)?;
    gpt::write(file, &table)?;
    Ok(Written {
        root_hash: hex(&root.hash),
        table,
    })
}

fn disk_guid(plan: &Plan, hash: &verity::Hash) -> Uuid {
    named_uuid(&["disk", &plan.boot_spec.name, &hex(hash)])
}

fn signed(plan: &Plan, what: &str, image: Vec<u8>) -> Result<Vec<u8>, DiskError> {
    match &plan.secure_boot {
        Some(input) => Ok(input.signing.sign(what, image)?),
        None => Ok(image),
    }
}

/// A boot file's bytes.
fn bytes(content: &Content) -> Result<Vec<u8>, DiskError> {
    match content {
        Content::Bytes(bytes) => Ok(bytes.to_vec()),
        Content::Range { path, offset, len } => {
            read_range(path, *offset, *len).map_err(|source| DiskError::Read {
                path: path.to_path_buf(),
                source,
            })
        }
    }
}

fn read_range(path: &std::path::Path, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; len];
    File::open(path)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
