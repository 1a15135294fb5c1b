//! Pods: namespaces that several workloads share, made and removed by short-lived children of PID 1.
//!
//! `coracle-init pod make NAME HOSTNAME FIRST_ID NETWORK PID` (the last three `-` for what is the machine's or each
//! workload's own) leaves them as files that the workloads' bundles join, and `coracle-init pod remove NAME` takes
//! them away. A pod that shares its pid namespace has a first process there, `coracle-init pod pause`, since the
//! namespace would end with the first workload else; other pods have no process of their own. Exit status 0: done;
//! 1: not, the reason is on standard error; 2: the command line is wrong.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use config::boot::{BootPod, Network};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{DumpableBehavior, chroot, set_dumpable_behavior};
use rustix::system::sethostname;

use crate::net::{attach, netlink};
use crate::{SELF, sys};

/// Where the namespaces lie; the builder writes the same into the bundles.
pub const PODS: &str = "/run/coracle/pods";

/// What the first process of a pod is called, which PID 1 never is.
pub const PAUSE_NAME: &str = "coracle-pause";
/// The ids of a user namespace.
const IDS: u32 = 65_536;
/// Whom the first process of a pod is, so that no workload of it can touch it.
const NOBODY: u32 = 65_534;
/// In the pod's folder: the first process's id, and an empty folder that is its root.
const PAUSE_PID: &str = "pause.pid";
const EMPTY: &str = "empty";

/// What a pod's namespaces are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    name: String,
    hostname: String,
    first_id: Option<u32>,
    network: Network,
    share_pid: bool,
}

/// The words that make a pod.
#[must_use]
pub fn make_arguments(pod: &BootPod) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        "pod".to_owned(),
        "make".to_owned(),
        pod.name.clone(),
        pod.hostname.clone(),
        or_dash(pod.first_id.map(|id| id.to_string())),
        network_word(pod.network).to_owned(),
        or_dash(pod.share_pid.then(|| "pid".to_owned())),
    ]
}

const fn network_word(network: Network) -> &'static str {
    match network {
        Network::Host => "-",
        Network::None => "none",
        Network::Own => "own",
    }
}

/// The words that remove it.
#[must_use]
pub fn remove_arguments(pod: &BootPod) -> Vec<String> {
    vec!["pod".to_owned(), "remove".to_owned(), pod.name.clone()]
}

/// Runs the child that the words after `pod` describe; returns the exit status.
#[must_use]
pub fn run(words: &[String]) -> i32 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["make", rest @ ..] => match parse(rest) {
            Some(wanted) => make(&wanted),
            None => return 2,
        },
        ["remove", name] => remove(name),
        ["hold", rest @ ..] => match parse(rest) {
            Some(wanted) => hold(&wanted),
            None => return 2,
        },
        ["pause", root] => pause(root),
        _ => return 2,
    };
    match result {
        Ok(()) => 0,
        Err(reason) => {
            eprintln!("{reason}");
            1
        }
    }
}

fn parse(words: &[&str]) -> Option<Wanted> {
    let [name, hostname, first_id, network, pid] = words else {
        return None;
    };
    let flag = |word: &str, set: &str| match word {
        "-" => Some(false),
        other => (other == set).then_some(true),
    };
    Some(Wanted {
        name: (*name).to_owned(),
        hostname: (*hostname).to_owned(),
        first_id: match *first_id {
            "-" => None,
            id => Some(id.parse().ok()?),
        },
        network: [Network::Host, Network::None, Network::Own]
            .into_iter()
            .find(|wanted| network_word(*wanted) == *network)?,
        share_pid: flag(pid, "pid")?,
    })
}

impl Wanted {
    fn words(&self) -> Vec<String> {
        make_arguments(&BootPod {
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            share_pid: self.share_pid,
            first_id: self.first_id,
            network: self.network,
        })
        .split_off(2)
    }

    fn folder(&self) -> PathBuf {
        Path::new(PODS).join(&self.name)
    }

    /// `CLONE_NEW*` of unshare(2). The user namespace is made first, so the others are its own.
    fn flags(&self) -> i32 {
        let mut flags = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        for (wanted, flag) in [
            (self.first_id.is_some(), libc::CLONE_NEWUSER),
            (self.network.is_separate(), libc::CLONE_NEWNET),
            (self.share_pid, libc::CLONE_NEWPID),
        ] {
            if wanted {
                flags |= flag;
            }
        }
        flags
    }

