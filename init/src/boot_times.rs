//! How long firmware and boot loader took, as systemd-boot tells it in variables of the firmware (systemd's Boot Loader
//! Interface).
//!
//! A child of PID 1 asks once the boot is over: reading a variable is a call into the firmware, which may be slow or
//! broken. It shows the variables in a mount namespace of its own, and only to be read, so nothing of it is left when
//! the child ends, however it does. It prints one line, or none: a machine that was started otherwise has no such times.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::{modules, sys};

/// Where the firmware's variables are shown, if the machine was started by UEFI.
const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// The vendor of systemd-boot's variables.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Times since the machine was switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LoaderTimes {
    /// The loader began.
    init: Duration,
    /// It showed its menu, if it did.
    menu: Option<Duration>,
    /// It gave way to the kernel's image.
    exec: Duration,
}

/// Whether this module shows the firmware's variables: it is loaded here only.
#[must_use]
pub fn is_module(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("efivarfs.ko")
}

/// Whether there are variables to ask for.
#[must_use]
pub fn may_be_known() -> bool {
    Path::new(VARIABLES).exists()
}

/// Runs `boot-times [MODULE]`, with the module that shows the variables unless it is built in; returns the exit status.
#[must_use]
pub fn run(module: Option<&str>) -> i32 {
    match read(module) {
        Some(times) => {
            println!("{}", describe(times));
            0
        }
        None => 1,
    }
}

/// The line of the machine's log, which `coracle logs --timeline` reads.
fn describe(times: LoaderTimes) -> String {
    let LoaderTimes { init, menu, exec } = times;
    let menu = menu.map_or(String::new(), |menu| {
        format!(", its menu after {:.3} s", (menu - init).as_secs_f64())
    });
    let (init, loader) = (init.as_secs_f64(), (exec - init).as_secs_f64());
    format!("before the kernel: firmware {init:.3} s, loader {loader:.3} s{menu}")
}

/// `None`: nobody said so, or what was said makes no sense.
fn read(module: Option<&str>) -> Option<LoaderTimes> {
    if let Some(module) = module {
        modules::load(module).ok()?;
    }
    sys::unshare(libc::CLONE_NEWNS).ok()?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).ok()?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("efivarfs", VARIABLES, "efivarfs", flags, None).ok()?;
    let variable = |name: &str| {
        let bytes = fs::read(format!("{VARIABLES}/{name}-{VENDOR}")).ok()?;
        parse_micros(&bytes)
    };
    order(
        variable("LoaderTimeInitUSec"),
        variable("LoaderTimeMenuUSec"),
        variable("LoaderTimeExecUSec"),
    )
}

/// A later time is not before an earlier one. A menu at a time of its own is none of this boot's.
fn order(
    init: Option<Duration>,
    menu: Option<Duration>,
    exec: Option<Duration>,
) -> Option<LoaderTimes> {
    let (init, exec) = (init?, exec?);
    let menu = menu.filter(|&menu| init <= menu && menu <= exec);
    (init <= exec).then_some(LoaderTimes { init, menu, exec })
}

/// Attributes (32 bits), and then a decimal number of microseconds in UTF-16 that ends with a zero.
fn parse_micros(variable: &[u8]) -> Option<Duration> {
    let units = variable.get(4..)?.chunks_exact(2);
    let text: Option<String> = units
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|&unit| unit != 0)
        .map(|unit| char::from_u32(unit.into()))
        .collect();
    text?.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_holds_microseconds_in_utf_16() {
        let variable = |text: &str| {
            let units = text.encode_utf16().flat_map(u16::to_le_bytes);
            [6, 0, 0, 0].into_iter().chain(units).collect::<Vec<u8>>()
        };
        let time = parse_micros(&variable("1234567\0"));
        assert_eq!(time, Some(Duration::from_micros(1_234_567)));
        for garbage in [&variable("x")[..], &variable(""), b"", b"\x06"] {
            assert_eq!(parse_micros(garbage), None);
        }
    }

    #[test]
    fn the_line_tells_what_each_took() {
        let at = |millis| Some(Duration::from_millis(millis));
        let line = |menu| order(at(2500), menu, at(2750)).map(describe);
        let words = "before the kernel: firmware 2.500 s, loader 0.250 s";
        assert_eq!(line(None).as_deref(), Some(words));
        let with_menu = format!("{words}, its menu after 0.100 s");
        assert_eq!(line(at(2600)), Some(with_menu));
        // It was shown at an earlier boot, and the variable is left from then.
        assert_eq!(line(at(9000)).as_deref(), Some(words));
    }

    #[test]
    fn times_that_make_no_sense_are_none() {
        let at = |millis| Some(Duration::from_millis(millis));
        for (init, exec) in [(at(2), at(1)), (None, at(1)), (at(1), None)] {
            assert_eq!(order(init, None, exec), None);
        }
    }

    #[test]
    fn the_module_is_known_by_its_file() {
        assert!(is_module("/lib/modules/6.1/efivarfs.ko.xz") && is_module("efivarfs.ko"));
        assert!(!is_module("/lib/modules/6.1/efivars.ko"));
    }
}
