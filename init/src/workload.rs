//! A workload's processes and pipes: what the engine's actions come to for one workload.
//!
//! Starts the runtime, reads what the workload prints, signals and kills it. Decides nothing.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use config::boot::{BootWorkload, Check, Readiness};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::children;
use crate::lines::LineSplitter;
use crate::log::batch::Origin;
use crate::log::journal::READ;
use crate::mounts::WORKLOADS_CGROUP;
use crate::notify::NotifySocket;
use crate::probe::exec;
use crate::runtime_file;
use crate::supervise::event::ProbeKind;
use crate::sys;

const RUNTIME_STATE: &str = "/run/coracle/runtime";
/// What one try of a readiness probe may take where the file has no health check, in milliseconds.
const DEFAULT_TIMEOUT_MS: u64 = 5000;
const PID_FILES: &str = "/run/coracle/pids";

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Out, Self::Error];

    /// Its name in the log.
    #[must_use]
    pub const fn origin(self) -> Origin {
        match self {
            Self::Out => Origin::Out,
            Self::Error => Origin::Error,
        }
    }
}

/// What one read of an output gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// Everything that was there.
    All,
    /// As much as is read at once: there may be more.
    Much,
}

/// The read end of an output stream.
#[derive(Debug)]
pub struct Output {
    pipe: OwnedFd,
    splitter: LineSplitter,
}

impl Output {
    /// Makes the pipe; the write end is for the workload.
    fn open() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
        // A workload that is not root opens /dev/stdout and /dev/stderr by their path.
        fchmod(&write, Mode::from_raw_mode(0o622))?;
        Ok((
            Self {
                pipe: read,
                splitter: LineSplitter::default(),
            },
            write,
        ))
    }

    /// Hands over the lines that are complete with what one read gives. `None`: no writer is left.
    pub fn read(&mut self, line: &mut dyn FnMut(&str)) -> Option<Came> {
        let mut buffer = [0_u8; READ];
        loop {
            return match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(size) if size > 0 => {
                    self.splitter.push(&buffer[..size], &mut *line);
                    Some(if size == READ { Came::Much } else { Came::All })
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Some(Came::All),
                Ok(_) | Err(_) => None,
            };
        }
    }
}

