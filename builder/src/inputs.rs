//! Everything an image is made of, fetched and resolved: kernel, modules, boot loader, and for each workload its
//! layers and its process. All I/O of a build but the writing happens here, so that the plan needs none.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::boot::{BootSecret, BootVolume};
use config::manifest::Text;
use config::spec::{File, FileContent, IDS, KernelSource, SECRETS_PATH, Source, Spec, Workload};
use config::{Diagnostic, linux};

use crate::bundle::{self, Process, VOLUMES_DIR};
use crate::cli::Choice;
use crate::failure::Failure;
use crate::firewall;
use crate::identity::project_id;
use crate::lock::{LOCK_FILE, Lock};
use crate::machine_file::MachineFile;
use crate::overlay_files::file_layer;
use crate::progress::Progress;
use crate::source::cache::Cache;
use crate::source::drivers::{self, DriverSets, Drivers};
use crate::source::efi::Efi;
use crate::source::image::{Image, ImageConfig, Layer};
use crate::source::kernel::Kernel;
use crate::source::module_file;
use crate::source::modules::{self, Module};
use crate::source::user::{User, resolve_user};
use crate::source::{debian, load};

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

/// The search path of a workload whose image names none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// SIGTERM, the signal that asks a process to stop.
const SIGTERM: i32 = 15;

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
    /// Modules that are loaded when a device asks for them.
    pub drivers: DriverSets,
    /// systemd-boot and the UKI's stub.
    pub efi: Efi,
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
    let cache = Cache::open(None)?;
    let mut lock = Lock::open(&file.folder().join(LOCK_FILE), choice.update)?;
    let sources = Sources {
        file,
        cache: &cache,
        progress,
    };
    let kernel = sources.kernel(choice, &mut lock)?;
    let modules = sources.modules(&kernel)?;
    let efi = sources.efi(&mut lock)?;
    let mut workloads = Vec::new();
    for workload in &spec.workloads {
        workloads.push(sources.workload(spec, workload, &mut lock)?);
    }
    lock.save()?;
    Ok(Inputs {
        kernel,
        initrd_modules: modules.initrd,
        root_modules: modules.root,
        late_modules: modules.late,
        drivers: modules.drivers,
        efi,
        workloads,
    })
}

/// The kernel's modules by when they are loaded, in load order.
struct StagedModules {
    initrd: Vec<Module>,
    root: Vec<Module>,
    late: Vec<Module>,
    drivers: DriverSets,
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

/// What every source needs.
struct Sources<'a> {
    file: &'a MachineFile,
    cache: &'a Cache,
    progress: &'a Progress,
}

