//! Why a machine could not be started, or did not end well.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use config::boot::Protocol;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU is not on the search path.
    #[error("qemu-system-x86_64 is not installed (it is on no directory of PATH)")]
    QemuMissing,
    /// There is no UEFI firmware in any place it is known to be in.
    #[error("the UEFI firmware OVMF is not installed{}", in_directory(directory.as_ref()))]
    FirmwareMissing {
        /// The one directory that was searched, if one was named.
        directory: Option<PathBuf>,
    },
    /// A port of the host cannot be had.
    #[error("port {port} of workload {workload:?} cannot be forwarded from this host")]
    PortTaken {
        /// The host's port.
        port: u16,
        /// The port that the machine's file publishes.
        published: u16,
        /// Its transport.
        protocol: Protocol,
        /// The workload that publishes it.
        workload: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or a program of the host failed.
    #[error("cannot {operation}: {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// QEMU itself ended with an error.
    #[error("QEMU failed ({status}){}", indented(messages))]
    Qemu {
        /// How it exited.
        status: String,
        /// The last of what it wrote on standard error.
        messages: Vec<String>,
    },
    /// The machine refused to go on.
    #[error("the machine refused to boot: {reason}")]
    Refused {
        /// Its own words.
        reason: String,
    },
    /// The firmware refused the boot loader or the kernel image.
    #[error("the firmware refused the image: {reason}")]
    FirmwareRefused {
        /// Its own words.
        reason: String,
    },
    /// The guest's kernel gave up.
    #[error("the guest's kernel panicked: {reason}")]
    KernelPanic {
        /// Its own words.
        reason: String,
    },
    /// The machine was not ready in time.
    #[error("the machine was not ready within {} s; {last}", timeout.as_secs_f64())]
    NotReady {
        /// The time it had.
        timeout: Duration,
        /// The last that was heard of it.
        last: LastSeen,
    },
    /// The machine ended before every workload was ready and had answered.
    #[error("the machine was shut down before every workload was ready and had answered; {last}")]
    StoppedEarly {
        /// The last that was heard of it.
        last: LastSeen,
    },
    /// The machine ended without saying that all is unmounted.
    #[error("the machine ended without a clean power-off ({reason}); {last}")]
    NotClean {
        /// QEMU's word for why it ended.
        reason: String,
        /// The last that was heard of it.
        last: LastSeen,
    },
    /// The machine did not power off in time and was killed.
    #[error("the machine did not power off within {} s and was killed; {last}", timeout.as_secs())]
    PowerOffTimeout {
        /// The time it had.
        timeout: Duration,
        /// The last that was heard of it.
        last: LastSeen,
    },
    /// The user did not wait for the power-off.
    #[error("the machine was killed while it was shutting down; {last}")]
    Killed {
        /// The last that was heard of it.
        last: LastSeen,
    },
    /// A workload that said it is ready did not answer through its forwarded port.
    #[error("workload {workload:?} is ready, but does not answer on {url}")]
    NoAnswer {
        /// The workload.
        workload: String,
        /// Where it was asked.
        url: String,
        /// What came instead.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::QemuMissing => Some(
                "install it: sudo apt-get install qemu-system-x86 (Debian, Ubuntu); elsewhere the package that \
                 has qemu-system-x86_64"
                    .to_owned(),
            ),
            Self::FirmwareMissing { .. } => Some(
                "install it: sudo apt-get install ovmf (Debian, Ubuntu); elsewhere the package edk2-ovmf; or boot \
                 without firmware: --direct; CORACLE_FIRMWARE names another directory"
                    .to_owned(),
            ),
            Self::PortTaken { published, .. } => Some(format!(
                "choose another port of the host, or 0 for any free one: --port {published}=0"
            )),
            Self::NotReady { .. } => {
                Some("the console above has the whole story; --timeout S gives it longer".to_owned())
            }
            Self::FirmwareRefused { .. } => Some(
                "under Secure Boot it starts only what is signed, unchanged, by a key that it trusts"
                    .to_owned(),
            ),
            Self::Refused { .. } => {
                Some("the disk is not what was built: build it again".to_owned())
            }
            _ => None,
        }
    }
}

/// The last that was heard of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastSeen {
    /// The last stage it announced.
    pub stage: Option<String>,
    /// The last line of its console that was not empty.
    pub line: Option<String>,
}

impl fmt::Display for LastSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stage {
            Some(stage) => write!(f, "the last stage was {stage:?}")?,
            None => write!(f, "it did not come as far as the first stage")?,
        }
        match &self.line {
            Some(line) => write!(f, ", its last line: {line}"),
            None => write!(f, ", and nothing was on its console"),
        }
    }
}

fn in_directory(directory: Option<&PathBuf>) -> String {
    directory.map_or_else(String::new, |directory| {
        format!(
            " (no pair of code and variables in {})",
            directory.display()
        )
    })
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}