impl Output {
    /// No more is read: what is unfinished counts as a line.
    pub fn finish(&mut self, line: &mut dyn FnMut(&str)) {
        self.splitter.finish(line);
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// The processes of one workload.
#[derive(Debug)]
pub struct Workload {
    /// What the builder wrote.
    pub spec: BootWorkload,
    /// Its first process, while it runs.
    pub main_pid: Option<i32>,
    /// The runtime's process that starts or removes it.
    pub helper_pid: Option<i32>,
    /// The probe that runs inside it.
    pub probe_pid: Option<i32>,
    /// Where it says how it is, while it runs.
    pub notify: Option<NotifySocket>,
    outputs: [Option<Output>; 2],
    /// The last line on standard error: the runtime's reason when a start fails.
    last_error: String,
}

impl Workload {
    /// Nothing runs yet.
    #[must_use]
    pub const fn new(spec: BootWorkload) -> Self {
        Self {
            spec,
            main_pid: None,
            helper_pid: None,
            probe_pid: None,
            notify: None,
            outputs: [None, None],
            last_error: String::new(),
        }
    }

    /// Whether it is to say by sd_notify(3) how it is.
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.spec.readiness == Readiness::Notify
    }

    /// Executes `runtime run --detach` with new pipes, and with these sockets by the protocol of sd_listen_fds(3);
    /// returns the runtime's process id.
    ///
    /// # Errors
    /// In words, when there is no pipe or no process to be had.
    pub fn start(&mut self, names: &[String], sockets: &[OwnedFd]) -> Result<i32, String> {
        fs::create_dir_all(PID_FILES)
            .map_err(|error| format!("cannot make {PID_FILES}: {error}"))?;
        let _ = fs::remove_file(self.pid_file());
        let explain = |error: io::Error| format!("cannot make its output pipes: {error}");
        let (out, out_write) = Output::open().map_err(explain)?;
        let (error, error_write) = Output::open().map_err(explain)?;
        // The descriptors take the place of the runtime's own in the child.
        let mut command = match sockets {
            [] => runtime_command(&runtime_file::path()),
            _ => runtime_command(&runtime_file::path_for_helpers()),
        };
        command
            .args(["run", "--detach", "--bundle", &self.spec.bundle])
            .args(["--pid-file", &self.pid_file(), &self.spec.name])
            .stdout(out_write)
            .stderr(error_write);
        if !sockets.is_empty() {
            command
                .env("LISTEN_FDS", sockets.len().to_string())
                .env("LISTEN_FDNAMES", names.join(":"));
        }
        let pid = sys::spawn_with_descriptors(&mut command, sockets)
            .map_err(|error| format!("cannot execute the runtime: {error}"))?;
        self.last_error.clear();
        self.outputs = [Some(out), Some(error)];
        self.helper_pid = Some(pid);
        Ok(pid)
    }

    /// Executes `runtime delete --force`; returns its process id.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn clean(&mut self) -> io::Result<i32> {
        let mut command = runtime_command(&runtime_file::path());
        command
            .args(["delete", "--force", &self.spec.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let pid = process_id(command.spawn()?.id());
        self.helper_pid = Some(pid);
        Ok(pid)
    }

    /// Executes a probe inside it; returns its process id.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn start_probe(
        &mut self,
        kind: ProbeKind,
        command: &[String],
        timeout_ms: u64,
    ) -> io::Result<i32> {
        let runtime = exec::Runtime {
            program: runtime_file::path_for_helpers(),
            root: RUNTIME_STATE.to_owned(),
            container: self.spec.name.clone(),
        };
        let arguments = exec::arguments(kind, timeout_ms, &runtime, command);
        let pid = children::spawn(children::command().args(arguments))?;
        self.probe_pid = Some(pid);
        Ok(pid)
    }

    /// What a probe asks, and for how many milliseconds at most.
    #[must_use]
    pub fn check(&self, kind: ProbeKind) -> Option<(Check, u64)> {
        let health = self.spec.health.as_ref();
        match (kind, self.spec.readiness) {
            (ProbeKind::UntilReady, Readiness::Port { port }) => {
                let timeout = health.map_or(DEFAULT_TIMEOUT_MS, |health| health.timeout_ms);
                Some((Check::Tcp { port }, timeout))
            }
            _ => health.map(|health| (health.check.clone(), health.timeout_ms)),
        }
    }

    /// The process id that the runtime left, after it ended well.
    ///
    /// # Errors
    /// In words, when there is none.
    pub fn read_pid(&self) -> Result<i32, String> {
        let path = self.pid_file();
        let text =
            fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let pid = text.trim().parse().ok().filter(|&pid: &i32| pid > 1);
        pid.ok_or_else(|| format!("{path} holds no process id: {:?}", text.trim()))
    }

    /// Signals the first process. One that is gone already is no error.
    pub fn signal(&self, signal: i32) {
        if let Some(pid) = self.main_pid {
            let _ = sys::kill(pid, signal);
        }
    }

    /// Asks the first process to end. It is the first of its pid namespace, and the kernel drops what such a process
    /// does not care for, where any other ends: so one that leaves the signal to its default is killed.
    pub fn ask_to_stop(&self, signal: i32) {
        let Some(pid) = self.main_pid else { return };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if ends_by_default(&status, signal) {
            self.kill();
        } else {
            self.signal(signal);
        }
    }

    /// Kills everything in its cgroup, and the first process in any case.
    pub fn kill(&self) {
        let _ = fs::write(
            format!("{WORKLOADS_CGROUP}/{}/cgroup.kill", self.spec.name),
            "1",
        );
        self.signal(libc::SIGKILL);
    }

    /// One of its open streams.
    #[must_use]
    pub fn output(&self, stream: Stream) -> Option<&Output> {
        self.outputs[stream as usize].as_ref()
    }

    /// Hands over the lines that one read completes. Once no writer is left, the stream is closed.
    pub fn read_output(&mut self, stream: Stream, line: &mut dyn FnMut(&str)) -> Came {
        let slot = &mut self.outputs[stream as usize];
        let last_error = &mut self.last_error;
        let mut note = |text: &str| {
            if stream == Stream::Error && !text.trim().is_empty() {
                text.clone_into(last_error);
            }
            line(text);
        };
        let Some(output) = slot else {
            return Came::All;
        };
        if let Some(came) = output.read(&mut note) {
            return came;
        }
        output.splitter.finish(note);
        *slot = None;
        Came::All
    }

    /// Why its start will have failed.
    pub fn note_error(&mut self, reason: String) {
        self.last_error = reason;
    }

    /// The last line on standard error, taken.
    #[must_use]
    pub fn take_last_error(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.last_error)).filter(|line| !line.is_empty())
    }

    /// Gives a stream away, with what is still in it.
    pub fn take_output(&mut self, stream: Stream) -> Option<Output> {
        self.outputs[stream as usize].take()
    }

    fn pid_file(&self) -> String {
        format!("{PID_FILES}/{}", self.spec.name)
    }
}

