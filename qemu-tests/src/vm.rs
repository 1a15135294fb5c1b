//! A machine under test: QEMU with a serial console, a power button and forwarded ports.
//!
//! QEMU's standard input is QMP and its standard output the console, both sockets of ours. It is killed when the
//! value is dropped, and dies with the thread that started it. Machines run under TCG with one processor, wherever the tests run, so that a case means the
//! same everywhere; the processor lacks `cmpxchg16b`, which QEMU 7.2 emulates wrongly.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::case::{Case, seconds};
use crate::console::{Console, Missed};
use crate::http::{self, Response};
use crate::kernel::BootFiles;
use crate::segment::Segment;
use crate::tool::mortal;

/// How long a guest may take from the power button to its end.
const POWER_DOWN_TIME: Duration = seconds(60);

/// How a machine comes to its kernel.
#[derive(Debug, Clone, Copy)]
pub enum Boot<'a> {
    /// OVMF, then whatever the disk's ESP has.
    Firmware,
    /// QEMU loads kernel and initrd.
    Direct(&'a BootFiles),
    /// OVMF loads kernel and initrd that QEMU hands it: the floor of a boot with firmware.
    DirectThroughFirmware(&'a BootFiles),
}

/// How the disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// NVMe.
    Nvme,
    /// A SATA disk behind an AHCI controller.
    Ahci,
    /// A SCSI disk behind virtio-scsi.
    Scsi,
    /// A USB stick behind an xHCI controller.
    Usb,
}

impl DiskBus {
    /// The controller, where the disk has one of its own, and the disk.
    fn devices(self) -> &'static [&'static str] {
        match self {
            Self::Virtio => &["virtio-blk-pci,drive=disk,bootindex=1"],
            Self::Nvme => &["nvme,drive=disk,serial=coracle,bootindex=1"],
            Self::Ahci => &[
                "ich9-ahci,id=bus",
                "ide-hd,bus=bus.0,drive=disk,bootindex=1",
            ],
            Self::Scsi => &[
                "virtio-scsi-pci,id=bus",
                "scsi-hd,bus=bus.0,drive=disk,bootindex=1",
            ],
            Self::Usb => &[
                "qemu-xhci,id=bus",
                "usb-storage,bus=bus.0,drive=disk,bootindex=1",
            ],
        }
    }
}

/// A machine before it is started.
#[derive(Debug)]
pub struct VmBuilder<'a> {
    case: &'a Case,
    boot: Boot<'a>,
    name: String,
    disk: Option<PathBuf>,
    write_log: Option<PathBuf>,
    bus: DiskBus,
    network: &'static str,
    segment: Option<&'a Segment>,
    memory_mib: u32,
    forwards: Vec<(u16, u16)>,
    udp_forwards: Vec<(u16, u16)>,
    extra: Vec<String>,
}

