//! How a filesystem's length is divided: reserved sectors, two tables, clusters.

use super::{FatError, SECTOR};

/// Fewer clusters would make it FAT16.
const LEAST_CLUSTERS: u64 = 65_525;
const MOST_CLUSTERS: u64 = 0x0fff_fff5;
/// With more clusters than this, larger ones are taken.
const MANY_CLUSTERS: u64 = 1 << 22;

/// A filesystem's division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) sectors: u32,
    pub(super) reserved_sectors: u32,
    pub(super) table_sectors: u32,
    pub(super) tables: u32,
    pub(super) sectors_per_cluster: u32,
    pub(super) clusters: u32,
}

impl Geometry {
    /// The division of `len` bytes: clusters as large as FAT32 allows, up to 4 KiB, because firmware follows the
    /// chain cluster by cluster; larger ones for large filesystems.
    pub(super) fn new(len: u64) -> Result<Self, FatError> {
        let bad = |reason| FatError::BadLength { len, reason };
        if !len.is_multiple_of(SECTOR) {
            return Err(bad("it is no multiple of 512"));
        }
        let sectors = u32::try_from(len / SECTOR).map_err(|_| bad("it is larger than 2 TiB"))?;
        let mut best = None;
        for per_cluster in [1, 2, 4, 8, 16, 32, 64] {
            let Some(geometry) = Self::with_clusters(sectors, per_cluster) else {
                break;
            };
            let clusters = u64::from(geometry.clusters);
            let wanted = per_cluster <= 8 || best.is_none_or(|(many, _)| many > MANY_CLUSTERS);
            if clusters < LEAST_CLUSTERS || !wanted {
                break;
            }
            best = Some((clusters, geometry));
        }
        match best {
            Some((clusters, geometry)) if clusters <= MOST_CLUSTERS => Ok(geometry),
            Some(_) => Err(bad("it has too many clusters")),
            None => Err(bad("it has fewer than 65525 clusters; 34 MiB are enough")),
        }
    }

    fn with_clusters(sectors: u32, sectors_per_cluster: u32) -> Option<Self> {
        let reserved_sectors = 32;
        let most = u64::from(sectors.checked_sub(reserved_sectors)? / sectors_per_cluster);
        // Whole pages for the tables, so that clusters lie on whole pages too.
        let table_sectors = ((most + 2) * 4).div_ceil(SECTOR).next_multiple_of(4) as u32;
        let data = sectors.checked_sub(reserved_sectors + 2 * table_sectors)?;
        Some(Self {
            sectors,
            reserved_sectors,
            table_sectors,
            tables: 2,
            sectors_per_cluster,
            clusters: data / sectors_per_cluster,
        })
    }

    pub(super) fn cluster_len(&self) -> u64 {
        u64::from(self.sectors_per_cluster) * SECTOR
    }

    /// First byte of the clusters.
    pub(super) fn data_at(&self) -> u64 {
        (u64::from(self.reserved_sectors) + u64::from(self.tables) * u64::from(self.table_sectors))
            * SECTOR
    }

    /// Where a cluster is; `None` for a number that is none.
    pub(super) fn cluster_at(&self, cluster: u32) -> Option<u64> {
        let index = cluster.checked_sub(2)?;
        let at = || self.data_at() + u64::from(index) * self.cluster_len();
        (index < self.clusters).then(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn clusters_are_as_large_as_fat32_allows() {
        for (mib, per_cluster) in [
            (34, 1),
            (64, 1),
            (68, 2),
            (136, 4),
            (264, 8),
            (1024, 8),
            (32 << 10, 16),
            (1 << 20, 64),
        ] {
            let geometry = Geometry::new(mib * MIB).unwrap();
            assert_eq!(geometry.sectors_per_cluster, per_cluster, "{mib} MiB");
            assert!(u64::from(geometry.clusters) >= LEAST_CLUSTERS);
            let entries = u64::from(geometry.table_sectors) * SECTOR / 4;
            assert!(entries >= u64::from(geometry.clusters) + 2);
            assert_eq!(geometry.data_at() % 4096, 0);
        }
    }

    #[test]
    fn lengths_that_are_no_fat32_are_refused() {
        for len in [0, 511, 512, 32 * MIB, 64 * MIB + 1, 4 << 40] {
            assert!(Geometry::new(len).is_err(), "{len}");
        }
    }
}