/// Whether a process with this `/proc/PID/status` neither catches nor ignores nor blocks (to wait for it) the
/// signal, and the signal's default is to end it (signal(7)).
fn ends_by_default(status: &str, signal: i32) -> bool {
    const HARMLESS: [i32; 8] = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let masks = [mask("SigBlk:"), mask("SigIgn:"), mask("SigCgt:")];
    let bit = 1_u64 << (signal - 1).clamp(0, 63);
    let is_default = |mask: Option<u64>| mask.is_some_and(|mask| mask & bit == 0);
    !HARMLESS.contains(&signal) && masks.into_iter().all(is_default)
}

fn runtime_command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--root", RUNTIME_STATE])
        .env_clear()
        .stdin(Stdio::null());
    command
}

/// The kernel's process ids are positive and far below 2^31.
fn process_id(id: u32) -> i32 {
    i32::try_from(id).expect("a process id fits an i32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_left_to_a_deadly_default_ends_a_process() {
        let status = |block: u64, ignore: u64, catch: u64| {
            format!(
                "Name:\tx\nSigBlk:\t{block:016x}\nSigIgn:\t{ignore:016x}\nSigCgt:\t{catch:016x}\n"
            )
        };
        let (term, last) = (1 << 14, 1 << 63);
        let cases = [
            (status(0, 0, 0), libc::SIGTERM, true),
            (status(!term, !term, !term), libc::SIGTERM, true),
            (status(term, 0, 0), libc::SIGTERM, false),
            (status(0, term, 0), libc::SIGTERM, false),
            (status(0, 0, term), libc::SIGTERM, false),
            (status(0, 0, 0), libc::SIGWINCH, false),
            (status(0, 0, 0), 64, true),
            (status(0, 0, last), 64, false),
            (String::new(), libc::SIGTERM, false),
        ];
        for (status, signal, expected) in cases {
            assert_eq!(
                ends_by_default(&status, signal),
                expected,
                "{signal} {status}"
            );
        }
    }

    #[test]
    fn a_real_process_tells_what_it_does_with_signals() {
        // This thread's own: the first thread blocks all signals while it makes another.
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        // Rust's runtime ignores SIGPIPE and handles SIGSEGV.
        assert!(!ends_by_default(&status, libc::SIGPIPE));
        assert!(!ends_by_default(&status, libc::SIGSEGV));
        assert!(ends_by_default(&status, libc::SIGALRM));
    }
}
