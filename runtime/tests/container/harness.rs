//! Bundles in a temporary directory, and the real runtime run on them with a deadline.
//!
//! Everything is removed when a test ends. A host that cannot run containers makes the tests say so and pass.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// No command of the runtime takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const RUNTIME: &str = env!("CARGO_BIN_EXE_coracle-runtime");

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit status; minus the signal if one killed it.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout
    }

    /// Checks for a failure told in one line, and returns it.
    #[track_caller]
    pub(crate) fn failure(self) -> String {
        assert_eq!(self.status, 1, "{self:?}");
        assert!(
            self.stderr.starts_with("coracle-runtime: ") && self.stderr.lines().count() == 1,
            "{self:?}"
        );
        self.stderr
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// A bundle with a root of one static program, and the state and cgroup that belong to it.
pub(crate) struct Bundle {
    pub(crate) id: String,
    pub(crate) directory: PathBuf,
    pub(crate) config: Value,
}

/// Gives a bundle, or the reason for there being none on standard error.
pub(crate) fn bundle() -> Option<Bundle> {
    static HELPER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let helper = match HELPER.get_or_init(prepare) {
        Ok(helper) => helper,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return None;
        }
    };
    let id = format!(
        "test-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let directory = std::env::temp_dir().join(format!("coracle-runtime-{id}"));
    fs::create_dir_all(directory.join("rootfs/bin")).expect("temporary directory");
    // By a process of its own: a descriptor that writes the file here could be inherited by what another test starts just
    // now, and the file could not be executed then (ETXTBSY).
    let copied = Command::new("cp")
        .arg(helper)
        .arg(directory.join("rootfs/bin/helper"))
        .status();
    assert!(
        copied.expect("cp is installed").success(),
        "copy of the helper"
    );
    let config = config(&id);
    Some(Bundle {
        id,
        directory,
        config,
    })
}

/// Gives up if the host cannot, else compiles the helper.
fn prepare() -> Result<PathBuf, String> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(|error| format!("no /proc: {error}"))?;
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
    };
    if line("Uid:").split_whitespace().nth(1) != Some("0") {
        return Err("containers need root".into());
    }
    let capabilities = u64::from_str_radix(line("CapEff:").trim(), 16).unwrap_or(0);
    const SYS_ADMIN: u64 = 1 << 21;
    if capabilities & SYS_ADMIN == 0 {
        return Err("containers need CAP_SYS_ADMIN".into());
    }
    cgroup_root().ok_or("no cgroup v2 on this host")?;
    // Where there is no compiler, as in a guest, the helper is brought along.
    if let Some(helper) = std::env::var_os("CORACLE_RUNTIME_TESTS_HELPER") {
        return Ok(helper.into());
    }
    let helper =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("helper-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/helper.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let arguments = [
        "--edition=2024",
        "-Copt-level=1",
        "-Ctarget-feature=+crt-static",
        "-Cpanic=abort",
        "-o",
    ];
    let compiled = Command::new(rustc)
        .args(arguments)
        .arg(&helper)
        .arg(source)
        .status();
    match compiled {
        Ok(status) if status.success() => {
            // One file however often the tests run; renamed, since another run may be copying it just now.
            let kept = helper.with_file_name("helper");
            fs::rename(&helper, &kept).map_err(|error| format!("rename the helper: {error}"))?;
            Ok(kept)
        }
        // The compiler was there to build this test, so this is no reason to skip.
        other => panic!("compile the helper: {other:?}"),
    }
}

pub(crate) fn cgroup_root() -> Option<&'static Path> {
    let candidates = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    candidates
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists())
}

fn config(id: &str) -> Value {
    let plain = |destination: &str, kind: &str, options: Value| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "hostname": "inside",
        "process": {
            "args": ["/bin/helper", "exit", "0"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "mounts": [
            plain("/proc", "proc", json!(["nosuid", "noexec", "nodev"])),
            plain("/dev", "tmpfs", json!(["nosuid", "strictatime", "mode=755", "size=64k"])),
            plain("/dev/pts", "devpts", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])),
            plain("/sys", "sysfs", json!(["nosuid", "noexec", "nodev", "ro"])),
            plain("/sys/fs/cgroup", "cgroup2", json!(["nosuid", "noexec", "nodev", "ro"])),
        ],
        "linux": {
            "cgroupsPath": format!("/coracle-{id}/container"),
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" },
            ],
        },
    })
}

