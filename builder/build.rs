//! Builds the two guest programs, `coracle-init` and `coracle-runtime`, as static binaries of the `guest` profile,
//! so that `coracle` can carry them as data. A cargo of its own with a target folder of its own is needed: the
//! flag for static linking would break the host's procedural macros.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Package, binary and the variable that names its path to `include_bytes!`.
const PROGRAMS: [(&str, &str); 2] = [
    ("coracle-init", "CORACLE_GUEST_INIT"),
    ("coracle-runtime", "CORACLE_GUEST_RUNTIME"),
];

/// Names a folder with both programs ready: for who packages Coracle in steps, or wants to look at the builder's code
/// alone. What is in it is taken as it is.
const READY: &str = "CORACLE_GUEST_PROGRAMS";

fn main() {
    println!("cargo::rerun-if-env-changed={READY}");
    let folder = match env::var_os(READY) {
        Some(folder) => ready(PathBuf::from(folder)),
        None => build(),
    };
    list_crates();
    for (program, name) in PROGRAMS {
        println!("cargo::rustc-env={name}={}", folder.join(program).display());
    }
}

/// Writes `crates.tsv`: name, version, checksum and licence of each crate of a registry that is in the programs, by
/// Cargo.lock. It goes into the images' records of contents.
fn list_crates() {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    let lock = workspace.join("Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = fs::read_to_string(&lock).expect("a workspace has a Cargo.lock");
    let output = Command::new(variable("CARGO"))
        .current_dir(&workspace)
        .args(["tree", "--quiet", "--offline", "--no-default-features"])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--format", "{p}\t{l}", "--target", &variable("TARGET")])
        .args(
            PROGRAMS
                .iter()
                .flat_map(|(package, _)| ["--package", package]),
        )
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8_lossy(&output.stdout);
    let mut crates: Vec<String> = tree
        .lines()
        .filter_map(|line| crate_line(line, &lock))
        .collect();
    crates.sort();
    crates.dedup();
    let file = PathBuf::from(variable("OUT_DIR")).join("crates.tsv");
    fs::write(&file, crates.concat()).expect("OUT_DIR can be written");
}

/// `NAME vVERSION[ (…)]`, a tab and the licence, perhaps with `(*)` behind it, as a line of the list. What has no checksum
/// is ours.
fn crate_line(line: &str, lock: &str) -> Option<String> {
    let (package, license) = line.split_once('\t')?;
    let license = license.trim_end_matches(" (*)");
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let head = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
    let entry = lock.split_once(&head)?.1.split("[[package]]").next()?;
    let checksum = entry
        .lines()
        .find_map(|line| line.strip_prefix("checksum = "))?;
    Some(format!(
        "{name}\t{version}\t{}\t{license}\n",
        checksum.trim_matches('"')
    ))
}

/// The folder, if both programs are in it.
fn ready(folder: PathBuf) -> PathBuf {
    for (program, _) in PROGRAMS {
        let file = folder.join(program);
        println!("cargo::rerun-if-changed={}", file.display());
        assert!(
            file.is_absolute() && file.is_file(),
            "{READY} is to be an absolute path of a folder with {program} in it: {}",
            folder.display()
        );
    }
    folder
}

/// Builds both and returns their folder.
fn build() -> PathBuf {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    for input in ["Cargo.toml", "Cargo.lock", "config", "init", "runtime"] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(input).display()
        );
    }
    let target = variable("TARGET");
    let target_dir = target_dir();
    let status = Command::new(variable("CARGO"))
        .current_dir(&workspace)
        .args([
            "build",
            "--quiet",
            "--profile",
            "guest",
            "--bins",
            // A machine of ours has no systemd to ask for cgroups.
            "--no-default-features",
            "--target",
            &target,
        ])
        .args(
            PROGRAMS
                .iter()
                .flat_map(|(package, _)| ["--package", package]),
        )
        .arg("--target-dir")
        .arg(&target_dir)
        .envs_of_the_guest(&workspace)
        .status();
    match status {
        Ok(status) if status.success() => target_dir.join(&target).join("guest"),
        Ok(status) => panic!("building the guest programs failed: {status}"),
        Err(error) => panic!("cargo could not be started: {error}"),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// `guest` beside the profiles' folders: `OUT_DIR` is `TARGET/PROFILE/build/PACKAGE/out`.
fn target_dir() -> PathBuf {
    let out = PathBuf::from(variable("OUT_DIR"));
    out.ancestors()
        .nth(4)
        .expect("OUT_DIR lies four folders deep")
        .join("guest")
}

trait GuestEnvironment {
    fn envs_of_the_guest(&mut self, workspace: &Path) -> &mut Self;
}

impl GuestEnvironment for Command {
    /// Static linking, no path of this machine in the binaries, and nothing of the outer cargo's own settings
    /// (clippy's wrapper, its flags, its profile).
    fn envs_of_the_guest(&mut self, workspace: &Path) -> &mut Self {
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let cargo_home = text == "CARGO_HOME"
                || text.starts_with("CARGO_REGISTRIES")
                || text.starts_with("CARGO_NET")
                || text.starts_with("CARGO_HTTP");
            if (text.starts_with("CARGO") && !cargo_home)
                || text.starts_with("RUSTC")
                || text == "RUSTFLAGS"
                || text.starts_with("CLIPPY")
            {
                self.env_remove(&name);
            }
        }
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        if let Ok(root) = workspace.canonicalize() {
            flags.push(remap(&root, "/coracle"));
        }
        if let Some(home) = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        {
            flags.push(remap(&home, "/cargo"));
        }
        self.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
    }
}
