//! A running QEMU: its process and the three streams that come from it.
//!
//! QEMU's standard input is the QMP channel, standard output the serial console (both sockets), standard error its
//! own messages. It runs in its own process group, so that Ctrl-C reaches `coracle` alone. It never outlives us:
//! the value kills it when it is dropped, on a panic too, and `setpriv --pdeathsig` (util-linux) makes the kernel
//! kill it if we die without a word. Where there is no setpriv, only the latter is missing.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::host::find_on_path;
use super::qmp::{self, Message, Qmp};

/// How long QEMU may take to go after its streams are closed.
const EXIT_TIME: Duration = Duration::from_secs(5);

/// What comes from QEMU.
#[derive(Debug)]
pub(crate) enum Output {
    /// Bytes of the serial console.
    Console(Vec<u8>),
    /// A message on the QMP channel.
    Qmp(Message),
    /// A line on standard error.
    Complaint(String),
    /// One of the streams has ended; after [`Machine::STREAMS`] of them nothing more comes.
    Closed,
}

/// A QEMU process.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    qmp: Qmp,
    /// The moment of power-on.
    pub(crate) started: Instant,
}

impl Machine {
    /// How many streams come from QEMU.
    pub(crate) const STREAMS: usize = 3;

    /// Starts QEMU and passes on all that comes from it.
    ///
    /// The kernel kills QEMU when the *thread* that calls this ends, so it must stay until the machine is done.
    pub(crate) fn start<E, F>(
        qemu: &Path,
        arguments: &[OsString],
        events: &Sender<E>,
        wrap: F,
    ) -> Result<Self, Error>
    where
        E: Send + 'static,
        F: Fn(Output) -> E + Copy + Send + 'static,
    {
        spawn(qemu, arguments, events, wrap).map_err(|source| Error::Io {
            operation: "start QEMU",
            path: qemu.to_owned(),
            source,
        })
    }

    /// Presses the power button. A machine that has just ended cannot take it, which is as good.
    pub(crate) fn power_down(&mut self) {
        let _ = self.qmp.power_down();
    }

    /// Ends QEMU at once.
    pub(crate) fn kill(&mut self) {
        // It fails only for a process that is gone already.
        let _ = self.child.kill();
    }

    /// Waits for the end of a QEMU whose streams have ended.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + EXIT_TIME;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        self.child.wait()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

fn spawn<E, F>(
    qemu: &Path,
    arguments: &[OsString],
    events: &Sender<E>,
    wrap: F,
) -> io::Result<Machine>
where
    E: Send + 'static,
    F: Fn(Output) -> E + Copy + Send + 'static,
{
    let (qmp, qmp_of_qemu) = UnixStream::pair()?;
    let (console, console_of_qemu) = UnixStream::pair()?;
    let qmp_writer = qmp.try_clone()?;
    let started = Instant::now();
    let mut child = command(qemu)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(qmp_of_qemu)))
        .stdout(Stdio::from(OwnedFd::from(console_of_qemu)))
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let stderr = child.stderr.take();
    let machine = Machine {
        qmp: Qmp::new(qmp_writer),
        child,
        started,
    };
    pass_on_console(console, events.clone(), wrap);
    pass_on_lines(
        qmp,
        events.clone(),
        move |line| qmp::parse(&line).map(|message| wrap(Output::Qmp(message))),
        wrap,
    );
    if let Some(stderr) = stderr {
        pass_on_lines(
            stderr,
            events.clone(),
            move |line| Some(wrap(Output::Complaint(line))),
            wrap,
        );
    }
    Ok(machine)
}

/// QEMU, tied to our life where the host can do that.
fn command(qemu: &Path) -> Command {
    match find_on_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
            command
        }
        None => Command::new(qemu),
    }
}

fn pass_on_console<E, F>(mut console: UnixStream, events: Sender<E>, wrap: F)
where
    E: Send + 'static,
    F: Fn(Output) -> E + Send + 'static,
{
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = console.read(&mut buffer) {
            if events
                .send(wrap(Output::Console(buffer[..length].to_vec())))
                .is_err()
            {
                return;
            }
        }
        let _ = events.send(wrap(Output::Closed));
    });
}

fn pass_on_lines<E, F>(
    stream: impl Read + Send + 'static,
    events: Sender<E>,
    event_of: impl Fn(String) -> Option<E> + Send + 'static,
    wrap: F,
) where
    E: Send + 'static,
    F: Fn(Output) -> E + Send + 'static,
{
    thread::spawn(move || {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(event) = event_of(line)
                && events.send(event).is_err()
            {
                return;
            }
        }
        let _ = events.send(wrap(Output::Closed));
    });
}
