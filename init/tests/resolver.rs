//! The resolver as a process, in a network namespace of the test's own, where all addresses lie on `lo`: with dnsmasq as
//! its name server, and with one that lies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::AllRecordData;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle-init");
const GATEWAY: &str = "10.213.0.1";
const WEB: &str = "10.213.0.2";
const DB: &str = "10.213.0.4";
const REAL: &str = "192.0.2.53";
const LIAR: &str = "192.0.2.66";
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts the calling thread, and what it starts, into a network of its own. `false`: it may not.
fn enter_network() -> bool {
    if coracle_init::sys::unshare(libc::CLONE_NEWNET).is_err() {
        return false;
    }
    run("ip", &["link", "set", "lo", "up"]);
    for address in [
        GATEWAY,
        WEB,
        "10.213.0.3",
        DB,
        REAL,
        LIAR,
        "fd00::1",
        "fd00::2",
    ] {
        let prefix = if address.contains(':') { 128 } else { 32 };
        let address = format!("{address}/{prefix}");
        run("ip", &["address", "add", &address, "dev", "lo"]);
    }
    true
}

fn run(program: &str, arguments: &[&str]) {
    assert!(
        Command::new(program)
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A resolver with its files.
struct Resolver {
    folder: tempfile::TempDir,
    process: Option<Running>,
}

impl Resolver {
    fn start(servers: &[&str]) -> Self {
        let mut resolver = Self {
            folder: tempfile::tempdir().unwrap(),
            process: None,
        };
        let member = |last: u8, names: &[&str], networks: &[&str]| {
            serde_json::json!({
                "name": names[0],
                "link": format!("wl{last}"),
                "address": format!("10.213.0.{last}"),
                "address6": format!("fd00::{last}"),
                "names": names,
                "networks": networks,
                "outside": networks.contains(&"default"),
            })
        };
        let spec = serde_json::json!({
            "epoch": 0,
            "hostname": "machine",
            "hostname_fixed": false,
            "dns": [],
            "search": [],
            "ntp": null,
            "state": null,
            "fabric": {
                "gateway": GATEWAY,
                "gateway6": "fd00::1",
                "pool": ["10.213.0.0", 16],
                "pool6": ["fd00::", 64],
                "firewall": "",
                "modules": [],
                "spare_modules": [],
                "resolver": true,
                "endpoints": [
                    member(2, &["web"], &["default"]),
                    member(3, &["shop", "cart"], &["default", "back"]),
                    member(4, &["db"], &["back"]),
                ],
            },
        });
        fs::write(resolver.path("spec.json"), spec.to_string()).unwrap();
        fs::create_dir(resolver.path("net")).unwrap();
        resolver.write_facts(servers);
        resolver.restart();
        resolver
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_facts(&self, servers: &[&str]) {
        let facts = serde_json::json!({
            "dns": servers, "search": ["lan"], "ntp": [], "hostname": null
        });
        fs::write(self.path("net/facts.json"), facts.to_string()).unwrap();
    }

    fn restart(&mut self) {
        self.process = None;
        let files = ["spec.json", "net/facts.json", "etc/resolv.conf"].map(|name| self.path(name));
        let mut command = Command::new(BINARY);
        command.arg("resolver").args(files);
        self.process = Some(Running(command.spawn().unwrap()));
        // It writes this after it is confined and before it serves.
        let written = || fs::read(self.path("etc/resolv.conf")).is_ok_and(|text| !text.is_empty());
        wait_for("resolv.conf", written);
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().0.id()
    }

    fn status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap()
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn query(name: &str, rtype: Rtype, size: u16) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(4242);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder
        .push((Name::vec_from_str(name).unwrap(), rtype))
        .unwrap();
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(size);
            Ok(())
        })
        .unwrap();
    builder.finish()
}

/// The code and the data of an answer.
fn text(bytes: &[u8]) -> String {
    let message = Message::from_slice(bytes).unwrap();
    assert_eq!(message.header().id(), 4242);
    let mut words = vec![message.header().rcode().to_string()];
    if message.header().tc() {
        words.push("TC".to_owned());
    }
    for record in message
        .answer()
        .unwrap()
        .into_records::<AllRecordData<_, _>>()
    {
        words.push(record.unwrap().data().to_string());
    }
    words.join(" ")
}

fn ask_bytes(from: &str, gateway: &str, message: &[u8]) -> Vec<u8> {
    let from: IpAddr = from.parse().unwrap();
    let gateway: IpAddr = gateway.parse().unwrap();
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect((gateway, 53)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    // As a stub resolver does: again when a datagram is lost, or refused by the kernel while nobody listens.
    let mut buffer = [0; 4096];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let size = socket.send(message).and_then(|_| socket.recv(&mut buffer));
        if let Ok(size) = size {
            return buffer[..size].to_vec();
        }
        assert!(Instant::now() < deadline, "no answer");
        thread::sleep(Duration::from_millis(10));
    }
}

fn ask(from: &str, name: &str, rtype: Rtype) -> String {
    text(&ask_bytes(from, GATEWAY, &query(name, rtype, 1232)))
}

fn connect(from: &str) -> TcpStream {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let from: SocketAddr = (from.parse::<IpAddr>().unwrap(), 0).into();
    rustix::net::bind(&socket, &from).unwrap();
    let to: SocketAddr = (GATEWAY.parse::<IpAddr>().unwrap(), 53).into();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

fn send_framed(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], message].concat()).unwrap();
}

