//! Hooks (config.md, "POSIX-platform Hooks"): programs that run at points of the container's life, with its state
//! on standard input.
//!
//! A hook is a child of whoever runs it: the runtime, or the container's own process for *createContainer* and
//! *startContainer*. It gets no shell, no search in `PATH`, no descriptors but the standard ones, and the
//! environment that it lists, else the runtime's. One that outlives its timeout, or the wish for the container, is
//! killed. Refuses to go on after the first that fails; whether that matters is the caller's to say.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Context, Error, Result};
use crate::{spec, sys};

/// What a failed hook may say in the error.
const MAX_MESSAGE_BYTES: usize = 4096;

/// One hook, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With the name first, as for execv; may be empty.
    pub args: Vec<String>,
    /// As name and value; `None` is the environment of whoever runs it.
    pub env: Option<Vec<(String, String)>>,
    /// After this it is killed.
    pub timeout: Option<Duration>,
}

/// The hooks of a container up to the execve, each list in the order of its execution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// *prestart*, then *createRuntime*: run by the runtime once the namespaces and mounts exist.
    pub create_runtime: Vec<Hook>,
    /// Run by the container's process, before the root becomes `/`.
    pub create_container: Vec<Hook>,
    /// Run by the container's process right before the execve; the paths are the container's.
    pub start_container: Vec<Hook>,
    /// Run by the runtime after the execve.
    pub poststart: Vec<Hook>,
    /// Run by the runtime after the container was deleted.
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// Whether some may look at the root before it becomes `/`.
    pub(crate) fn see_root(&self) -> bool {
        !(self.create_runtime.is_empty() && self.create_container.is_empty())
    }

    /// Refuses relative paths, timeouts below one second and strings with NUL.
    pub fn resolve(hooks: &spec::Hooks) -> Result<Self> {
        let list = |name: &str, hooks: &[spec::Hook]| -> Result<Vec<Hook>> {
            hooks.iter().map(|hook| resolve(name, hook)).collect()
        };
        let mut create_runtime = list("prestart", &hooks.prestart)?;
        create_runtime.extend(list("createRuntime", &hooks.create_runtime)?);
        Ok(Self {
            create_runtime,
            create_container: list("createContainer", &hooks.create_container)?,
            start_container: list("startContainer", &hooks.start_container)?,
            poststart: list("poststart", &hooks.poststart)?,
            poststop: list("poststop", &hooks.poststop)?,
        })
    }
}

fn resolve(list: &str, hook: &spec::Hook) -> Result<Hook> {
    let wrong = |what: &str| Error::Config(format!("hooks.{list}: {what}"));
    if !hook.path.starts_with('/') {
        return Err(wrong(&format!("{:?} is not an absolute path", hook.path)));
    }
    let timeout = match hook.timeout {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => return Err(wrong(&format!("timeout {seconds} is not above zero"))),
        },
    };
    let variable = |entry: &String| match entry.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(wrong(&format!("env: {entry:?} is not NAME=value"))),
    };
    let env = hook
        .env
        .as_ref()
        .map(|env| env.iter().map(variable).collect());
    let resolved = Hook {
        path: PathBuf::from(&hook.path),
        args: hook.args.clone(),
        env: env.transpose()?,
        timeout,
    };
    let strings = hook.env.iter().flatten().chain(&hook.args);
    match strings.chain([&hook.path]).find(|text| text.contains('\0')) {
        Some(text) => Err(wrong(&format!("NUL in {text:?}"))),
        None => Ok(resolved),
    }
}