    /// File in the pod's folder, and name below `/proc/PID/ns`.
    fn files(&self) -> Vec<(&'static str, &'static str)> {
        let all = [
            (true, "ipc", "ipc"),
            (true, "uts", "uts"),
            (self.first_id.is_some(), "user", "user"),
            (self.network.is_separate(), "net", "net"),
            (self.share_pid, "pid", "pid_for_children"),
        ];
        let wanted = all.into_iter().filter(|(wanted, ..)| *wanted);
        wanted.map(|(_, file, name)| (file, name)).collect()
    }
}

/// Has a child make the namespaces, gives it its ids, and binds what it has before it ends.
fn make(wanted: &Wanted) -> Result<(), String> {
    remove(&wanted.name)?;
    let folder = wanted.folder();
    fs::create_dir_all(folder.join(EMPTY)).map_err(|error| at("make", &folder, &error))?;
    let mut holder = Holder::start(wanted)?;
    let result = holder.hear().and_then(|_| {
        let pid = holder.child.id();
        if let Some(first) = wanted.first_id {
            map_ids(pid, first)?;
        }
        holder.tell()?;
        let first = holder.hear()?;
        if wanted.share_pid {
            let file = folder.join(PAUSE_PID);
            fs::write(&file, first).map_err(|error| at("write", &file, &error))?;
        }
        bind(wanted, pid)?;
        // This process is in the pod's network namespace then.
        if wanted.network == Network::Own {
            attach::attach_process(&wanted.name, pid)?;
        }
        holder.tell()
    });
    holder.end();
    if result.is_err() {
        let _ = remove(&wanted.name);
    }
    result
}

fn map_ids(pid: u32, first: u32) -> Result<(), String> {
    for map in ["gid_map", "uid_map"] {
        let path = PathBuf::from(format!("/proc/{pid}/{map}"));
        fs::write(&path, format!("0 {first} {IDS}\n"))
            .map_err(|error| at("write", &path, &error))?;
    }
    Ok(())
}

fn bind(wanted: &Wanted, pid: u32) -> Result<(), String> {
    for (file, name) in wanted.files() {
        let path = wanted.folder().join(file);
        File::create(&path).map_err(|error| at("make", &path, &error))?;
        mount_bind(format!("/proc/{pid}/ns/{name}"), &path)
            .map_err(|errno| at("bind a namespace to", &path, &errno.into()))?;
    }
    Ok(())
}

/// The id of the first process of a pod that shares its pid namespace.
#[must_use]
pub fn first_process(name: &str) -> Option<i32> {
    let text = fs::read_to_string(Path::new(PODS).join(name).join(PAUSE_PID)).ok()?;
    text.trim().parse().ok().filter(|&pid: &i32| pid > 1)
}

/// Whether a process is such a one still: when that ended, its id may be another's.
fn is_first_process(pid: i32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|&byte| byte == 0).next() == Some(PAUSE_NAME.as_bytes())
}

/// Takes away what there is of a pod: a first process with all in its namespace, bound files, the folder.
fn remove(name: &str) -> Result<(), String> {
    let folder = Path::new(PODS).join(name);
    if let Some(pid) = first_process(name).filter(|&pid| is_first_process(pid)) {
        let _ = sys::kill(pid, libc::SIGKILL);
    }
    for file in ["ipc", "uts", "user", "net", "pid"] {
        let _ = unmount(folder.join(file), UnmountFlags::DETACH);
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &folder, &error)),
        _ => Ok(()),
    }
}

/// The child that is in the namespaces until they are bound. It says a line when they are made, hears one when its
/// ids are mapped, says one when it is done (the first process's id), hears one when all is bound, and ends then, or
/// with its standard input.
struct Holder {
    child: Child,
    input: Option<ChildStdin>,
}

impl Holder {
    fn start(wanted: &Wanted) -> Result<Self, String> {
        let mut child = Command::new(SELF)
            .args(["pod", "hold"])
            .args(wanted.words())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot execute a child: {error}"))?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    fn hear(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let mut byte = [0];
        let output = self.child.stdout.as_mut().ok_or("no output")?;
        while output
            .read(&mut byte)
            .map_err(|error| format!("cannot hear the child: {error}"))?
            == 1
        {
            match byte[0] {
                b'\n' => return Ok(line),
                other => line.push(other.into()),
            }
        }
        Err("the child made no namespaces".to_owned())
    }

