//! Programs for a lab guest: the host's own, the runtime as images carry it, and the runtime's tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::unique;
use crate::case::{Case, target_directory};
use crate::coracle::build_in_workspace;
use crate::tool::{run_tool, search_path};

/// An installed command.
///
/// # Errors
/// If it is not installed; the error names its Debian package.
pub fn find_program(command: &str, package: &str) -> Result<PathBuf> {
    let found = std::env::split_paths(&search_path())
        .map(|folder| folder.join(command))
        .find(|path| path.is_file());
    found.with_context(|| format!("{command} (Debian package {package}) is not installed"))
}

/// The shared libraries of a program, its loader among them; none of a static one.
pub(super) fn libraries(file: &Path) -> Result<Vec<PathBuf>> {
    // ldd fails for a static program.
    let script = "ldd \"$0\" 2>/dev/null || true";
    let listing = run_tool("sh", |sh| sh.args(["-c", script]).arg(file))?;
    ensure!(
        !listing.contains("not found"),
        "{} lacks libraries:\n{listing}",
        file.display()
    );
    Ok(unique(library_paths(&listing)))
}

fn library_paths(listing: &str) -> impl Iterator<Item = PathBuf> + '_ {
    listing
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
}

/// The static runtime as `coracle` carries it into images. `CORACLE` in the environment says that `coracle`, and so
/// the runtime, has been built.
///
/// # Errors
/// If it cannot be built.
pub fn guest_runtime() -> Result<PathBuf> {
    if std::env::var_os("CORACLE").is_none() {
        build_in_workspace("coracle-builder", "coracle")?;
    }
    let folder = target_directory()?.join("guest");
    let found = run_tool("find", |find| {
        find.arg(&folder)
            .args(["-path", "*/guest/coracle-runtime", "-type", "f"])
            .args(["-not", "-path", "*/deps/*"])
    })?;
    let line = found.lines().next();
    line.map(PathBuf::from)
        .with_context(|| format!("no coracle-runtime in {}", folder.display()))
}

/// The program that the runtime's tests run inside containers, compiled into the case's folder.
///
/// # Errors
/// If `rustc` fails.
pub fn runtime_test_helper(case: &Case) -> Result<PathBuf> {
    let helper = case.path("helper");
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    run_tool(rustc, |rustc| {
        rustc
            .args(["--edition=2024", "-Copt-level=1", "-Cpanic=abort"])
            .args(["-Ctarget-feature=+crt-static", "-o"])
            .arg(&helper)
            .arg(runtime.join("tests/container/helper.rs"))
    })?;
    Ok(helper)
}

/// A test binary of the runtime, and where it looks for the runtime.
#[derive(Debug)]
pub struct TestProgram {
    /// The test binary.
    pub file: PathBuf,
    /// The path of the runtime that was compiled into it.
    pub runtime: PathBuf,
}

/// Builds integration tests of the runtime, with what `cargo test` for the workspace has built already.
///
/// # Errors
/// If Cargo fails.
pub fn runtime_tests(name: &str) -> Result<TestProgram> {
    // The selection of packages decides on the features of dependencies, so it is that of the whole test run.
    let selection = ["--workspace", "--exclude", "coracle-qemu-tests"];
    let messages = build_without_running("test", &selection, name)?;
    let target = target_directory()?;
    let file = executable(&messages, name).with_context(|| format!("Cargo built no {name}"))?;
    let runtime = executable(&messages, "coracle-runtime")
        .unwrap_or_else(|| target.join("debug/coracle-runtime"));
    Ok(TestProgram { file, runtime })
}

/// Builds the program that measures the start of a container.
///
/// # Errors
/// If Cargo fails.
pub fn runtime_bench() -> Result<PathBuf> {
    let messages = build_without_running("bench", &["-p", "coracle-runtime"], "start")?;
    executable(&messages, "start").context("Cargo built no benchmark")
}

/// Has Cargo build a test or benchmark. Returns its messages.
fn build_without_running(kind: &str, selection: &[&str], name: &str) -> Result<String> {
    let target = target_directory()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run_tool(cargo, |cargo| {
        cargo
            .args([kind, "--no-run"])
            .args(selection)
            .args([&format!("--{kind}"), name])
            .args(["--message-format=json", "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
    })
}

/// The executable of a target in Cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages.filter_map(|message| {
        let matches = message["target"]["name"] == name;
        let executable = message["executable"].as_str().filter(|_| matches);
        executable.map(PathBuf::from)
    });
    executables.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_of_a_listing() {
        let listing = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
        let paths: Vec<_> = library_paths(listing).collect();
        assert_eq!(
            paths,
            ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
    }

    #[test]
    fn executable_of_a_target_is_found_among_the_messages() {
        let messages = "{\"reason\":\"x\",\"target\":{\"name\":\"a\"},\"executable\":null}\n\
            {\"target\":{\"name\":\"b\"},\"executable\":\"/b\"}\nnoise\n";
        assert_eq!(executable(messages, "b"), Some(PathBuf::from("/b")));
        assert_eq!(executable(messages, "a"), None);
    }
}