fn receive_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

fn start_dnsmasq(folder: &Path) -> Running {
    let long = "x".repeat(250);
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
        ])
        .args([
            "--conf-file=/dev/null",
            "--bind-interfaces",
            "--local-ttl=60",
        ])
        .args(["--edns-packet-max=1232"])
        .arg(format!("--listen-address={REAL}"))
        .arg(format!(
            "--pid-file={}",
            folder.join("dnsmasq.pid").display()
        ))
        .args(["--host-record=host.example.org,198.51.100.7,2001:db8::7"])
        .args(["--cname=www.example.org,host.example.org"])
        .args(["--local=/example.org/"]);
    for _ in 0..9 {
        command.arg(format!("--txt-record=long.example.org,{long}"));
    }
    let running = Running(command.spawn().unwrap());
    let probe = query("host.example.org", Rtype::A, 1232);
    let socket = UdpSocket::bind((REAL, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    wait_for("dnsmasq", || {
        let _ = socket.send_to(&probe, (REAL, 53));
        socket.recv(&mut [0; 1500]).is_ok()
    });
    running
}

#[test]
fn workloads_know_whom_they_share_a_network_with_and_nobody_else() {
    if !enter_network() {
        eprintln!("skipped: it takes root to make a network namespace");
        return;
    }
    let mut resolver = Resolver::start(&[]);
    let all = || {
        assert_eq!(ask(WEB, "shop", Rtype::A), "NOERROR 10.213.0.3");
        assert_eq!(ask(WEB, "Cart", Rtype::AAAA), "NOERROR fd00::3");
        assert_eq!(ask(DB, "shop", Rtype::A), "NOERROR 10.213.0.3");
        assert_eq!(ask(WEB, "machine", Rtype::A), "NOERROR 10.213.0.1");
        let nothing = ask(WEB, "nothing", Rtype::A);
        assert_eq!(nothing, "NXDOMAIN");
        assert_eq!(ask(WEB, "db", Rtype::A), nothing);
        assert_eq!(ask(WEB, "4.0.213.10.in-addr.arpa", Rtype::PTR), nothing);
        assert_eq!(ask(DB, "web", Rtype::A), nothing);
        assert_eq!(ask(REAL, "shop", Rtype::A), "REFUSED", "a stranger");
        assert_eq!(ask(WEB, "www.example.org", Rtype::A), "SERVFAIL");
        let six = ask_bytes("fd00::2", "fd00::1", &query("shop", Rtype::A, 1232));
        assert_eq!(text(&six), "NOERROR 10.213.0.3");
    };
    all();
    let status = resolver.status();
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "Groups:\t \n",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Threads:\t1",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    let root = fs::read_link(format!("/proc/{}/root", resolver.pid())).unwrap();
    assert_eq!(root, resolver.path("net"));
    let conf = fs::read_to_string(resolver.path("etc/resolv.conf")).unwrap();
    assert!(conf.starts_with("nameserver 10.213.0.1\nnameserver fd00::1\n"));
    // Killed at any moment it comes back with nothing lost.
    resolver.restart();
    all();
}

#[test]
fn questions_are_forwarded_and_their_answers_kept() {
    if !enter_network() || !has("dnsmasq") {
        eprintln!("skipped: it takes root and dnsmasq");
        return;
    }
    let mut resolver = Resolver::start(&[]);
    assert_eq!(ask(WEB, "host.example.org", Rtype::A), "SERVFAIL");
    let server = start_dnsmasq(resolver.folder.path());
    // Nobody listens at the first one; the kernel says so.
    resolver.write_facts(&["192.0.2.66", REAL]);
    let pid = i32::try_from(resolver.pid()).unwrap();
    coracle_init::sys::kill(pid, libc::SIGHUP).unwrap();
    wait_for("the new name servers", || {
        ask(WEB, "host.example.org", Rtype::A) != "SERVFAIL"
    });
    let address = "NOERROR 198.51.100.7";
    assert_eq!(ask(WEB, "HOST.example.org", Rtype::A), address);
    assert_eq!(
        ask(WEB, "host.example.org", Rtype::AAAA),
        "NOERROR 2001:db8::7"
    );
    let alias = ask(WEB, "www.example.org", Rtype::A);
    assert_eq!(alias, "NOERROR host.example.org. 198.51.100.7");
    assert_eq!(ask(WEB, "missing.example.org", Rtype::A), "NXDOMAIN");
    // Too long for a datagram: by TCP from the name server, and by TCP to the client.
    assert_eq!(ask(WEB, "long.example.org", Rtype::TXT), "NOERROR TC");
    let mut stream = connect(WEB);
    for name in ["long.example.org", "host.example.org", "shop"] {
        let rtype = if name.starts_with("long") {
            Rtype::TXT
        } else {
            Rtype::A
        };
        send_framed(&mut stream, &query(name, rtype, 1232));
        let answer = receive_framed(&mut stream);
        assert!(text(&answer).starts_with("NOERROR "), "{name}");
        if rtype == Rtype::TXT {
            assert!(answer.len() > 9 * 250);
        }
    }
    // More questions at once than a connection's share.
    for _ in 0..40 {
        send_framed(&mut stream, &query("shop", Rtype::A, 1232));
    }
    for _ in 0..40 {
        assert_eq!(text(&receive_framed(&mut stream)), "NOERROR 10.213.0.3");
    }
    drop(server);
    assert_eq!(ask(WEB, "host.example.org", Rtype::A), address, "kept");
    assert_eq!(
        ask(DB, "host.example.org", Rtype::A),
        "NXDOMAIN",
        "inside alone"
    );
    resolver.restart();
    assert_eq!(ask(DB, "shop", Rtype::A), "NOERROR 10.213.0.3");
}

/// Answers everything, in ways that change with each question, and never once rightly.
fn lie(socket: &UdpSocket) {
    let mut buffer = [0; 1500];
    let mut count = 0_usize;
    while let Ok((size, from)) = socket.recv_from(&mut buffer) {
        if &buffer[..size] == b"end" {
            return;
        }
        let asked = Message::from_slice(&buffer[..size]).unwrap();
        let mut answer = MessageBuilder::new_vec()
            .start_answer(asked, Rcode::NOERROR)
            .unwrap();
        answer.header_mut().set_ra(true);
        let owner = Name::vec_from_str("bank.example").unwrap();
        let evil = domain::rdata::A::new(Ipv4Addr::new(203, 0, 113, 66));
        answer
            .push((owner, domain::base::Ttl::from_secs(9999), evil))
            .unwrap();
        let mut bytes = answer.finish();
        count += 1;
        match count % 8 {
            0 => bytes[0] ^= 0xff,
            1 => bytes[2] &= 0x7f,
            2 => bytes.truncate(count % bytes.len()),
            3 => bytes = vec![0xc0; 1400],
            4 => {
                let at = bytes.len() - 16;
                bytes[at - 2] = 0xc0;
                bytes[at - 1] = u8::try_from(at - 2).unwrap();
            }
            5 => bytes[7] = 0xff,
            6 => bytes = buffer[..size].to_vec(),
            _ => {}
        }
        let _ = socket.send_to(&bytes, from);
    }
}

#[test]
fn a_name_server_that_lies_is_not_believed_and_does_no_harm() {
    if !enter_network() || !has("dnsmasq") {
        eprintln!("skipped: it takes root and dnsmasq");
        return;
    }
    let resolver = Resolver::start(&[LIAR, REAL]);
    let _server = start_dnsmasq(resolver.folder.path());
    let liar = UdpSocket::bind((LIAR, 53)).unwrap();
    let stop = liar.try_clone().unwrap();
    let thread = thread::spawn(move || lie(&liar));
    let name = |number: usize| format!("n{number}.example.org");
    let socket = UdpSocket::bind((WEB, 0)).unwrap();
    socket.connect((GATEWAY, 53)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    for number in 0..64 {
        socket.send(&query(&name(number), Rtype::A, 1232)).unwrap();
    }
    let mut buffer = [0; 1500];
    for _ in 0..64 {
        let size = socket.recv(&mut buffer).unwrap();
        assert!(
            !buffer[..size]
                .windows(4)
                .any(|bytes| bytes == [203, 0, 113, 66])
        );
    }
    assert_eq!(ask(WEB, "shop", Rtype::A), "NOERROR 10.213.0.3");
    stop.send_to(b"end", (LIAR, 53)).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_flood_of_one_client_leaves_the_others_their_answers() {
    if !enter_network() {
        eprintln!("skipped: it takes root to make a network namespace");
        return;
    }
    // A name server that never answers.
    let _silent = UdpSocket::bind((LIAR, 53)).unwrap();
    let resolver = Resolver::start(&[LIAR]);
    let flood = UdpSocket::bind((WEB, 0)).unwrap();
    flood.connect((GATEWAY, 53)).unwrap();
    let mut idle: Vec<TcpStream> = (0..40).map(|_| connect(WEB)).collect();
    for number in 0..5000_u32 {
        let name = format!("f{number}.example.org");
        let _ = flood.send(&query(&name, Rtype::A, 1232));
        let noise: Vec<u8> = (0..number % 64)
            .map(|at| (at ^ number).to_le_bytes()[0])
            .collect();
        let _ = flood.send(&noise);
    }
    for stream in &mut idle {
        let _ = stream.write_all(&[0xff, 0xff, 1, 2, 3]);
    }
    assert_eq!(ask(DB, "shop", Rtype::A), "NOERROR 10.213.0.3");
    let mut stream = connect(DB);
    send_framed(&mut stream, &query("shop", Rtype::A, 1232));
    assert_eq!(text(&receive_framed(&mut stream)), "NOERROR 10.213.0.3");
    let status = resolver.status();
    let resident = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kilobytes: u32 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 16 << 10, "{resident}");
}
