//! The network as PID 1 sees it: children that do everything, and the lines that they tell.
//!
//! PID 1 parses no packets and nobody's JSON: a child does ([`helper::Task`]), and sends lines ([`message::Message`])
//! through a pipe. What the children tell each other is a file ([`facts`]).

pub mod attach;
pub mod confine;
pub mod dhcp;
pub mod dhcp6;
pub mod domain_name;
pub mod endpoints;
mod entropy;
pub mod fabric;
pub mod facts;
pub mod firewall;
pub mod helper;
pub mod message;
pub mod netlink;
pub mod ntp;
pub mod pulse;
#[cfg(test)]
mod random;
pub mod relief;
pub mod resolver;
pub mod uplink;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use config::boot::BootSpec;

use crate::console::Console;
use crate::supervise::event::Exit;
use crate::sys::{self, Stage};
use helper::{Helper, Task};
use message::Message;
use relief::{LOOK, LOOK_AGAIN};

/// Where the files that workloads mount are.
pub const FILES: &str = "/run/coracle/etc";
/// What workloads with the machine's network read name servers from.
pub const RESOLV_CONF: &str = "/run/coracle/etc/resolv.conf";
const HOSTS: &str = "/run/coracle/etc/hosts";

/// The children, and what is known by them.
#[derive(Debug)]
pub struct Network {
    helpers: Vec<Helper>,
    /// The interfaces that have an address, by their names in the file.
    bound: BTreeSet<String>,
    was_bound: bool,
    /// When the table of connections is looked at next.
    look_at: Option<Duration>,
}

impl Network {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(spec: &BootSpec) -> Self {
        Self {
            helpers: tasks(spec).into_iter().map(Helper::new).collect(),
            bound: BTreeSet::new(),
            was_bound: false,
            look_at: None,
        }
    }

    /// Whether there is such a child at all.
    #[must_use]
    pub fn has(&self, task: Task) -> bool {
        self.helpers.iter().any(|helper| helper.task == task)
    }

