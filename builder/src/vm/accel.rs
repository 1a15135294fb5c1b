//! Which accelerator a machine gets.
//!
//! `/dev/kvm` may open and still hang every guest (some nested and emulated hosts), so nothing is concluded from
//! the device node: a guest is tried under KVM, and KVM is taken only if that guest comes through in time. The
//! verdict holds until the host boots again or QEMU changes, and is kept in the cache.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::command_line::{Boot, Engine, Machine as Shape, arguments};
use super::console::{GuestEvent, Reader, sanitize};
use super::firmware::Firmware;
use super::host::without_program;
use super::machine::{Machine, Output};
use super::{DirectBoot, Error};

/// The trial guest needs well under two seconds where KVM works.
const TRIAL_TIME: Duration = Duration::from_secs(4);

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM, if a trial guest runs under it; else TCG.
    #[default]
    Auto,
    /// QEMU's emulation.
    Tcg,
    /// KVM, untried.
    Kvm,
}

/// What it came to, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) engine: Engine,
    pub(crate) why: String,
}

impl Choice {
    fn new(engine: Engine, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { engine, why }
    }
}

/// What a trial needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial<'a> {
    pub(crate) qemu: &'a Path,
    /// A kernel to try with, the image's own as a rule; without one the firmware is tried.
    pub(crate) kernel: Option<&'a Path>,
    pub(crate) firmware: Option<&'a Firmware>,
    /// Where the verdict is kept; `None`: nowhere.
    pub(crate) cache: Option<&'a Path>,
}

/// Chooses; `announce` is called before a trial, which takes seconds where KVM hangs.
pub(crate) fn choose(
    accel: Accel,
    trial: Trial<'_>,
    announce: impl FnOnce(),
) -> Result<Choice, Error> {
    match accel {
        Accel::Tcg => return Ok(Choice::new(Engine::Tcg, "as asked for")),
        Accel::Kvm => return Ok(Choice::new(Engine::Kvm, "as asked for, untried")),
        Accel::Auto => {}
    }
    if let Err(error) = open_kvm() {
        let why = format!("/dev/kvm cannot be opened: {error}");
        return Ok(Choice::new(Engine::Tcg, why));
    }
    let key = Key::of_host(trial.qemu);
    let file = trial.cache.map(|directory| directory.join("kvm.json"));
    if let Some(failure) = file.as_deref().and_then(|file| recall(file, key.as_ref()?)) {
        return Ok(choice(failure, ", tried earlier"));
    }
    announce();
    let failure = try_kvm(trial)?;
    if let (Some(file), Some(key)) = (file, key) {
        remember(&file, key, failure.clone());
    }
    Ok(choice(failure, ""))
}

fn choice(failure: Option<String>, when: &str) -> Choice {
    match failure {
        None => Choice::new(Engine::Kvm, format!("a trial guest ran under it{when}")),
        Some(why) => {
            let why = format!("/dev/kvm opens, but no guest runs under KVM: {why}{when}");
            Choice::new(Engine::Tcg, why)
        }
    }
}

fn open_kvm() -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).open("/dev/kvm").map(drop)
}

/// Runs a guest without a disk under KVM and waits for what it must say. Returns why KVM is of no use, if it is not.
fn try_kvm(trial: Trial<'_>) -> Result<Option<String>, Error> {
    let direct = trial.kernel.map(|kernel| DirectBoot {
        kernel: kernel.to_owned(),
        initrd: None,
        cmdline: "console=ttyS0 panic=-1".to_owned(),
    });
    let boot = match (&direct, trial.firmware) {
        (Some(direct), _) => Boot::Direct(direct),
        (None, Some(firmware)) => Boot::Firmware(firmware),
        (None, None) => return Ok(Some("there is nothing to try it with".to_owned())),
    };
    let shape = Shape {
        engine: Engine::Kvm,
        boot,
        disk: None,
        memory_mib: 256,
        cpus: 1,
        forwards: &[],
        extra: &[],
    };
    let (sender, events) = channel();
    let machine = Machine::start(trial.qemu, &arguments(&shape), &sender, |output| output)?;
    drop(sender);
    let deadline = machine.started + TRIAL_TIME;
    Ok(comes_through(&events, deadline, direct.is_some()).err())
}

