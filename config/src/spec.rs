//! `Spec`: the validated machine. Whoever holds one may rely on every rule of the language; what needs the disk
//! (does the image exist?) is the builder's to check, with the places kept here.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use crate::boot::{BootInterface, BootLog, OnDamage};
use crate::condition;
use crate::diagnostic::{Diagnostic, Diagnostics, suggest};
use crate::ending::{self, FAILURE_WORD, FailurePolicy};
use crate::interface;
use crate::log;
use crate::manifest::{self, Manifest, Text};
use crate::mistakes::Mistakes;
use crate::network::{Fabric, Firewall, Settings, check_claims};
use crate::order::start_order;
use crate::pod::{self, Pod};
use crate::registry::{self, Registry};
use crate::root::RootCompression;
pub use crate::secret::SECRETS_PATH;
pub use crate::secure_boot::{SecureBoot, SignedBy};
use crate::socket::{self, Socket};
use crate::trust::Trust;
use crate::value::{self, Parsed};
use crate::workload::confinement;
pub use crate::workload::confinement::IDS;
pub use crate::workload::{
    File, FileContent, Health, RestartPolicy, Secret, Source, Volume, Workload,
};

/// The kernel package of a virtual machine whose file names none.
pub const DEFAULT_KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// The same for a machine of metal: with the drivers of real hardware.
pub const METAL_KERNEL_PACKAGE: &str = "linux-image-amd64";

/// The least size of a state partition, in bytes: below it ext4 has no room for a journal.
pub const LEAST_STATE_SIZE: u64 = 32 << 20;

/// The kernel images that the EFI system partition has room for, unless the file says another number.
pub const DEFAULT_ESP_KERNELS: u64 = 3;

/// The command-line words that are the builder's own.
const RESERVED_WORDS: [&str; 5] = ["roothash", "rdinit", "init", "root", FAILURE_WORD];

/// A validated machine.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The machine's name, a DNS label.
    pub name: String,
    /// The image's version.
    pub version: String,
    /// Where the kernel comes from.
    pub kernel: KernelSource,
    /// Words added to the kernel's command line.
    pub command_line: Vec<String>,
    /// Kernel modules keep their signatures, for a kernel that asks for them.
    pub module_signatures: bool,
    /// Kernel modules loaded from the initrd beside those that Coracle itself needs: drivers of the disk.
    pub initrd_modules: Vec<String>,
    /// Kernel modules loaded from the root beside those that Coracle itself needs.
    pub extra_modules: Vec<String>,
    /// The hardware that the image carries drivers for.
    pub hardware: HardwareProfile,
    /// Kernel modules beside those of the profile that are loaded when a device asks for them.
    pub drivers: Vec<String>,
    /// systemd-boot's EFI binary and the UKI's stub on the host; `None`: from the Debian package.
    pub boot_files: Option<(Text, Text)>,
    /// How many kernel images the EFI system partition has room for.
    pub esp_kernels: u64,
    /// Who signs what the firmware is to start; `None`: nobody.
    pub secure_boot: Option<SecureBoot>,
    /// The Debian suite of the workloads' packages; `None`: the host's own sources.
    pub debian_suite: Option<String>,
    /// How the root's files are compressed.
    pub compression: RootCompression,
    /// What the file says of registries.
    pub registries: Vec<Registry>,
    /// The state partition's size in bytes, a multiple of 1 MiB; `None`: no state partition.
    pub state_size: Option<u64>,
    /// The bounds of the log.
    pub log: BootLog,
    /// What happens to a state partition that cannot be mounted.
    pub on_damage: OnDamage,
    /// What the machine does when it cannot go on.
    pub failure: FailurePolicy,
    /// How long all workloads together may take to stop.
    pub shutdown_timeout: Duration,
    /// The time within which the watchdog device wants to be fed; `None`: none is used.
    pub watchdog_timeout: Option<Duration>,
    /// The hostname.
    pub hostname: String,
    /// The file names it, so that nothing else does.
    pub hostname_fixed: bool,
    /// What the file fixes of the machine's network.
    pub settings: Settings,
    /// What of the machine itself the outside reaches.
    pub firewall: Firewall,
    /// Which images must be signed, and by whom.
    pub trust: Trust,
    /// The workloads' networks.
    pub fabric: Fabric,
    /// Network interfaces.
    pub interfaces: Vec<BootInterface>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Sockets that init listens on.
    pub sockets: Vec<Socket>,
    /// Workloads in start order.
    pub workloads: Vec<Workload>,
}

