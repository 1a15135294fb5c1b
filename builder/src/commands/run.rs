//! `coracle run`: a file is built into a disk of its own and booted, a disk image is booted as it is.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::boot::{BootPort, BootSocket, BootSpec, BootWorkload, Check, Listen, Protocol};

use super::build::build_image;
use super::secrets;
use crate::cli::{Accel, Run};
use crate::failure::Failure;
use crate::image::{DiskImage, Uki};
use crate::machine_file::MachineFile;
use crate::progress::Progress;
use crate::secure_boot::{self, Certificate};
use crate::source::cache::Cache;
use crate::streams::{give, tell_line};
use crate::vm::{self, DirectBoot, Forward, HttpCheck, Options, Outcome};

/// Boots and stays until the machine has ended.
pub(super) fn run(arguments: &Run, progress: &Progress) -> Result<(), Failure> {
    let cache = Cache::open(None)?;
    // Holds what lives as long as the machine: the disk of a file, the kernel taken out of the image.
    let folder = cache.scratch()?;
    let disk = if is_disk(&arguments.machine)? {
        let choice = &arguments.choice;
        let chosen = choice.update || choice.locked || choice.offline;
        if chosen || choice.kernel_package.is_some() {
            return Err(Failure::Input(
                "error: --update, --locked, --offline and --kernel-package choose what a build takes, and a disk image is built already\n\
                 hint: give the machine's file instead, or leave the options out"
                    .to_owned(),
            ));
        }
        arguments.machine.clone()
    } else {
        let file = MachineFile::load(&arguments.machine)?;
        let disk = folder.path().join(format!("{}.img", file.spec.name));
        build_image(&file, &arguments.choice, &disk, progress)?;
        disk
    };
    let image = DiskImage::open(&disk)?;
    let spec = image.boot_spec()?;
    let uki = image.uki()?;
    let direct = extract_kernel(&uki, folder.path())?;
    let mut options = options(arguments, &spec, disk, direct, cache.root())?;
    options.secure_boot = trusted(arguments, &uki)?;
    options.scratch = folder.path().to_owned();
    for forward in &options.forwards {
        tell_line(&leads_to(forward));
    }
    for line in not_forwarded(&spec) {
        tell_line(&line);
    }
    let outcome = vm::run(&options, &mut Terminal).map_err(|error| {
        let hint = error.hint();
        Failure::work_with_hint(error, hint)
    })?;
    give(&report(&outcome))
}

/// The guest's console and what the host has to say go to standard error, results to standard output.
struct Terminal;

impl vm::Console for Terminal {
    fn guest(&mut self, line: &str) {
        tell_line(line);
    }

    fn note(&mut self, text: &str) {
        tell_line(text);
    }

    fn result(&mut self, text: &str) {
        // The machine goes on, and the answer counts in its own right.
        let _ = give(&format!("{text}\n"));
    }
}

/// A disk image has a GPT header in its second sector; a machine's file has not.
fn is_disk(path: &Path) -> Result<bool, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::Input(format!("error: cannot read {}: {error}", path.display()))
    };
    // Opening a FIFO would wait for somebody to write to it.
    let kind = std::fs::metadata(path).map_err(cannot)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(cannot(std::io::Error::other("it is no regular file")));
    }
    let file = File::open(path).map_err(cannot)?;
    let mut signature = [0; 8];
    let has_header = file.read_exact_at(&mut signature, 512).is_ok() && &signature == b"EFI PART";
    let mut first = [0; 4096];
    let count = (&file).read(&mut first).map_err(cannot)?;
    // A disk with a ruined table is still no text.
    Ok(has_header || first[..count].contains(&0))
}

/// Whom a firmware that enforces Secure Boot is to trust.
fn trusted(arguments: &Run, uki: &Uki) -> Result<Option<Certificate>, Failure> {
    let signer = match &arguments.secure_boot {
        None => return Ok(None),
        Some(Some(file)) => return Ok(Some(Certificate::read(file)?)),
        Some(None) => secure_boot::signatures(&uki.bytes)
            .unwrap_or_default()
            .pop(),
    };
    let certificate = signer.map(|signature| signature.certificate);
    certificate.map(Some).ok_or_else(|| {
        Failure::Input(
            "error: --secure-boot: the image is not signed\n\
             hint: sign it by [secure_boot] in the machine's file, or name a certificate: --secure-boot=FILE"
                .to_owned(),
        )
    })
}

/// Writes kernel and initrd of a UKI into a folder.
fn extract_kernel(uki: &Uki, folder: &Path) -> Result<DirectBoot, Failure> {
    let write = |name: &str, section: &'static str| -> Result<PathBuf, Failure> {
        let path = folder.join(name);
        std::fs::write(&path, uki.section(section)?)?;
        Ok(path)
    };
    Ok(DirectBoot {
        kernel: write("vmlinuz", ".linux")?,
        initrd: Some(write("initrd", ".initrd")?),
        cmdline: uki.command_line()?,
    })
}

