//! Everything an image is made of, fetched and resolved: kernel, modules, boot loader, and for each workload its
//! layers and its process. All I/O of a build but the writing happens here, so that the plan needs none.

mod kernel;
mod limits;
mod pins;
mod process;
mod signing;
mod update;
mod workload;

use config::Diagnostic;
use config::boot::{BootSecret, BootVolume};
use config::manifest::Text;
use config::spec::Workload;

use crate::bundle::Process;
use crate::cli::Choice;
use crate::failure::Failure;
use crate::lock::{LOCK_FILE, Lock, Pins};
use crate::machine_file::MachineFile;
use crate::progress::Progress;
use crate::source::cache::Cache;
use crate::source::drivers::DriverSets;
use crate::source::efi::Efi;
use crate::source::image::Layer;
use crate::source::kernel::Kernel;
use crate::source::module_file;
use crate::source::modules::Module;
use crate::source::origin::Origin;
use crate::source::registry::{self, Registries};

pub use signing::{SecureBootInput, secure_boot};
pub use update::update;

/// A build's inputs.
#[derive(Debug)]
pub struct Inputs {
    /// The kernel.
    pub kernel: Kernel,
    /// Modules of the initrd, in load order.
    pub initrd_modules: Vec<Module>,
    /// Modules of the root, in load order, without those of the initrd.
    pub root_modules: Vec<Module>,
    /// Modules of the root that are loaded once the workloads run, without those above.
    pub late_modules: Vec<Module>,
    /// Modules of the root that are loaded when the table of connections fills up, without those above.
    pub spare_modules: Vec<Module>,
    /// Modules that are loaded when a device asks for them.
    pub drivers: DriverSets,
    /// systemd-boot and the UKI's stub.
    pub efi: Efi,
    /// Who signs.
    pub secure_boot: Option<SecureBootInput>,
    /// The workloads in start order.
    pub workloads: Vec<WorkloadInput>,
}

/// A workload with all that its bundle needs.
#[derive(Debug)]
pub struct WorkloadInput {
    /// What the file says of it.
    pub workload: Workload,
    /// Its layers, the lowest first, the file's own `files` on top.
    pub layers: Vec<Layer>,
    /// Whether the topmost has the file's own `files`.
    pub own_layer: bool,
    /// Where its root came from.
    pub origin: Origin,
    /// Its process.
    pub process: Process,
    /// Its volumes with their owners.
    pub volumes: Vec<BootVolume>,
    /// Its secrets with their owners.
    pub secrets: Vec<BootSecret>,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
}

/// Fetches and resolves everything the file names; what was chosen anew is pinned in `coracle.lock`.
///
/// # Errors
/// The first input that cannot be had or does not fit, with its place in the file where it has one.
pub fn gather(file: &MachineFile, choice: &Choice, progress: &Progress) -> Result<Inputs, Failure> {
    let spec = &file.spec;
    let cache = cache(choice.offline)?;
    let pins = match (choice.update, choice.locked) {
        (true, _) => Pins::Move,
        (false, true) => Pins::Require,
        (false, false) => Pins::Keep,
    };
    let secure_boot = signing::secure_boot(file)?;
    let mut lock = Lock::open(&file.folder().join(LOCK_FILE), pins)?;
    let sources = Sources::new(file, &cache, progress);
    let kernel = sources.kernel(choice, &mut lock)?;
    let modules = sources.modules(&kernel)?;
    let efi = sources.efi(&mut lock)?;
    let mut workloads = Vec::new();
    for workload in &spec.workloads {
        workloads.push(sources.workload(spec, workload, &mut lock)?);
    }
    if spec.secure_boot.is_some() {
        tell_unsigned(
            modules
                .initrd
                .iter()
                .chain(&modules.root)
                .chain(&modules.late),
            progress,
        );
    }
    lock.save()?;
    Ok(Inputs {
        kernel,
        initrd_modules: modules.initrd,
        root_modules: modules.root,
        late_modules: modules.late,
        spare_modules: modules.spare,
        drivers: modules.drivers,
        efi,
        secure_boot,
        workloads,
    })
}

/// A kernel under Secure Boot locks itself down and refuses a module without a signature that it knows.
fn tell_unsigned<'a>(modules: impl Iterator<Item = &'a Module>, progress: &Progress) {
    let unsigned = modules.filter(|module| !module_file::is_signed(module));
    let names: Vec<&str> = unsigned
        .map(|module| module.name.as_str())
        .take(3)
        .collect();
    if !names.is_empty() {
        progress.note(format!(
            "kernel modules without a signature ({}, ...): under Secure Boot this kernel may refuse them; take a kernel whose modules are signed, as Debian's are, or have module_signatures = true",
            names.join(", ")
        ));
    }
}

fn cache(offline: bool) -> Result<Cache, Failure> {
    let cache = Cache::open(None)?;
    Ok(if offline {
        cache.without_network()
    } else {
        cache
    })
}

/// What every source needs.
struct Sources<'a> {
    file: &'a MachineFile,
    cache: &'a Cache,
    progress: &'a Progress,
    registries: Registries<'a>,
}

impl<'a> Sources<'a> {
    fn new(file: &'a MachineFile, cache: &'a Cache, progress: &'a Progress) -> Self {
        let host = |registry: &config::registry::Registry| {
            let ca = registry.ca.as_ref();
            let host = registry::Host {
                ca: ca.map(|ca| file.folder().join(ca.get_ref())),
                insecure: registry.insecure,
            };
            (registry.host.clone(), host)
        };
        let settings = registry::Settings {
            hosts: file.spec.registries.iter().map(host).collect(),
            logins: registry::LoginFiles::of_environment(),
            timing: registry::Timing::default(),
        };
        Self {
            file,
            cache,
            progress,
            registries: Registries::new(settings, cache, progress),
        }
    }
}

impl Sources<'_> {
    /// An error of an input at the place in the file that names it.
    fn at(&self, text: &Text, error: impl Into<anyhow::Error>) -> Failure {
        let message = format!("{:#}", error.into());
        self.file.failed_at(Diagnostic::at(text.span(), message))
    }
}