impl Bundle {
    /// Sets the command: arguments of the helper.
    pub(crate) fn command(mut self, words: &str) -> Self {
        let words: Vec<&str> = ["/bin/helper"]
            .into_iter()
            .chain(words.split_whitespace())
            .collect();
        self.config["process"]["args"] = json!(words);
        self
    }

    /// Sets a value of `config.json` at a JSON pointer whose parents exist.
    pub(crate) fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        self.config.pointer_mut(parent).expect("the parent exists")[name] = value;
        self
    }

    pub(crate) fn mount(mut self, mount: Value) -> Self {
        self.config["mounts"]
            .as_array_mut()
            .expect("a list")
            .push(mount);
        self
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        cgroup_root()
            .expect("checked before")
            .join(format!("coracle-{}/container", self.id))
    }

    pub(crate) fn state_directory(&self) -> PathBuf {
        self.directory.join("state").join(&self.id)
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Output {
        self.runtime(&["run", &self.id])
    }

    /// Runs one command of the runtime with this bundle's state and `config.json`.
    pub(crate) fn runtime(&self, words: &[&str]) -> Output {
        self.runtime_with_input(words, Stdio::null())
    }

    /// As [`Bundle::runtime`], with this standard input.
    pub(crate) fn runtime_with_input(&self, words: &[&str], input: Stdio) -> Output {
        let mut command = Command::new(RUNTIME);
        command.arg("--root").arg(self.directory.join("state"));
        if matches!(words[0], "run" | "create") {
            // Only now: another command's runtime may be reading it otherwise.
            fs::write(self.directory.join("config.json"), self.config.to_string())
                .expect("config.json");
            command.arg("--bundle").arg(&self.directory);
        }
        finish_with_input(command.args(words), input, &self.directory)
    }

    /// The status that `state` gives.
    pub(crate) fn status(&self) -> String {
        let state: Value =
            serde_json::from_str(&self.runtime(&["state", &self.id]).good()).expect("JSON");
        state["status"].as_str().expect("a string").to_owned()
    }

    /// Waits until the container's process has ended.
    #[track_caller]
    pub(crate) fn await_status(&self, status: &str) {
        let begin = Instant::now();
        while self.status() != status {
            assert!(
                begin.elapsed() < DEADLINE,
                "not {status}, but {}",
                self.status()
            );
            sleep(Duration::from_millis(5));
        }
    }

    /// Whether the runtime has forgotten the container and its cgroup.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        assert!(!self.state_directory().exists(), "state is left");
        assert!(!self.cgroup().exists(), "cgroup is left");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.runtime(&["delete", "--force", &self.id]);
        let _ = fs::remove_dir_all(&self.directory);
        if let Some(parent) = self.cgroup().parent() {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Runs a command with a deadline. Output goes through files: a detached container may hold it open.
pub(crate) fn finish(command: &mut Command, directory: &Path) -> Output {
    finish_with_input(command, Stdio::null(), directory)
}

fn finish_with_input(command: &mut Command, input: Stdio, directory: &Path) -> Output {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let paths = ["out", "err"].map(|name| directory.join(format!("{name}-{number}")));
    let [out, err] = paths
        .each_ref()
        .map(|path| fs::File::create(path).expect("output file"));
    let mut child = command
        .stdin(input)
        .stdout(out)
        .stderr(err)
        .spawn()
        .expect("the runtime is built");
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break status,
            None if begin.elapsed() > DEADLINE => {
                child.kill().expect("it is our child");
                panic!("no end after {DEADLINE:?}: {command:?}");
            }
            None => sleep(Duration::from_millis(1)),
        }
    };
    let [stdout, stderr] = paths.map(|path| fs::read_to_string(path).expect("text"));
    let status = status
        .code()
        .unwrap_or_else(|| -status.signal().expect("no code, so a signal"));
    Output {
        status,
        stdout,
        stderr,
    }
}
