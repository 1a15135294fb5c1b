//! Sockets that the caller listens on for the command (`sd_listen_fds(3)`): the first descriptors after the standard
//! three, counted in `LISTEN_FDS`. They reach the command, and `LISTEN_PID` is made to mean it.

use std::ffi::CString;

/// More than this is a mistake.
const MAX: u32 = 4096;

/// How many descriptors the caller passes, if it means this process.
pub(crate) fn count() -> u32 {
    let variable = |name| std::env::var(name).ok();
    counted(
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_PID").as_deref(),
        std::process::id(),
    )
}

/// Callers of runc leave `LISTEN_PID` out; if it is there it must be ours.
fn counted(count: Option<&str>, pid: Option<&str>, own: u32) -> u32 {
    let is_ours = pid.is_none_or(|pid| pid == own.to_string());
    let count = count.filter(|_| is_ours).and_then(|text| text.parse().ok());
    count.filter(|&count| count <= MAX).unwrap_or(0)
}

/// Tells the command, which this process is about to become.
pub(crate) fn announce(count: u32, env: &mut Vec<CString>) {
    if count == 0 {
        return;
    }
    let pid = rustix::process::getpid().as_raw_nonzero();
    for entry in [format!("LISTEN_FDS={count}"), format!("LISTEN_PID={pid}")] {
        env.extend(CString::new(entry));
    }
    if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
        env.extend(CString::new(format!("LISTEN_FDNAMES={names}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_meant_for_another_process_are_not_passed() {
        for (count, pid, expected) in [
            (Some("2"), Some("7"), 2),
            (Some("2"), None, 2),
            (Some("2"), Some("8"), 0),
            (None, Some("7"), 0),
            (Some("many"), None, 0),
            (Some("-1"), None, 0),
            (Some("100000"), None, 0),
        ] {
            assert_eq!(counted(count, pid, 7), expected, "{count:?} {pid:?}");
        }
    }
}
