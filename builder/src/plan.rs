//! `Plan`: what will be in the image, decided without touching a disk.
//!
//! From the validated machine and its inputs come the root's and the initrd's file trees, the boot specification
//! and the kernel's command line. Writing it is [`crate::disk`]'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use config::Spec;
use config::boot::{
    BOOT_SPEC_FORMAT, BOOT_SPEC_PATH, BootEndpoint, BootFabric, BootHealth, BootPod, BootPort,
    BootRestart, BootSocket, BootSpec, BootState, BootWorkload, DRIVERS_PATH, INITRD_DRIVERS_PATH,
    STATE_TEMPLATE_PATH,
};
use config::ending::{FAILURE_WORD, FailurePolicy};
use config::network::Endpoint;
use config::root::RootCompression;
use config::spec::{HardwareProfile, Health};
use config::template::Template;
use uuid::Uuid;

use crate::bundle::{self, BUNDLES_DIR, LAYERS_DIR};
use crate::contents::{BootFiles, CONTENTS_PATH, Contents};
use crate::firewall::{self, FIREWALL_PATH};
use crate::format::{erofs, ext4};
use crate::guest;
use crate::identity::named_uuid;
use crate::inputs::{Inputs, SecureBootInput, WorkloadInput};
use crate::source::drivers::Drivers;
use crate::source::modules::Module;
use crate::tree::{Content, Inode, Kind, Metadata, Tree, TreeError};

/// Where the root's kernel modules lie.
const MODULES_DIR: &str = "/usr/lib/coracle/modules";
/// Where the state partition is mounted.
const STATE_MOUNT_POINT: &str = "/state";
/// The most that a template's file system has: one group.
const MOST_OF_TEMPLATE: u64 = 128 << 20;
/// The most layers that overlayfs stacks.
const MOST_LAYERS: usize = 500;

/// Where a machine of metal has a screen; the last console that it has is `/dev/console`.
const SCREEN: &str = "console=tty0";
const SERIAL_LINE: &str = "console=ttyS0";

