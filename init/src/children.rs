//! What this binary does when PID 1 runs it as its own child.

use std::io;
use std::process::{Child, Command, Stdio};

use crate::SELF;
use crate::boot_times;
use crate::log;
use crate::modules::modprobe;
use crate::net::{attach, fabric, ntp, relief, resolver, uplink};
use crate::pod;
use crate::probe;
use crate::state::keeper;

/// This program as a child of PID 1: without an environment, with nothing to read and nowhere to print, unless the
/// caller gives it other streams.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(SELF);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Starts a child; returns its process id.
///
/// # Errors
/// When there is no process to be had.
pub fn spawn(command: &mut Command) -> io::Result<i32> {
    Ok(process_id(&command.spawn()?))
}

/// The child's number, as the kernel's calls take it.
#[must_use]
pub fn process_id(child: &Child) -> i32 {
    // The kernel's process ids are positive and far below 2^31.
    i32::try_from(child.id()).expect("a process id fits an i32")
}

/// Runs the child that the arguments name; returns the exit status, 2 for arguments that name none.
#[must_use]
pub fn run(arguments: &[String]) -> i32 {
    match arguments.split_first() {
        Some((word, [])) if word == "fabric" => fabric::run(),
        Some((word, [name])) if word == "attach" => attach::run(name),
        Some((word, [])) if word == "uplink" => uplink::run(),
        Some((word, [])) if word == "relieve" => relief::run(),
        Some((word, [])) if word == "ntp" => ntp::run::run(),
        Some((word, rest)) if word == "resolver" => resolver::run::run(rest),
        Some((word, rest)) if word == "probe" => probe::exec::run(rest),
        Some((word, [])) if word == "prober" => probe::run(),
        Some((word, rest)) if word == "state" => keeper::run(rest),
        Some((word, rest)) if word == "log" => log::process::run(rest),
        Some((word, [])) if word == "boot-times" => boot_times::run(None),
        Some((word, [module])) if word == "boot-times" => boot_times::run(Some(module)),
        Some((word, modaliases)) if word == "modprobe" => modprobe::run(modaliases),
        Some((word, rest)) if word == "pod" => pod::run(rest),
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_are_refused() {
        for words in [
            "",
            "uplink eth0",
            "attach",
            "fabric now",
            "probe",
            "prober x",
            "log /state/log",
            "boot-times of yesterday",
            "reboot",
        ] {
            let arguments: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            assert_eq!(run(&arguments), 2, "{words}");
        }
    }
}
