//! A stream-optimized VMDK of a raw disk (VMware's "Virtual Disk Format 5.0"): the form of OVA archives, and what clouds
//! import. Grains of zeros are not stored, the others are deflated.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::is_zero;
use super::region::Region;

const SECTOR: u64 = 512;
/// Sectors of a grain, and grains of a table.
const GRAIN: u64 = 128;
const TABLE: u64 = 512;
/// Where the descriptor is, and how long; and where the grains begin, in sectors.
const DESCRIPTOR: u64 = 1;
const DESCRIPTOR_LEN: u64 = 20;
const OVERHEAD: u64 = 128;
/// Newlines can be told from mangled ones, grains are compressed, markers stand before everything.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
const MARK_TABLE: u32 = 1;
const MARK_DIRECTORY: u32 = 2;
const MARK_FOOTER: u32 = 3;

/// Writes `raw`; `id` is the content's number, `name` the file's own. Returns the length of the file.
///
/// # Errors
/// Reading or writing fails.
pub fn write(raw: &Region<'_>, out: &Region<'_>, id: u32, name: &str) -> io::Result<u64> {
    let capacity = (raw.len() / SECTOR).next_multiple_of(GRAIN);
    let mut file = Sectors { out, at: OVERHEAD };
    out.write_all_at(&header(capacity, u64::MAX), 0)?;
    out.write_all_at(
        descriptor(raw.len() / SECTOR, id, name).as_bytes(),
        DESCRIPTOR * SECTOR,
    )?;
    let mut directory = Vec::new();
    for table in 0..capacity.div_ceil(GRAIN * TABLE) {
        let grains = write_grains(raw, &mut file, table)?;
        directory.push(if grains.iter().all(|at| *at == 0) {
            0
        } else {
            let bytes: Vec<u8> = grains.iter().flat_map(|at| at.to_le_bytes()).collect();
            file.marked(MARK_TABLE, &bytes)?
        });
    }
    let bytes: Vec<u8> = directory.iter().flat_map(|at| at.to_le_bytes()).collect();
    let directory = file.marked(MARK_DIRECTORY, &bytes)?;
    file.marked(MARK_FOOTER, &header(capacity, directory.into()))?;
    // The end of the stream is a sector of zeros.
    Ok((file.at + 1) * SECTOR)
}

/// The grains of a table: where each is, or 0.
fn write_grains(raw: &Region<'_>, file: &mut Sectors<'_>, table: u64) -> io::Result<Vec<u32>> {
    let mut buffer = vec![0; (GRAIN * SECTOR) as usize];
    let mut places = vec![0; TABLE as usize];
    for (index, place) in places.iter_mut().enumerate() {
        let sector = (table * TABLE + index as u64) * GRAIN;
        let left = raw
            .len()
            .saturating_sub(sector * SECTOR)
            .min(GRAIN * SECTOR) as usize;
        buffer.fill(0);
        raw.read_exact_at(&mut buffer[..left], sector.min(raw.len() / SECTOR) * SECTOR)?;
        if !is_zero(&buffer) {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&buffer)?;
            *place = file.grain(sector, &encoder.finish()?)?;
        }
    }
    Ok(places)
}

/// A file that grows by sectors.
struct Sectors<'f> {
    out: &'f Region<'f>,
    at: u64,
}

impl Sectors<'_> {
    fn place(&self) -> io::Result<u32> {
        u32::try_from(self.at)
            .map_err(|_| io::Error::other("the disk is too large for a VMDK of one file"))
    }

    /// A compressed grain behind its number and length; the place is that of the number.
    fn grain(&mut self, sector: u64, data: &[u8]) -> io::Result<u32> {
        let place = self.place()?;
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
        self.out.write_all_at(&bytes, self.at * SECTOR)?;
        self.at += (bytes.len() as u64).div_ceil(SECTOR);
        Ok(place)
    }

    /// Metadata behind a sector that says what it is; the place is that of the data.
    fn marked(&mut self, kind: u32, data: &[u8]) -> io::Result<u32> {
        let sectors = (data.len() as u64).div_ceil(SECTOR);
        let mut marker = sectors.to_le_bytes().to_vec();
        marker.extend_from_slice(&0_u32.to_le_bytes());
        marker.extend_from_slice(&kind.to_le_bytes());
        self.out.write_all_at(&marker, self.at * SECTOR)?;
        self.at += 1;
        let place = self.place()?;
        self.out.write_all_at(data, self.at * SECTOR)?;
        self.at += sectors;
        Ok(place)
    }
}

/// `SparseExtentHeader`; at the file's start it says that the directory is named at its end.
fn header(capacity: u64, directory: u64) -> Vec<u8> {
    let mut header = b"KDMV".to_vec();
    header.extend_from_slice(&3_u32.to_le_bytes());
    header.extend_from_slice(&FLAGS.to_le_bytes());
    for value in [capacity, GRAIN, DESCRIPTOR, DESCRIPTOR_LEN] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    header.extend_from_slice(&(TABLE as u32).to_le_bytes());
    for value in [0, directory, OVERHEAD] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    header.push(0); // shut down clean
    header.extend_from_slice(b"\n \r\n");
    header.extend_from_slice(&1_u16.to_le_bytes()); // deflate
    header.resize(SECTOR as usize, 0);
    header
}

fn descriptor(sectors: u64, id: u32, name: &str) -> String {
    let cylinders = (sectors / (255 * 63)).clamp(1, 65_535);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={id:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRW {sectors} SPARSE \"{name}\"\n\n\
         # The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"10\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_a_sector_and_the_descriptor_fits_in_its_place() {
        assert_eq!(header(1, 2).len() as u64, SECTOR);
        assert!(
            descriptor(u64::MAX, 0, &"x".repeat(255)).len() < (DESCRIPTOR_LEN * SECTOR) as usize
        );
    }
}
