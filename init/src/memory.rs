//! How much memory this process uses, as the kernel counts it (proc_pid_status(5)).

use std::fs;

/// The most that was resident at once since the start, in KiB; `None` where the kernel does not tell.
#[must_use]
pub fn peak() -> Option<u64> {
    parse_peak(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_told_in_kib() {
        let status = "Name:\tinit\nVmPeak:\t 9000 kB\nVmHWM:\t    2344 kB\nVmRSS:\t 2000 kB\n";
        assert_eq!(parse_peak(status), Some(2344));
        assert_eq!(parse_peak("Name:\tkthread\n"), None);
        assert!(peak().is_some_and(|kib| kib > 100));
    }
}