/// A kernel has come all the way if it panics for want of a root; of firmware any line is proof.
fn comes_through(
    events: &Receiver<Output>,
    deadline: Instant,
    is_kernel: bool,
) -> Result<(), String> {
    let mut reader = Reader::default();
    let mut complaint = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let lines = match events.recv_timeout(left) {
            Ok(Output::Console(bytes)) => reader.push(&bytes),
            Ok(Output::Complaint(line)) => {
                complaint = Some(without_program(&sanitize(line.as_bytes())).to_owned());
                continue;
            }
            Ok(_) => continue,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("it hung for {} s", TRIAL_TIME.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(complaint.unwrap_or_else(|| "QEMU ended".to_owned()));
            }
        };
        let proof = lines.into_iter().any(|line| match line.event {
            Some(GuestEvent::KernelPanic(_)) => is_kernel,
            _ => !is_kernel && !line.text.is_empty(),
        });
        if proof {
            return Ok(());
        }
    }
}

/// What a verdict holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    boot_id: String,
    qemu: String,
}

impl Key {
    /// `None` where the host does not tell: then nothing is kept.
    fn of_host(qemu: &Path) -> Option<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let version = Command::new(qemu).arg("--version").output().ok()?.stdout;
        Some(Self {
            boot_id: boot_id.trim().to_owned(),
            qemu: String::from_utf8_lossy(&version).trim().to_owned(),
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    #[serde(flatten)]
    key: Key,
    /// Why KVM is of no use; none where it is.
    failure: Option<String>,
}

/// The kept verdict, if there is one for this host as it is.
fn recall(file: &Path, key: &Key) -> Option<Option<String>> {
    let verdict: Verdict = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (verdict.key == *key).then_some(verdict.failure)
}

/// A verdict that cannot be kept costs the next run a trial, nothing more.
fn remember(file: &Path, key: Key, failure: Option<String>) {
    let write = || -> std::io::Result<()> {
        let directory: PathBuf = file.parent().map(Path::to_owned).unwrap_or_default();
        std::fs::create_dir_all(&directory)?;
        let mut temporary = tempfile::NamedTempFile::new_in(&directory)?;
        serde_json::to_writer(&mut temporary, &Verdict { key, failure })?;
        temporary.persist(file)?;
        Ok(())
    };
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(boot_id: &str) -> Key {
        Key {
            boot_id: boot_id.into(),
            qemu: "QEMU 7.2".into(),
        }
    }

    #[test]
    fn a_verdict_holds_for_its_boot_and_its_qemu_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cache/kvm.json");
        assert_eq!(recall(&file, &key("a")), None);
        remember(&file, key("a"), None);
        assert_eq!(recall(&file, &key("a")), Some(None));
        assert_eq!(recall(&file, &key("b")), None);
        std::fs::write(&file, "garbage").unwrap();
        assert_eq!(recall(&file, &key("a")), None);
    }

    #[test]
    fn what_is_asked_for_is_not_tried() {
        let trial = Trial {
            qemu: Path::new("/nonexistent"),
            kernel: None,
            firmware: None,
            cache: None,
        };
        for (accel, engine) in [(Accel::Tcg, Engine::Tcg), (Accel::Kvm, Engine::Kvm)] {
            let choice = choose(accel, trial, || panic!("no trial")).unwrap();
            assert_eq!(choice.engine, engine);
        }
    }

    #[test]
    fn a_kernel_must_come_all_the_way() {
        let cases = [
            ("Probing EDD (edd=off to disable)... ok\n", true, false),
            ("[ 0.5] Kernel panic - not syncing: VFS\n", true, true),
            ("\x1b[2J\n", false, false),
            ("BdsDxe: loading\n", false, true),
        ];
        for (said, is_kernel, expected) in cases {
            let (sender, events) = channel();
            sender.send(Output::Console(said.into())).unwrap();
            drop(sender);
            let deadline = Instant::now() + Duration::from_secs(5);
            let found = comes_through(&events, deadline, is_kernel).is_ok();
            assert_eq!(found, expected, "{said}");
        }
    }
}