/// The hardware that an image is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwareProfile {
    /// virtio at once, and the other disks and networks of QEMU and the like on demand.
    Vm,
    /// virtio at once, and the disks and networks of clouds and their hypervisors on demand.
    Cloud,
    /// Servers and PCs: disks, networks, USB and consoles of all kinds.
    Metal,
    /// virtio, and what the file names.
    None,
}

/// Where the kernel comes from.
#[derive(Debug, Clone)]
pub enum KernelSource {
    /// A Debian package, real or meta.
    Package {
        /// Its name.
        name: String,
        /// The Debian suite; `None`: the host's own sources.
        suite: Option<String>,
    },
    /// Files of the host, relative to the file's folder.
    Files {
        /// The bzImage.
        image: Text,
        /// The folder of modules, `…/lib/modules/RELEASE`.
        modules: Text,
    },
}

impl Spec {
    /// Validates.
    ///
    /// # Errors
    /// All mistakes of meaning.
    pub fn new(manifest: Manifest) -> Result<Self, Diagnostics> {
        let mut mistakes = Mistakes::default();
        let workloads: Vec<Workload> = by_place(&manifest.workload)
            .into_iter()
            .map(|(name, workload)| Workload::new(name, workload, &mut mistakes))
            .collect();
        let sockets: Vec<Socket> = by_place(&manifest.socket)
            .into_iter()
            .filter_map(|(name, socket)| Socket::new(name, socket, &mut mistakes))
            .collect();
        let mut pods: Vec<Pod> = by_place(&manifest.pod)
            .into_iter()
            .map(|(name, pod)| Pod::new(name, pod, &mut mistakes))
            .collect();
        pod::check_members(&manifest, &mut mistakes);
        socket::check_owners(&manifest, &mut mistakes);
        check_volumes(&manifest, &mut mistakes);
        let mut workloads = order_workloads(workloads, &manifest, &mut mistakes);
        confinement::assign(&mut pods, &mut workloads, &manifest, &mut mistakes);
        socket::check_connections(&manifest, &mut mistakes);
        let fabric = Fabric::new(&manifest, &workloads, &pods, &mut mistakes);
        check_claims(&fabric, &workloads, &sockets, &manifest, &mut mistakes);
        let interfaces = interface::interfaces(&manifest.network.interface, &mut mistakes);
        let labels: Vec<String> = interfaces.iter().map(|i| i.label.clone()).collect();
        let hardware = mistakes
            .take_some(manifest.hardware.profile.as_ref(), hardware_profile)
            .unwrap_or(HardwareProfile::Vm);
        let name = mistakes
            .take(value::dns_label(&manifest.name, "name"))
            .unwrap_or_default();
        let spec = Self {
            version: mistakes
                .take_some(manifest.version.as_ref(), value::version)
                .unwrap_or_else(|| "0.1.0".to_owned()),
            kernel: kernel_source(&manifest, hardware, &mut mistakes),
            command_line: mistakes.take_all(&manifest.kernel.command_line, command_line_word),
            module_signatures: module_signatures(&manifest),
            initrd_modules: mistakes.take_all(&manifest.kernel.initrd_modules, module_name),
            extra_modules: mistakes.take_all(&manifest.kernel.extra_modules, module_name),
            hardware,
            drivers: mistakes.take_all(&manifest.hardware.drivers, module_name),
            boot_files: boot_files(&manifest.boot, &mut mistakes),
            esp_kernels: manifest
                .boot
                .kernels
                .as_ref()
                .and_then(|count| mistakes.take(esp_kernels(count)))
                .unwrap_or(DEFAULT_ESP_KERNELS),
            secure_boot: manifest
                .secure_boot
                .as_ref()
                .and_then(|table| SecureBoot::new(table, &mut mistakes)),
            debian_suite: mistakes.take_some(manifest.debian.suite.as_ref(), suite),
            compression: RootCompression::new(&manifest.root, &mut mistakes),
            registries: registry::registries(&manifest.registry, &mut mistakes),
            state_size: mistakes
                .take_some(manifest.state.as_ref().map(|state| &state.size), state_size),
            log: log::bounds(&manifest.log, &mut mistakes),
            on_damage: manifest
                .state
                .as_ref()
                .and_then(|state| mistakes.take_some(state.on_damage.as_ref(), on_damage))
                .unwrap_or(OnDamage::Keep),
            failure: FailurePolicy::new(&manifest.failure, &mut mistakes),
            shutdown_timeout: mistakes
                .take_some(manifest.shutdown.timeout.as_ref(), value::duration)
                .unwrap_or(ending::DEFAULT_SHUTDOWN_TIMEOUT),
            watchdog_timeout: mistakes.take_some(
                manifest.watchdog.as_ref().map(|watchdog| &watchdog.timeout),
                ending::watchdog_timeout,
            ),
            hostname: mistakes
                .take_some(manifest.network.hostname.as_ref(), value::hostname)
                .unwrap_or_else(|| name.clone()),
            hostname_fixed: manifest.network.hostname.is_some(),
            settings: Settings::new(&manifest.network, &mut mistakes),
            firewall: Firewall::new(&manifest, &labels, &mut mistakes),
            trust: Trust::new(&manifest.trust, &mut mistakes),
            fabric,
            interfaces,
            pods,
            sockets,
            workloads,
            name,
        };
        mistakes.none_or(spec)
    }

