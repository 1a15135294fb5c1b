//! The disk: where each part lies, and the order in which they are written.
//!
//! The root comes first, because its dm-verity hash names the partitions and goes into the UKI's command line;
//! the ESP, which holds the UKI, comes last. Identifiers follow from the content or from the machine's name, so
//! the same plan gives the same bytes.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::format::region::Region;
use crate::format::{cpio, erofs, ext4, fat, gpt, pe, verity};
use crate::identity::{hex, named_uuid};
use crate::plan::{Plan, state_options};
use crate::progress::Progress;
use crate::tree::{Content, Tree, TreeError};

/// Partitions begin and end at multiples of this.
const ALIGNMENT: u64 = 1 << 20;
/// The ESP's least size: systemd-boot and three UKIs of a small machine.
const LEAST_ESP: u64 = 64 << 20;

/// Partition types of the Discoverable Partitions Specification, and the ESP's of the UEFI specification §5.3.3.
pub mod types {
    use uuid::{Uuid, uuid};

    /// The EFI system partition.
    pub const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    /// The root of an x86-64 machine.
    pub const ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
    /// The root's dm-verity data.
    pub const ROOT_X86_64_VERITY: Uuid = uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5");
    /// Generic Linux data: the state.
    pub const LINUX_GENERIC: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
}

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
pub fn write(file: &File, plan: &Plan, progress: &Progress) -> Result<Written, DiskError> {
    let initrd = {
        let _step = progress.step("packing the initrd", None);
        initrd(&plan.initramfs)?
    };
    let kernel = bytes(&plan.kernel)?;
    let stub = bytes(&plan.stub)?;
    let loader = bytes(&plan.loader)?;
    let esp_len = esp_len(stub.len() + kernel.len() + initrd.len(), loader.len());
    let mut layout = Layout::new(&plan.boot_spec.name, esp_len);
    let root = write_root(file, plan, &mut layout, progress)?;
    let state = plan.boot_spec.state.as_ref().zip(plan.state_size);
    if let Some((_, size)) = state {
        let region = layout.add(types::LINUX_GENERIC, plan.state_uuid(), "state", size);
        file.set_len(layout.disk_len()).map_err(DiskError::Write)?;
        let window = Region::new(file, region.start, region.len).fresh();
        ext4::write(&window, &state_options(&plan.boot_spec.name, plan.epoch))?;
    }
    let uki = uki(plan, &stub, &kernel, &initrd, &root.hash)?;
    let _step = progress.step("writing the EFI system partition", None);
    write_esp(file, plan, &layout, loader, uki)?;
    let table = layout.table(disk_guid(plan, &root.hash));
    file.set_len(table.disk_len).map_err(DiskError::Write)?;
    gpt::write(file, &table)?;
    Ok(Written {
        root_hash: hex(&root.hash),
        table,
    })
}

/// Where the partitions lie.
struct Layout {
    partitions: Vec<gpt::Partition>,
}

impl Layout {
    fn new(name: &str, esp_len: u64) -> Self {
        let mut layout = Self {
            partitions: Vec::new(),
        };
        layout.add(types::ESP, named_uuid(&["esp", name]), "esp", esp_len);
        layout
    }

    /// The first free byte.
    fn end(&self) -> u64 {
        self.partitions
            .last()
            .map_or(ALIGNMENT, |p| (p.start + p.len).next_multiple_of(ALIGNMENT))
    }

    fn add(&mut self, type_guid: Uuid, unique_guid: Uuid, name: &str, len: u64) -> gpt::Partition {
        let partition = gpt::Partition {
            type_guid,
            unique_guid,
            name: name.to_owned(),
            start: self.end(),
            len,
        };
        self.partitions.push(partition.clone());
        partition
    }

    fn disk_len(&self) -> u64 {
        self.end() + ALIGNMENT
    }

    fn table(&self, disk_guid: Uuid) -> gpt::Table {
        gpt::Table {
            disk_guid,
            disk_len: self.disk_len(),
            partitions: self.partitions.clone(),
        }
    }
}