/// Runs hooks in their order until one fails, or until one of the descriptors in `until` becomes readable: then the
/// container is not wanted any more, and the hook is killed. Nothing is read from them.
pub(crate) fn run(
    list: &str,
    hooks: &[Hook],
    state: &[u8],
    until: &[BorrowedFd<'_>],
) -> Result<()> {
    let run = |hook| run_one(list, hook, state, until);
    hooks.iter().try_for_each(run)
}

/// Runs them all; gives the failures.
pub(crate) fn run_all(list: &str, hooks: &[Hook], state: &[u8]) -> Vec<Error> {
    let run = |hook| run_one(list, hook, state, &[]).err();
    hooks.iter().filter_map(run).collect()
}

fn run_one(list: &str, hook: &Hook, state: &[u8], until: &[BorrowedFd<'_>]) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    if let Some(env) = &hook.env {
        command.env_clear().envs(env.iter().cloned());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    // The runtime reads its signals from a descriptor, with all of them blocked; a hook must be able to be ended.
    // What the caller leaves open is for the command.
    sys::spawn_clean(&mut command);
    let mut child = command
        .spawn()
        .at("execute hook", &hook.path)
        .map_err(|error| named(list, error))?;
    let outcome = attend(&mut child, hook, state, until);
    if outcome.is_err() {
        // Whatever went wrong with watching it: it must not go on unwatched.
        let _ = child.kill();
        let _ = child.wait();
    }
    let (status, said) = outcome.map_err(|error| named(list, error))?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
    };
    let text = String::from_utf8_lossy(&said);
    let said = match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    let path = hook.path.display();
    Err(Error::Hook(format!("{list} hook {path} {how}{said}")))
}

fn named(list: &str, error: Error) -> Error {
    Error::Hook(format!("{list} hook: {}", crate::error::chain(&error)))
}

/// Feeds a hook its state and reads what it complains about, both without blocking on it, until it ends.
fn attend(
    child: &mut Child,
    hook: &Hook,
    state: &[u8],
    until: &[BorrowedFd<'_>],
) -> Result<(ExitStatus, Vec<u8>)> {
    let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.expect("a process has an id"), PidfdFlags::empty())
        .at("watch hook", &hook.path)?;
    let mut stdin = child.stdin.take();
    let mut stderr = child.stderr.take();
    for pipe in [
        stdin.as_ref().map(AsFd::as_fd),
        stderr.as_ref().map(AsFd::as_fd),
    ] {
        rustix::io::ioctl_fionbio(pipe.expect("both are pipes"), true)
            .at("watch hook", &hook.path)?;
    }
    let (mut unsent, mut said) = (state, Vec::new());
    loop {
        feed(&mut stdin, &mut unsent);
        listen(&mut stderr, &mut said);
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        watched.extend(until.iter().map(|end| PollFd::new(end, PollFlags::IN)));
        watched.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        watched.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut watched, timeout.as_ref()) {
            Ok(0) => {
                let path = hook.path.display();
                let timeout = hook.timeout.unwrap_or_default();
                return Err(Error::Hook(format!(
                    "{path} did not end within {timeout:?}"
                )));
            }
            Err(Errno::INTR) => continue,
            other => other.at("watch hook", &hook.path)?,
        };
        if watched[0].revents().contains(PollFlags::IN) {
            listen(&mut stderr, &mut said);
            return Ok((child.wait().at("wait for hook", &hook.path)?, said));
        }
        let ends = &watched[1..=until.len()];
        if ends.iter().any(|end| !end.revents().is_empty()) {
            let path = hook.path.display();
            return Err(Error::Hook(format!(
                "{path} was killed: the container has been given up meanwhile"
            )));
        }
    }
}

/// Writes as much as the pipe takes; closes it at the end. A hook need not read its state.
fn feed(pipe: &mut Option<impl Write>, unsent: &mut &[u8]) {
    while let Some(stream) = pipe {
        match stream.write(unsent) {
            Ok(written) if written < unsent.len() => *unsent = &unsent[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => *pipe = None,
        }
    }
}

/// Reads what is there; more than an error needs is dropped.
fn listen(pipe: &mut Option<impl Read>, said: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Some(stream) = pipe {
        match stream.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => {
                let room = MAX_MESSAGE_BYTES.saturating_sub(said.len());
                said.extend_from_slice(&buffer[..length.min(room)]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => *pipe = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(words: &[&str], timeout: Option<i64>) -> spec::Hook {
        spec::Hook {
            path: words[0].into(),
            args: words.iter().map(|&word| word.into()).collect(),
            env: Some(vec!["A=b=c".into()]),
            timeout,
        }
    }

    fn shell(script: &str, timeout: Option<i64>) -> Result<()> {
        let hook = resolve("poststart", &hook(&["/bin/sh", "-c", script], timeout))?;
        run("poststart", &[hook], br#"{"id":"x"}"#, &[])
    }

    #[test]
    fn what_cannot_be_executed_is_refused_before_anything_runs() {
        for (words, timeout) in [
            (&["relative"][..], None),
            (&[""], None),
            (&["/bin/true", "a\0b"], None),
            (&["/bin/true"], Some(0)),
            (&["/bin/true"], Some(-1)),
        ] {
            assert!(
                resolve("prestart", &hook(words, timeout)).is_err(),
                "{words:?}"
            );
        }
    }

    #[test]
    fn hook_reads_the_state_and_only_its_own_environment() {
        let script = r#"test "$(cat)" = '{"id":"x"}' && test "$A" = b=c && test -z "$HOME""#;
        shell(script, None).expect("it agrees");
    }

    #[test]
    fn failed_hook_is_told_with_its_complaint() {
        let error = shell("echo no luck >&2; exit 7", None).expect_err("it fails");
        let expected = "poststart hook /bin/sh exited with 7: no luck";
        assert!(error.to_string().contains(expected), "{error}");
        let error = shell("kill -KILL $$", None).expect_err("it fails");
        assert!(error.to_string().contains("killed by signal 9"), "{error}");
    }

    #[test]
    fn hook_that_outlives_its_timeout_is_killed() {
        let error = shell("exec sleep 1000", Some(1)).expect_err("it is killed");
        assert!(
            error.to_string().contains("did not end within 1s"),
            "{error}"
        );
    }

    #[test]
    fn hook_that_never_reads_or_talks_without_end_does_not_block_us() {
        let state = vec![b'x'; 1 << 20];
        for script in [
            "exit 0",
            "i=0; while [ $i -lt 9999 ]; do i=$((i+1)); echo 0123456789 >&2; done",
        ] {
            let hook = resolve("poststop", &hook(&["/bin/sh", "-c", script], None)).expect("valid");
            run("poststop", &[hook], &state, &[]).expect("it ends well");
        }
    }
}
