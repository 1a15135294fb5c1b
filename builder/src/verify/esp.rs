//! The EFI system partition: each file against the record, and the file system made again from its files.

use crate::contents::{BootFile, Contents};
use crate::disk::{esp_options, types};
use crate::format::fat;
use crate::format::region::Region;
use crate::image::{DiskImage, ImageError};
use crate::tree::{Content, Tree};

use super::table::differences;
use super::{Check, What, chain};

/// Differences are told once for each of these many bytes.
const GRAIN: u64 = 4096;

/// All of the partition.
pub(super) fn esp(image: &DiskImage, contents: &Contents) -> Result<Check, ImageError> {
    let region = image.partition(types::ESP, "EFI system")?;
    let mut problems = Vec::new();
    let mut tree = Tree::default();
    let mut found = Vec::new();
    let listed = match fat::list(&region) {
        Ok(listed) => listed,
        Err(error) => {
            let problems = vec![chain(&error)];
            return Ok(Check::new(What::EfiSystemPartition, "", problems));
        }
    };
    for file in listed.iter().filter(|listed| !listed.directory) {
        let bytes = match fat::read_file(&region, &file.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                problems.push(format!("{}: {}", file.path, chain(&error)));
                continue;
            }
        };
        problems.extend(file_problems(contents, &file.path, &bytes));
        found.push(BootFile::counted_off(&file.path));
        let content = Content::Bytes(bytes.into());
        if let Err(error) = tree.put_file(&file.path, 0o755, content) {
            problems.push(error.to_string());
        }
    }
    for file in &contents.boot.files {
        if !found.contains(&file.path) {
            problems.push(format!("{} is missing", file.path));
        }
    }
    problems.extend(outside_of_files(image, contents, &tree)?);
    let note = format!("{} files and the file system", found.len());
    Ok(Check::new(What::EfiSystemPartition, note, problems))
}

fn file_problems(contents: &Contents, path: &str, bytes: &[u8]) -> Vec<String> {
    let plain = BootFile::counted_off(path);
    let Some(known) = contents.boot.files.iter().find(|file| file.path == plain) else {
        return vec![format!("{path} is none of the machine's files")];
    };
    let differences = known.differences(bytes).into_iter();
    differences
        .map(|what| format!("{path}: {what} differs"))
        .collect()
}

/// Where the partition is another than the files in it make it.
fn outside_of_files(
    image: &DiskImage,
    contents: &Contents,
    tree: &Tree,
) -> Result<Vec<String>, ImageError> {
    let mut partitions = image.table.partitions.iter();
    let Some(esp) = partitions.find(|p| p.type_guid == types::ESP) else {
        return Err(ImageError::NoPartition("EFI system"));
    };
    let again = tempfile::tempfile().map_err(ImageError::Io)?;
    again.set_len(esp.len).map_err(ImageError::Io)?;
    let mut window = Region::new(&again, 0, esp.len).fresh();
    if let Err(error) = fat::write(
        &mut window,
        esp.len,
        &esp_options(esp, contents.epoch),
        tree,
    ) {
        return Ok(vec![chain(&error)]);
    }
    let file = image.try_clone_file().map_err(ImageError::Io)?;
    let differ = differences(&file, esp.start, &again, 0, esp.len, GRAIN);
    let differ = differ.map_err(ImageError::Io)?.into_iter();
    Ok(differ
        .map(|at| format!("the file system differs at byte {at} of the disk, outside of its files"))
        .collect())
}
