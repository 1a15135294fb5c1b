//! `ps`: the processes of a container, as the runtime's pid namespace numbers them.
//!
//! A list in JSON, or a table in the form of ps(1) `-ef`, read from /proc. Refuses arguments for ps(1), which is
//! not used.

use std::fs;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::state::Container;

/// The text to print.
pub fn ps(root: &Path, id: &str, json: bool, arguments: &[String]) -> Result<String> {
    if !arguments.is_empty() && !json && arguments != ["-ef"] {
        return Err(Error::Unsupported(format!(
            "arguments for ps(1): {}",
            arguments.join(" ")
        )));
    }
    let container = Container::new(root, id)?;
    let record = container.record()?;
    let mut pids = match &record.cgroup {
        Some(cgroup) => cgroup.processes()?,
        None => Vec::new(),
    };
    if pids.is_empty() {
        // Without a cgroup of its own the first process is the one that is known.
        let alive = record.process.filter(|process| process.is_alive());
        pids.extend(alive.map(|process| process.pid));
    }
    pids.sort_unstable();
    pids.dedup();
    if json {
        let list: Vec<_> = pids.iter().map(i32::to_string).collect();
        return Ok(format!("[{}]", list.join(",")));
    }
    let now = uptime_ticks()?;
    let mut table = String::from("     UID     PID    PPID  ELAPSED     TIME CMD");
    for row in pids.into_iter().filter_map(|pid| row(pid, now)) {
        table.push('\n');
        table.push_str(&row);
    }
    Ok(table)
}

/// Clock ticks a second, the same on every Linux of this architecture.
const TICKS: u64 = 100;

fn uptime_ticks() -> Result<u64> {
    let path = Path::new("/proc/uptime");
    let text = fs::read_to_string(path).at("read", path)?;
    let seconds = text
        .split('.')
        .next()
        .and_then(|text| text.trim().parse::<u64>().ok());
    Ok(seconds.unwrap_or(0) * TICKS)
}

/// `None` if the process has just ended.
fn row(pid: i32, now: u64) -> Option<String> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
    let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let (parent, used, start) = parse_stat(&stat)?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uid.split_whitespace().nth(1)?;
    let command = command(&read("cmdline")?, &stat);
    let (elapsed, used) = (clock(now.saturating_sub(start)), clock(used));
    Some(format!(
        "{uid:>8} {pid:>7} {parent:>7} {elapsed:>8} {used:>8} {command}"
    ))
}

/// Parent, ticks used, and ticks after boot (proc(5), `/proc/PID/stat`).
fn parse_stat(stat: &str) -> Option<(u64, u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number)?.parse::<u64>().ok();
    Some((field(1)?, field(11)? + field(12)?, field(19)?))
}

/// The container chooses it, so that nothing of it may steer the terminal.
fn command(line: &[u8], stat: &str) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\0');
    if text.is_empty() {
        let name = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(')'));
        return format!("[{}]", name.map_or("?", |(name, _)| name).escape_debug());
    }
    let plain = |letter: char| match letter {
        '\0' => ' ',
        letter if letter.is_control() => '?',
        letter => letter,
    };
    text.chars().map(plain).collect()
}

fn clock(ticks: u64) -> String {
    let seconds = ticks / TICKS;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_any_name_and_show_no_control_characters() {
        let stat = "7 (a) b\n(c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(stat), Some((1, 200, 4242)));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(command(b"sh\0-c\0\x1b[2J\0", stat), "sh -c ?[2J");
        assert_eq!(command(b"", stat), "[a) b\\n(c]");
        assert_eq!(clock(366_100), "01:01:01");
    }
}
