//! The runtime's own file cannot be overwritten through a process that runs it (the class of CVE-2019-5736).
//!
//! The attacker here has more than a container could: every capability, in the host's namespaces.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Bundle, RUNTIME, bundle};

const DEADLINE: Duration = Duration::from_secs(60);

/// A copy of the runtime, so that an attack that works harms no other test.
///
/// Another program makes it: were it written by this process, a child that another test is just starting could hold
/// the file open for writing, and it could not be executed.
fn victim(bundle: &Bundle) -> PathBuf {
    let path = bundle.directory.join("victim");
    let copied = Command::new("cp").arg(RUNTIME).arg(&path).status();
    assert!(copied.expect("every host has cp").success());
    path
}

/// A pipe without room: whoever prints to it stays.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let size = rustix::pipe::fcntl_getpipe_size(&writer).expect("a size");
    writer
        .write_all(&vec![0; size])
        .expect("it has that much room");
    (reader, writer)
}

/// Waits until a process satisfies a condition.
#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "never: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn command_line(pid: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// The attack: takes hold of the file that a process executes, ends the process, and writes to the file.
fn overwrite(pid: &str, end: impl FnOnce()) -> io::Result<()> {
    let held = File::open(format!("/proc/{pid}/exe")).expect("root may");
    end();
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let begin = Instant::now();
    loop {
        match File::options().write(true).open(&path) {
            // Still executed for a moment.
            Err(error)
                if error.raw_os_error() == Some(libc::ETXTBSY) && begin.elapsed() < DEADLINE =>
            {
                sleep(Duration::from_millis(5));
            }
            other => return other?.write_all(b"#!/owned"),
        }
    }
}

fn is_overwritten(victim: &Path) -> bool {
    fs::read(victim).expect("readable").starts_with(b"#!/owned")
}

/// A child that does not outlive a failed test: it would wait for ever, and hold the output that others read.
struct Started(Child);

impl Started {
    fn by(command: &mut Command) -> Self {
        Self(command.spawn().expect("started"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("our child");
        self.0.wait().expect("our child");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_protection_the_attack_overwrites_the_file() {
    let Some(bundle) = bundle() else { return };
    let victim = victim(&bundle);
    let (_reader, writer) = full_pipe();
    // A command that enters no container needs no protection and has none.
    let mut child = Started::by(Command::new(&victim).arg("--help").stdout(writer));
    let pid = child.0.id().to_string();
    await_that("the program runs", || {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == victim)
    });
    overwrite(&pid, || child.kill()).expect("an unprotected file takes the write");
    assert!(is_overwritten(&victim));
}

#[test]
fn container_that_executes_the_runtime_cannot_overwrite_it() {
    for by_script in [false, true] {
        let Some(bundle) = bundle() else { return };
        let victim = victim(&bundle);
        fs::write(
            bundle.root().join("bin/script"),
            "#!/proc/self/exe --version\n",
        )
        .expect("written");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bundle.root().join("bin/script"), executable).expect("ours");
        let args = if by_script {
            json!(["/bin/script"])
        } else {
            json!(["/proc/self/exe", "--version"])
        };
        // For a runtime that is not static.
        let libraries = ["/usr", "/lib", "/lib64"]
            .into_iter()
            .filter(|path| Path::new(path).exists());
        let bind = |path| json!({ "destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"] });
        let bundle = libraries.fold(bundle, |bundle, path| bundle.mount(bind(path)));
        let bundle = bundle.with("/process/args", args);
        fs::write(
            bundle.directory.join("config.json"),
            bundle.config.to_string(),
        )
        .expect("written");
        let (_reader, writer) = full_pipe();
        let mut child = Started::by(
            Command::new(&victim)
                .arg("--root")
                .arg(bundle.directory.join("state"))
                .args(["run", &bundle.id, "--bundle"])
                .arg(&bundle.directory)
                .stdout(writer),
        );
        await_that("the container runs", || {
            assert_eq!(child.0.try_wait().expect("our child"), None, "it ended");
            let output = bundle.runtime(&["state", &bundle.id]);
            output.stdout.contains("\"running\"")
        });
        let pid = pid(&bundle);
        await_that("the runtime runs inside", || {
            command_line(&pid)
                .split(|&byte| byte == 0)
                .any(|word| word == b"--version")
        });
        let attack = overwrite(&pid, || {
            bundle.runtime(&["kill", &bundle.id, "KILL"]).good();
            child.0.wait().expect("our child");
        });
        let refusal = attack.expect_err("the file must not take the write");
        assert!(
            matches!(refusal.raw_os_error(), Some(libc::EROFS | libc::EPERM)),
            "{refusal}"
        );
        assert!(!is_overwritten(&victim));
    }
}

fn pid(bundle: &Bundle) -> String {
    let state = bundle.runtime(&["state", &bundle.id]).good();
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    state["pid"].to_string()
}

/// Opens its log and waits there for a reader that never comes.
fn stuck_run(victim: &Path, bundle: &Bundle, user: u32) -> Started {
    let fifo = bundle.directory.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .expect("made");
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).expect("ours");
    let mut command = Command::new(victim);
    command.arg("--log").arg(&fifo).args(["run", &bundle.id]);
    command.uid(user).gid(user).stdin(Stdio::null());
    Started::by(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

#[test]
fn ordinary_users_run_a_sealed_copy() {
    let Some(bundle) = bundle() else { return };
    let victim = victim(&bundle);
    let mut child = stuck_run(&victim, &bundle, 65534);
    let pid = child.0.id().to_string();
    let exe = || fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let expected = [b"run\0", bundle.id.as_bytes(), b"\0"].concat();
    await_that("a copy runs, with the same arguments", || {
        exe().to_string_lossy().starts_with("/memfd:") && command_line(&pid).ends_with(&expected)
    });
    let refusal = overwrite(&pid, || child.kill()).expect_err("the copy is sealed");
    assert_eq!(refusal.raw_os_error(), Some(libc::EPERM), "{refusal}");
    assert!(!is_overwritten(&victim));
}
