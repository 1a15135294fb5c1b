//! QEMU's command line, as a pure function of what the machine is to be.
//!
//! It looks at no file and starts nothing. Standard input is QMP, standard output the serial console: both are
//! sockets that the caller hands over, so that no path in a file system and no port is needed for them.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use config::boot::Protocol;

use super::firmware::Firmware;
use super::{DirectBoot, Forward};

/// The processor under TCG. `max`: workloads may be built for x86-64-v2 or v3, whose instructions `qemu64` lacks. It
/// costs: a kernel's boot takes 2 % more guest instructions and 4 % more time than with `qemu64`, for the kernel uses
/// what it finds. `-cx16`: QEMU 7.2 now and then double-faults a guest at `cmpxchg16b`. `-la57`: a fifth level of
/// page tables only makes each emulated page walk longer.
const TCG_CPU: &str = "max,-cx16,-la57";

/// What carries out the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// QEMU's own translation: works everywhere.
    Tcg,
    /// The host's processor through `/dev/kvm`.
    Kvm,
}

impl Engine {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// How the machine comes to its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot<'a> {
    /// UEFI firmware.
    Firmware(&'a Firmware),
    /// QEMU loads kernel and initrd itself.
    Direct(&'a DirectBoot),
}

impl Boot<'_> {
    fn is_secure(self) -> bool {
        matches!(self, Self::Firmware(firmware) if firmware.secure)
    }
}

/// The disk as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk<'a> {
    /// A raw image.
    pub(crate) path: &'a Path,
    /// Writes go to a temporary file that ends with QEMU.
    pub(crate) snapshot: bool,
}

/// All that shapes the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine<'a> {
    /// What carries out the instructions.
    pub(crate) engine: Engine,
    /// How it boots.
    pub(crate) boot: Boot<'a>,
    /// Its disk; `None` only for a trial of the accelerator.
    pub(crate) disk: Option<Disk<'a>>,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Virtual processors.
    pub(crate) cpus: u32,
    /// Ports of the host that lead into the guest.
    pub(crate) forwards: &'a [Forward],
    /// Put at the end as they are.
    pub(crate) extra: &'a [OsString],
}

/// QEMU's arguments, program name not included.
pub(crate) fn arguments(machine: &Machine<'_>) -> Vec<OsString> {
    let mut line = Line::default();
    line.flag("-nodefaults").flag("-no-user-config");
    line.flag("-no-reboot").pair("-display", "none");
    // The disk, network and random devices below are all there is: no SATA controller, mouse port or high
    // precision timer that firmware and kernel would spend their time on.
    let q35 = "q35,sata=off,smbus=off,vmport=off,hpet=off,usb=off";
    let smm = if machine.boot.is_secure() {
        ",smm=on"
    } else {
        ""
    };
    line.pair(
        "-machine",
        format!("{q35}{smm},accel={}", machine.engine.name()),
    );
    line.pair("-cpu", cpu(machine.engine));
    line.pair("-m", machine.memory_mib.to_string());
    line.pair("-smp", machine.cpus.to_string());
    line.pair("-chardev", "socket,id=qmp,fd=0");
    line.pair("-mon", "chardev=qmp,mode=control");
    line.pair("-chardev", "socket,id=console,fd=1");
    line.pair("-serial", "chardev:console");
    add_boot(&mut line, machine.boot);
    if let Some(disk) = machine.disk {
        add_disk(&mut line, disk);
        add_network(&mut line, machine.forwards);
        line.pair("-object", "rng-builtin,id=entropy");
        line.pair("-device", "virtio-rng-pci,rng=entropy");
    }
    line.0.extend_from_slice(machine.extra);
    line.0
}

/// The processor model for each accelerator.
fn cpu(engine: Engine) -> &'static str {
    match engine {
        Engine::Tcg => TCG_CPU,
        Engine::Kvm => "host",
    }
}

fn add_boot(line: &mut Line, boot: Boot<'_>) {
    match boot {
        // The guest writes to its variables; `snapshot` makes them a private copy that ends with QEMU.
        Boot::Firmware(firmware) => {
            let code = "if=pflash,unit=0,format=raw,readonly=on";
            line.drive(code, &firmware.code);
            let variables = "if=pflash,unit=1,format=raw,snapshot=on";
            line.drive(variables, &firmware.variables);
            if firmware.secure {
                // Only the firmware's own code in SMM writes to flash; it cannot wake from S3 then.
                line.pair("-global", "driver=cfi.pflash01,property=secure,value=on");
                line.pair("-global", "ICH9-LPC.disable_s3=1");
            }
        }
        Boot::Direct(direct) => {
            line.pair("-kernel", &direct.kernel);
            if let Some(initrd) = &direct.initrd {
                line.pair("-initrd", initrd);
            }
            line.pair("-append", &direct.cmdline);
        }
    }
}

