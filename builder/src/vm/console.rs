//! The guest's serial console: bytes in, safe lines and what they mean out.
//!
//! A line is shown to the user's terminal, so no escape sequence and no control character but tab survives; bytes
//! that are no UTF-8 are replaced. Only lines that *begin* with `coracle: [` are init's own: whatever a workload
//! prints stands behind its name. Before init has spoken no workload runs, so there the firmware's unfinished line
//! may stand in front.

use std::time::Duration;

/// A line longer than this is cut in two.
const LONGEST_LINE: usize = 4096;

/// What EDK II's firmware says when it starts what it has loaded from a disk.
const FIRMWARE_IS_DONE: &str = "BdsDxe: starting ";

/// Who watches the machine.
pub trait Console {
    /// A line of the guest's console, safe to print.
    fn guest(&mut self, line: &str);

    /// What the host has to say meanwhile: the accelerator, that it shuts down, and so on.
    fn note(&mut self, text: &str);

    /// A result: a workload's answer. The command prints it on standard output.
    fn result(&mut self, text: &str);
}

/// What a console line says to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestEvent {
    /// A boot or shutdown stage is reached: `initramfs`, `root`, `system`, `state`, `network`, `ready`,
    /// `stopping`, `poweroff`, or a newer word.
    Stage(String),
    /// The firmware gives way to the boot loader.
    LoaderStarts,
    /// The named workload is ready.
    WorkloadReady(String),
    /// The firmware does not start an image that nobody it trusts has signed.
    FirmwareRefused(String),
    /// The machine refuses to go on: corruption, no root.
    Refused(String),
    /// The kernel has given up.
    KernelPanic(String),
}

/// A line with its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The line, safe to print.
    pub(crate) text: String,
    /// The guest's own clock (since its kernel began), if the line carries it.
    pub(crate) guest_time: Option<Duration>,
    /// What it says, if it says anything of interest here.
    pub(crate) event: Option<GuestEvent>,
}

/// Cuts the console's bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pending: Vec<u8>,
    init_has_spoken: bool,
    /// What is pending goes on a line that was cut: it means nothing, whatever it looks like.
    is_continuation: bool,
}

impl Reader {
    /// Takes bytes as they come and returns the lines that are complete now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.pending.push(byte);
            }
            if byte == b'\n' || self.pending.len() >= LONGEST_LINE {
                lines.extend(self.take_line());
                self.is_continuation = byte != b'\n';
            }
        }
        lines
    }

    /// What is left when the console ends without a line feed.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        if self.pending.is_empty() {
            return None;
        }
        self.take_line()
    }

    /// `None` for a line in which nothing printable is left; an empty line that was meant so stays.
    fn take_line(&mut self) -> Option<Line> {
        let raw = std::mem::take(&mut self.pending);
        let text = sanitize(&raw);
        let was_empty = raw.iter().all(|byte| *byte == b'\r');
        if text.is_empty() && !was_empty {
            return None;
        }
        let own = if self.is_continuation {
            None
        } else if self.init_has_spoken {
            parse_own(&text)
        } else {
            text.find("coracle: [")
                .and_then(|at| parse_own(&text[at..]))
        };
        self.init_has_spoken |= own.is_some();
        let (guest_time, event) = match own {
            Some((time, said)) => (Some(time), parse_event(said)),
            None if self.is_continuation => (None, None),
            None if !self.init_has_spoken && text.contains(FIRMWARE_IS_DONE) => {
                (None, Some(GuestEvent::LoaderStarts))
            }
            None if !self.init_has_spoken && is_refusal(&text) => {
                (None, Some(GuestEvent::FirmwareRefused(text.clone())))
            }
            None => (None, parse_panic(&text)),
        };
        Some(Line {
            text,
            guest_time,
            event,
        })
    }
}

/// What EDK II and systemd-boot say of an image whose signature the firmware does not take.
fn is_refusal(text: &str) -> bool {
    text.contains("Access Denied") || text.contains("Security Violation")
}

/// `coracle: [SECONDS.mmm] TEXT` as the time and the text.
fn parse_own(line: &str) -> Option<(Duration, &str)> {
    let (time, text) = line.strip_prefix("coracle: [")?.split_once("] ")?;
    let (seconds, millis) = time.split_once('.')?;
    if millis.len() != 3 {
        return None;
    }
    let seconds = Duration::from_secs(seconds.parse().ok()?);
    Some((seconds + Duration::from_millis(millis.parse().ok()?), text))
}

fn parse_event(text: &str) -> Option<GuestEvent> {
    if let Some(name) = text.strip_prefix("stage ") {
        return Some(GuestEvent::Stage(name.to_owned()));
    }
    if let Some(reason) = text.strip_prefix("refused: ") {
        return Some(GuestEvent::Refused(reason.to_owned()));
    }
    let name = text.strip_prefix("workload ")?.strip_suffix(" ready")?;
    Some(GuestEvent::WorkloadReady(name.to_owned()))
}

