//! Where the partitions lie, and what they are.

use uuid::Uuid;

use crate::format::gpt;
use crate::identity::named_uuid;

/// Partitions begin and end at multiples of this.
pub(super) const ALIGNMENT: u64 = 1 << 20;

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

/// Where the partitions lie.
pub(super) struct Layout {
    pub(super) partitions: Vec<gpt::Partition>,
}

impl Layout {
    pub(super) fn new(name: &str, esp_len: u64) -> Self {
        let mut layout = Self {
            partitions: Vec::new(),
        };
        layout.add(types::ESP, named_uuid(&["esp", name]), "esp", esp_len);
        layout
    }

    /// The first free byte.
    pub(super) fn end(&self) -> u64 {
        self.partitions
            .last()
            .map_or(ALIGNMENT, |p| (p.start + p.len).next_multiple_of(ALIGNMENT))
    }

    pub(super) fn add(
        &mut self,
        type_guid: Uuid,
        unique_guid: Uuid,
        name: &str,
        len: u64,
    ) -> gpt::Partition {
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

    pub(super) fn disk_len(&self) -> u64 {
        self.end() + ALIGNMENT
    }

    pub(super) fn table(&self, disk_guid: Uuid) -> gpt::Table {
        gpt::Table {
            disk_guid,
            disk_len: self.disk_len(),
            partitions: self.partitions.clone(),
        }
    }
}
