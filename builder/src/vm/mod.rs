//! Booting an image in QEMU: the machine side of `coracle run`.
//!
//! [`run`] finds out what the host has, starts QEMU, shows the guest's console, measures its stages, asks the
//! workloads once they are ready, and ends the machine as a user would: by its power button, with a deadline. It
//! builds nothing and changes nothing but the disk that it is given.

mod accel;
mod answer;
mod command_line;
mod console;
mod course;
mod error;
mod firmware;
mod host;
mod machine;
mod qmp;
mod timeline;
mod variables;
mod watch;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::boot::Protocol;

pub use accel::Accel;
pub use answer::Answer;
pub use command_line::Engine;
pub(crate) use command_line::escape_commas;
pub use console::{Console, sanitize};
pub use error::{Error, LastSeen};
pub use timeline::{Mark, Timeline};

use crate::secure_boot::Certificate;
use accel::Trial;
use answer::Question;
use command_line::{Boot, Disk, Machine as Shape, arguments};
use course::{Goal, POWER_OFF_TIME};
use firmware::Firmware;

/// A kernel that QEMU loads itself, without firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectBoot {
    /// The kernel (bzImage).
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// A port of the host that leads to a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The workload that publishes the port, for messages.
    pub workload: String,
    /// Where the host listens.
    pub host_address: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
    /// The port that the machine's file publishes, for messages.
    pub published: u16,
    /// The port that something in the guest listens on.
    pub guest_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// What to ask through this port once the machine is ready.
    pub check: Option<HttpCheck>,
}

/// A GET that proves that the workload answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The path with its query, beginning with `/`.
    pub path: String,
    /// The `Host` header.
    pub host: String,
}

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The raw disk image.
    pub disk: PathBuf,
    /// Boot this kernel without firmware; `None`: UEFI.
    pub direct: Option<DirectBoot>,
    /// The firmware enforces Secure Boot and trusts this certificate alone.
    pub secure_boot: Option<Certificate>,
    /// A folder that lives as long as the machine, for what it needs beside its disk.
    pub scratch: PathBuf,
    /// The accelerator.
    pub accel: Accel,
    /// A kernel for the trial of KVM, the image's own as a rule. Without one (and without [`Options::direct`]) the
    /// firmware is tried.
    pub trial_kernel: Option<PathBuf>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Ports of the host that lead into the machine.
    pub forwards: Vec<Forward>,
    /// How long the machine may take until it is ready; `None`: for ever.
    pub timeout: Option<Duration>,
    /// How long the workloads may take to stop, one after the other; the machine gets half a minute beside it.
    pub stop_time: Duration,
    /// Power off once every workload is ready and has answered.
    pub exit_when_ready: bool,
    /// Leave the disk as it is: the guest's writes vanish with the machine.
    pub snapshot: bool,
    /// A directory with the UEFI firmware's files; `None`: where distributions install them.
    pub firmware: Option<PathBuf>,
    /// Where the verdict on KVM is kept; `None`: nowhere.
    pub cache: Option<PathBuf>,
    /// Further arguments for QEMU, put at the end.
    pub extra_args: Vec<OsString>,
}

impl Options {
    /// A machine of 512 MiB and one processor with this disk, booted by UEFI, without forwards. The firmware comes
    /// from the directory that the environment's `CORACLE_FIRMWARE` names, if it is set.
    ///
    /// One processor: bringing up a second one costs a Debian kernel 12 % more instructions until init runs, and
    /// boot has little to do in parallel.
    pub fn new(disk: impl Into<PathBuf>) -> Self {
        Self {
            disk: disk.into(),
            direct: None,
            secure_boot: None,
            scratch: std::env::temp_dir(),
            accel: Accel::Auto,
            trial_kernel: None,
            memory_mib: 512,
            cpus: 1,
            forwards: Vec::new(),
            timeout: None,
            stop_time: Duration::ZERO,
            exit_when_ready: false,
            snapshot: false,
            firmware: std::env::var_os("CORACLE_FIRMWARE").map(PathBuf::from),
            cache: None,
            extra_args: Vec::new(),
        }
    }
}