    /// The names of the secrets that workloads and interfaces ask for, with repetitions.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let workloads = self.workloads.iter().flat_map(|workload| &workload.secrets);
        let interfaces = self.interfaces.iter();
        workloads
            .map(|secret| secret.name.as_str())
            .chain(interfaces.flat_map(|interface| interface.link.secret_names()))
    }
}

/// A table's entries in the order of the file.
pub(crate) fn by_place<T>(table: &BTreeMap<Text, T>) -> Vec<(&Text, &T)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn hardware_profile(text: &Text) -> Parsed<HardwareProfile> {
    match text.get_ref().as_str() {
        "vm" => Ok(HardwareProfile::Vm),
        "cloud" => Ok(HardwareProfile::Cloud),
        "metal" => Ok(HardwareProfile::Metal),
        "none" => Ok(HardwareProfile::None),
        other => Err(
            Diagnostic::at(text.span(), format!("`{other}` is no hardware profile"))
                .hint(suggest(other, ["vm", "cloud", "metal", "none"])),
        ),
    }
}

fn kernel_source(
    manifest: &Manifest,
    hardware: HardwareProfile,
    mistakes: &mut Mistakes,
) -> KernelSource {
    let kernel = &manifest.kernel;
    if let (Some(package), Some(image)) = (&kernel.package, &kernel.image) {
        mistakes.push(
            Diagnostic::at(
                image.span(),
                format!("`image` beside `package = \"{}\"`", package.get_ref()),
            )
            .hint("a kernel comes from a package or from files: remove one of the two keys"),
        );
    }
    match (&kernel.image, &kernel.modules) {
        (Some(image), Some(modules)) => {
            return KernelSource::Files {
                image: image.clone(),
                modules: modules.clone(),
            };
        }
        (Some(one), None) | (None, Some(one)) => mistakes.push(
            Diagnostic::at(
                one.span(),
                format!("`{}` alone: a kernel of files has both keys", one.get_ref()),
            )
            .hint("write image = \"vmlinuz\" and modules = \"lib/modules/RELEASE\""),
        ),
        (None, None) => {}
    }
    let own_suite = mistakes.take_some(kernel.suite.as_ref(), suite);
    KernelSource::Package {
        name: mistakes
            .take_some(kernel.package.as_ref(), value::package)
            .unwrap_or_else(|| default_package(hardware).to_owned()),
        suite: own_suite.or_else(|| manifest.debian.suite.as_ref().map(|s| s.get_ref().clone())),
    }
}