/// Words that every machine's command line has. `cryptomgr.notests` saves the kernel's self-tests of its crypto
/// (over a third of a small guest's boot); `no_timer_check` spares the test of the timer's wiring, which panics the guest
/// of a busy host whose interrupts come late.
const COMMAND_LINE: [&str; 3] = ["quiet", "cryptomgr.notests", "no_timer_check"];

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Too many layers for overlayfs.
    #[error(
        "workload {workload}: {layers} layers are more than the {MOST_LAYERS} that overlayfs stacks"
    )]
    TooManyLayers {
        /// The workload.
        workload: String,
        /// How many it has.
        layers: usize,
    },
    /// The state's empty file system.
    #[error("cannot make the state's file system")]
    Ext4(#[from] ext4::Ext4Error),
    /// A file tree that does not fit together.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Everything that goes into the image.
#[derive(Debug)]
pub struct Plan {
    /// The read-only root.
    pub root: Tree,
    /// What the kernel unpacks as its first root.
    pub initramfs: Tree,
    /// What init reads; also in the root.
    pub boot_spec: BootSpec,
    /// `/etc/os-release`, also a section of the UKI.
    pub os_release: String,
    /// The kernel's release.
    pub kernel_release: String,
    /// The kernel.
    pub kernel: Content,
    /// The UKI's stub.
    pub stub: Content,
    /// systemd-boot.
    pub loader: Content,
    /// How many UKIs the ESP has room for.
    pub esp_kernels: u64,
    /// Who signs loader and UKI.
    pub secure_boot: Option<SecureBootInput>,
    /// The firmware is told to take the keys of the ESP by itself, if it has none.
    pub enroll_at_once: bool,
    /// The state partition's size in bytes.
    pub state_size: Option<u64>,
    /// All times in the image: seconds since the Unix epoch.
    pub epoch: i64,
    contents: Contents,
    /// How the root's files are compressed.
    pub compression: Option<erofs::Compression>,
    failure: FailurePolicy,
    has_screen: bool,
    extra_words: Vec<String>,
}

impl Plan {
    /// Plans the image of `spec` from its inputs; every time in it is `epoch`.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(spec: &Spec, inputs: Inputs, epoch: i64) -> Result<Self, PlanError> {
        let os_release = os_release(spec);
        let contents = Contents::of(spec, &inputs, epoch);
        let boot_spec = boot_spec(spec, &inputs, epoch);
        let mut root = base_root(&os_release)?;
        let late_modules = inputs.late_modules.iter().chain(&inputs.spare_modules);
        for module in inputs.root_modules.iter().chain(late_modules) {
            root.put_file(
                &module_path(module, MODULES_DIR),
                0o644,
                module.content.clone(),
            )?;
        }
        add_drivers(&mut root, DRIVERS_PATH, &inputs.drivers.all)?;
        for workload in inputs.workloads {
            add_workload(&mut root, workload, spec)?;
        }
        if let Some(ruleset) = firewall::compile(spec) {
            let messages = Content::Bytes(ruleset.messages().into());
            root.put_file(FIREWALL_PATH, 0o644, messages)?;
        }
        if let Some(state) = &boot_spec.state {
            let template = state_template(&spec.name, state.size, epoch)?;
            root.put_file(STATE_TEMPLATE_PATH, 0o644, Content::Bytes(template.into()))?;
        }
        root.put_file(BOOT_SPEC_PATH, 0o644, text(&boot_spec_json(&boot_spec)))?;
        Ok(Self {
            root,
            initramfs: initramfs(&inputs.initrd_modules, &inputs.drivers.storage)?,
            boot_spec,
            os_release,
            kernel_release: inputs.kernel.release,
            kernel: inputs.kernel.image,
            stub: inputs.efi.stub,
            loader: inputs.efi.loader,
            esp_kernels: spec.esp_kernels,
            secure_boot: inputs.secure_boot,
            enroll_at_once: spec.hardware != HardwareProfile::Metal,
            state_size: spec.state_size,
            epoch,
            contents,
            compression: compression(spec.compression),
            failure: spec.failure,
            has_screen: spec.hardware == HardwareProfile::Metal,
            extra_words: spec.command_line.clone(),
        })
    }

    /// Puts the record of contents into the root, now that the boot files are packed.
    ///
    /// # Errors
    /// None but a mistake of ours.
    pub(crate) fn record(&mut self, boot: BootFiles) -> Result<(), TreeError> {
        self.contents.boot = boot;
        let json = text(&self.contents.json());
        self.root.put_file(CONTENTS_PATH, 0o644, json).map(drop)
    }

    /// The kernel's command line for a root hash in hexadecimal.
    pub fn command_line(&self, root_hash: &str) -> String {
        let own = [
            format!("panic={}", self.failure.kernel_panic()),
            format!("{FAILURE_WORD}={}", self.failure),
            format!("roothash={root_hash}"),
        ];
        let words: Vec<&str> = self
            .has_screen
            .then_some(SCREEN)
            .into_iter()
            .chain([SERIAL_LINE])
            .chain(COMMAND_LINE)
            .chain(own.iter().map(String::as_str))
            .chain(self.extra_words.iter().map(String::as_str))
            .collect();
        words.join(" ")
    }

    /// The state partition's GUID and file system UUID. It follows from the machine's name alone, so that another
    /// version of the machine finds the state of the one before.
    pub fn state_uuid(&self) -> Uuid {
        state_uuid(&self.boot_spec.name)
    }

    /// The UKI's place on the ESP, where systemd-boot looks for it (UAPI boot loader specification, type 2).
    pub fn uki_path(&self) -> String {
        format!(
            "EFI/Linux/{}_{}.efi",
            self.boot_spec.name, self.boot_spec.version
        )
    }
}

fn compression(wanted: RootCompression) -> Option<erofs::Compression> {
    match wanted {
        RootCompression::None => None,
        RootCompression::Lz4 => Some(erofs::Compression::Lz4),
        RootCompression::Lz4Hc { level } => Some(erofs::Compression::Lz4Hc(level)),
    }
}

/// What the state's file system is made with, here and, from a template, on the machine.
pub fn state_options(name: &str, epoch: i64) -> ext4::Options {
    ext4::Options {
        uuid: state_uuid(name),
        label: "state".to_owned(),
        time: epoch,
    }
}

/// A file system that init makes is small at first, as the kernel grows it in place.
fn state_template(name: &str, size: u64, epoch: i64) -> Result<Vec<u8>, PlanError> {
    let len = size.min(MOST_OF_TEMPLATE);
    let metadata = ext4::metadata(len, &state_options(name, epoch))?;
    Ok(Template::new(len, &metadata).encode())
}

fn state_uuid(name: &str) -> Uuid {
    named_uuid(&["state", name])
}

/// os-release(5).
fn os_release(spec: &Spec) -> String {
    format!(
        "ID=coracle\nNAME=\"Coracle\"\nPRETTY_NAME=\"{name} {version} (Coracle)\"\nVERSION_ID={version}\nIMAGE_ID={name}\n\
         IMAGE_VERSION={version}\n",
        name = spec.name,
        version = spec.version
    )
}

