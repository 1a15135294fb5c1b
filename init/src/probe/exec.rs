//! A command inside a workload as its probe, by `runtime exec`:
//! `coracle-init probe until|once MILLISECONDS RUNTIME ROOT NAME COMMAND …`.
//!
//! Exit status 0: it succeeded; 1: it did not; 2: the command line is wrong. `until` goes on until it succeeds. The
//! milliseconds are what one try may take.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::request::parse_kind;
use crate::supervise::event::ProbeKind;
use crate::sys;

/// The pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The runtime that knows the workload, as a child of PID 1 reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The program.
    pub program: String,
    /// Where it keeps its state.
    pub root: String,
    /// The container.
    pub container: String,
}

/// The arguments for a probe process.
#[must_use]
pub fn arguments(
    kind: ProbeKind,
    timeout_ms: u64,
    runtime: &Runtime,
    command: &[String],
) -> Vec<String> {
    let kind = match kind {
        ProbeKind::UntilReady => "until",
        ProbeKind::Once => "once",
    };
    let Runtime {
        program,
        root,
        container,
    } = runtime;
    let words = [
        "probe",
        kind,
        &timeout_ms.to_string(),
        program,
        root,
        container,
    ];
    let words = words.map(str::to_owned).into_iter();
    words.chain(command.iter().cloned()).collect()
}

/// Runs the probe that the arguments after `probe` describe; returns the exit status.
#[must_use]
pub fn run(arguments: &[String]) -> i32 {
    let Some((kind, timeout, runtime, command)) = parse(arguments) else {
        return 2;
    };
    let mut pause = FIRST_PAUSE;
    loop {
        if try_once(&runtime, command, timeout).is_ok() {
            return 0;
        }
        if kind == ProbeKind::Once {
            return 1;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn parse(arguments: &[String]) -> Option<(ProbeKind, Duration, Runtime, &[String])> {
    let [kind, timeout, program, root, container, command @ ..] = arguments else {
        return None;
    };
    let milliseconds = timeout.parse().ok().filter(|&ms: &u64| ms > 0)?;
    let runtime = Runtime {
        program: program.clone(),
        root: root.clone(),
        container: container.clone(),
    };
    let timeout = Duration::from_millis(milliseconds);
    (!command.is_empty()).then_some((parse_kind(kind)?, timeout, runtime, command))
}

/// Executes the command as the workload's own user; an error unless it exits with status 0 in time. One that takes
/// too long is killed.
fn try_once(runtime: &Runtime, command: &[String], timeout: Duration) -> io::Result<()> {
    // One a workload, as there is one probe of it at a time: those that are killed do not leave ever more files behind.
    let pid_file = format!("{}.probe-{}", runtime.root, runtime.container);
    // What a killed one left names a process that may be another by now.
    let _ = std::fs::remove_file(&pid_file);
    let mut child = Command::new(&runtime.program)
        .args(["--root", &runtime.root, "exec", "--pid-file", &pid_file])
        .arg(&runtime.container)
        .args(command)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let ended = wait_at_most(&child, timeout);
    if !matches!(ended, Ok(true)) {
        kill(&mut child, &pid_file);
    }
    let status = child.wait();
    let _ = std::fs::remove_file(&pid_file);
    match (ended?, status?.success()) {
        (true, true) => Ok(()),
        (true, false) => Err(io::ErrorKind::Other.into()),
        (false, _) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Whether the child ended in time.
fn wait_at_most(child: &Child, timeout: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(poll(&mut ended, Some(&timeout))? > 0)
}

/// Kills the command, which outlives the runtime that executed it, and then the runtime.
fn kill(child: &mut Child, pid_file: &str) {
    let command = std::fs::read_to_string(pid_file);
    if let Some(pid) = command.ok().and_then(|pid| pid.trim().parse().ok()) {
        let _ = sys::kill(pid, libc::SIGKILL);
    }
    let _ = child.kill();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A stand-in for the runtime: notes its process id in the file of `--pid-file`, and executes the command; or hangs
    /// before that.
    const RUNTIME: &str =
        "#!/bin/sh\n[ \"$7\" = hang ] && exec sleep 60\necho $$ > \"$5\"; shift 6; exec \"$@\"\n";

    #[test]
    fn arguments_are_parsed_back_and_wrong_ones_refused() {
        let runtime = Runtime {
            program: "/proc/1/fd/9".to_owned(),
            root: "/run/r".to_owned(),
            container: "web".to_owned(),
        };
        let command = ["ok".to_owned(), "--all".to_owned()];
        let words = arguments(ProbeKind::Once, 1500, &runtime, &command);
        let parsed = parse(&words[1..]);
        let timeout = Duration::from_millis(1500);
        assert_eq!(
            parsed,
            Some((ProbeKind::Once, timeout, runtime, &command[..]))
        );
        for bad in [
            "",
            "until",
            "once 0 /r /s web true",
            "once x /r /s web true",
            "perhaps 5000 /r /s web true",
            "once 5000 /r /s web",
        ] {
            let arguments: Vec<String> = bad.split_whitespace().map(str::to_owned).collect();
            assert_eq!(run(&arguments), 2, "{bad}");
        }
    }

    #[test]
    fn only_a_command_that_succeeds_in_time_passes() {
        let folder = std::env::temp_dir().join(format!("coracle-probe-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("runtime");
        fs::write(&program, RUNTIME).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = Runtime {
            program: program.display().to_string(),
            root: folder.display().to_string(),
            container: "web".to_owned(),
        };
        let long = Duration::from_secs(60);
        let ask = |words: &[&str], timeout| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            try_once(&runtime, &words, timeout)
        };
        assert!(ask(&["true"], long).is_ok());
        assert!(ask(&["false"], long).is_err());
        assert!(ask(&["/no/such/program"], long).is_err());
        // A probe that was killed has left its file.
        let left = folder.with_extension("probe-web");
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(&left, stranger.id().to_string()).unwrap();
        let hung = ask(&["hang"], Duration::from_millis(200));
        let lives = stranger.try_wait().unwrap().is_none();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(hung.is_err() && lives && !left.exists());
        let late = ask(&["sleep", "1000"], Duration::from_millis(200)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        fs::remove_dir_all(&folder).unwrap();
    }
}
