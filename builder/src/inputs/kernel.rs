//! The kernel, its modules by when they are loaded, and the boot loader.

use std::collections::BTreeSet;

use config::manifest::Text;
use config::spec::KernelSource;

use super::Sources;
use crate::cli::Choice;
use crate::failure::Failure;
use crate::firewall;
use crate::lock::Lock;
use crate::source::debian;
use crate::source::dir;
use crate::source::drivers::{self, DriverSets, Drivers};
use crate::source::efi::Efi;
use crate::source::kernel::Kernel;
use crate::source::module_file;
use crate::source::modules::{self, Module};

/// Loaded first where the kernel has it: SHA-256 at a multiple of the speed, for dm-verity and for the signature
/// of every module behind it (a sixth of a small guest's boot).
const FAST_HASH: &str = "sha256_ssse3";
/// What leads to the root (the disk, dm-verity, EROFS) and what workloads need (their roots, the state, the network).
/// All of it comes from the initrd, since reading a module through dm-verity costs more than unpacking it.
const INITRD_MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_blk",
    "dm_verity",
    "erofs",
    "overlay",
    "ext4",
    "virtio_net",
];
/// What the kernel counts the blocks of volumes with.
const QUOTA_MODULE: &str = "quota_v2";
/// Drivers of watchdog devices, as far as the kernel has them as modules; the kernel's own timer comes last, so that
/// hardware, where there is some, is the first device.
const WATCHDOG_MODULES: [&str; 6] = [
    "wdat_wdt",
    "i6300esb",
    "lpc_ich",
    "iTCO_wdt",
    "sp5100_tco",
    "softdog",
];
/// What shows the secrets that QEMU was given, as far as the kernel has it as a module.
const SECRETS_MODULE: &str = "qemu_fw_cfg";
/// What no workload waits for: the power button, and entropy from the host.
const LATE_MODULES: [&str; 3] = ["button", "evdev", "virtio_rng"];
/// Late as well, as far as the kernel has it as a module: what shows the boot loader's times.
const EFI_VARIABLES: &str = "efivarfs";
/// The kernel's modules by when they are loaded, in load order.
pub(super) struct StagedModules {
    pub(super) initrd: Vec<Module>,
    pub(super) root: Vec<Module>,
    pub(super) late: Vec<Module>,
    pub(super) spare: Vec<Module>,
    pub(super) drivers: DriverSets,
}

fn prepare_drivers(drivers: Drivers, keep_signatures: bool) -> Result<Drivers, Failure> {
    let modules: Result<Vec<Module>, _> = drivers
        .modules
        .into_iter()
        .map(|module| module_file::prepare(module, keep_signatures))
        .collect();
    Ok(Drivers {
        modules: modules?,
        ..drivers
    })
}

fn names(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(String::as_str)
}

