//! A validated workload: the part of the [`Spec`](crate::Spec) that becomes an OCI bundle.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;

use crate::boot::{Protocol, Readiness, Restart};
use crate::diagnostic::{Diagnostic, suggest};
use crate::linux;
use crate::log;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::secret;
pub use crate::secret::Secret;
use crate::value::{self, Parsed, Port};

/// How often a health check runs if the file does not say.
const DEFAULT_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a workload may take to stop if the file does not say.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The size of a workload's writable layer if the file does not say, in bytes.
const DEFAULT_SCRATCH: u64 = 64 << 20;
/// The least size of a volume, in bytes.
const LEAST_VOLUME: u64 = 64 << 10;
/// The least memory limit, in bytes: below it no process starts.
const LEAST_MEMORY: u64 = 1 << 20;

/// A validated workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name, a DNS label.
    pub name: String,
    /// Where its root comes from.
    pub source: Source,
    /// The command, in place of the image's entrypoint and command; always there for a root of packages.
    pub command: Option<Vec<String>>,
    /// The arguments, in place of the image's command behind its entrypoint.
    pub args: Option<Vec<String>>,
    /// Environment variables beside the image's own.
    pub env: Vec<(String, String)>,
    /// `USER[:GROUP]` by name or number; `None`: the image's.
    pub user: Option<Text>,
    /// The working directory; `None`: the image's.
    pub working_dir: Option<String>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// What must be ready before it starts.
    pub after: Vec<String>,
    /// Volumes on the state partition.
    pub volumes: Vec<Volume>,
    /// Files laid over its root.
    pub files: Vec<File>,
    /// Secrets that it reads.
    pub secrets: Vec<Secret>,
    /// The memory limit in bytes.
    pub memory: Option<u64>,
    /// The processor limit in thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// The most processes and threads.
    pub pids: Option<u32>,
    /// What makes it ready.
    pub readiness: Readiness,
    /// How often its readiness is checked once it is ready.
    pub check_interval: Duration,
    /// Its capabilities; `None`: the default of its user.
    pub capabilities: Option<Vec<String>>,
    /// Its root cannot be written.
    pub read_only: bool,
    /// The size of its writable layer in bytes.
    pub scratch: u64,
    /// What happens when it exits.
    pub restart: Restart,
    /// The signal that asks it to stop; `None`: the image's, or SIGTERM.
    pub stop_signal: Option<i32>,
    /// How long it may take to stop.
    pub stop_timeout: Duration,
}

/// Where a workload's root comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// An image, `TRANSPORT:PATH[:TAG]`, relative to the file's folder.
    Image(Text),
    /// Debian packages with all they depend on.
    Debian(Spanned<Vec<String>>),
}

/// A named volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name on the state partition, a DNS label.
    pub name: String,
    /// Where the workload sees it.
    pub path: String,
    /// It cannot be written there.
    pub read_only: bool,
    /// `USER[:GROUP]` by name or number that it belongs to; `None`: as the image's directory.
    pub owner: Option<Text>,
    /// Its permission bits; `None`: as the image's directory.
    pub mode: Option<u16>,
    /// The most bytes that it may hold.
    pub size: Option<u64>,
}

/// A file laid over the root.
#[derive(Debug, Clone)]
pub struct File {
    /// Where the workload sees it.
    pub path: String,
    /// What it is.
    pub content: FileContent,
    /// Permission bits (of no meaning for a link).
    pub mode: u16,
}

/// What a laid-over file is.
#[derive(Debug, Clone)]
pub enum FileContent {
    /// This text.
    Text(String),
    /// A file of the host, relative to the file's folder.
    Host(Text),
    /// A symbolic link to this target.
    Link(String),
}