fn boot_spec(spec: &Spec, inputs: &Inputs, epoch: i64) -> BootSpec {
    let paths = |modules: &[Module]| {
        modules
            .iter()
            .map(|module| module_path(module, MODULES_DIR))
            .collect()
    };
    BootSpec {
        format: BOOT_SPEC_FORMAT,
        name: spec.name.clone(),
        version: spec.version.clone(),
        epoch,
        hostname: spec.hostname.clone(),
        hostname_fixed: spec.hostname_fixed,
        dns: spec.settings.dns.clone(),
        search: spec.settings.search.clone(),
        ntp: spec.settings.ntp.clone(),
        modules: paths(&inputs.root_modules),
        late_modules: paths(&inputs.late_modules),
        drivers: !inputs.drivers.all.modules.is_empty(),
        state: spec.state_size.map(|size| BootState {
            partition_uuid: state_uuid(&spec.name).to_string(),
            mount_point: STATE_MOUNT_POINT.to_owned(),
            size,
            on_damage: spec.on_damage,
        }),
        log: spec.log,
        shutdown_timeout_ms: milliseconds(spec.shutdown_timeout),
        watchdog_s: spec
            .watchdog_timeout
            .map(|timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX)),
        interfaces: spec.interfaces.clone(),
        fabric: boot_fabric(spec, paths(&inputs.spare_modules)),
        pods: spec
            .pods
            .iter()
            .map(|pod| BootPod {
                name: pod.name.clone(),
                hostname: pod.hostname.clone(),
                share_pid: pod.share_pid,
                first_id: pod.first_id,
                network: pod.network,
            })
            .collect(),
        sockets: spec
            .sockets
            .iter()
            .map(|socket| BootSocket {
                name: socket.name.clone(),
                listen: socket.listen.clone(),
                backlog: socket.backlog,
            })
            .collect(),
        workloads: inputs.workloads.iter().map(boot_workload).collect(),
    }
}

/// Its modules are the initrd's, so nothing of it is read through dm-verity but the messages.
fn boot_fabric(spec: &Spec, spare_modules: Vec<String>) -> Option<BootFabric> {
    firewall::compile(spec)?;
    let fabric = &spec.fabric;
    let endpoint = |endpoint: &Endpoint| BootEndpoint {
        name: endpoint.name.clone(),
        link: endpoint.link.clone(),
        address: endpoint.address,
        address6: endpoint.address6,
        names: endpoint.names.clone(),
        networks: endpoint.networks.clone(),
        outside: endpoint.reaches_outside(),
    };
    let (IpAddr::V4(pool), IpAddr::V6(pool6)) = (fabric.pool.address, fabric.pool6.address) else {
        unreachable!("a pool has addresses of its own family");
    };
    Some(BootFabric {
        gateway: fabric.gateway,
        gateway6: fabric.gateway6,
        pool: (pool, fabric.pool.length),
        pool6: (pool6, fabric.pool6.length),
        firewall: FIREWALL_PATH.to_owned(),
        modules: Vec::new(),
        spare_modules,
        endpoints: fabric.endpoints.iter().map(endpoint).collect(),
        resolver: !fabric.endpoints.is_empty(),
    })
}

fn boot_workload(input: &WorkloadInput) -> BootWorkload {
    let workload = &input.workload;
    let restart = &workload.restart;
    BootWorkload {
        name: workload.name.clone(),
        bundle: format!("{BUNDLES_DIR}/{}", workload.name),
        kind: workload.kind,
        after: workload.after.clone(),
        requires: workload.requires.clone(),
        conditions: workload.conditions.clone(),
        pod: workload.pod.clone(),
        sockets: workload.sockets.clone(),
        first_id: workload.first_id,
        network: workload.network,
        io: workload.io,
        volumes: input.volumes.clone(),
        secrets: input.secrets.clone(),
        ports: workload
            .ports
            .iter()
            .map(|p| BootPort {
                address: p.address,
                published: p.published,
                target: p.target,
                count: p.count,
                protocol: p.protocol,
            })
            .collect(),
        readiness: workload.readiness,
        health: workload.health.as_ref().map(boot_health),
        watchdog_ms: workload.watchdog.map(milliseconds),
        restart: BootRestart {
            when: restart.when,
            delay_ms: milliseconds(restart.delay),
            delay_max_ms: milliseconds(restart.delay_max),
            start_limit: restart.start_limit,
        },
        stop_signal: input.stop_signal,
        stop_timeout_ms: milliseconds(workload.stop_timeout),
    }
}

