//! What a panic of PID 1 comes to, and a fatal signal: its message on the console and in a record that the next boot
//! shows, and an end of the machine by the policy of `[failure]`.
//!
//! PID 1 is not meant to panic; if it did so without this, the kernel would panic with it. What runs here may run in a
//! signal handler, on a heap that is broken: it allocates nothing and holds no lock. A fault in the midst of it is left
//! to the kernel, whose `panic=` follows the same policy.

use std::ffi::{CStr, CString};
use std::fmt::{self, Write as _};
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::ending::FailureAction;
use rustix::fs::{Mode, OFlags};
use rustix::system::{RebootCommand, reboot};

use crate::console::{Console, now};
use crate::{failure, sys};

/// The record on the state partition, below its mount point.
const RECORD: &str = ".last-panic";
/// How long writing the record may take, and then everything else that is to be written.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// The most of a record that is read back, and the longest message.
const LONGEST: usize = 512;

/// The status of a forked child that panicked or got a fatal signal.
const CHILD_FAULT: i32 = 70;

/// The record's path, once there is a place for it.
static RECORD_PATH: OnceLock<CString> = OnceLock::new();
static DYING: AtomicBool = AtomicBool::new(false);

/// Installs the handlers of panics and fatal signals; for PID 1 only.
pub fn install_handlers() {
    std::panic::set_hook(Box::new(|information| {
        die(format_args!("panic of init: {information}"))
    }));
    // Without them the kernel panics in init's stead, by the same policy.
    let _ = sys::catch_fatal_signals(on_fatal_signal);
}

extern "C" fn on_fatal_signal(signal: libc::c_int) {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        _ => "SIGABRT",
    };
    die(format_args!("panic of init: {name}"))
}

/// The state partition is mounted here: shows what the last boot left, once, and takes this place for a record.
pub fn use_state(mount_point: &str, console: &mut Console) {
    let path = format!("{mount_point}/{RECORD}");
    if let Some(text) = take_record(&path) {
        console.say(format_args!("the last boot ended by a {text}"));
    }
    if let Ok(path) = CString::new(path) {
        let _ = RECORD_PATH.set(path);
    }
}

/// The record's text; the file is gone then. A link or anything else in its place is no record.
fn take_record(path: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let mut buffer = [0; LONGEST];
    let read = rustix::io::read(&file, &mut buffer);
    let _ = fs::remove_file(path);
    let text = String::from_utf8_lossy(&buffer[..read.ok()?])
        .trim()
        .to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// Tells, records, and ends the machine by the policy.
fn die(message: fmt::Arguments<'_>) -> ! {
    // A child that was forked has the handlers as well; its end is no end of the machine.
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        sys::exit_at_once(CHILD_FAULT);
    }
    if DYING.swap(true, Ordering::SeqCst) {
        end();
    }
    let text = Text::new(message);
    tell(&text);
    keep_record(&text);
    let _ = sys::kill(-1, libc::SIGKILL);
    sync();
    std::thread::sleep(failure::policy().delay);
    end()
}

/// The console's line, and the kernel's log, from where a kernel with pstore may keep it.
fn tell(text: &Text) {
    let (at, policy) = (now(), failure::policy());
    let (seconds, milliseconds) = (at.as_secs(), at.subsec_millis());
    let line = Text::new(format_args!(
        "coracle: [{seconds}.{milliseconds:03}] {text}; the machine ends ({policy})"
    ));
    let _ = write_to(c"/dev/console", &line, true);
    let _ = write_to(
        c"/dev/kmsg",
        &Text::new(format_args!("<1>coracle: {text}")),
        false,
    );
    let _ = write_to(c"/dev/pmsg0", text, false);
}

fn write_to(path: &CStr, text: &Text, as_line: bool) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::write(&file, text.bytes())?;
    if as_line {
        rustix::io::write(&file, b"\n")?;
    }
    Ok(())
}

/// A child writes it: a disk that does not answer must not keep the machine from its end.
fn keep_record(text: &Text) {
    let Some(path) = RECORD_PATH.get() else {
        return;
    };
    let write = || i32::from(write_record(path, text).is_err());
    if let Ok(child) = sys::fork(write) {
        sys::wait_for(child, WRITE_LIMIT);
    }
}

fn write_record(path: &CStr, text: &Text) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(
        path,
        flags | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )?;
    rustix::io::write(&file, text.bytes())?;
    rustix::fs::fsync(&file)
}

fn sync() {
    let write = || {
        rustix::fs::sync();
        0
    };
    if let Ok(child) = sys::fork(write) {
        sys::wait_for(child, WRITE_LIMIT);
    }
}

fn end() -> ! {
    let command = match failure::policy().action {
        FailureAction::Reboot => RebootCommand::Restart,
        FailureAction::PowerOff => RebootCommand::PowerOff,
        FailureAction::Halt => RebootCommand::Halt,
    };
    let _ = reboot(command);
    loop {
        std::thread::sleep(WRITE_LIMIT);
    }
}

/// Text of one line on the stack. What does not fit is left out, and control characters become blanks.
struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    fn new(text: fmt::Arguments<'_>) -> Self {
        let mut new = Self {
            bytes: [0; LONGEST],
            length: 0,
        };
        // It fails only where the rest is left out.
        let _ = new.write_fmt(text);
        new
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let slot = self.bytes.get_mut(self.length).ok_or(fmt::Error)?;
            *slot = if byte.is_ascii_control() { b' ' } else { byte };
            self.length += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes().utf8_chunks() {
            f.write_str(chunk.valid())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_forked_child_ends_the_child_alone() {
        let child = sys::fork(|| die(format_args!("panic of a child"))).unwrap();
        assert_eq!(sys::wait_for(child, WRITE_LIMIT), Some(CHILD_FAULT));
    }

    #[test]
    fn a_message_is_one_line_that_fits() {
        let text = Text::new(format_args!("panicked at a.rs:1:\n{}", "é".repeat(LONGEST)));
        assert_eq!(text.bytes().len(), LONGEST);
        assert!(text.to_string().starts_with("panicked at a.rs:1: éé"));
    }

    #[test]
    fn a_record_is_shown_once_and_a_link_is_none() {
        let path = std::env::temp_dir().join(format!("coracle-panic-{}", std::process::id()));
        let c_path = CString::new(path.to_str().unwrap()).unwrap();
        let text = Text::new(format_args!("panic of init: because"));
        write_record(&c_path, &text).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(take_record(path).as_deref(), Some("panic of init: because"));
        assert_eq!(take_record(path), None);
        std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        assert_eq!(take_record(path), None);
        assert!(write_record(&c_path, &text).is_err());
        fs::remove_file(path).unwrap();
    }
}
