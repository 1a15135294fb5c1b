//! The power button: input devices that have a power key (evdev).
//!
//! Found by their capability bits in sysfs. Only presses of that key are looked at.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// `KEY_POWER` of linux/input-event-codes.h.
const KEY_POWER: u16 = 116;
/// `EV_KEY`.
const EVENT_KEY: u16 = 1;
/// `struct input_event` on 64-bit Linux.
const EVENT_SIZE: usize = 24;

/// An input device with a power key.
#[derive(Debug)]
pub struct PowerButton(OwnedFd);

impl PowerButton {
    /// All that are there now.
    #[must_use]
    pub fn find_all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/sys/class/input") else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter(|name| name.starts_with("event"))
            .filter_map(|name| Self::open(&name))
            .collect()
    }

    /// Opens `/dev/input/NAME` if it has a power key.
    #[must_use]
    pub fn open(name: &str) -> Option<Self> {
        let keys =
            fs::read_to_string(format!("/sys/class/input/{name}/device/capabilities/key")).ok()?;
        if !has_key(&keys, KEY_POWER) {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(format!("/dev/input/{name}"), flags, Mode::empty())
            .ok()
            .map(Self)
    }

    /// Whether it was pressed since the last look. `None`: the device is gone.
    #[must_use]
    pub fn was_pressed(&self) -> Option<bool> {
        let mut buffer = [0_u8; EVENT_SIZE * 16];
        match rustix::io::read(&self.0, &mut buffer) {
            Ok(size) => Some(buffer[..size].chunks_exact(EVENT_SIZE).any(is_power_press)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Some(false),
            Err(_) => None,
        }
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The bitmap is hexadecimal words of 64 bits, the highest first, without leading zeros.
fn has_key(bitmap: &str, key: u16) -> bool {
    let word = bitmap.split_whitespace().rev().nth(usize::from(key / 64));
    word.and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (key % 64) & 1 == 1)
}

fn is_power_press(event: &[u8]) -> bool {
    let u16_at = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    u16_at(16) == EVENT_KEY && u16_at(18) == KEY_POWER && event[20..24] == 1_i32.to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_key_is_bit_116() {
        // As Linux shows the ACPI power button, and a keyboard without that key.
        assert!(has_key("10000000000000 0\n", KEY_POWER));
        for without in [
            "402000000 3803078f800d001 feefffdfffefffff fffffffffffffffe",
            "",
            "zz 0",
            "0",
        ] {
            assert!(!has_key(without, KEY_POWER), "{without}");
        }
    }

    #[test]
    fn only_a_press_of_that_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0_u8; EVENT_SIZE];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..24].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_power_press(&event(1, 116, 1)));
        for (kind, code, value) in [(1, 116, 0), (1, 116, 2), (1, 30, 1), (0, 116, 1)] {
            assert!(!is_power_press(&event(kind, code, value)));
        }
    }
}