/// How a run went that ended well: every workload was ready, and the machine powered off clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The accelerator it ran under.
    pub engine: Engine,
    /// When it reached what.
    pub timeline: Timeline,
    /// What the asked workloads answered.
    pub answers: Vec<Answer>,
}

/// Boots the machine and stays with it until it has ended.
///
/// SIGINT, SIGTERM and SIGHUP press the power button; a second one kills the machine. The signal handlers stay
/// installed afterwards, as the process is expected to end.
///
/// # Errors
/// [`Error`]: something is missing on the host, QEMU failed, the guest refused, panicked, was too late, or did not
/// end clean.
pub fn run(options: &Options, console: &mut dyn Console) -> Result<Outcome, Error> {
    let qemu = host::find_qemu()?;
    let directory = options.firmware.as_deref();
    let firmware = match (&options.direct, &options.secure_boot) {
        (Some(_), _) => None,
        (None, None) => Some(Firmware::find(directory)?),
        (None, Some(certificate)) => Some(Firmware::find_secure(
            directory,
            certificate,
            &options.scratch,
        )?),
    };
    check_readable(&options.disk)?;
    host::check_ports(&options.forwards)?;
    let engine = choose_engine(options, &qemu, firmware.as_ref(), console)?;
    let shape = Shape {
        engine,
        boot: boot(options, firmware.as_ref()),
        disk: Some(Disk {
            path: &options.disk,
            snapshot: options.snapshot,
        }),
        memory_mib: options.memory_mib,
        cpus: options.cpus,
        forwards: &options.forwards,
        extra: &options.extra_args,
    };
    let goal = Goal {
        exit_when_ready: options.exit_when_ready,
        timeout: options.timeout,
        power_off_time: POWER_OFF_TIME + options.stop_time,
    };
    let questions = questions(&options.forwards);
    let (timeline, answers) = watch::watch(&qemu, &arguments(&shape), goal, questions, console)?;
    Ok(Outcome {
        engine,
        timeline,
        answers,
    })
}

fn boot<'a>(options: &'a Options, firmware: Option<&'a Firmware>) -> Boot<'a> {
    match (&options.direct, firmware) {
        (Some(direct), _) => Boot::Direct(direct),
        (None, Some(firmware)) => Boot::Firmware(firmware),
        (None, None) => {
            unreachable!("firmware is found for each machine that is not booted directly")
        }
    }
}

fn choose_engine(
    options: &Options,
    qemu: &Path,
    firmware: Option<&Firmware>,
    console: &mut dyn Console,
) -> Result<Engine, Error> {
    let direct_kernel = options
        .direct
        .as_ref()
        .map(|direct| direct.kernel.as_path());
    let trial = Trial {
        qemu,
        kernel: options.trial_kernel.as_deref().or(direct_kernel),
        firmware,
        cache: options.cache.as_deref(),
    };
    let choice = accel::choose(options.accel, trial, || {
        console.note("trying KVM with a small guest ...");
    })?;
    let name = choice.engine.name();
    console.note(&format!("accelerator: {name} ({})", choice.why));
    Ok(choice.engine)
}

fn check_readable(disk: &Path) -> Result<(), Error> {
    let opened = std::fs::File::open(disk);
    opened.map(drop).map_err(|source| Error::Io {
        operation: "open the disk image",
        path: disk.to_owned(),
        source,
    })
}

fn questions(forwards: &[Forward]) -> Vec<Question> {
    let ask = |forward: &Forward| {
        let check = forward.check.clone()?;
        Some(Question {
            workload: forward.workload.clone(),
            address: SocketAddrV4::new(forward.host_address, forward.host_port),
            path: check.path,
            host: check.host,
        })
    };
    forwards.iter().filter_map(ask).collect()
}