impl<'a> VmBuilder<'a> {
    /// A machine of 512 MiB that boots `disk` by UEFI and writes to it. `name` begins its log files' names.
    pub fn new(case: &'a Case, name: &str, disk: impl Into<Option<PathBuf>>) -> Self {
        Self {
            case,
            boot: Boot::Firmware,
            name: name.to_owned(),
            disk: disk.into(),
            write_log: None,
            bus: DiskBus::Virtio,
            network: "virtio-net-pci",
            segment: None,
            memory_mib: 512,
            forwards: Vec::new(),
            udp_forwards: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// Boots in another way.
    pub fn boot(mut self, boot: Boot<'a>) -> Self {
        self.boot = boot;
        self
    }

    /// Logs each write and flush to a new file; see [`crate::WriteLog`].
    pub fn log_writes(mut self, log: PathBuf) -> Self {
        self.write_log = Some(log);
        self
    }

    /// Attaches the disk in another way.
    pub fn disk_bus(mut self, bus: DiskBus) -> Self {
        self.bus = bus;
        self
    }

    /// Gives it a network card of another model, by QEMU's name.
    pub fn network(mut self, model: &'static str) -> Self {
        self.network = model;
        self
    }

    /// Plugs its network card into a segment in place of QEMU's own network.
    #[must_use]
    pub fn on_segment(mut self, segment: &'a Segment) -> Self {
        self.segment = Some(segment);
        self
    }

    /// Gives it this much memory.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Leads a free port of the host to a port of the guest.
    ///
    /// # Errors
    /// If the host has no free port.
    pub fn forward(mut self, guest_port: u16) -> Result<Self> {
        self.forwards.push((free_port()?, guest_port));
        Ok(self)
    }

    /// Leads a UDP port of the host's loopback address to a port of the guest.
    #[must_use]
    pub fn forward_udp(mut self, host_port: u16, guest_port: u16) -> Self {
        self.udp_forwards.push((host_port, guest_port));
        self
    }

    /// Adds arguments to QEMU's command line.
    pub fn extra(mut self, arguments: &[&str]) -> Self {
        self.extra.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// If QEMU cannot be started; what QEMU itself refuses shows at the first wait.
    pub fn start(self) -> Result<Vm> {
        let log = |kind: &str| self.case.path(format!("{}.{kind}", self.name));
        let (qmp, qmp_of_qemu) = UnixStream::pair().context("make a socket pair")?;
        let (serial, serial_of_qemu) = UnixStream::pair().context("make a socket pair")?;
        let program = "qemu-system-x86_64";
        let mut command = match self.segment {
            Some(segment) => segment.command(program),
            None => mortal(program),
        };
        command.args(self.arguments()?);
        std::fs::write(log("command"), format!("{command:?}\n"))?;
        let child = command
            .stdin(Stdio::from(OwnedFd::from(qmp_of_qemu)))
            .stdout(Stdio::from(OwnedFd::from(serial_of_qemu)))
            .stderr(File::create(log("stderr"))?)
            .process_group(0)
            .spawn()
            .context("start setpriv (Debian package util-linux)")?;
        // QEMU holds the only other ends now: dropping the command closes ours.
        drop(command);
        let mut vm = Vm {
            child,
            console: Console::read(serial, &log("console"))?,
            qmp,
            stderr: log("stderr"),
            forwards: self.forwards,
            position: 0,
        };
        // A QEMU that has ended at once cannot take it; the first wait tells what it said.
        let _ = vm.execute("qmp_capabilities");
        Ok(vm)
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let mut line: Vec<String> = [
            "-nodefaults -no-user-config -no-reboot -display none -machine q35,accel=tcg,hpet=off,sata=off",
            "-cpu max,-cx16,-la57 -smp 1 -chardev socket,id=qmp,fd=0 -mon chardev=qmp,mode=control",
            "-chardev socket,id=console,fd=1 -serial chardev:console",
            "-object rng-builtin,id=rng -device virtio-rng-pci,rng=rng",
        ]
        .iter()
        .flat_map(|part| part.split(' '))
        .map(ToOwned::to_owned)
        .collect();
        line.extend([
            "-device".to_owned(),
            format!("{},netdev=net,romfile=", self.network),
        ]);
        line.extend(["-m".to_owned(), self.memory_mib.to_string()]);
        line.extend(["-netdev".to_owned(), self.netdev()]);
        if let (Some(disk), Some(log)) = (&self.disk, &self.write_log) {
            File::create(log).context("make the log of writes")?;
            let file = "driver=file,discard=ignore,cache.no-flush=on,filename=";
            for node in [
                format!("{file}{},node-name=file", disk.display()),
                format!("{file}{},node-name=log", log.display()),
                "driver=raw,node-name=raw,file=file".to_owned(),
                "driver=blklogwrites,node-name=disk,file=raw,log=log,log-sector-size=512"
                    .to_owned(),
            ] {
                line.extend(["-blockdev".to_owned(), node]);
            }
            let device = "virtio-blk-pci,drive=disk,bootindex=1";
            line.extend(["-device".to_owned(), device.to_owned()]);
        } else if let Some(disk) = &self.disk {
            let drive = "if=none,id=disk,format=raw,cache=unsafe,file=";
            line.extend(["-drive".to_owned(), format!("{drive}{}", disk.display())]);
            for device in self.bus.devices() {
                line.extend(["-device".to_owned(), (*device).to_owned()]);
            }
        }
        line.extend(self.boot_arguments()?);
        line.extend(self.extra.iter().cloned());
        Ok(line)
    }

    fn netdev(&self) -> String {
        if self.segment.is_some() {
            let device = Segment::DEVICE;
            return format!("tap,id=net,ifname={device},script=no,downscript=no");
        }
        let mut netdev = "user,id=net".to_owned();
        for (host, guest) in &self.forwards {
            netdev.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
        }
        for (host, guest) in &self.udp_forwards {
            netdev.push_str(&format!(",hostfwd=udp:127.0.0.1:{host}-:{guest}"));
        }
        netdev
    }

    fn boot_arguments(&self) -> Result<Vec<String>> {
        Ok(match self.boot {
            Boot::Firmware => firmware_arguments()?,
            Boot::Direct(files) => files.arguments(),
            Boot::DirectThroughFirmware(files) => {
                let mut line = firmware_arguments()?;
                line.extend(files.arguments());
                line
            }
        })
    }
}

fn firmware_arguments() -> Result<Vec<String>> {
    let pairs = [
        ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        ("OVMF_CODE.fd", "OVMF_VARS.fd"),
    ];
    let directory = Path::new("/usr/share/OVMF");
    let (code, variables) = pairs
        .iter()
        .map(|(code, variables)| (directory.join(code), directory.join(variables)))
        .find(|(code, variables)| code.is_file() && variables.is_file())
        .context("OVMF is not installed (Debian package ovmf)")?;
    let pflash = |unit: u8, mode: &str, file: PathBuf| {
        let file = file.display();
        format!("if=pflash,unit={unit},format=raw,{mode}=on,file={file}")
    };
    Ok(vec![
        "-drive".to_owned(),
        pflash(0, "readonly", code),
        "-drive".to_owned(),
        pflash(1, "snapshot", variables),
    ])
}

/// A port of the loopback address that nothing listens on.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A running machine.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    console: Console,
    qmp: UnixStream,
    stderr: PathBuf,
    forwards: Vec<(u16, u16)>,
    /// The line behind the last one that was waited for.
    position: usize,
}

impl Vm {
    /// Waits for the next line with `wanted` in it, from behind the last line that was waited for.
    ///
    /// # Errors
    /// If it does not come within `patience`, or the machine ends; the error quotes the console.
    pub fn expect(&mut self, wanted: &str, patience: Duration) -> Result<String> {
        match self.console.wait_for(wanted, self.position, patience) {
            Ok((line, position)) => {
                self.position = position;
                Ok(line)
            }
            Err(Missed::Late) => {
                let time = patience.as_secs();
                Err(self.error(format!("no line with {wanted:?} within {time} s")))
            }
            Err(Missed::Ended) => {
                Err(self.error(format!("the machine ended without a line with {wanted:?}")))
            }
        }
    }

    /// Every line of the console so far.
    pub fn lines(&self) -> Vec<String> {
        self.console.lines()
    }

    /// Fails if any line so far has `unwanted` in it.
    ///
    /// # Errors
    /// With the line.
    pub fn refute(&self, unwanted: &str) -> Result<()> {
        match self.lines().into_iter().find(|l| l.contains(unwanted)) {
            Some(line) => Err(self.error(format!("there is a line with {unwanted:?}: {line}"))),
            None => Ok(()),
        }
    }

    /// The host's address that leads to a port of the guest.
    ///
    /// # Errors
    /// If the port is not forwarded.
    pub fn address(&self, guest_port: u16) -> Result<SocketAddrV4> {
        let found = self.forwards.iter().find(|(_, guest)| *guest == guest_port);
        let (host_port, _) =
            found.with_context(|| format!("port {guest_port} is not forwarded"))?;
        Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, *host_port))
    }

