//! Exchanges with a real time server (chrony), in a network namespace of the test's own. The clock that is set is not the
//! machine's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use coracle_init::net::facts::Facts;
use coracle_init::net::ntp::clock::{Clock, Quality, System};
use coracle_init::net::ntp::run::Driver;
use coracle_init::net::resolver::stub;

const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: i64 = 1_000_000_000;

/// The machine's clock, ahead by what nobody but the test sees.
struct Shifted {
    by: Cell<i64>,
    steps: Vec<i64>,
    slews: Vec<i64>,
}

impl Clock for Shifted {
    fn now(&self) -> i64 {
        System.now() + self.by.get()
    }

    fn step(&mut self, by: i64, _: Quality) -> io::Result<()> {
        self.by.set(self.by.get() + by);
        self.steps.push(by);
        Ok(())
    }

    fn slew(&mut self, by: i64, quality: Quality) -> io::Result<()> {
        assert!(quality.distance > 0);
        self.slews.push(by);
        Ok(())
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn enter_network() -> bool {
    let is_in = coracle_init::sys::unshare(libc::CLONE_NEWNET).is_ok();
    if is_in {
        let up = ["link", "set", "lo", "up"];
        assert!(Command::new("ip").args(up).status().unwrap().success());
    }
    is_in
}

/// The server's program: this host's, or that of Debian's package, unpacked and not installed, as an installed one would
/// keep this host's clock. Without either the test is passed over, unless nothing may be.
fn find_chrony(folder: &Path) -> Option<PathBuf> {
    let installed = Path::new("/usr/sbin/chronyd");
    if installed.exists() {
        return Some(installed.to_owned());
    }
    let script =
        "apt-get -qq -o APT::Sandbox::User=root download chrony && dpkg-deb -x chrony_*.deb .";
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder);
    let is_there = command.status().is_ok_and(|status| status.success());
    let nothing_skipped = std::env::var_os("CORACLE_TESTS_SKIP_NOTHING").is_some();
    assert!(is_there || !nothing_skipped, "there is no chrony to be had");
    is_there.then(|| folder.join("usr/sbin/chronyd"))
}

/// A server that says it has the right time, and never touches the clock.
fn start_chrony(program: &Path, folder: &Path) -> Running {
    let configuration = format!(
        "local stratum 3\nallow\nport 123\ncmdport 0\npidfile {0}/pid\nbindcmdaddress /\n",
        folder.display()
    );
    let file = folder.join("chrony.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new(program);
    // -x: without control of the clock.
    command.args(["-d", "-x", "-u", "root", "-f"]).arg(&file);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let request = coracle_init::net::ntp::packet::request(7);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let _ = socket.send_to(&request, (Ipv4Addr::LOCALHOST, 123));
        if socket.recv(&mut [0; 100]).is_ok() {
            return running;
        }
        assert!(Instant::now() < deadline, "chrony does not answer");
        thread::sleep(Duration::from_millis(20));
    }
}

fn driver(ntp: &str, by: i64) -> Driver<Shifted> {
    let clock = Shifted {
        by: Cell::new(by),
        steps: Vec::new(),
        slews: Vec::new(),
    };
    let mut driver = Driver::new(clock, 1_735_689_600);
    driver.facts = Facts {
        dns: vec!["127.0.0.1".to_owned()],
        ntp: vec![ntp.to_owned()],
        ..Facts::default()
    };
    driver
}

fn first_notes(driver: &mut Driver<Shifted>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let notes = driver.turn(None).unwrap();
        if !notes.is_empty() {
            return notes;
        }
        assert!(Instant::now() < deadline, "nothing happens");
    }
}

/// Answers one name with this machine's own address, as a name server.
fn serve_name(socket: &UdpSocket) {
    use domain::base::iana::{Rcode, Rtype};
    use domain::base::{Message, MessageBuilder, Ttl};
    let mut buffer = [0; 1500];
    while let Ok((size, from)) = socket.recv_from(&mut buffer) {
        let Ok(asked) = Message::from_slice(&buffer[..size]) else {
            return;
        };
        let question = asked.sole_question().unwrap();
        let answer = MessageBuilder::new_vec().start_answer(asked, Rcode::NOERROR);
        let mut answer = answer.unwrap();
        answer.header_mut().set_ra(true);
        if question.qtype() == Rtype::A {
            let address = domain::rdata::A::new(Ipv4Addr::LOCALHOST);
            answer
                .push((question.qname(), Ttl::from_secs(60), address))
                .unwrap();
        }
        let _ = socket.send_to(&answer.finish(), from);
    }
}

#[test]
fn a_clock_that_is_off_is_set_by_a_real_server_and_a_right_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = find_chrony(folder.path()) else {
        eprintln!("skipped: there is no chronyd");
        return;
    };
    if !enter_network() {
        eprintln!("skipped: it takes root to make a network namespace");
        return;
    }
    let _server = start_chrony(&program, folder.path());
    let names = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
    let stop = names.try_clone().unwrap();
    let thread = thread::spawn(move || serve_name(&names));
    let servers = [(Ipv4Addr::LOCALHOST, 53).into()];
    assert_eq!(stub::lookup("time.test", &servers), [Ipv4Addr::LOCALHOST]);
    assert_eq!(stub::lookup("::1", &[]).len(), 1);
    assert!(stub::lookup("time.test", &[]).is_empty());

    let mut off = driver("time.test", -3 * SECOND);
    let notes = first_notes(&mut off);
    let near = |notes: &[String], text: &str| notes.len() == 1 && notes[0].starts_with(text);
    let stepped = near(&notes, "clock stepped by +3.0") || near(&notes, "clock stepped by +2.9");
    assert!(stepped, "{notes:?}");
    assert!(notes[0].ends_with(" by 127.0.0.1"), "{notes:?}");
    assert!(
        off.clock().by.get().abs() < SECOND / 5,
        "{:?}",
        off.clock().steps
    );

    let mut right = driver("127.0.0.1", 0);
    let notes = first_notes(&mut right);
    assert!(near(&notes, "clock off by "), "{notes:?}");
    assert!(right.clock().steps.is_empty() && right.clock().slews[0].abs() < SECOND / 5);

    let end = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    end.send_to(b"end", stop.local_addr().unwrap()).unwrap();
    thread.join().unwrap();
}

#[test]
fn where_nobody_answers_that_is_told() {
    if !enter_network() {
        eprintln!("skipped: it takes root to make a network namespace");
        return;
    }
    let mut driver = driver("127.0.0.1", -3 * SECOND);
    assert_eq!(first_notes(&mut driver), ["no time server answers"]);
    assert!(driver.clock().steps.is_empty());
}
