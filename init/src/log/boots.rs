//! `boots`: the boots of the machine, a line each: `NUMBER ID TIME VERSION`.
//!
//! The number stands before each line of the log. The ID is the kernel's `boot_id`, by which a log process knows
//! that the boot has its number already.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::batch::Stamp;
use super::line;

/// Boots that are remembered.
const REMEMBERED: usize = 200;
/// The file in the log's directory.
const NAME: &str = "boots";

/// Gives this boot its number, and writes it down before anything is written under it. `floor` is a number that has
/// been given before, even if the file is lost.
///
/// # Errors
/// With the kernel's reason, when the file cannot be read or written.
pub fn enter(directory: &Path, id: &str, version: &str, floor: u64) -> io::Result<u64> {
    let path = directory.join(NAME);
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let (number, text) = add(&text, id, version, floor, Stamp::now());
    if let Some(text) = text {
        let new = directory.join(format!(".{NAME}.new"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(directory)?.sync_all()?;
    }
    Ok(number)
}

/// The number of the boot with this ID, and the new text if it was not in the old one. Lines that are damaged are
/// left out.
fn add(text: &str, id: &str, version: &str, floor: u64, now: Stamp) -> (u64, Option<String>) {
    let boots: Vec<(u64, &str, &str)> = text.lines().filter_map(parse).collect();
    if let Some((number, ..)) = boots.iter().find(|(_, known, _)| *known == id) {
        return (*number, None);
    }
    let last = boots.iter().map(|(number, ..)| *number).max();
    let number = last.unwrap_or(0).max(floor) + 1;
    let mut new = String::new();
    for (_, _, line) in &boots[boots.len().saturating_sub(REMEMBERED - 1)..] {
        new.push_str(line);
        new.push('\n');
    }
    // Writing to a String cannot fail.
    let _ = write!(new, "{number} {id} ");
    line::write_time(&mut new, now.real);
    let _ = writeln!(new, " {version}");
    (number, Some(new))
}

fn parse(line: &str) -> Option<(u64, &str, &str)> {
    let mut words = line.split(' ');
    let (number, id) = (words.next()?.parse().ok()?, words.next()?);
    words.next()?;
    Some((number, id, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Stamp = Stamp {
        real: 0,
        boot: Duration::ZERO,
    };

    #[test]
    fn each_boot_has_one_number_and_no_other_has_it() {
        let (first, text) = add("", "aa", "1.0", 0, NOW);
        let text = text.unwrap();
        assert_eq!(text, "1 aa 1970-01-01T00:00:00.000000Z 1.0\n");
        assert_eq!(add(&text, "aa", "1.0", 0, NOW), (first, None));
        let (second, text) = add(&text, "bb", "1.1", 0, NOW);
        assert_eq!((second, text.unwrap().lines().count()), (2, 2));
    }

    #[test]
    fn a_lost_or_damaged_file_gives_no_number_twice() {
        assert_eq!(add("", "aa", "1", 7, NOW).0, 8);
        let (number, text) = add("\u{fffd}\u{0}\n9 x\n5 bb then 1\n", "aa", "1", 3, NOW);
        assert_eq!((number, text.unwrap().lines().count()), (6, 2));
    }

    #[test]
    fn old_boots_are_forgotten() {
        let mut text = String::new();
        for boot in 1..=1000 {
            text = add(&text, &format!("id{boot}"), "1", 0, NOW).1.unwrap();
        }
        assert_eq!(text.lines().count(), REMEMBERED);
        assert!(text.lines().last().unwrap().starts_with("1000 id1000 "));
    }
}
