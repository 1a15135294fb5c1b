//! Drives the host's own apt, without root and without touching the host's package state.
//!
//! apt reads the host's sources, keyrings, proxies and pins, but has its own lists, cache and an empty package status
//! in our cache, so it answers as for an empty machine. Hooks of the host's configuration are not run. For another
//! suite the sources are derived: the same mirrors, the other release. It installs nothing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::progress::Progress;
use crate::source::cache::{Cache, CacheError};
use crate::source::error::FileError;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian/";
const DEFAULT_SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security/";

/// The package status of an empty machine. That /usr is merged is so by construction (see `unpack`); if apt did not
/// know it, older releases would bring in `usrmerge` and all of perl.
const EMPTY_MACHINE: &str = "\
Package: usr-is-merged
Status: install ok installed
Priority: optional
Section: oldlibs
Maintainer: coracle <coracle@localhost>
Architecture: all
Multi-Arch: foreign
Version: 100
Description: /usr is merged
";

/// Directories whose lists this process has already brought up to date.
static UPDATED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Why apt gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// There is no apt on the host.
    #[error("{program} is not here: Debian packages are found by the host's own apt")]
    Missing {
        /// The program.
        program: &'static str,
    },
    /// It could not be started or read.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("{what}: apt says: {said}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its error lines.
        said: String,
    },
    /// The cache's path cannot be told to apt.
    #[error("the cache's path {} has a character that apt cannot take", _0.display())]
    Path(PathBuf),
    /// Its files cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// apt with its own state, for one suite.
#[derive(Debug)]
pub(super) struct Apt {
    directory: PathBuf,
    suite: Option<String>,
    /// Held while this value lives, and while an apt of ours does: its own locks do not wait.
    lock: File,
}

