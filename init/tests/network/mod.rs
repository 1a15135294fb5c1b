//! Two network namespaces with a link between them: the machine's, in which `coracle-init uplink` runs as in a guest, and
//! that of who serves it. All of it is gone when the test ends, however it ends.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of test programs, of which not every one uses all of it"
)]

pub mod router;
pub mod server;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use config::boot::{
    BOOT_SPEC_FORMAT, BOOT_SPEC_PATH, BootEndpoint, BootFabric, BootLog, BootSpec, BootState,
    OnDamage,
};

const BINARY: &str = env!("CARGO_BIN_EXE_coracle-init");
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(90);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The namespaces and their link: `eth0` on both sides.
pub struct Net {
    name: String,
    folder: tempfile::TempDir,
}

impl Net {
    /// `None`, said aloud, where the tests may not.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(
                std::env::var_os("CORACLE_TESTS_SKIP_NOTHING").is_none(),
                "network namespaces need root"
            );
            eprintln!("skipped: no network namespace to be had without root");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let net = Self {
            name: format!("coracle-{}-{number}", std::process::id()),
            folder: tempfile::tempdir().unwrap(),
        };
        for side in ["m", "s"] {
            ip(&["netns", "add", &net.namespace(side)]);
            ip(&["-n", &net.namespace(side), "link", "set", "lo", "up"]);
        }
        net.plug("eth0", 7);
        Some(net)
    }

    /// A link between the two sides; the machine's end has the address `02:00:00:00:NUMBER:02`.
    pub fn plug(&self, name: &str, number: u8) {
        let (machine, server) = (self.namespace("m"), self.namespace("s"));
        let address = |side: u8| format!("02:00:00:00:{number:02x}:{side:02x}");
        ip(&[
            "link",
            "add",
            "name",
            name,
            "netns",
            &server,
            "address",
            &address(1),
            "type",
            "veth",
            "peer",
            "name",
            name,
            "netns",
            &machine,
            "address",
            &address(2),
        ]);
        ip(&["-n", &server, "link", "set", name, "up"]);
    }

    fn namespace(&self, side: &str) -> String {
        format!("{}-{side}", self.name)
    }

    /// `ip` on the server's side; returns what it prints.
    pub fn server(&self, arguments: &[&str]) -> String {
        ip(&[&["-n", &self.namespace("s")], arguments].concat())
    }

    /// `ip` on the machine's side; returns what it prints.
    pub fn machine(&self, arguments: &[&str]) -> String {
        ip(&[&["-n", &self.namespace("m")], arguments].concat())
    }

    /// A path in the test's own folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The server's namespace as a file.
    pub fn server_namespace(&self) -> fs::File {
        fs::File::open(format!("/run/netns/{}", self.namespace("s"))).unwrap()
    }

    /// A program on the server's side.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace("s")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Running(child)
    }

    /// dnsmasq on the server's side, for DHCP only.
    pub fn dnsmasq(&self, arguments: &[&str]) -> Running {
        let common = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=eth0",
            "--bind-dynamic",
            "--user=root",
            "--no-ping",
            "--pid-file=",
        ];
        let log = format!("--log-facility={}", self.path("dnsmasq.log"));
        self.spawn(&[&common[..], &[&log], arguments].concat())
    }

    /// Waits until dnsmasq has logged this.
    pub fn wait_for_log(&self, text: &str) {
        let path = self.path("dnsmasq.log");
        let log = || fs::read_to_string(&path).unwrap_or_default();
        wait_until(log, |log| log.contains(text));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for side in ["m", "s"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(side)])
                .status();
        }
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {}: {told}",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `coracle-init uplink` in a root of its own.
pub struct Machine {
    process: Running,
    lines: Receiver<String>,
    said: Vec<String>,
    root: PathBuf,
}

impl Machine {
    /// Starts with these interfaces, and without a state.
    pub fn start(net: &Net, interfaces: &str) -> Self {
        Self::start_with(net, interfaces, false)
    }

