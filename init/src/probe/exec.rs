//! One command inside a workload, by `runtime exec`.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::Runtime;
use crate::sys;

/// Executes the command as the workload's own user; an error unless it exits with status 0 in time. One that takes
/// too long is killed.
pub(super) fn run(runtime: &Runtime, command: &[String], timeout: Duration) -> io::Result<()> {
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
            run(&runtime, &words, timeout)
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