impl Apt {
    /// Sets apt up for a suite, or for the host's own sources.
    ///
    /// # Errors
    /// [`AptError`], if its files cannot be written.
    pub(super) fn open(cache: &Cache, suite: Option<&str>) -> Result<Self, AptError> {
        let key = suite.unwrap_or("host");
        // apt's configuration has no way to write these.
        let odd = |b: &u8| matches!(b, b'"' | b'\\' | b'\n' | b';');
        if cache.root().as_os_str().as_encoded_bytes().iter().any(odd) {
            return Err(AptError::Path(cache.root().to_owned()));
        }
        let lock = cache.lock(&format!("apt-{key}"))?;
        let directory = cache.directory(&format!("apt/{key}"))?;
        for part in ["lists/partial", "archives/partial"] {
            cache.directory(&format!("apt/{key}/{part}"))?;
        }
        let apt = Self {
            directory,
            suite: suite.map(str::to_owned),
            lock,
        };
        apt.write("status", EMPTY_MACHINE)?;
        apt.write("apt.conf", &apt.configuration())?;
        if let Some(suite) = suite {
            apt.write("sources.list", &derived_sources(suite))?;
        }
        Ok(apt)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), AptError> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(FileError::of("write", &path))?;
        Ok(())
    }

    fn configuration(&self) -> String {
        let at = |name: &str| self.directory.join(name).to_string_lossy().into_owned();
        let mut text = String::new();
        for hook in [
            "APT::Update::Pre-Invoke",
            "APT::Update::Post-Invoke",
            "APT::Update::Post-Invoke-Success",
            "DPkg::Pre-Invoke",
            "DPkg::Post-Invoke",
            "DPkg::Pre-Install-Pkgs",
            "APT::Architectures",
            "Acquire::IndexTargets::deb::DEP-11",
            "Acquire::IndexTargets::deb::DEP-11-icons-small",
            "Acquire::IndexTargets::deb::DEP-11-icons",
            "Acquire::IndexTargets::deb::DEP-11-icons-hidpi",
            "Acquire::IndexTargets::deb::CNF",
            "Acquire::IndexTargets::deb::Contents-deb",
        ] {
            text += &format!("#clear {hook};\n");
        }
        for (key, file) in [
            ("Dir::State", ""),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::State::extended_states", "extended_states"),
            ("Dir::Cache", ""),
            ("Dir::Cache::archives", "archives"),
            ("Dir::Log", ""),
        ] {
            text += &format!("{key} \"{}\";\n", at(file));
        }
        text += "APT::Architecture \"amd64\";\nAPT::Architectures { \"amd64\"; };\n";
        text += "APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n";
        text += "APT::Install-Suggests \"false\";\nAcquire::Retries \"3\";\n";
        if self.suite.is_some() {
            text += "#clear APT::Default-Release;\n";
            text += &format!("Dir::Etc::sourcelist \"{}\";\n", at("sources.list"));
            text += "Dir::Etc::sourceparts \"/dev/null\";\n";
        }
        text
    }

    /// Brings the package lists up to date, once in this process.
    ///
    /// # Errors
    /// [`AptError`]. apt may have got some of the lists all the same.
    pub(super) fn update(&self, progress: &Progress) -> Result<(), AptError> {
        let mut updated = UPDATED
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !updated.insert(self.directory.clone()) {
            return Ok(());
        }
        let which = self.suite.as_deref().unwrap_or("the host's sources");
        let step = progress.step(format!("Debian package lists of {which}"), None);
        // Without this apt succeeds when it has reached no mirror at all.
        let arguments = ["update", "-o", "APT::Update::Error-Mode=any"];
        self.run("apt-get", &arguments, &self.directory, || step.advance(0))
            .and_then(|output| self.check("the package lists cannot be fetched", output))?;
        Ok(())
    }

    /// What apt would install on an empty machine: name, version and architecture, in its order.
    ///
    /// # Errors
    /// [`AptError`], with apt's reason.
    pub(super) fn simulate(
        &self,
        packages: &[String],
        recommends: bool,
    ) -> Result<Vec<[String; 3]>, AptError> {
        let recommends = format!("APT::Install-Recommends={recommends}");
        let mut arguments = vec!["install", "-s", "-qq", "-y", "-o", &recommends, "--"];
        arguments.extend(packages.iter().map(String::as_str));
        let output = self.run("apt-get", &arguments, &self.directory, || {})?;
        let text = self.check(&format!("cannot resolve {}", packages.join(", ")), output)?;
        Ok(text.lines().filter_map(parse_inst).collect())
    }

    /// The records of packages (`name`, or `name:architecture=version`), field by field.
    ///
    /// # Errors
    /// [`AptError`], if apt does not know one.
    pub(super) fn show(&self, packages: &[String]) -> Result<Vec<Record>, AptError> {
        let mut arguments = vec!["show", "-q", "--no-all-versions", "--"];
        arguments.extend(packages.iter().map(String::as_str));
        let output = self.run("apt-cache", &arguments, &self.directory, || {})?;
        let text = self.check(&format!("no package {}", packages.join(", ")), output)?;
        Ok(text.split("\n\n").map(Record::parse).collect())
    }

    /// Downloads packages into a directory; `tick` is called now and then with the bytes that are there.
    ///
    /// # Errors
    /// [`AptError`]; some may be there all the same.
    pub(super) fn download(
        &self,
        packages: &[String],
        into: &Path,
        mut tick: impl FnMut(u64),
    ) -> Result<(), AptError> {
        let mut arguments = vec!["download", "-qq", "--"];
        arguments.extend(packages.iter().map(String::as_str));
        let output = self.run("apt-get", &arguments, into, || tick(bytes_in(into)))?;
        tick(bytes_in(into));
        self.check("cannot download", output)?;
        Ok(())
    }

    fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
        directory: &Path,
        mut tick: impl FnMut(),
    ) -> Result<Output, AptError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => AptError::Missing { program },
            _ => AptError::Run { program, source },
        };
        // apt reads nothing there; but if we are killed, it still holds the lock for as long as it goes on.
        let stdin = self.lock.try_clone().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("-c")
            .arg(self.directory.join("apt.conf"))
            .args(arguments)
            .current_dir(directory)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let read = |pipe: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                io::BufReader::new(pipe)
                    .read_to_end(&mut bytes)
                    .map(|_| bytes)
            })
        };
        let stdout = read(Box::new(child.stdout.take().expect("it is piped")));
        let stderr = read(Box::new(child.stderr.take().expect("it is piped")));
        while !stdout.is_finished() || !stderr.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            tick();
        }
        let join = |thread: std::thread::JoinHandle<io::Result<Vec<u8>>>| {
            thread.join().expect("reading does not panic")
        };
        let (stdout, stderr) = (join(stdout), join(stderr));
        let status = child.wait().map_err(failed)?;
        Ok(Output {
            status,
            stdout: stdout.map_err(failed)?,
            stderr: stderr.map_err(failed)?,
        })
    }

    fn check(&self, what: &str, output: Output) -> Result<String, AptError> {
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(AptError::Refused {
            what: what.to_owned(),
            said: error_lines(&output),
        })
    }
}

/// A record of a package list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record(Vec<(String, String)>);

