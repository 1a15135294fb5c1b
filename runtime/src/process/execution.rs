//! The last steps of a process before it is the command, the same for `run`, `start` and `exec`: privileges go, the
//! filter comes, execve.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use rustix::fs::{FileType, Mode, fchown, fstat};
use rustix::process::{Uid, setrlimit, umask};
use rustix::thread::set_no_new_privs;

use super::label::Pending;
use super::{identity, listen};
use crate::error::{Context, Error, Result};
use crate::plan::Process;
use crate::seccomp::notify;
use crate::sys;

/// What to execute.
#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
    env: Vec<CString>,
}

/// What may need privileges of the host: to be called before a user namespace is entered.
pub(crate) fn apply_limits(process: &Process) -> Result<()> {
    for &(resource, limit) in &process.rlimits {
        setrlimit(resource, limit).during(format!("set process.rlimits {resource:?}"))?;
    }
    process.attributes.apply()
}

/// Becomes what the command will be, inside the finished root. Returns the file to execute and the environment.
///
/// `control` leads to the runtime, which may have to take the listener of the filter.
pub(crate) fn drop_privileges(process: &Process, control: &mut UnixStream) -> Result<Program> {
    give_streams(process.user.uid);
    // Without no_new_privs, loading the filter needs a capability that is gone afterwards.
    if !process.no_new_privileges {
        load_filter(process, control)?;
    }
    identity::assume(&process.user, &process.capabilities)?;
    if process.no_new_privileges {
        set_no_new_privs(true).during("set no_new_privs")?;
    }
    let mut env = process.env.clone();
    if identity::variable(&env, "HOME").is_none() {
        let home = identity::home(process.user.uid);
        let entry = [b"HOME=", home.as_os_str().as_bytes()].concat();
        env.push(CString::new(entry).map_err(|_| Error::Child("NUL in /etc/passwd".into()))?);
    }
    listen::announce(process.listen_fds, &mut env);
    let path = match process.args.as_slice() {
        [] => CString::default(),
        _ => identity::find_program(&process.program, &env)?,
    };
    umask(Mode::from_raw_mode(process.umask));
    // Only this runtime can give a listener to its agent, and it may be gone when the command is started.
    if process.no_new_privileges && listens(process) {
        load_filter(process, control)?;
    }
    Ok(Program { path, env })
}

/// Whether an agent answers for the filter. Then the runtime must have given it the listener before the execve.
pub(crate) fn listens(process: &Process) -> bool {
    let filter = process.filter.as_ref();
    filter.is_some_and(|filter| filter.listener.is_some())
}

/// Has what is executed next, here or by a child, get the labels, which were opened before the host's `/proc` was gone.
/// Then loads the filter unless it is on already: with no_new_privs it needs no privilege, and goes on last, so that it
/// need not allow what the runtime does.
pub(crate) fn confine(
    process: &Process,
    labels: &mut [Pending],
    control: &mut UnixStream,
) -> Result<()> {
    labels.iter_mut().try_for_each(Pending::write)?;
    match process.no_new_privileges && !listens(process) {
        true => load_filter(process, control),
        false => Ok(()),
    }
}

/// Executes the command; returns only with the reason why not. To be called after [`confine`].
pub(crate) fn execute(process: &Process, program: &Program) -> Error {
    if let Err(error) = process.require_command() {
        return error;
    }
    let failure = sys::execve(&program.path, &process.args, &program.env);
    let operation = match failure.kind() {
        // The file itself was found before.
        io::ErrorKind::NotFound => "find the loader or interpreter of",
        _ => "execute",
    };
    Error::Path {
        operation,
        path: process.program.clone().into(),
        source: failure,
    }
}

/// The user of the process may want to open its streams again (`/dev/stdout`), and pipes have owners. Where that
/// cannot be changed, nothing else is lost.
fn give_streams(uid: u32) {
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    for stream in streams {
        let Ok(stat) = fstat(stream) else { continue };
        // Files and devices of the host keep their owners; a terminal is given away where it is made.
        if stat.st_uid != uid && FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            let _ = fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

fn load_filter(process: &Process, control: &mut UnixStream) -> Result<()> {
    match &process.filter {
        Some(filter) => notify::load(filter, control),
        None => Ok(()),
    }
}