impl Sources<'_> {
    pub(super) fn kernel(&self, choice: &Choice, lock: &mut Lock) -> Result<Kernel, Failure> {
        let package = match (&choice.kernel_package, &self.file.spec.kernel) {
            (Some(name), KernelSource::Package { suite, .. }) => (name, suite.clone()),
            (Some(name), KernelSource::Files { .. }) => (name, self.file.spec.debian_suite.clone()),
            (None, KernelSource::Package { name, suite }) => (name, suite.clone()),
            (None, KernelSource::Files { image, modules }) => {
                self.pin_kernel(lock)?;
                let path = |text: &Text| self.file.folder().join(text.get_ref());
                return Kernel::from_paths(&path(image), &path(modules))
                    .map_err(|error| self.at(image, error));
            }
        };
        Ok(Kernel::from_package(
            package.0,
            package.1.as_deref(),
            lock,
            self.cache,
            self.progress,
        )?)
    }

    /// The modules of each stage, each module only in the first stage that wants it.
    pub(super) fn modules(&self, kernel: &Kernel) -> Result<StagedModules, Failure> {
        let spec = &self.file.spec;
        let fast_hash = kernel
            .modules
            .files
            .contains_key(FAST_HASH)
            .then_some(FAST_HASH);
        let watchdog = WATCHDOG_MODULES.into_iter().filter(|name| {
            spec.watchdog_timeout.is_some() && kernel.modules.files.contains_key(*name)
        });
        let wants_secrets = spec.secret_names().next().is_some();
        let secrets = Some(SECRETS_MODULE)
            .filter(|name| wants_secrets && kernel.modules.files.contains_key(*name));
        let efi_variables =
            Some(EFI_VARIABLES).filter(|name| kernel.modules.files.contains_key(*name));
        let stages = [
            fast_hash
                .into_iter()
                .chain(INITRD_MODULES)
                .chain(spec.state_size.map(|_| QUOTA_MODULE))
                .chain(spec.interfaces.iter().filter_map(|i| i.link.module()))
                .chain(names(&spec.initrd_modules))
                .chain(watchdog)
                .chain(secrets)
                .chain(firewall::modules(spec))
                .collect::<Vec<_>>(),
            names(&spec.extra_modules).collect(),
            LATE_MODULES.into_iter().chain(efi_variables).collect(),
            firewall::spare_modules(spec),
        ];
        let mut loaded: BTreeSet<String> = BTreeSet::new();
        let mut resolved = Vec::new();
        for wanted in stages {
            let mut stage = modules::resolve(kernel, &wanted, self.cache)?;
            stage.retain(|module| loaded.insert(module.name.clone()));
            let ready: Result<Vec<Module>, _> = stage
                .into_iter()
                .map(|module| module_file::prepare(module, spec.module_signatures))
                .collect();
            resolved.push(ready?);
        }
        let keep_signatures = spec.module_signatures;
        let drivers = drivers::choose(kernel, spec.hardware, &spec.drivers, self.cache)?;
        let mut stages = resolved.into_iter();
        let mut next = || stages.next().unwrap_or_default();
        Ok(StagedModules {
            initrd: next(),
            root: next(),
            late: next(),
            spare: next(),
            drivers: DriverSets {
                storage: prepare_drivers(drivers.storage, keep_signatures)?,
                all: prepare_drivers(drivers.all, keep_signatures)?,
            },
        })
    }

    pub(super) fn efi(&self, lock: &mut Lock) -> Result<Efi, Failure> {
        let spec = &self.file.spec;
        match &spec.boot_files {
            Some((loader, stub)) => {
                self.pin_efi(lock)?;
                let path = |text: &Text| self.file.folder().join(text.get_ref());
                Efi::from_paths(&path(loader), &path(stub)).map_err(|error| self.at(loader, error))
            }
            None => Ok(Efi::from_package(
                spec.debian_suite.as_deref(),
                lock,
                self.cache,
                self.progress,
            )?),
        }
    }

    /// Pins the kernel of the file, without unpacking it. The modules are pinned as one folder.
    pub(super) fn pin_kernel(&self, lock: &mut Lock) -> Result<(), Failure> {
        match &self.file.spec.kernel {
            KernelSource::Package { name, suite } => {
                let suite = suite.as_deref();
                debian::resolve_alone(name, suite, lock, self.cache, self.progress)?;
                Ok(())
            }
            KernelSource::Files { image, modules } => {
                self.pin_file(image, lock)?;
                let folder = self.file.folder().join(modules.get_ref());
                let read = dir::load(&folder, self.progress);
                let read = read.map_err(|error| self.at(modules, error))?;
                self.pin_digest(modules, read.digest, None, lock)
            }
        }
    }

    /// Pins the boot loader and the stub.
    pub(super) fn pin_efi(&self, lock: &mut Lock) -> Result<(), Failure> {
        match &self.file.spec.boot_files {
            Some((loader, stub)) => {
                self.pin_file(loader, lock)?;
                self.pin_file(stub, lock)
            }
            None => {
                let suite = self.file.spec.debian_suite.as_deref();
                Ok(Efi::pin_package(suite, lock, self.cache, self.progress)?)
            }
        }
    }
}