impl Record {
    fn parse(text: &str) -> Self {
        let fields = text.lines().filter(|line| !line.starts_with(' '));
        let fields = fields.filter_map(|line| line.split_once(':'));
        Self(
            fields
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    /// A field's first line.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.as_str())
    }
}

/// `Inst NAME [OLD] (VERSION ORIGIN [ARCHITECTURE]) …`
fn parse_inst(line: &str) -> Option<[String; 3]> {
    let rest = line.strip_prefix("Inst ")?;
    let (name, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once('(')?;
    let (inner, _) = rest.split_once(')')?;
    let (version, _) = inner.split_once(' ')?;
    let (_, architecture) = inner.rsplit_once('[')?;
    let architecture = architecture.strip_suffix(']')?;
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    Some([name, version, architecture].map(str::to_owned))
}

fn error_lines(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let errors: Vec<&str> = stderr
        .lines()
        .filter_map(|l| l.strip_prefix("E: "))
        .collect();
    let unmet = stdout
        .lines()
        .filter(|l| l.contains("Depends:"))
        .map(str::trim);
    let all: Vec<&str> = errors.into_iter().chain(unmet).take(8).collect();
    if all.is_empty() {
        return stderr.trim().to_owned();
    }
    all.join("; ")
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes.map(|metadata| metadata.len()).sum()
}

/// The host's mirrors with another suite.
fn derived_sources(suite: &str) -> String {
    let targets = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(COMPONENT)",
            "Created-By: Packages",
        ])
        .env("LC_ALL", "C.UTF-8")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    render_sources(&targets, suite, Path::new(KEYRING).exists())
}

fn render_sources(targets: &str, suite: &str, keyring: bool) -> String {
    let mirrors = |archive: &str, default: &str| {
        let pairs = targets.lines().filter_map(|line| line.split_once(' '));
        let found: BTreeSet<(String, String)> = pairs
            .filter(|(uri, _)| uri.trim_end_matches('/').ends_with(archive))
            .map(|(uri, component)| (uri.to_owned(), component.to_owned()))
            .collect();
        if found.is_empty() {
            BTreeSet::from([(default.to_owned(), "main".to_owned())])
        } else {
            found
        }
    };
    let options = if keyring {
        format!("[arch=amd64 signed-by={KEYRING}]")
    } else {
        "[arch=amd64]".to_owned()
    };
    let mut text = String::new();
    let main = mirrors("/debian", DEFAULT_MIRROR);
    // unstable and experimental have neither updates nor security suites.
    let rolling = ["sid", "unstable", "experimental", "rc-buggy"].contains(&suite);
    for (uri, component) in &main {
        text += &format!("deb {options} {uri} {suite} {component}\n");
        if !rolling {
            text += &format!("deb {options} {uri} {suite}-updates {component}\n");
        }
    }
    if !rolling {
        for (uri, component) in mirrors("/debian-security", DEFAULT_SECURITY_MIRROR) {
            text += &format!("deb {options} {uri} {suite}-security {component}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulation_lines_are_read() {
        for (line, want) in [
            (
                "Inst libc6 (2.36-9 Debian:12.15/oldstable [amd64])",
                Some(["libc6", "2.36-9", "amd64"]),
            ),
            (
                "Inst libgcc-s1 (12.2.0 Debian:12/oldstable, Debian-Security:12/x [all]) []",
                Some(["libgcc-s1", "12.2.0", "all"]),
            ),
            ("Inst a [1] (2 Debian:1 [amd64])", Some(["a", "2", "amd64"])),
            ("Conf libc6 (2.36-9 Debian:12.15/oldstable [amd64])", None),
            ("Inst broken", None),
        ] {
            let want = want.map(|w| w.map(str::to_owned));
            assert_eq!(parse_inst(line), want, "{line}");
        }
    }

    #[test]
    fn other_suites_come_from_the_same_mirrors() {
        let targets = "http://mirror.example/debian/ main\nhttp://mirror.example/debian/ contrib\n\
                       http://sec.example/debian-security/ main\nhttp://x.example/apt/ main\n";
        let text = render_sources(targets, "trixie", false);
        assert_eq!(
            text,
            "deb [arch=amd64] http://mirror.example/debian/ trixie contrib\n\
             deb [arch=amd64] http://mirror.example/debian/ trixie-updates contrib\n\
             deb [arch=amd64] http://mirror.example/debian/ trixie main\n\
             deb [arch=amd64] http://mirror.example/debian/ trixie-updates main\n\
             deb [arch=amd64] http://sec.example/debian-security/ trixie-security main\n"
        );
        let text = render_sources("", "sid", true);
        assert!(text.contains("deb.debian.org/debian/ sid main") && text.lines().count() == 1);
    }
}
