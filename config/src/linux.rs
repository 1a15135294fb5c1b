//! The names that Linux gives to signals and capabilities.

use crate::diagnostic::suggest;
use crate::manifest::Text;
use crate::value::{Parsed, wrong};

/// The number of a signal on Linux by its name, `SIGTERM` or `TERM`, or a number from 1 to 64.
///
/// # Errors
/// Anything else.
pub fn signal(text: &Text) -> Parsed<i32> {
    const NAMES: [(&str, i32); 12] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("ALRM", 14),
        ("TERM", 15),
        ("CONT", 18),
        ("PWR", 30),
        ("WINCH", 28),
    ];
    let name = text.get_ref().strip_prefix("SIG").unwrap_or(text.get_ref());
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    if let Some(offset) = name
        .strip_prefix("RTMIN")
        .and_then(|rest| {
            if rest.is_empty() {
                Some(0)
            } else {
                rest.strip_prefix('+')?.parse::<i32>().ok()
            }
        })
        .filter(|n| (0..=30).contains(n))
    {
        return Ok(34 + offset);
    }
    let plain = name.bytes().all(|b| b.is_ascii_digit());
    name.parse::<i32>()
        .ok()
        .filter(|n| plain && (1..=64).contains(n))
        .ok_or_else(|| {
            wrong(
                text,
                "is no signal",
                suggest(name, NAMES.map(|(known, _)| known)),
            )
        })
}

/// The capabilities of capabilities(7), as OCI's config names them.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// A capability's full name, from `CAP_CHOWN` or `CHOWN`.
///
/// # Errors
/// An unknown name.
pub fn capability(text: &Text) -> Parsed<String> {
    let full = if text.get_ref().starts_with("CAP_") {
        text.get_ref().clone()
    } else {
        format!("CAP_{}", text.get_ref())
    };
    if CAPABILITIES.contains(&full.as_str()) {
        return Ok(full);
    }
    let hint = match crate::diagnostic::nearest(&full, CAPABILITIES) {
        Some(like) => format!("did you mean `{like}`?"),
        None => "capabilities(7) lists them".to_owned(),
    };
    Err(wrong(text, "is no capability", hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Text {
        Text::new(0..value.len(), value.to_owned())
    }

    #[test]
    fn signals_are_known_by_name_or_number() {
        for (good, number) in [
            ("SIGTERM", 15),
            ("QUIT", 3),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
        ] {
            assert_eq!(signal(&text(good)).unwrap(), number, "{good}");
        }
        for bad in ["", "0", "65", "TREM", "-9", "+9", "SIG", "RTMIN+99"] {
            assert!(signal(&text(bad)).is_err(), "{bad}");
        }
    }
}