    fn tell(&mut self) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("no input")?;
        input
            .write_all(b"\n")
            .map_err(|error| format!("cannot tell the child: {error}"))
    }

    fn end(mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn hold(wanted: &Wanted) -> Result<(), String> {
    let explain = |what: &'static str| move |error: io::Error| format!("cannot {what}: {error}");
    sys::unshare(wanted.flags()).map_err(explain("make the namespaces"))?;
    if wanted.network == Network::None {
        netlink::bring_up_loopback().map_err(explain("bring up the loopback interface"))?;
    }
    sethostname(wanted.hostname.as_bytes())
        .map_err(|errno| explain("set the hostname")(errno.into()))?;
    println!();
    hear_word().map_err(explain("hear that the ids are mapped"))?;
    let mut first = None;
    if wanted.share_pid {
        let child = start_pause(wanted).map_err(explain("execute the first process"))?;
        println!("{}", child.id());
        first = child.stdin;
    } else {
        println!();
    }
    // Until the other side has written down what there is. If it is gone before, so is the first process: nobody else
    // would know of it.
    hear_word().map_err(explain("hear that the pod is there"))?;
    if let Some(mut first) = first {
        let told = first.write_all(b"\n");
        told.map_err(explain("tell the first process"))?;
    }
    Ok(())
}

fn hear_word() -> io::Result<()> {
    io::stdin().read_exact(&mut [0])
}

fn start_pause(wanted: &Wanted) -> io::Result<Child> {
    let mut command = Command::new(SELF);
    command
        .arg0(PAUSE_NAME)
        .args(["pod", "pause"])
        .arg(wanted.folder().join(EMPTY))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if wanted.first_id.is_some() {
        command.uid(0).gid(0);
    }
    command.spawn()
}

/// The first process of a shared pid namespace: takes no room, sees no file, reaps what is left to it.
fn pause(root: &str) -> Result<(), String> {
    let explain = |errno: rustix::io::Errno| format!("cannot become the first process: {errno}");
    sys::let_children_vanish();
    chroot(root).map_err(explain)?;
    rustix::process::chdir("/").map_err(explain)?;
    sys::become_user(NOBODY).map_err(|error| format!("cannot become nobody: {error}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(explain)?;
    hear_word().map_err(|error| format!("nobody knows of the first process: {error}"))?;
    loop {
        std::thread::park();
    }
}

fn at(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(first_id: Option<u32>, network: Network, share_pid: bool) -> BootPod {
        BootPod {
            name: "p".to_owned(),
            hostname: "h".to_owned(),
            share_pid,
            first_id,
            network,
        }
    }

    #[test]
    fn what_a_pod_is_to_be_survives_the_command_line() {
        for (pod, flags, files) in [
            (pod(None, Network::Host, false), 0, vec!["ipc", "uts"]),
            (
                pod(Some(65_536), Network::Own, true),
                libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWPID,
                vec!["ipc", "uts", "user", "net", "pid"],
            ),
        ] {
            let words = make_arguments(&pod);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let wanted = parse(&words[2..]).unwrap();
            assert_eq!(wanted.words(), words[2..]);
            let always = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
            assert_eq!(wanted.flags(), flags | always);
            let names: Vec<_> = wanted.files().iter().map(|(file, _)| *file).collect();
            assert_eq!(names, files);
        }
    }

    #[test]
    fn another_process_is_not_taken_for_the_first_of_a_pod() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!is_first_process(own) && !is_first_process(i32::MAX));
        let mut sleep = Command::new("sleep");
        let mut child = sleep.arg0(PAUSE_NAME).arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // A program has its words a moment after it is executed.
        let is_first = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            is_first_process(pid)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_first);
    }

    #[test]
    fn wrong_words_are_refused() {
        for words in [
            "",
            "make p",
            "make p h x - -",
            "make p h - - yes",
            "make p h - network -",
            "remove",
            "stop p",
        ] {
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            assert_eq!(run(&words), 2, "{words:?}");
        }
    }
}