impl Workload {
    /// Validates one; its mistakes are kept and something harmless takes the value's place.
    pub(crate) fn new(name: &Text, from: &manifest::Workload, mistakes: &mut Mistakes) -> Self {
        mistakes.take(log::workload_name(name));
        let ports = mistakes.take_all(&from.ports, value::port);
        let (readiness, check_interval) = health(from, &ports, mistakes);
        check_unique_paths(from, mistakes);
        check_command(name, from, mistakes);
        mistakes.take_some(from.user.as_ref(), without_nul);
        Self {
            name: name.get_ref().clone(),
            source: source(name, from, mistakes),
            command: words(from.command.as_ref(), mistakes),
            args: words(from.args.as_ref(), mistakes),
            env: environment(from, mistakes),
            user: from.user.clone(),
            working_dir: mistakes.take_some(from.working_dir.as_ref(), working_dir),
            ports,
            after: from
                .after
                .iter()
                .map(|after| after.get_ref().clone())
                .collect(),
            volumes: from
                .volumes
                .iter()
                .filter_map(|v| mistakes.take(volume(v)))
                .collect(),
            files: from
                .files
                .iter()
                .filter_map(|f| mistakes.take(file(f)))
                .collect(),
            secrets: secret::secrets(from, mistakes),
            memory: mistakes.take_some(from.memory.as_ref(), memory),
            cpu_millis: from
                .cpus
                .as_ref()
                .and_then(|cpus| mistakes.take(cpu_millis(cpus))),
            pids: from
                .pids
                .as_ref()
                .and_then(|pids| mistakes.take(process_limit(pids))),
            readiness,
            check_interval,
            capabilities: from
                .capabilities
                .as_ref()
                .map(|list| mistakes.take_all(list, linux::capability)),
            read_only: from.read_only,
            scratch: mistakes
                .take_some(from.scratch.as_ref(), memory)
                .unwrap_or(DEFAULT_SCRATCH),
            restart: mistakes
                .take_some(from.restart.as_ref(), restart)
                .unwrap_or(Restart::Always),
            stop_signal: mistakes.take_some(from.stop_signal.as_ref(), linux::signal),
            stop_timeout: mistakes
                .take_some(from.stop_timeout.as_ref(), value::duration)
                .unwrap_or(DEFAULT_STOP_TIMEOUT),
        }
    }
}

fn source(name: &Text, from: &manifest::Workload, mistakes: &mut Mistakes) -> Source {
    let nothing = || Source::Debian(Spanned::new(name.span(), Vec::new()));
    match (&from.image, &from.debian) {
        (Some(image), None) => {
            mistakes.take(value::image_reference(image));
            Source::Image(image.clone())
        }
        (None, Some(packages)) => {
            if packages.get_ref().is_empty() {
                mistakes.push(
                    Diagnostic::at(packages.span(), "`debian` names no package")
                        .hint("as in debian = [\"nginx-light\"]"),
                );
            }
            Source::Debian(Spanned::new(
                packages.span(),
                mistakes.take_all(packages.get_ref(), value::package),
            ))
        }
        (Some(image), Some(_)) => {
            mistakes.push(
                Diagnostic::at(
                    image.span(),
                    format!(
                        "workload `{}` has both `image` and `debian`",
                        name.get_ref()
                    ),
                )
                .hint("its root comes from one of them: remove the other"),
            );
            nothing()
        }
        (None, None) => {
            mistakes.push(
                Diagnostic::at(
                    name.span(),
                    format!("workload `{}` has no image", name.get_ref()),
                )
                .hint("add image = \"oci:DIR\" or debian = [\"PACKAGE\"]"),
            );
            nothing()
        }
    }
}

