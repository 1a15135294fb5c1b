//! The real `coracle`, run as a user runs it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::case::{Case, seconds, target_directory};
use crate::tool::run_tool;

/// How long a build may take; the first one fetches packages.
const BUILD_TIME: Duration = seconds(600);

/// The command in a case's folder.
#[derive(Debug, Clone, Copy)]
pub struct Coracle<'a> {
    case: &'a Case,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it exited.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails unless it exited with this code.
    ///
    /// # Errors
    /// With all that it wrote.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.status.code() == Some(code),
            "coracle ended with {} instead of exit code {code}\nstandard output:\n{}\nstandard error:\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Fails unless standard error has all of these texts.
    ///
    /// # Errors
    /// With the text that is missing.
    pub fn expect_stderr(self, texts: &[&str]) -> Result<Self> {
        for text in texts {
            let stderr = &self.stderr;
            ensure!(
                stderr.contains(text),
                "no {text:?} in standard error:\n{stderr}"
            );
        }
        Ok(self)
    }
}

impl<'a> Coracle<'a> {
    /// For one case.
    pub fn new(case: &'a Case) -> Self {
        Self { case }
    }

    /// Builds a machine file's text into `NAME.img` in the case's folder.
    ///
    /// # Errors
    /// If `coracle build` fails.
    pub fn build(&self, name: &str, machine: &str) -> Result<PathBuf> {
        let file = self.case.write(&format!("{name}.toml"), machine)?;
        let disk = self.case.path(format!("{name}.img"));
        self.build_file(&file, &disk)?;
        Ok(disk)
    }

    /// Builds a machine file into `disk`.
    ///
    /// # Errors
    /// If `coracle build` fails.
    pub fn build_file(&self, file: &Path, disk: &Path) -> Result<()> {
        let arguments = [
            OsStr::new("build"),
            file.as_ref(),
            OsStr::new("-o"),
            disk.as_ref(),
        ];
        self.run(&arguments, BUILD_TIME)?.expect_code(0)?;
        Ok(())
    }

    /// Runs the command to its end.
    ///
    /// # Errors
    /// If it cannot be started or takes longer than `patience`.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A], patience: Duration) -> Result<Finished> {
        self.start(arguments, |command| command)?.wait(patience)
    }

    /// Starts the command; `adapt` may change its environment.
    ///
    /// # Errors
    /// If it cannot be built or started.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        adapt: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Running> {
        let number = (1..)
            .find(|number| !self.case.path(format!("coracle-{number}.stdout")).exists())
            .context("name the log")?;
        let log = |stream: &str| self.case.path(format!("coracle-{number}.{stream}"));
        let (stdout, stderr) = (log("stdout"), log("stderr"));
        let mut command = Command::new(program()?);
        command.args(arguments).current_dir(self.case.folder());
        adapt(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .process_group(0)
            .spawn()
            .context("start coracle")?;
        Ok(Running {
            child,
            stdout,
            stderr,
        })
    }
}

/// A command that runs; it is killed when the value is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Waits until standard error has `text` in it.
    ///
    /// # Errors
    /// If it has not within `patience`, or the command ends before.
    pub fn expect_stderr(&mut self, text: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.child.try_wait().context("wait for coracle")?.is_some();
            if read(&self.stderr)?.contains(text) {
                return Ok(());
            }
            if ended || Instant::now() > deadline {
                return Err(anyhow!("no {text:?} in {}", self.quote()));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal by its name, as `kill` takes it.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let process = self.child.id().to_string();
        run_tool("kill", |kill| kill.args(["-s", signal, &process]))?;
        Ok(())
    }

    /// The process, to look at.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it takes longer than `patience`; it is killed then.
    pub fn wait(mut self, patience: Duration) -> Result<Finished> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().context("wait for coracle")? {
                return Ok(Finished {
                    status,
                    stdout: read(&self.stdout)?,
                    stderr: read(&self.stderr)?,
                });
            }
            if Instant::now() > deadline {
                let time = patience.as_secs();
                return Err(anyhow!(
                    "coracle still runs after {time} s; {}",
                    self.quote()
                ));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn quote(&self) -> String {
        let text = read(&self.stderr).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n    ");
        format!("{}:\n    {last}", self.stderr.display())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `CORACLE` of the environment, or else the workspace's own, built now as a release.
fn program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| match std::env::var_os("CORACLE") {
        Some(path) => Ok(path.into()),
        None => build_in_workspace("coracle-builder", "coracle").map_err(|e| format!("{e:#}")),
    });
    found.as_deref().map_err(|reason| anyhow!(reason.clone()))
}

/// Builds a package of the workspace as a release and returns one of its files.
///
/// # Errors
/// If Cargo fails.
pub fn build_in_workspace(package: &str, file: &str) -> Result<PathBuf> {
    let target = target_directory()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run_tool(cargo, |cargo| {
        cargo
            .args(["build", "--release", "--package", package, "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
    })?;
    Ok(target.join("release").join(file))
}
