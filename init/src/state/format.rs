//! A new file system, from the template in the verified root.
//!
//! The superblock is written last: until then there is no file system.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use config::boot::STATE_TEMPLATE_PATH;
use config::template::Template;

/// What is cleared in one write.
const PIECE: usize = 256 * 1024;
/// The first block has the superblock.
const FIRST_BLOCK: u64 = 4096;

/// Writes an empty file system at a byte of a device with room for `room` bytes. It is on the medium afterwards.
///
/// # Errors
/// Without a good template or enough room, and when the device does not take it.
pub(super) fn write(device: &File, base: u64, room: u64) -> io::Result<()> {
    let template = Template::decode(&fs::read(STATE_TEMPLATE_PATH)?)
        .ok_or_else(|| io::Error::other(format!("{STATE_TEMPLATE_PATH} is no template")))?;
    if template.len > room {
        return Err(io::Error::other(format!(
            "it has {room} bytes, and {} are the least",
            template.len
        )));
    }
    write_template(device, base, &template)
}

fn write_template(device: &File, base: u64, template: &Template) -> io::Result<()> {
    let zeros = vec![0_u8; PIECE];
    let mut at = 0;
    while at < template.metadata {
        let piece = (template.metadata - at).min(PIECE as u64) as usize;
        device.write_all_at(&zeros[..piece], base + at)?;
        at += piece as u64;
    }
    let (first, rest): (Vec<_>, Vec<_>) =
        template.runs.iter().partition(|(at, _)| *at < FIRST_BLOCK);
    for (at, run) in rest {
        device.write_all_at(run, base + at)?;
    }
    device.sync_data()?;
    for (at, run) in first {
        device.write_all_at(run, base + at)?;
    }
    device.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_written_over_whatever_was_there() {
        let path = std::env::temp_dir().join(format!("coracle-format-{}", std::process::id()));
        fs::write(&path, vec![0xA5; 1 << 20]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut metadata = vec![0; 600_000];
        metadata[1024] = 1;
        metadata[599_999] = 2;
        write_template(&file, 4096, &Template::new(1 << 20, &metadata)).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes[4096..][..600_000] == metadata);
        assert!(bytes[..4096].iter().all(|&b| b == 0xA5));
        assert!(bytes[4096 + 600_000..].iter().all(|&b| b == 0xA5));
        fs::remove_file(&path).unwrap();
    }
}