/// A disk that is kept honours the guest's flushes, so that it survives a crash of the host; one that is thrown
/// away need not.
fn add_disk(line: &mut Line, disk: Disk<'_>) {
    let cache = if disk.snapshot {
        "cache=unsafe,snapshot=on"
    } else {
        "cache=writeback"
    };
    let options = format!("if=none,id=disk,format=raw,discard=unmap,{cache}");
    line.drive(&options, disk.path);
    line.pair("-device", "virtio-blk-pci,drive=disk,bootindex=1");
}

/// `romfile=`: without the network boot ROM the firmware does not try to boot from the network.
fn add_network(line: &mut Line, forwards: &[Forward]) {
    let mut netdev = "user,id=uplink".to_owned();
    for forward in forwards {
        netdev.push_str(&format!(",hostfwd={}", host_forward(forward)));
    }
    line.pair("-netdev", netdev);
    line.pair("-device", "virtio-net-pci,netdev=uplink,romfile=");
}

/// QEMU's `hostfwd` rule: protocol, host side, guest side (the guest's DHCP address).
fn host_forward(forward: &Forward) -> String {
    let protocol = match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let address: Ipv4Addr = forward.host_address;
    let (host, guest) = (forward.host_port, forward.guest_port);
    format!("{protocol}:{address}:{host}-:{guest}")
}

/// Arguments as they are put together.
#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn pair(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.0.push(name.into());
        self.0.push(value.as_ref().to_owned());
    }

    fn drive(&mut self, options: &str, path: &Path) {
        let mut value = OsString::from(options);
        value.push(",file=");
        value.push(escape_commas(path));
        self.pair("-drive", value);
    }
}

/// QEMU ends an option's value at a comma; a comma in the value is written twice.
pub(crate) fn escape_commas(path: &Path) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        escaped.push(byte);
        if byte == b',' {
            escaped.push(byte);
        }
    }
    OsString::from_vec(escaped).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine<'a>(boot: Boot<'a>, forwards: &'a [Forward]) -> Machine<'a> {
        Machine {
            engine: Engine::Tcg,
            boot,
            disk: Some(Disk {
                path: Path::new("/a,b.img"),
                snapshot: false,
            }),
            memory_mib: 96,
            cpus: 1,
            forwards,
            extra: &[],
        }
    }

    fn text(machine: &Machine<'_>) -> String {
        let words: Vec<_> = arguments(machine)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    fn forward(protocol: Protocol, host_port: u16, guest_port: u16) -> Forward {
        Forward {
            workload: "web".into(),
            host_address: Ipv4Addr::LOCALHOST,
            host_port,
            published: host_port,
            guest_port,
            protocol,
            check: None,
        }
    }

    #[test]
    fn firmware_is_never_written_to() {
        let mut firmware = Firmware {
            code: "/code".into(),
            variables: "/vars".into(),
            secure: false,
        };
        let line = text(&machine(Boot::Firmware(&firmware), &[]));
        assert!(!line.contains("smm=on") && !line.contains("secure"));
        firmware.secure = true;
        let line = text(&machine(Boot::Firmware(&firmware), &[]));
        assert!(line.contains("smm=on") && line.contains("property=secure,value=on"));
        assert!(line.contains("if=pflash,unit=0,format=raw,readonly=on,file=/code"));
        assert!(line.contains("if=pflash,unit=1,format=raw,snapshot=on,file=/vars"));
        assert!(!line.contains("-kernel"));
    }

    #[test]
    fn direct_boot_passes_kernel_initrd_and_command_line() {
        let direct = DirectBoot {
            kernel: "/k".into(),
            initrd: Some("/i".into()),
            cmdline: "quiet roothash=00".into(),
        };
        let line = text(&machine(Boot::Direct(&direct), &[]));
        assert!(line.contains("-kernel /k -initrd /i -append quiet roothash=00"));
        assert!(!line.contains("pflash"));
    }

    #[test]
    fn forwards_become_host_rules() {
        let direct = DirectBoot::default();
        let forwards = [
            forward(Protocol::Tcp, 8080, 80),
            forward(Protocol::Udp, 5353, 53),
        ];
        let line = text(&machine(Boot::Direct(&direct), &forwards));
        let expected =
            "user,id=uplink,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:127.0.0.1:5353-:53";
        assert!(line.contains(expected), "{line}");
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        let direct = DirectBoot::default();
        let line = text(&machine(Boot::Direct(&direct), &[]));
        assert!(line.contains("file=/a,,b.img"), "{line}");
    }

    #[test]
    fn kept_disks_honour_flushes_and_thrown_away_ones_do_not() {
        let direct = DirectBoot::default();
        let mut machine = machine(Boot::Direct(&direct), &[]);
        assert!(text(&machine).contains("cache=writeback"));
        machine.disk = machine.disk.map(|disk| Disk {
            snapshot: true,
            ..disk
        });
        assert!(text(&machine).contains("cache=unsafe,snapshot=on"));
    }

    #[test]
    fn no_machine_has_the_instruction_that_emulation_gets_wrong() {
        assert!(cpu(Engine::Tcg).contains("-cx16"));
    }
}