    /// GETs a path from a port of the guest, again until there is an answer or time is up.
    ///
    /// # Errors
    /// If there is no answer within `patience`.
    pub fn http_get(&self, guest_port: u16, path: &str, patience: Duration) -> Result<Response> {
        let answer = http::get(self.address(guest_port)?, path, patience);
        answer.map_err(|error| self.error(format!("GET {path} on port {guest_port}: {error:#}")))
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// If QEMU does not take it.
    pub fn press_power_button(&mut self) -> Result<()> {
        self.execute("system_powerdown")
    }

    /// Presses keys of the keyboard together, by QEMU's names (`ctrl`, `alt`, `delete`).
    ///
    /// # Errors
    /// If QEMU does not take it.
    pub fn press_keys(&mut self, keys: &[&str]) -> Result<()> {
        let key = |name: &&str| format!("{{\"type\": \"qcode\", \"data\": \"{name}\"}}");
        let keys: Vec<String> = keys.iter().map(key).collect();
        let keys = keys.join(", ");
        self.send(&format!(
            "{{\"execute\": \"send-key\", \"arguments\": {{\"keys\": [{keys}]}}}}"
        ))
    }

    /// Plugs a network cable in, or pulls it; `netdev` is QEMU's name of the network, `net` that of the first card.
    ///
    /// # Errors
    /// If QEMU does not take it.
    pub fn set_link(&mut self, netdev: &str, up: bool) -> Result<()> {
        self.send(&format!(
            "{{\"execute\": \"set_link\", \"arguments\": {{\"name\": \"{netdev}\", \"up\": {up}}}}}"
        ))
    }

    /// Presses the power button and waits for a clean end.
    ///
    /// # Errors
    /// If the machine does not end in time, or does not say that all is unmounted, or QEMU fails.
    pub fn power_down(mut self) -> Result<()> {
        self.press_power_button()?;
        self.expect("stage poweroff", POWER_DOWN_TIME)?;
        self.wait_for_end(POWER_DOWN_TIME)
    }

    /// Waits until the machine has ended of its own accord.
    ///
    /// # Errors
    /// If it has not within `patience`, or QEMU fails.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<()> {
        if !self.console.wait_for_end(patience) {
            let time = patience.as_secs();
            bail!(self.error(format!("the machine has not ended within {time} s")));
        }
        let status = self.wait_for_exit()?;
        ensure!(
            status.success(),
            self.error(format!("QEMU failed: {status}"))
        );
        Ok(())
    }

    /// Cuts the power.
    pub fn kill(self) {
        drop(self);
    }

    fn wait_for_exit(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + seconds(10);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().context("wait for QEMU")? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!(self.error("QEMU does not exit".to_owned()))
    }

    fn execute(&mut self, command: &str) -> Result<()> {
        self.send(&format!("{{\"execute\": \"{command}\"}}"))
    }

    fn send(&mut self, command: &str) -> Result<()> {
        let sent = self.qmp.write_all(format!("{command}\n").as_bytes());
        sent.map_err(|error| self.error(format!("QEMU does not take {command}: {error}")))
    }

    /// An error with all that helps to find its reason.
    fn error(&self, what: String) -> anyhow::Error {
        let stderr = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        anyhow!(
            "{what}\n{}\nQEMU: {}",
            self.console.quote(),
            stderr.trim_end()
        )
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
