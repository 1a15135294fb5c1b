//! Standard tools of the host, run with their output in the error if they fail.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs a tool to its end and returns its standard output.
///
/// # Errors
/// If it is not installed or fails; the error has all that it wrote.
pub fn run_tool<T: AsRef<OsStr>>(
    tool: T,
    arguments: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<String> {
    let mut command = Command::new(&tool);
    // The administrator's tools are on every host's disk, but not on every user's path.
    command.env("PATH", search_path());
    arguments(&mut command);
    let output = command
        .output()
        .with_context(|| format!("start {}", tool.as_ref().display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} {:?} failed ({}):\n{stdout}{}",
        tool.as_ref().display(),
        command.get_args().collect::<Vec<_>>(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}

/// A program that dies with the thread that starts it, however that ends: what runs for hours must not outlive a test that
/// was killed, which drops nothing.
pub(crate) fn mortal(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.env("PATH", search_path());
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Whether a tool is not installed: a case that needs it says so and passes over itself. In continuous integration
/// (`CORACLE_TESTS_SKIP_NOTHING` is set) nothing may be passed over.
pub fn tool_is_missing(tool: &str, package: &str) -> bool {
    let installed = std::env::split_paths(&search_path()).any(|path| path.join(tool).is_file());
    if installed {
        return false;
    }
    assert!(
        std::env::var_os("CORACLE_TESTS_SKIP_NOTHING").is_none(),
        "{tool} (Debian package {package}) is not installed"
    );
    eprintln!("skipped: {tool} (Debian package {package}) is not installed");
    true
}

/// Where tools are looked for.
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