const fn default_package(hardware: HardwareProfile) -> &'static str {
    match hardware {
        HardwareProfile::Metal => METAL_KERNEL_PACKAGE,
        HardwareProfile::Vm | HardwareProfile::Cloud | HardwareProfile::None => {
            DEFAULT_KERNEL_PACKAGE
        }
    }
}

/// systemd-boot and its stub belong together: both are files, or both come from one package.
fn boot_files(boot: &manifest::Boot, mistakes: &mut Mistakes) -> Option<(Text, Text)> {
    if let (Some(one), None) | (None, Some(one)) = (&boot.loader, &boot.stub) {
        mistakes.push(
            Diagnostic::at(
                one.span(),
                format!("`{}` alone: [boot] has both keys or none", one.get_ref()),
            )
            .hint("write loader = \"systemd-bootx64.efi\" and stub = \"linuxx64.efi.stub\""),
        );
    }
    Some((boot.loader.clone()?, boot.stub.clone()?))
}

/// From the one that is there to more than anybody keeps.
fn esp_kernels(count: &Spanned<i64>) -> Parsed<u64> {
    match count.get_ref() {
        1..=32 => Ok(count.get_ref().unsigned_abs()),
        other => Err(Diagnostic::at(
            count.span(),
            format!("`{other}` kernel images are out of range"),
        )
        .hint("1 to 32: the one of this build, and those of updates beside it")),
    }
}

/// A Debian suite or code name.
fn suite(text: &Text) -> Parsed<String> {
    let name = text.get_ref();
    let valid = name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if valid {
        return Ok(name.clone());
    }
    Err(
        Diagnostic::at(text.span(), format!("`{name}` is no Debian suite"))
            .hint("a code name, as in \"bookworm\" or \"trixie\""),
    )
}

/// A kernel that is told to enforce signatures, or to lock itself down, needs them, and under Secure Boot each distribution's
/// does the latter; no other does.
fn module_signatures(manifest: &Manifest) -> bool {
    let kernel = &manifest.kernel;
    let enforced = |word: &Text| {
        word.get_ref().starts_with("module.sig_enforce") || word.get_ref().starts_with("lockdown=")
    };
    kernel.module_signatures.unwrap_or_else(|| {
        manifest.secure_boot.is_some() || kernel.command_line.iter().any(enforced)
    })
}

fn module_name(text: &Text) -> Parsed<String> {
    value::word(text, "kernel module")
}

fn command_line_word(text: &Text) -> Parsed<String> {
    let word = value::word(text, "word of a command line")?;
    let key = word.split('=').next().unwrap_or_default();
    if RESERVED_WORDS.contains(&key) {
        return Err(Diagnostic::at(
            text.span(),
            format!("`{word}`: `{key}` is set by the builder"),
        )
        .hint(if key == FAILURE_WORD {
            "remove it, and say in [failure] what the machine does when it cannot go on"
        } else {
            "remove it: the root is found by its dm-verity hash"
        }));
    }
    Ok(word)
}

/// A whole number of MiB, so that partitions stay aligned.
fn state_size(text: &Text) -> Parsed<u64> {
    let size = value::size(text)?;
    if size < LEAST_STATE_SIZE {
        return Err(Diagnostic::at(
            text.span(),
            format!("`{}` is too small for a state partition", text.get_ref()),
        )
        .hint("32MiB is the least: ext4 needs room for its journal"));
    }
    Ok(size.next_multiple_of(1 << 20))
}