    /// The same with a state partition that stays from one start to the next.
    pub fn start_with(net: &Net, interfaces: &str, state: bool) -> Self {
        let root = net.folder.path().join("root");
        let spec = boot_spec(interfaces, state);
        for folder in [
            "lib",
            "lib64",
            "proc",
            "sys",
            "state",
            "run/coracle/etc",
            "usr/lib/coracle",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let bytes = serde_json::to_vec(&spec).unwrap();
        fs::write(root.join(&BOOT_SPEC_PATH[1..]), bytes).unwrap();
        fs::write(root.join("init"), "").unwrap();
        let script = "cd \"$1\" && mount --make-rprivate / && mount --bind /lib lib && mount --bind /lib64 lib64 \
                      && mount -t proc proc proc && mount -t sysfs sysfs sys && mount --bind \"$2\" init \
                      && hostname machine && exec chroot . /init uplink";
        let mut child = Command::new("ip")
            .args(["netns", "exec", &net.namespace("m")])
            .args(["unshare", "--mount", "--uts", "sh", "-c", script, "sh"])
            .arg(&root)
            .arg(BINARY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            process: Running(child),
            lines,
            said: Vec::new(),
            root,
        }
    }

    /// The next line that has `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {text:?} in:\n{}", self.said.join("\n"));
            };
            self.said.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// A file of its root.
    pub fn file(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// A file of its root once it is so.
    pub fn wait_for_file(&self, path: &str, is_so: impl Fn(&str) -> bool) -> String {
        self.wait_for_path(self.root.join(path).to_str().unwrap(), is_so)
    }

    /// Any file once it is so.
    pub fn wait_for_path(&self, path: &str, is_so: impl Fn(&str) -> bool) -> String {
        wait_until(|| fs::read_to_string(path).unwrap_or_default(), is_so)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// A program of the host's in the machine's namespaces; returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("nsenter")
            .args(["--target", &self.pid().to_string(), "--uts", "--net"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// How much memory it has, in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// It runs still.
    pub fn is_running(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    /// Switched off: it releases what it has, and ends well.
    pub fn end(&mut self) {
        self.end_by(libc::SIGTERM);
    }

    /// The machine starts again: it keeps what it has.
    pub fn restart(&mut self) {
        self.end_by(libc::SIGINT);
    }

    fn end_by(&mut self, signal: i32) {
        let pid = i32::try_from(self.pid()).unwrap();
        coracle_init::sys::kill(pid, signal).unwrap();
        assert_eq!(self.process.0.wait().unwrap().code(), Some(0));
    }
}

/// Looks until it is so; returns what was seen.
pub fn wait_until(look: impl Fn() -> String, is_so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = look();
        if is_so(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "it stays {seen:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn boot_endpoint(endpoint: &config::network::Endpoint) -> BootEndpoint {
    BootEndpoint {
        name: endpoint.name.clone(),
        link: endpoint.link.clone(),
        address: endpoint.address,
        address6: endpoint.address6,
        names: endpoint.names.clone(),
        networks: endpoint.networks.clone(),
        outside: true,
    }
}

fn boot_spec(interfaces: &str, state: bool) -> BootSpec {
    let text = format!("name = \"machine\"\n{interfaces}");
    let spec = config::parse(&text)
        .unwrap_or_else(|mistakes| panic!("{}", mistakes.render("os.toml", &text)));
    let pool = |prefix: config::network::Prefix| (prefix.address, prefix.length);
    let fabric = match (pool(spec.fabric.pool), pool(spec.fabric.pool6)) {
        ((IpAddr::V4(v4), length), (IpAddr::V6(v6), length6)) => BootFabric {
            gateway: spec.fabric.gateway,
            gateway6: spec.fabric.gateway6,
            pool: (v4, length),
            pool6: (v6, length6),
            firewall: String::new(),
            modules: Vec::new(),
            spare_modules: Vec::new(),
            endpoints: spec.fabric.endpoints.iter().map(boot_endpoint).collect(),
            resolver: false,
        },
        pools => panic!("{pools:?}"),
    };
    BootSpec {
        format: BOOT_SPEC_FORMAT,
        name: spec.name,
        version: spec.version,
        epoch: 0,
        hostname: spec.hostname,
        hostname_fixed: false,
        dns: spec.settings.dns,
        search: spec.settings.search,
        ntp: spec.settings.ntp,
        modules: Vec::new(),
        late_modules: Vec::new(),
        drivers: false,
        state: state.then(|| BootState {
            partition_uuid: String::new(),
            mount_point: "/state".to_owned(),
            size: 0,
            on_damage: OnDamage::Keep,
        }),
        log: BootLog { size: 0, memory: 0 },
        shutdown_timeout_ms: 0,
        watchdog_s: None,
        interfaces: spec.interfaces,
        fabric: Some(fabric),
        pods: Vec::new(),
        sockets: Vec::new(),
        workloads: Vec::new(),
    }
}