fn boot_health(health: &Health) -> BootHealth {
    BootHealth {
        check: health.check.clone(),
        every_ms: milliseconds(health.every),
        timeout_ms: milliseconds(health.timeout),
        retries: health.retries,
        grace_ms: milliseconds(health.grace),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Plain values without maps of other keys than strings: JSON takes them all.
fn boot_spec_json(spec: &BootSpec) -> String {
    serde_json::to_string(spec).expect("a boot specification is plain data")
}

fn text(content: &str) -> Content {
    Content::Bytes(Arc::from(content.as_bytes()))
}

fn data(bytes: &'static [u8]) -> Content {
    Content::Bytes(Arc::from(bytes))
}

fn symlink(target: &str) -> Inode {
    Inode {
        metadata: Metadata::with_mode(0o777),
        kind: Kind::Symlink(target.as_bytes().to_vec()),
    }
}

/// The machine's own root: mount points and what names the system. Nothing else: our own programs live in the initrd,
/// which the same signature covers as the root hash.
fn base_root(os_release: &str) -> Result<Tree, TreeError> {
    let mut root = Tree::default();
    for directory in [
        "dev",
        "proc",
        "sys",
        "run",
        "state",
        "etc",
        "usr/lib/coracle",
    ] {
        root.make_directories(directory)?;
    }
    let tmp = root.make_directories("tmp")?;
    root.inode_mut(tmp).metadata.mode = 0o1777;
    root.put_file("etc/os-release", 0o644, text(os_release))?;
    root.put("etc/machine-id", symlink("/run/machine-id"))?;
    root.put("etc/resolv.conf", symlink("/run/coracle/etc/resolv.conf"))?;
    root.put("etc/hosts", symlink("/run/coracle/etc/hosts"))?;
    Ok(root)
}

/// The initrd: init and the runtime that it keeps in memory, the modules that lead to the root, and the mount points init needs before it.
fn initramfs(modules: &[Module], drivers: &Drivers) -> Result<Tree, TreeError> {
    let mut tree = Tree::default();
    for directory in ["dev", "proc", "sys", "run", "sysroot"] {
        tree.make_directories(directory)?;
    }
    let console = Kind::CharDevice { major: 5, minor: 1 };
    tree.put(
        "dev/console",
        Inode {
            metadata: Metadata::with_mode(0o600),
            kind: console,
        },
    )?;
    tree.put_file("init", 0o755, data(guest::INIT))?;
    tree.put_file("runtime", 0o755, data(guest::RUNTIME))?;
    let list: String = modules
        .iter()
        .map(|module| format!("{}\n", module_path(module, "/modules")))
        .collect();
    tree.put_file("modules.load", 0o644, text(&list))?;
    for module in modules {
        tree.put_file(
            &module_path(module, "/modules"),
            0o644,
            module.content.clone(),
        )?;
    }
    add_drivers(&mut tree, INITRD_DRIVERS_PATH, drivers)?;
    Ok(tree)
}

/// A folder of modules with the tables that init finds them by; nothing where there are none.
fn add_drivers(tree: &mut Tree, folder: &str, drivers: &Drivers) -> Result<(), TreeError> {
    if drivers.modules.is_empty() {
        return Ok(());
    }
    for (name, table) in [
        ("modules.alias", &drivers.alias),
        ("modules.dep", &drivers.dep),
    ] {
        tree.put_file(&format!("{folder}/{name}"), 0o644, text(table))?;
    }
    for module in &drivers.modules {
        let content = module.content.clone();
        tree.put_file(&module_path(module, folder), 0o644, content)?;
    }
    Ok(())
}

fn module_path(module: &Module, folder: &str) -> String {
    format!("{folder}/{}", module.file_name)
}

/// A workload's layers, each once however many workloads have it, and its bundle.
fn add_workload(root: &mut Tree, input: WorkloadInput, spec: &Spec) -> Result<(), PlanError> {
    let name = input.workload.name.clone();
    let mut lower = Vec::new();
    for layer in input.layers {
        let path = format!("{LAYERS_DIR}/{}", layer_name(&layer.id));
        if root.lookup(&path).is_none() {
            let at = root.make_directories(&path)?;
            root.graft(at, layer.tree)?;
        }
        lower.insert(0, path);
    }
    if lower.len() > MOST_LAYERS {
        return Err(PlanError::TooManyLayers {
            workload: name,
            layers: lower.len(),
        });
    }
    let mut pods = spec.pods.iter();
    let pod = pods.find(|pod| Some(&pod.name) == input.workload.pod.as_ref());
    let share_pid = pod.is_some_and(|pod| pod.share_pid);
    let config = bundle::config_json(&input.workload, &input.process, &lower, share_pid);
    let folder = format!("{BUNDLES_DIR}/{name}");
    root.make_directories(&format!("{folder}/rootfs"))?;
    root.put_file(
        &format!("{folder}/config.json"),
        0o644,
        text(&config.to_string()),
    )?;
    Ok(())
}

/// 96 bits of the digest tell layers apart.
pub(crate) fn layer_name(id: &str) -> &str {
    id.get(..24).unwrap_or(id)
}