impl Sources<'_> {
    fn kernel(&self, choice: &Choice, lock: &mut Lock) -> Result<Kernel, Failure> {
        let package = match (&choice.kernel_package, &self.file.spec.kernel) {
            (Some(name), KernelSource::Package { suite, .. }) => (name, suite.clone()),
            (Some(name), KernelSource::Files { .. }) => (name, self.file.spec.debian_suite.clone()),
            (None, KernelSource::Package { name, suite }) => (name, suite.clone()),
            (None, KernelSource::Files { image, modules }) => {
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
    fn modules(&self, kernel: &Kernel) -> Result<StagedModules, Failure> {
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
            drivers: DriverSets {
                storage: prepare_drivers(drivers.storage, keep_signatures)?,
                all: prepare_drivers(drivers.all, keep_signatures)?,
            },
        })
    }

    fn efi(&self, lock: &mut Lock) -> Result<Efi, Failure> {
        let spec = &self.file.spec;
        match &spec.boot_files {
            Some((loader, stub)) => {
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

    fn workload(
        &self,
        spec: &Spec,
        workload: &Workload,
        lock: &mut Lock,
    ) -> Result<WorkloadInput, Failure> {
        let mut image = match &workload.source {
            Source::Image(reference) => load(
                reference.get_ref(),
                self.file.folder(),
                self.cache,
                self.progress,
            )
            .map_err(|error| self.at(reference, error))?,
            Source::Debian(packages) => {
                self.debian(packages.get_ref(), spec.debian_suite.as_deref(), lock)?
            }
        };
        if let Some(layer) = self.files(workload, &image)? {
            image.layers.push(layer);
        }
        let user = self.user(workload, &image)?;
        Ok(WorkloadInput {
            process: self.process(workload, &image, &user)?,
            volumes: self.volumes(spec, workload, &image, &user)?,
            secrets: secrets(workload, &user),
            stop_signal: stop_signal(workload, &image),
            workload: workload.clone(),
            layers: image.layers,
        })
    }

    /// A root of Debian packages, as an image of one layer that says nothing of how to run it.
    fn debian(
        &self,
        packages: &[String],
        suite: Option<&str>,
        lock: &mut Lock,
    ) -> Result<Image, Failure> {
        let request = debian::request(packages, suite, false);
        let pins = debian::resolve(&request, lock, self.cache, self.progress).map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            Failure::work_with_hint(error, hint)
        })?;
        let unpacked = debian::unpack(&pins, suite, self.cache, self.progress)?;
        if !unpacked.uncovered.is_empty() {
            self.progress.note(format!(
                "note: nothing of a package is run; these have maintainer scripts that may do more: {}",
                unpacked.uncovered.join(" ")
            ));
        }
        let digest = format!("sha256:{}", unpacked.layer.id);
        Ok(Image {
            layers: vec![unpacked.layer],
            config: ImageConfig::default(),
            digest,
        })
    }

    /// The layer of the file's own `files` and of the links to secrets at other places, if there are any.
    fn files(&self, workload: &Workload, image: &Image) -> Result<Option<Layer>, Failure> {
        let links = workload.secrets.iter().filter_map(link_to_secret);
        let files: Vec<File> = workload.files.iter().cloned().chain(links).collect();
        if files.is_empty() {
            return Ok(None);
        }
        let read = |text: &Text| {
            let path = self.file.folder().join(text.get_ref());
            std::fs::read(&path)
                .map(Arc::from)
                .map_err(|error| self.at(text, error))
        };
        let mut contents = Vec::new();
        for file in &files {
            contents.push(match &file.content {
                FileContent::Host(text) => Some(read(text)?),
                FileContent::Text(text) => Some(Arc::from(text.as_bytes())),
                FileContent::Link(_) => None,
            });
        }
        file_layer(image, &files, contents)
            .map(Some)
            .map_err(|error| {
                Failure::work(
                    anyhow::Error::new(error).context(format!("workload {}", workload.name)),
                )
            })
    }

    fn user(&self, workload: &Workload, image: &Image) -> Result<User, Failure> {
        match (&workload.user, &image.config.user) {
            (Some(text), _) => self.named_user(text, image),
            (None, Some(text)) if !text.is_empty() => resolve_user(image, text).map_err(|error| {
                Failure::work(
                    anyhow::Error::new(error)
                        .context(format!("the image of workload {}", workload.name)),
                )
            }),
            _ => resolve_user(image, "0").map_err(Failure::work),
        }
    }

    /// A new volume takes the owner and mode of the image's own directory there, else those of the workload's user;
    /// what the file says goes before both.
    fn volumes(
        &self,
        spec: &Spec,
        workload: &Workload,
        image: &Image,
        user: &User,
    ) -> Result<Vec<BootVolume>, Failure> {
        let volume = |volume: &config::spec::Volume| {
            let directory = image
                .find(&volume.path)
                .filter(|(layer, id)| layer.tree.entries(*id).is_some())
                .map(|(layer, id)| &layer.tree.inode(id).metadata);
            let (mut uid, mut gid, mode) = directory.map_or((user.uid, user.gid, 0o755), |meta| {
                (meta.uid, meta.gid, meta.mode)
            });
            if let Some(owner) = &volume.owner {
                let owner = self.named_user(owner, image)?;
                (uid, gid) = (owner.uid, owner.gid);
            }
            Ok(BootVolume {
                path: format!("{VOLUMES_DIR}/{}", volume.name),
                uid,
                gid,
                mode: u32::from(volume.mode.unwrap_or(mode)),
                enforce: volume.owner.is_some() || volume.mode.is_some(),
                read_only: volume.read_only,
                project: project_id(&volume.name),
                size: size_of_volume(spec, &volume.name),
            })
        };
        workload.volumes.iter().map(volume).collect()
    }

    /// The user that a text of the file names.
    fn named_user(&self, text: &Text, image: &Image) -> Result<User, Failure> {
        resolve_user(image, text.get_ref()).map_err(|error| {
            let message = format!("{:#}", anyhow::Error::new(error));
            self.file.mistake(Diagnostic::at(text.span(), message))
        })
    }

    fn process(&self, workload: &Workload, image: &Image, user: &User) -> Result<Process, Failure> {
        let args = arguments(workload, image);
        if args.is_empty() {
            return Err(Failure::Input(format!(
                "error: workload {} has no command, and its image names none\nhint: add command = [\"PROGRAM\", …] to [workload.{}]",
                workload.name, workload.name
            )));
        }
        let ids = user.additional_gids.iter().chain([&user.uid, &user.gid]);
        if let (Some(_), Some(id)) = (workload.first_id, ids.copied().find(|&id| id >= IDS)) {
            return Err(Failure::Input(format!(
                "error: workload {} is to run as id {id}, and its user namespace ends at {}\nhint: choose another user, or add user_namespace = \"host\" to [workload.{}]",
                workload.name,
                IDS - 1,
                workload.name
            )));
        }
        Ok(Process {
            args,
            env: environment(workload, image, user),
            cwd: workload
                .working_dir
                .clone()
                .or_else(|| {
                    image
                        .config
                        .working_dir
                        .clone()
                        .filter(|dir| dir.starts_with('/'))
                })
                .unwrap_or_else(|| "/".to_owned()),
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.additional_gids.clone(),
            capabilities: bundle::capabilities(workload, user.uid),
        })
    }

    /// An error of an input at the place in the file that names it.
    fn at(&self, text: &Text, error: impl Into<anyhow::Error>) -> Failure {
        let message = format!("{:#}", error.into());
        self.file.failed_at(Diagnostic::at(text.span(), message))
    }
}

/// The command, or the image's entrypoint with the arguments or the image's own command behind it.
fn arguments(workload: &Workload, image: &Image) -> Vec<String> {
    match &workload.command {
        Some(command) => command.clone(),
        None => {
            let behind = workload.args.as_ref().unwrap_or(&image.config.command);
            image
                .config
                .entrypoint
                .iter()
                .chain(behind)
                .cloned()
                .collect()
        }
    }
}

/// The image's variables, then the file's in their place; `PATH` and `HOME` are always there.
fn environment(workload: &Workload, image: &Image, user: &User) -> Vec<String> {
    let mut env = vec![
        DEFAULT_PATH.to_owned(),
        format!("HOME={}", user.home.as_deref().unwrap_or("/")),
    ];
    if !workload.secrets.is_empty() {
        env.push(format!("CREDENTIALS_DIRECTORY={SECRETS_PATH}"));
    }
    let own = workload
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    for pair in image.config.env.iter().cloned().chain(own) {
        let name = pair.split('=').next().unwrap_or_default().to_owned();
        env.retain(|other| other.split('=').next() != Some(&name));
        env.push(pair);
    }
    env
}

/// What any workload says of the volume's size: those that share it need not repeat it.
fn size_of_volume(spec: &Spec, name: &str) -> Option<u64> {
    let volumes = spec.workloads.iter().flat_map(|w| &w.volumes);
    volumes.filter(|v| v.name == name).find_map(|v| v.size)
}

/// A secret belongs to the user that the workload starts as. It lies on a tmpfs, whose ids no mount maps on every
/// kernel, so its owner is who that user is on the machine.
fn secrets(workload: &Workload, user: &User) -> Vec<BootSecret> {
    let secret = |secret: &config::spec::Secret| BootSecret {
        name: secret.name.clone(),
        uid: workload.first_id.unwrap_or(0) + user.uid,
        gid: workload.first_id.unwrap_or(0) + user.gid,
        mode: secret.mode.into(),
        optional: secret.optional,
    };
    workload.secrets.iter().map(secret).collect()
}

/// An optional secret that has not come leaves a link to nothing.
fn link_to_secret(secret: &config::spec::Secret) -> Option<File> {
    Some(File {
        path: secret.path.clone()?,
        content: FileContent::Link(format!("{SECRETS_PATH}/{}", secret.name)),
        mode: 0o777,
    })
}

fn stop_signal(workload: &Workload, image: &Image) -> i32 {
    let of_image = || {
        let text = Text::new(0..0, image.config.stop_signal.clone()?);
        linux::signal(&text).ok()
    };
    workload.stop_signal.or_else(of_image).unwrap_or(SIGTERM)
}