    /// Some interface has an address.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.bound.is_empty()
    }

    /// When [`Network::due`] will have something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let starts = self.helpers.iter().filter_map(Helper::start_at);
        let silences = self.helpers.iter().filter_map(Helper::silent_at);
        starts.chain(self.look_at).chain(silences).min()
    }

    /// The children that are to be started now.
    #[must_use]
    pub fn due(&self, now: Duration) -> Vec<usize> {
        let is_due = |index: &usize| self.helpers[*index].start_at().is_some_and(|at| at <= now);
        (0..self.helpers.len()).filter(is_due).collect()
    }

    /// Has the table of connections relieved when it is nearly full; `is_crowded` tells.
    pub fn look(&mut self, now: Duration, is_crowded: impl FnOnce() -> bool) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        let is_crowded = is_crowded();
        self.look_at = Some(now + if is_crowded { LOOK_AGAIN } else { LOOK });
        if is_crowded {
            self.begin(|task| task == Task::Relief, now);
        }
    }

    /// Kills the children that hang: they end then as others do.
    pub fn kill_silent(&mut self, now: Duration, console: &mut Console) {
        for helper in &mut self.helpers {
            if helper.silent_at().is_some_and(|at| at <= now) {
                console.say(format_args!("{} hangs: killing it", helper.task.word()));
                helper.signal(libc::SIGKILL);
                helper.hear(now);
            }
        }
    }

    /// Starts a child; returns its process id.
    ///
    /// # Errors
    /// When there is no pipe or no process to be had.
    pub fn start(&mut self, index: usize, now: Duration) -> io::Result<i32> {
        self.helpers[index].start(now)
    }

    /// The pipe on which a child tells.
    #[must_use]
    pub fn pipe(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.helpers.get(index)?.pipe()
    }

    /// The boot is over: what no workload waited for begins.
    pub fn end_boot(&mut self, now: Duration) {
        self.begin(Task::is_late, now);
    }

    fn begin(&mut self, which: impl Fn(Task) -> bool, now: Duration) {
        let helpers = self.helpers.iter_mut();
        helpers
            .filter(|helper| which(helper.task))
            .for_each(|helper| helper.begin(now));
    }

    /// Takes what a child told.
    pub fn read(&mut self, index: usize, now: Duration, console: &mut Console) {
        let Some(helper) = self.helpers.get_mut(index) else {
            return;
        };
        helper.hear(now);
        let word = helper.task.word();
        for message in helper.read() {
            self.on_message(word, message, console);
        }
    }

    fn on_message(&mut self, word: &str, message: Message, console: &mut Console) {
        // A new `uplink` says of each interface what it lacks, which is no news unless a former one had it.
        let is_news = !matches!(&message, Message::Lost { label } if !self.bound.contains(label));
        self.update(&message);
        match message {
            Message::Bound { label, text } => {
                console.say(format_args!("network {label} {text}"));
                if !std::mem::replace(&mut self.was_bound, true) {
                    sys::mark(Stage::Network);
                    console.say("stage network");
                }
            }
            Message::Lost { .. } if !is_news => {}
            Message::Lost { label } => console.say(format_args!("network {label} lost")),
            Message::Changed => self.tell_facts(),
            Message::Alive => {}
            Message::Note(text) => console.say(format_args!("{word}: {text}")),
        }
    }

    fn update(&mut self, message: &Message) {
        match message {
            Message::Bound { label, .. } => drop(self.bound.insert(label.clone())),
            Message::Lost { label } => drop(self.bound.remove(label)),
            Message::Changed | Message::Alive | Message::Note(_) => {}
        }
    }

    fn tell_facts(&self) {
        let readers = self
            .helpers
            .iter()
            .filter(|helper| helper.task.wants_facts());
        readers.for_each(Helper::tell_facts);
    }

    /// A child ended; returns its task if it is done, else it is started again after a delay.
    pub fn on_exit(
        &mut self,
        index: usize,
        exit: Exit,
        now: Duration,
        console: &mut Console,
    ) -> Option<Task> {
        // Its last words may be in the pipe still.
        while self.pipe(index).is_some() && self.has_more(index) {
            self.read(index, now, console);
        }
        let helper = &mut self.helpers[index];
        let task = helper.task;
        let Some(delay) = helper.on_exit(exit, now) else {
            if task == Task::Fabric {
                self.begin(Task::follows_fabric, now);
                self.look_at = self.has(Task::Relief).then_some(now + LOOK);
            }
            return Some(task);
        };
        let word = task.word();
        console.say(format_args!(
            "{word} ended ({exit:?}); restarting in {} s",
            delay.as_secs_f64()
        ));
        None
    }

    fn has_more(&self, index: usize) -> bool {
        self.pipe(index)
            .is_some_and(|pipe| rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0))
    }

    /// Asks the children to end: `uplink` gives back what it has on loan, but for a machine that comes back at once.
    pub fn stop(&mut self, comes_back: bool) {
        for helper in &self.helpers {
            let keeps = comes_back && helper.task == Task::Uplink;
            helper.signal(if keeps { libc::SIGINT } else { libc::SIGTERM });
        }
    }
}

/// The children that a machine has.
fn tasks(spec: &BootSpec) -> Vec<Task> {
    let mut tasks = Vec::new();
    if let Some(fabric) = &spec.fabric {
        tasks.push(Task::Fabric);
        if fabric.resolver {
            tasks.push(Task::Resolver);
        }
        if !fabric.endpoints.is_empty() {
            tasks.push(Task::Relief);
        }
    }
    if !spec.interfaces.is_empty() {
        tasks.push(Task::Uplink);
        // An empty list says that the clock is nobody's.
        if spec.ntp.as_ref().is_none_or(|servers| !servers.is_empty()) {
            tasks.push(Task::Ntp);
        }
    }
    tasks
}