fn on_damage(text: &Text) -> Parsed<OnDamage> {
    match text.get_ref().as_str() {
        "keep" => Ok(OnDamage::Keep),
        "reset" => Ok(OnDamage::Reset),
        "halt" => Ok(OnDamage::Halt),
        other => Err(
            Diagnostic::at(text.span(), format!("`{other}` is nothing to do on damage"))
                .hint(suggest(other, ["keep", "reset", "halt"])),
        ),
    }
}

/// A volume that several workloads have is one: what they say of it must not differ.
fn check_shared_volumes(manifest: &Manifest, mistakes: &mut Mistakes) {
    let mut first: BTreeMap<&str, &manifest::Volume> = BTreeMap::new();
    for (_, workload) in by_place(&manifest.workload) {
        for volume in &workload.volumes {
            let other = *first.entry(volume.name.get_ref()).or_insert(volume);
            for (key, here, there) in [
                ("size", &volume.size, &other.size),
                ("owner", &volume.owner, &other.owner),
                ("mode", &volume.mode, &other.mode),
            ] {
                let (Some(here), Some(there)) = (here, there) else {
                    continue;
                };
                if here.get_ref() != there.get_ref() {
                    let name = volume.name.get_ref();
                    mistakes.push(
                        Diagnostic::at(
                            here.span(),
                            format!(
                                "`{}`: volume `{name}` has {key} `{}` already",
                                here.get_ref(),
                                there.get_ref()
                            ),
                        )
                        .hint(format!("say the {key} once, or the same each time")),
                    );
                }
            }
        }
    }
}

fn check_volumes(manifest: &Manifest, mistakes: &mut Mistakes) {
    check_shared_volumes(manifest, mistakes);
    if manifest.state.is_some() {
        return;
    }
    for volume in manifest.workload.values().flat_map(|w| &w.volumes) {
        mistakes.push(
            Diagnostic::at(
                volume.name.span(),
                format!(
                    "volume `{}` without a state partition",
                    volume.name.get_ref()
                ),
            )
            .hint("add [state] with size = \"256MiB\""),
        );
    }
}

/// Orders by `after` and `requires`; unknown names and cycles are mistakes.
fn order_workloads(
    workloads: Vec<Workload>,
    manifest: &Manifest,
    mistakes: &mut Mistakes,
) -> Vec<Workload> {
    let names: Vec<&str> = workloads.iter().map(|w| w.name.as_str()).collect();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, workload) in &manifest.workload {
        let named = workload.after.iter().chain(&workload.requires);
        for after in named.filter(|name| !condition::is_one(name)) {
            if manifest.workload.contains_key(after.get_ref().as_str()) {
                edges
                    .entry(name.get_ref())
                    .or_default()
                    .push(after.get_ref());
            } else {
                let others = names.iter().copied().filter(|n| *n != name.get_ref());
                mistakes.push(
                    Diagnostic::at(
                        after.span(),
                        format!("`{}`: there is no workload of that name", after.get_ref()),
                    )
                    .hint(match after.get_ref().as_str() {
                        "firewall" => {
                            "leave it out: whoever has a network waits for the firewall anyway"
                                .to_owned()
                        }
                        name => suggest(name, others),
                    }),
                );
            }
        }
    }
    match start_order(&names, &edges) {
        Ok(order) => {
            let mut slots: Vec<Option<Workload>> = workloads.into_iter().map(Some).collect();
            order
                .into_iter()
                .filter_map(|at| slots[at].take())
                .collect()
        }
        Err(cycle) => {
            mistakes.push(cycle_mistake(&cycle, manifest));
            workloads
        }
    }
}

fn cycle_mistake(cycle: &[String], manifest: &Manifest) -> Diagnostic {
    let span = manifest
        .workload
        .get(cycle[0].as_str())
        .and_then(|w| {
            w.after
                .iter()
                .chain(&w.requires)
                .find(|a| *a.get_ref() == cycle[1])
        })
        .map(Text::span);
    Diagnostic {
        span,
        message: format!("the order goes in a circle: {}", cycle.join(" → ")),
        hint: Some("remove one of these, so that one workload can start first".to_owned()),
    }
}