/// The kernel's last words: `[    1.234567] Kernel panic - not syncing: REASON`, with or without the time.
fn parse_panic(text: &str) -> Option<GuestEvent> {
    let message = match text.strip_prefix('[') {
        Some(stamped) => stamped.split_once("] ")?.1,
        None => text,
    };
    let reason = message.strip_prefix("Kernel panic - not syncing: ")?;
    Some(GuestEvent::KernelPanic(reason.to_owned()))
}

/// The printable part of a line: no escape sequences (ECMA-48), no control characters but tab.
pub fn sanitize(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut safe = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' => skip_escape_sequence(&mut chars),
            '\t' => safe.push(char),
            char if char.is_control() => {}
            char => safe.push(char),
        }
    }
    safe
}

/// Skips what follows an escape character: `[` with parameters up to its final byte, intermediates with their final
/// byte, or one character.
fn skip_escape_sequence(chars: &mut std::str::Chars<'_>) {
    let Some(first) = chars.next() else { return };
    let is_final: fn(char) -> bool = match first {
        '[' => |char| ('@'..='~').contains(&char),
        ' '..='/' => |char| ('0'..='~').contains(&char),
        _ => return,
    };
    chars.find(|char| is_final(*char));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Line> {
        let mut reader = Reader::default();
        let mut lines = reader.push(bytes);
        lines.extend(reader.finish());
        lines
    }

    fn events(bytes: &[u8]) -> Vec<GuestEvent> {
        lines(bytes).into_iter().filter_map(|l| l.event).collect()
    }

    fn stage(name: &str) -> GuestEvent {
        GuestEvent::Stage(name.into())
    }

    #[test]
    fn what_goes_on_a_cut_line_means_nothing() {
        let mut bytes = b"coracle: [0.100] stage initramfs\n".to_vec();
        bytes.extend(vec![b'x'; LONGEST_LINE]);
        bytes.extend(b"coracle: [1.000] stage ready\ncoracle: [2.000] stage root\n");
        let events: Vec<_> = lines(&bytes)
            .into_iter()
            .filter_map(|line| line.event)
            .collect();
        let stage = |name: &str| GuestEvent::Stage(name.to_owned());
        assert_eq!(events, [stage("initramfs"), stage("root")]);
    }

    #[test]
    fn own_lines_carry_time_and_event() {
        let text = b"coracle: [0.512] stage initramfs\r\n\
            coracle: [12.034] workload web ready\r\n\
            coracle: [12.040] refused: bad hash\r\n\
            coracle: [12.050] network uplink eth0 10.0.2.15/24\r\n";
        let lines = lines(text);
        assert_eq!(lines[1].guest_time, Some(Duration::from_millis(12_034)));
        assert_eq!(lines[0].event, Some(stage("initramfs")));
        assert_eq!(
            lines[1].event,
            Some(GuestEvent::WorkloadReady("web".into()))
        );
        assert_eq!(lines[2].event, Some(GuestEvent::Refused("bad hash".into())));
        assert_eq!(lines[3].event, None);
    }

    #[test]
    fn a_workload_cannot_speak_for_init() {
        let text = b"coracle: [0.1] x\ncoracle: [0.100] stage root\n\
            web | coracle: [1.000] stage poweroff\nweb | Kernel panic - not syncing: no\n";
        assert_eq!(events(text), [stage("root")]);
    }

    #[test]
    fn first_line_may_follow_what_the_firmware_left() {
        assert_eq!(
            events(b"BdsDxe: startingcoracle: [0.500] stage initramfs\n"),
            [stage("initramfs")]
        );
    }

    #[test]
    fn the_firmware_says_when_it_is_done_and_nobody_says_so_later() {
        let firmware = b"BdsDxe: loading Boot0001\r\nBdsDxe: starting Boot0001 \"disk\"\r\n";
        assert_eq!(events(firmware), [GuestEvent::LoaderStarts]);
        let late = b"coracle: [0.500] stage root\nBdsDxe: starting Boot0001\n";
        assert_eq!(events(late), [stage("root")]);
    }

    #[test]
    fn kernel_panics_are_seen_with_and_without_time() {
        for text in [
            &b"[    1.234567] Kernel panic - not syncing: VFS\n"[..],
            b"Kernel panic - not syncing: VFS",
        ] {
            assert_eq!(events(text), [GuestEvent::KernelPanic("VFS".into())]);
        }
    }

    #[test]
    fn nothing_that_moves_the_terminal_survives() {
        let cases: [(&[u8], &str); 6] = [
            (b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: x\r", "BdsDxe: x"),
            (b"a\tb", "a\tb"),
            (b"\x1b]0;title\x07", "0;title"),
            (b"\x1b(Bplain", "plain"),
            (b"\xff\x9b31m", "\u{fffd}\u{fffd}31m"),
            ("\u{9b}31m".as_bytes(), "31m"),
        ];
        for (raw, expected) in cases {
            assert_eq!(sanitize(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn lines_of_escapes_alone_vanish_and_empty_lines_stay() {
        let texts: Vec<_> = lines(b"\x1b[2J\n\r\nx")
            .into_iter()
            .map(|l| l.text)
            .collect();
        assert_eq!(texts, ["", "x"]);
    }

    #[test]
    fn endless_lines_are_cut() {
        assert_eq!(lines(&[b'x'; LONGEST_LINE * 2 + 1]).len(), 3);
    }
}