/// Makes `resolv.conf` (empty until there is a lease) and `hosts`, which workloads mount.
///
/// # Errors
/// When `/run` cannot be written.
pub fn prepare_files(hostname: &str) -> io::Result<()> {
    fs::create_dir_all(FILES)?;
    overwrite(RESOLV_CONF, "")?;
    write_hosts(hostname)
}

/// Writes `hosts` for who has the machine's network.
///
/// # Errors
/// When `/run` cannot be written.
pub fn write_hosts(hostname: &str) -> io::Result<()> {
    let hosts = format!(
        "127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost ip6-loopback\n"
    );
    overwrite(HOSTS, &hosts)
}

/// Writes in place: workloads have this very file mounted, so it must never be replaced by another.
///
/// # Errors
/// When it cannot be written.
pub fn overwrite(path: &str, text: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(tasks: &[Task]) -> Network {
        Network {
            helpers: tasks.iter().copied().map(Helper::new).collect(),
            bound: BTreeSet::new(),
            was_bound: true,
            look_at: None,
        }
    }

    #[test]
    fn children_begin_at_once_but_for_those_that_wait() {
        let mut network = network(&[Task::Fabric, Task::Ntp, Task::Uplink, Task::Resolver]);
        assert_eq!(network.due(Duration::ZERO), [0, 2]);
        let mut console = Console::open();
        let done = network.on_exit(0, Exit::Status(0), Duration::ZERO, &mut console);
        assert_eq!(done, Some(Task::Fabric));
        assert_eq!(network.due(Duration::ZERO), [2, 3]);
        assert!(network.has(Task::Ntp));
        network.end_boot(Duration::from_secs(9));
        assert_eq!(network.due(Duration::from_secs(9)), [1, 2, 3]);
    }

    #[test]
    fn a_table_of_connections_that_is_nearly_full_is_relieved_and_looked_at_again() {
        let mut network = network(&[Task::Fabric, Task::Relief]);
        let at = Duration::from_secs;
        assert_eq!(network.due(at(0)), [0]);
        network.look(at(100), || true);
        let mut console = Console::open();
        network.on_exit(0, Exit::Status(0), at(0), &mut console);
        assert_eq!(network.next_deadline(), Some(LOOK));
        network.look(at(2), || false);
        assert!(network.due(at(2)).is_empty());
        network.look(at(4), || true);
        assert_eq!(network.due(at(4)), [1]);
        assert_eq!(network.look_at, Some(at(4) + LOOK_AGAIN));
        network.look(at(5), || panic!("too early"));
    }

    #[test]
    fn the_network_is_up_while_any_interface_is_bound() {
        let mut network = network(&[Task::Uplink]);
        let bound = |label: &str| Message::Bound {
            label: label.to_owned(),
            text: "eth0".to_owned(),
        };
        let lost = |label: &str| Message::Lost {
            label: label.to_owned(),
        };
        for (message, is_up) in [
            (Message::Changed, false),
            (bound("a"), true),
            (bound("b"), true),
            (lost("a"), true),
            (lost("b"), false),
            (lost("b"), false),
        ] {
            network.update(&message);
            assert_eq!(network.is_up(), is_up, "{message}");
        }
    }

    #[test]
    fn a_file_is_overwritten_in_place() {
        use std::os::unix::fs::MetadataExt;
        let path =
            std::env::temp_dir().join(format!("coracle-init-overwrite-{}", std::process::id()));
        let path = path.to_str().unwrap();
        overwrite(path, "a longer text").unwrap();
        let inode = fs::metadata(path).unwrap().ino();
        overwrite(path, "short").unwrap();
        assert_eq!(
            (
                fs::metadata(path).unwrap().ino(),
                fs::read_to_string(path).unwrap()
            ),
            (inode, "short".into())
        );
        fs::remove_file(path).unwrap();
    }
}
