//! Network namespaces that go with the test, and what is done in them.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name of its own.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(what: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("coracle-{}-{number}-{what}", std::process::id());
        run("ip", &["netns", "add", &name], None);
        Self { name }
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, words: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(words.split_whitespace());
        run("ip", &all, None);
    }

    /// What a program says that runs in it.
    pub(crate) fn run(&self, words: &[&str], input: Option<&str>) -> String {
        let mut all = vec!["netns", "exec", &self.name];
        all.extend(words);
        run("ip", &all, input)
    }

    /// Writes one of its settings below `/proc/sys/net`.
    pub(crate) fn set(&self, setting: &str, value: &str) {
        let path = format!("/proc/sys/net/{setting}");
        let value = value.to_owned();
        self.within(move || std::fs::write(&path, value).unwrap());
    }

    /// Does something in it, in a thread of its own: sockets belong to it that are made there.
    pub(crate) fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(act).join().unwrap()
    }

    /// The same beside what the test does.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).unwrap();
            act()
        })
    }

    /// Sends a batch of nf_tables messages; the error of the first refused one.
    pub(crate) fn send(&self, messages: Vec<u8>) -> Result<(), String> {
        self.within(move || {
            let socket = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(NETFILTER),
            )
            .unwrap();
            rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, 64 << 20).unwrap();
            let kernel = SocketAddrNetlink::new(0, 0);
            rustix::net::sendto(&socket, &messages, SendFlags::empty(), &kernel).unwrap();
            let mut buffer = vec![0; 64 << 10];
            let mut acknowledged = false;
            while let Ok((size, _)) =
                rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
            {
                let mut at = 0;
                while at + 20 <= size {
                    let word = |offset: usize| {
                        u32::from_ne_bytes(buffer[at + offset..at + offset + 4].try_into().unwrap())
                    };
                    let error = word(16).cast_signed();
                    if error != 0 {
                        return Err(format!("message {} is refused: {error}", word(8)));
                    }
                    acknowledged = true;
                    at += (word(0) as usize).next_multiple_of(4);
                }
            }
            acknowledged.then_some(()).ok_or("no answer".to_owned())
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Runs a program that must succeed; what it prints.
pub(crate) fn run(program: &str, words: &[&str], input: Option<&str>) -> String {
    use std::io::Write as _;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot execute {program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(input.unwrap_or_default().as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program} {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