fn options(
    arguments: &Run,
    spec: &BootSpec,
    disk: PathBuf,
    direct: DirectBoot,
    cache: &Path,
) -> Result<Options, Failure> {
    let mut options = Options::new(disk);
    options.trial_kernel = Some(direct.kernel.clone());
    options.direct = arguments.direct.then_some(direct);
    options.accel = match arguments.accel {
        Accel::Auto => vm::Accel::Auto,
        Accel::Tcg => vm::Accel::Tcg,
        Accel::Kvm => vm::Accel::Kvm,
    };
    options.memory_mib = arguments.memory;
    options.cpus = arguments.cpus;
    options.forwards = forwards(spec, &arguments.ports)?;
    options.timeout = arguments.timeout.map(Duration::from_secs);
    options.stop_time = spec
        .workloads
        .iter()
        .map(|w| Duration::from_millis(w.stop_timeout_ms))
        .sum();
    options.exit_when_ready = arguments.exit_when_ready;
    options.cache = Some(cache.to_owned());
    let asked: Vec<&str> = spec.secret_names().collect();
    options.extra_args = secrets::arguments(&asked, &arguments.secrets)?;
    Ok(options)
}

/// Every published port, on this host's loopback address, but for those of one address of the machine alone.
fn forwards(spec: &BootSpec, moved: &[(u16, u16)]) -> Result<Vec<Forward>, Failure> {
    let mut forwards = published(spec);
    let published: Vec<u16> = forwards.iter().map(|f| f.published).collect();
    if let Some((unknown, _)) = moved.iter().find(|(port, _)| !published.contains(port)) {
        let known: Vec<String> = published.iter().map(u16::to_string).collect();
        return Err(Failure::Input(format!(
            "error: --port {unknown}=…: the machine publishes no port {unknown}\nhint: it publishes {}",
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        )));
    }
    let twice = |(at, pair): &(usize, &(u16, u16))| moved[..*at].iter().any(|p| p.0 == pair.0);
    if let Some((_, (port, _))) = moved.iter().enumerate().find(twice) {
        return Err(Failure::Input(format!(
            "error: --port {port}=… is given twice\nhint: say once where port {port} goes"
        )));
    }
    for forward in &mut forwards {
        match moved.iter().find(|(from, _)| *from == forward.published) {
            Some((_, 0)) => forward.host_port = free_port()?,
            Some((_, to)) => forward.host_port = *to,
            None => {}
        }
    }
    Ok(forwards)
}

/// Where a user finds a workload: nothing else tells of one that is not asked by the command itself.
fn leads_to(forward: &Forward) -> String {
    let transport = match forward.protocol {
        Protocol::Tcp => "",
        Protocol::Udp => "/udp",
    };
    format!(
        "{}:{}{transport} leads to workload {}",
        forward.host_address, forward.host_port, forward.workload
    )
}

/// The ports of workloads, and those that init listens on for them where others than the machine itself may connect.
fn published(spec: &BootSpec) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for workload in &spec.workloads {
        let forward = |published, guest_port, protocol, check| Forward {
            workload: workload.name.clone(),
            host_address: Ipv4Addr::LOCALHOST,
            host_port: published,
            published,
            guest_port,
            protocol,
            check,
        };
        for port in workload.ports.iter().filter(|port| is_forwarded(port)) {
            for step in 0..port.count {
                let check = http_check(workload, port.target + step);
                let published = port.published + step;
                forwards.push(forward(published, published, port.protocol, check));
            }
        }
        let own = |socket: &&BootSocket| workload.sockets.contains(&socket.name);
        for socket in spec.sockets.iter().filter(own) {
            let (address, port, protocol) = match socket.listen {
                Listen::Tcp { address, port } => (address, port, Protocol::Tcp),
                Listen::Udp { address, port } => (address, port, Protocol::Udp),
                Listen::Unix { .. } => continue,
            };
            if !address.is_loopback() {
                let check = http_check(workload, port);
                forwards.push(forward(port, port, protocol, check));
            }
        }
    }
    forwards
}

/// QEMU's own network has one address of IPv4, and what comes from the host is for that.
fn is_forwarded(port: &BootPort) -> bool {
    port.address
        .is_none_or(|address| address.is_unspecified() && address.is_ipv4())
}

/// What a user may look for in vain.
fn not_forwarded(spec: &BootSpec) -> Vec<String> {
    let of_workload = |workload: &BootWorkload| {
        let ports = workload.ports.iter().filter(|port| !is_forwarded(port));
        let lines = ports.filter_map(|port| {
            let address = port.address?;
            Some(format!(
                "port {} of workload {} is bound to {address} of the machine: the host does not reach it",
                port.published, workload.name
            ))
        });
        lines.collect::<Vec<_>>()
    };
    spec.workloads.iter().flat_map(of_workload).collect()
}

fn http_check(workload: &BootWorkload, target: u16) -> Option<HttpCheck> {
    match &workload.health.as_ref()?.check {
        Check::Http { port, path, host } if *port == target => Some(HttpCheck {
            path: path.clone(),
            host: host.clone(),
        }),
        _ => None,
    }
}

/// A port that nobody has right now.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// What standard output gets once the machine has ended well.
fn report(outcome: &Outcome) -> String {
    format!("\n{}", outcome.timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_told_where_on_the_host_a_workload_is() {
        let mut forward = Forward {
            workload: "front".to_owned(),
            host_address: Ipv4Addr::LOCALHOST,
            host_port: 8080,
            published: 80,
            guest_port: 80,
            protocol: Protocol::Tcp,
            check: None,
        };
        assert_eq!(leads_to(&forward), "127.0.0.1:8080 leads to workload front");
        forward.protocol = Protocol::Udp;
        assert_eq!(
            leads_to(&forward),
            "127.0.0.1:8080/udp leads to workload front"
        );
    }
}