fn check_command(name: &Text, from: &manifest::Workload, mistakes: &mut Mistakes) {
    if from.debian.is_some() && from.command.is_none() {
        mistakes.push(
            Diagnostic::at(name.span(), format!("workload `{}` has no command", name.get_ref()))
                .hint("a root of Debian packages says nothing of what to run: add command = [\"PROGRAM\", …]"),
        );
    }
    if let (Some(_), Some(args)) = (&from.command, &from.args) {
        mistakes.push(Diagnostic::at(args.span(), "`args` beside `command`").hint(
            "`command` is the whole command line; `args` keeps the image's entrypoint: remove one",
        ));
    }
    for list in [&from.command, &from.args].into_iter().flatten() {
        let is_command = from
            .command
            .as_ref()
            .is_some_and(|c| c.span() == list.span());
        if is_command
            && list
                .get_ref()
                .first()
                .is_none_or(|program| program.get_ref().is_empty())
        {
            mistakes.push(
                Diagnostic::at(list.span(), "`command` names no program")
                    .hint("as in command = [\"nginx\", \"-g\", \"daemon off;\"]"),
            );
        }
    }
}

fn words(list: Option<&Spanned<Vec<Text>>>, mistakes: &mut Mistakes) -> Option<Vec<String>> {
    list.map(|list| mistakes.take_all(list.get_ref(), without_nul))
}

fn without_nul(text: &Text) -> Parsed<String> {
    if text.get_ref().contains('\0') {
        return Err(Diagnostic::at(
            text.span(),
            format!("`{}` contains a NUL", text.get_ref().escape_debug()),
        )
        .hint("remove it: no argument can hold one"));
    }
    Ok(text.get_ref().clone())
}

fn environment(from: &manifest::Workload, mistakes: &mut Mistakes) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, value) in &from.env {
        if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
            mistakes.push(
                Diagnostic::at(
                    name.span(),
                    format!("`{}` is no variable name", name.get_ref().escape_debug()),
                )
                .hint("a name without `=`, as in env = { LANG = \"C\" }"),
            );
        }
        if let Some(value) = mistakes.take(without_nul(value)) {
            pairs.push((name.get_ref().clone(), value));
        }
    }
    pairs
}

/// The root directory, or a plain absolute path.
fn working_dir(text: &Text) -> Parsed<String> {
    if text.get_ref() == "/" {
        Ok("/".to_owned())
    } else {
        value::absolute_path(text)
    }
}

fn volume(from: &manifest::Volume) -> Parsed<Volume> {
    let path = value::absolute_path(&from.path)?;
    // What every workload has there would be hidden, and with it what is masked.
    if let Some(taken) = ["proc", "sys", "dev"]
        .into_iter()
        .find(|first| path.split('/').nth(1) == Some(first))
    {
        return Err(Diagnostic::at(
            from.path.span(),
            format!("no volume can be at `{path}`: /{taken} is the kernel's"),
        )
        .hint("mount it elsewhere, as in path = \"/data\""));
    }
    Ok(Volume {
        name: value::dns_label(&from.name, "volume name")?,
        path,
        read_only: from.read_only,
        owner: from.owner.clone(),
        mode: from.mode.as_ref().map(value::mode).transpose()?,
        size: from.size.as_ref().map(volume_size).transpose()?,
    })
}

/// At least what an empty directory takes, with some room.
fn volume_size(text: &Text) -> Parsed<u64> {
    let size = value::size(text)?;
    if size < LEAST_VOLUME {
        return Err(
            Diagnostic::at(text.span(), format!("`{}` is too small", text.get_ref()))
                .hint("64KiB is the least"),
        );
    }
    Ok(size)
}

fn file(from: &manifest::File) -> Parsed<File> {
    let path = value::absolute_path(&from.path)?;
    let content = match (&from.content, &from.source, &from.link) {
        (Some(text), None, None) => FileContent::Text(text.get_ref().clone()),
        (None, Some(source), None) => FileContent::Host(source.clone()),
        (None, None, Some(link)) if !link.get_ref().is_empty() => {
            FileContent::Link(without_nul(link)?)
        }
        _ => {
            return Err(Diagnostic::at(
                from.path.span(),
                format!("file `{path}` needs one of `content`, `source` and `link`"),
            )
            .hint("as in { path = \"/etc/motd\", content = \"hello\\n\" }"));
        }
    };
    let mode = from
        .mode
        .as_ref()
        .map(value::mode)
        .transpose()?
        .unwrap_or(0o644);
    Ok(File {
        path,
        content,
        mode,
    })
}