struct Root {
    hash: verity::Hash,
}

/// The root and its hash tree; their GUIDs are the two halves of the hash (Discoverable Partitions Specification).
fn write_root(
    file: &File,
    plan: &Plan,
    layout: &mut Layout,
    progress: &Progress,
) -> Result<Root, DiskError> {
    let start = layout.end();
    let len = {
        let step = progress.step("writing the root file system", None);
        let mut window = Region::new(file, start, u64::MAX / 2 - start).fresh();
        let options = erofs::Options {
            uuid: named_uuid(&["root", &plan.boot_spec.name]),
            volume_name: "root".to_owned(),
            build_time: plan.epoch,
        };
        let len = erofs::write(&mut window, &plan.root, &options)?;
        step.advance(len);
        len
    };
    let _step = progress.step("hashing the root for dm-verity", None);
    let tree_start = (start + len).next_multiple_of(ALIGNMENT);
    let tree_len = verity::hash_tree_len(len);
    file.set_len(tree_start + tree_len)
        .map_err(DiskError::Write)?;
    let tree = Region::new(file, tree_start, tree_len).fresh();
    let salt = Sha256::digest(format!(
        "{}\0{}",
        plan.boot_spec.name, plan.boot_spec.version
    ))
    .to_vec();
    let params = verity::Params {
        salt,
        uuid: named_uuid(&["verity", &plan.boot_spec.name]),
    };
    let hash = verity::write(file, start, len, &tree, &params)?;
    layout.add(types::ROOT_X86_64, half(&hash, 0), "root", len);
    layout.add(
        types::ROOT_X86_64_VERITY,
        half(&hash, 16),
        "root-verity",
        tree_len,
    );
    Ok(Root { hash })
}

/// 16 bytes of the root hash as they stand, written as a UUID's text.
fn half(hash: &verity::Hash, at: usize) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[at..at + 16]);
    Uuid::from_bytes(bytes)
}

fn disk_guid(plan: &Plan, hash: &verity::Hash) -> Uuid {
    named_uuid(&["disk", &plan.boot_spec.name, &hex(hash)])
}

fn initrd(tree: &Tree) -> Result<Vec<u8>, DiskError> {
    let mut bytes = Vec::new();
    cpio::write(&mut bytes, tree)?;
    Ok(bytes)
}

fn uki(
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

/// Room for three UKIs beside the loader, its second copy and the file system's own tables.
fn esp_len(uki: usize, loader: usize) -> u64 {
    let needed = 3 * (uki as u64 + (1 << 20)) + 2 * loader as u64 + (2 << 20);
    needed.next_multiple_of(ALIGNMENT).max(LEAST_ESP)
}

fn write_esp(
    file: &File,
    plan: &Plan,
    layout: &Layout,
    loader: Vec<u8>,
    uki: Vec<u8>,
) -> Result<(), DiskError> {
    let esp = &layout.partitions[0];
    let mut tree = Tree::default();
    let loader = Content::Bytes(loader.into());
    tree.put_file("EFI/BOOT/BOOTX64.EFI", 0o755, loader.clone())?;
    tree.put_file("EFI/systemd/systemd-bootx64.efi", 0o755, loader)?;
    tree.put_file(
        "loader/loader.conf",
        0o644,
        Content::Bytes(b"timeout 0\neditor no\n"[..].into()),
    )?;
    tree.put_file(&plan.uki_path(), 0o755, Content::Bytes(uki.into()))?;
    let volume_id = u32::from_le_bytes(
        esp.unique_guid.as_bytes()[..4]
            .try_into()
            .unwrap_or_default(),
    );
    let options = fat::Options {
        volume_id,
        label: "ESP".to_owned(),
        mtime: plan.epoch,
    };
    let mut window = Region::new(file, esp.start, esp.len).fresh();
    Ok(fat::write(&mut window, esp.len, &options, &tree)?)
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
