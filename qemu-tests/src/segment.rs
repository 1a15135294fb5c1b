//! An Ethernet segment of a case's own: a network namespace with one end of a cable, in which servers run, and into which
//! machines are plugged.
//!
//! The namespace has no name: it is there as long as a process is in it, and each of those dies with the case, however
//! that ends. Nothing is left on the host. Needs root.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::tool::{mortal, run_tool, tool_is_missing};

/// What holds the namespace: it makes the near end of the cable (`$0`) and then only reads what never comes.
const HOLD: &str = "set -e; ip link set lo up; ip tuntap add dev $0 mode tap; \
    echo 0 > /proc/sys/net/ipv6/conf/$0/accept_dad; ip link set $0 up; \
    for address; do ip address add $address dev $0; done; echo ready; exec cat";

/// The segment.
#[derive(Debug)]
pub struct Segment {
    holder: Child,
}

impl Segment {
    /// The near end's name.
    pub const DEVICE: &str = "tap0";

    /// Whether there can be none; see [`tool_is_missing`].
    pub fn is_impossible() -> bool {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if !is_root {
            assert!(
                std::env::var_os("CORACLE_TESTS_SKIP_NOTHING").is_none(),
                "a network namespace needs root"
            );
            eprintln!("skipped: a network namespace needs root");
        }
        !is_root || tool_is_missing("ip", "iproute2") || tool_is_missing("dnsmasq", "dnsmasq-base")
    }

    /// Makes one; the near end has these addresses, written `10.7.0.1/24`.
    ///
    /// # Errors
    /// With what a tool wrote.
    pub fn new(addresses: &[&str]) -> Result<Self> {
        let mut command = mortal("unshare");
        command.args(["--net", "sh", "-c", HOLD, Self::DEVICE]);
        command.args(addresses);
        let mut holder = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start unshare (Debian package util-linux)")?;
        let stdout = holder.stdout.take().context("the holder's output")?;
        let segment = Self { holder };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "no network namespace: see above");
        Ok(segment)
    }

    /// A program in the namespace, which dies with the case.
    pub fn command(&self, program: &str) -> Command {
        let mut command = mortal("nsenter");
        command.arg(format!("--net={}", self.namespace().display()));
        command.args(["--", program]);
        command
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// Runs a tool in the namespace to its end; returns what it prints.
    ///
    /// # Errors
    /// As [`run_tool`].
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let namespace = format!("--net={}", self.namespace().display());
        run_tool("nsenter", |nsenter| nsenter.arg(namespace).args(arguments))
    }

    /// Starts dnsmasq as a server of DHCP and router advertisements only, with a log of all that it does.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn dnsmasq(&self, log: &Path, arguments: &[&str]) -> Result<Server> {
        // A change of its group would have the kernel forget with whom it is to die.
        let child = self
            .command("dnsmasq")
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"])
            .args([
                "--bind-dynamic",
                "--user=root",
                "--group=root",
                "--no-ping",
                "--pid-file=",
            ])
            .args(["--log-dhcp", "--log-facility=-", "--interface"])
            .arg(Self::DEVICE)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).context("make dnsmasq's log")?)
            .spawn()
            .context("start dnsmasq (Debian package dnsmasq-base)")?;
        let log = log.to_owned();
        Ok(Server { child, log })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A server on a segment; it is killed when the value is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// What it has logged so far.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn log(&self) -> Result<String> {
        let log = self.log.display();
        std::fs::read_to_string(&self.log).with_context(|| format!("read {log}"))
    }

    /// Waits until it has logged lines with each of these texts, in any order.
    ///
    /// # Errors
    /// With what is missing when time is up.
    pub fn expect(&self, texts: &[&str], patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let log = self.log()?;
            let missing = texts.iter().find(|text| !log.contains(**text));
            let Some(missing) = missing else {
                return Ok(());
            };
            ensure!(
                Instant::now() < deadline,
                "dnsmasq has not logged {missing:?}:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