/// No two volumes or files of a workload at one path.
fn check_unique_paths(from: &manifest::Workload, mistakes: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for path in from
        .volumes
        .iter()
        .map(|v| &v.path)
        .chain(from.files.iter().map(|f| &f.path))
        .chain(from.secrets.iter().filter_map(|s| s.path.as_ref()))
    {
        if !seen.insert(path.get_ref()) {
            mistakes.push(
                Diagnostic::at(
                    path.span(),
                    format!("`{}` is taken already", path.get_ref()),
                )
                .hint("give each volume and file its own path"),
            );
        }
    }
}

fn memory(text: &Text) -> Parsed<u64> {
    let size = value::size(text)?;
    if size < LEAST_MEMORY {
        return Err(
            Diagnostic::at(text.span(), format!("`{}` is too small", text.get_ref()))
                .hint("1MiB is the least"),
        );
    }
    Ok(size)
}

/// From 0.01 (the kernel's least quota) to 1024 processors, in thousandths.
fn cpu_millis(cpus: &Spanned<f64>) -> Parsed<u64> {
    let value = *cpus.get_ref();
    if !(0.01..=1024.0).contains(&value) {
        return Err(Diagnostic::at(
            cpus.span(),
            format!("`{value}` processors are out of range"),
        )
        .hint("from 0.01 to 1024.0, as in cpus = 1.5"));
    }
    // In range, so the product is a small positive number.
    Ok((value * 1000.0).round() as u64)
}

fn process_limit(pids: &Spanned<i64>) -> Parsed<u32> {
    u32::try_from(*pids.get_ref())
        .ok()
        .filter(|n| (1..=4_194_304).contains(n))
        .ok_or_else(|| {
            Diagnostic::at(
                pids.span(),
                format!("`{}` processes are out of range", pids.get_ref()),
            )
            .hint("from 1 to 4194304")
        })
}

fn restart(text: &Text) -> Parsed<Restart> {
    match text.get_ref().as_str() {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "never" => Ok(Restart::Never),
        other => Err(
            Diagnostic::at(text.span(), format!("`{other}` is no restart policy"))
                .hint(suggest(other, ["always", "on-failure", "never"])),
        ),
    }
}

/// The health check; without one the first TCP port counts, and without a port the running process.
fn health(
    from: &manifest::Workload,
    ports: &[Port],
    mistakes: &mut Mistakes,
) -> (Readiness, Duration) {
    let by_port = || match ports.iter().find(|p| p.protocol == Protocol::Tcp) {
        Some(port) => Readiness::Tcp { port: port.target },
        None => Readiness::Started,
    };
    let Some(health) = &from.health else {
        return (by_port(), DEFAULT_CHECK_INTERVAL);
    };
    let interval = mistakes
        .take_some(health.get_ref().every.as_ref(), value::duration)
        .unwrap_or(DEFAULT_CHECK_INTERVAL);
    let readiness = match (&health.get_ref().http, &health.get_ref().tcp) {
        (Some(url), None) => mistakes
            .take(value::http_target(url))
            .map(|target| Readiness::Http {
                port: target.port,
                path: target.path,
                host: target.host,
            }),
        (None, Some(target)) => mistakes
            .take(value::tcp_target(target))
            .map(|port| Readiness::Tcp { port }),
        _ => {
            mistakes.push(
                Diagnostic::at(health.span(), "`health` needs one of `http` and `tcp`")
                    .hint("as in health = { http = \"http://:80/\", every = \"10s\" }"),
            );
            None
        }
    };
    (readiness.unwrap_or_else(by_port), interval)
}
