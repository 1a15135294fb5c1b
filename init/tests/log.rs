//! The real log process on this host: killed at any moment, and starved of its files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use coracle_init::log::batch::{Batch, Origin, Stamp};
use coracle_init::log::process::Arguments;
use coracle_init::log::ring::{Layout, Rings};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

const NAMES: [&str; 3] = ["noisy", "quiet", "coracle"];
const CAPACITY: u64 = 64 * 1024;

/// What PID 1 is to the log process: rings, a socket, and the lines that it has said.
struct Machine {
    directory: PathBuf,
    size: u64,
    boot_id: String,
    rings: Rings,
    said: [u64; NAMES.len()],
    random: u64,
}

impl Machine {
    fn new(name: &str, size: u64) -> Self {
        let id = std::process::id();
        let directory = std::env::temp_dir().join(format!("coracle-log-{id}-{name}"));
        let _ = fs::remove_dir_all(&directory);
        Self {
            directory,
            size,
            boot_id: "first".to_owned(),
            rings: new_rings(),
            said: [0; NAMES.len()],
            random: 0x2545_f491_4f6c_dd1d,
        }
    }

    fn start(&self) -> (Child, OwnedFd) {
        let arguments = Arguments {
            directory: self.directory.clone(),
            kernel: String::new(),
            boot_id: self.boot_id.clone(),
            version: "test 1.0".to_owned(),
            size: self.size,
            capacity: CAPACITY,
            names: NAMES.map(str::to_owned).to_vec(),
        };
        let flags = SocketFlags::CLOEXEC;
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_coracle-init"))
            .arg("log")
            .args(arguments.words())
            .stdin(self.rings.file().try_clone().unwrap())
            .stdout(far)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        (child, near)
    }

    /// The process that PID 1 runs at its end.
    fn finish(&self) {
        let (mut child, link) = self.start();
        drop(link);
        assert!(child.wait().unwrap().success());
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Says some lines in one ring, if there is room for them.
    fn say(&mut self, ring: usize) {
        self.rings.refresh(ring);
        if self.rings.room(ring) < 24 * 1024 {
            return;
        }
        let mut batch = Batch::default();
        for _ in 0..=self.random(20) {
            let filling = self.random(300) as usize;
            self.said[ring] += 1;
            batch.push(&text(ring, self.said[ring], filling));
        }
        self.rings.append(ring, Origin::Out, Stamp::now(), &batch);
    }

    fn lines(&self, ring: usize) -> Vec<String> {
        read_all(&self.directory.join(NAMES[ring]))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn new_rings() -> Rings {
    Rings::new(Layout {
        rings: NAMES.len(),
        capacity: CAPACITY,
    })
    .unwrap()
}

fn text(ring: usize, number: u64, filling: usize) -> String {
    format!("{} says {number} {}", NAMES[ring], "-".repeat(filling))
}

fn paths(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn read_all(directory: &Path) -> Vec<String> {
    let texts = paths(directory).into_iter();
    let text: String = texts
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn last line");
    text.lines().map(str::to_owned).collect()
}

/// Whether a line is this one of this boot; what fills it may differ.
fn assert_line(line: &str, boot: u64, ring: usize, number: u64) {
    assert!(line.starts_with(&format!("{boot}.{number} ")), "{line}");
    let said = format!(" out {}", text(ring, number, 0));
    assert!(line.contains(&said), "{said} is not in {line}");
}

#[test]
fn a_log_process_that_is_killed_at_any_time_neither_loses_nor_doubles_a_line() {
    const KILLS: usize = 300;
    let mut machine = Machine::new("killed", 1 << 30);
    for kill in 0..KILLS {
        let (mut child, link) = machine.start();
        let deadline = Instant::now() + Duration::from_micros(machine.random(12_000));
        while Instant::now() < deadline {
            for ring in 0..NAMES.len() {
                machine.say(ring);
            }
            let _ = send(&link, b"u", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Torn in the middle of a line, as by a power cut.
        if kill % 50 == 49
            && let Some(newest) = paths(&machine.directory.join(NAMES[0])).pop()
        {
            let torn = fs::read_to_string(&newest).unwrap() + "1.999999 2026-";
            fs::write(&newest, torn).unwrap();
        }
    }
    // Where there is no room, something is still to be written.
    for ring in 0..NAMES.len() {
        machine.say(ring);
    }
    machine.finish();
    for ring in 0..NAMES.len() {
        let lines = machine.lines(ring);
        assert!(
            lines[0].ends_with(" boot boot first of test 1.0"),
            "{}",
            lines[0]
        );
        assert_eq!(lines.len() as u64, machine.said[ring] + 1);
        for (number, line) in (1..).zip(&lines[1..]) {
            assert_line(line, 1, ring, number);
        }
    }
    assert!(machine.said[0] > 1000, "only {} lines", machine.said[0]);
}

#[test]
fn rotated_files_stay_within_their_bound_and_hold_the_newest_lines_through_kills() {
    const SIZE: u64 = 64 * 1024;
    let mut machine = Machine::new("rotated", SIZE);
    for _ in 0..100 {
        let (mut child, link) = machine.start();
        let deadline = Instant::now() + Duration::from_micros(machine.random(12_000));
        while Instant::now() < deadline {
            machine.say(0);
            let _ = send(&link, b"u", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let files = paths(&machine.directory.join(NAMES[0])).into_iter();
        let total: u64 = files.map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(total <= SIZE, "{total}");
    }
    machine.finish();
    let lines = machine.lines(0);
    let first = machine.said[0] + 1 - lines.len() as u64;
    assert!(first > 1, "nothing was rotated: {} lines", machine.said[0]);
    for (number, line) in (first..).zip(&lines) {
        assert_line(line, 1, 0, number);
    }
    assert!(machine.lines(1).is_empty(), "a silent stream has no files");
}

#[test]
fn each_boot_is_marked_and_counted_and_its_lines_begin_at_one() {
    let mut machine = Machine::new("boots", 1 << 20);
    for boot in 1..=3 {
        machine.boot_id = format!("id{boot}");
        machine.rings = new_rings();
        machine.said = [0; NAMES.len()];
        machine.say(1);
        machine.finish();
        let lines = machine.lines(1);
        let mark = format!(" boot boot id{boot} of test 1.0");
        let at = lines.iter().position(|line| line.ends_with(&mark)).unwrap();
        assert!(lines[at].starts_with(&format!("{boot}.0 ")));
        assert_eq!((lines.len() - at - 1) as u64, machine.said[1]);
        for (number, line) in (1..).zip(&lines[at + 1..]) {
            assert_line(line, boot, 1, number);
        }
    }
    let boots = fs::read_to_string(machine.directory.join("boots")).unwrap();
    assert_eq!(boots.lines().count(), 3);
}

#[test]
fn lines_that_were_written_over_are_counted_where_they_are_missing() {
    let mut machine = Machine::new("lost", 1 << 20);
    machine.say(0);
    machine.finish();
    let kept = machine.said[0];
    for number in kept + 1..=kept + 5000 {
        let mut batch = Batch::default();
        batch.push(&text(0, number, 30));
        machine.rings.append(0, Origin::Out, Stamp::now(), &batch);
    }
    machine.said[0] += 5000;
    machine.finish();
    let lines = machine.lines(0);
    let found = lines.iter().position(|line| line.contains(" lost "));
    let at = found.unwrap();
    let words: Vec<&str> = lines[at].split(' ').collect();
    let lost: u64 = words[4].parse().unwrap();
    assert!(lines[at].ends_with(" lines lost"), "{}", lines[at]);
    assert_eq!(at as u64, kept + 1);
    assert!(words[0] == format!("1.{}", kept + lost));
    for (number, line) in (kept + lost + 1..).zip(&lines[at + 1..]) {
        assert_line(line, 1, 0, number);
    }
    assert_eq!(lines.len() as u64 - 2 + lost, machine.said[0]);
}

#[test]
fn a_directory_that_cannot_be_written_is_told_once_and_written_later() {
    let mut machine = Machine::new("refused", 1 << 20);
    fs::write(&machine.directory, "a file in the way").unwrap();
    machine.say(0);
    let (mut child, link) = machine.start();
    let mut told = Vec::new();
    let mut hear_until = |text: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let mut bytes = [0; 512];
            let size = rustix::io::read(&link, &mut bytes).unwrap();
            told.push(String::from_utf8_lossy(&bytes[..size]).into_owned());
            if told.last().unwrap().contains(text) {
                return;
            }
        }
        panic!("{text} is not among {told:?}");
    };
    hear_until("!cannot write the log");
    // Whoever waits for room asks for it often, and does not have the process try as often.
    for _ in 0..50 {
        rustix::io::write(&link, b"u").unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut bytes = [0; 512];
    let mut answers = 0;
    while rustix::net::recv(&link, &mut bytes[..], rustix::net::RecvFlags::DONTWAIT).is_ok() {
        answers += 1;
    }
    assert!(answers < 10, "{answers}");
    fs::remove_file(&machine.directory).unwrap();
    hear_until("!the log is written again");
    drop(link);
    assert!(child.wait().unwrap().success());
    let failures = told.iter().filter(|text| text.contains("cannot"));
    assert_eq!(failures.count(), 1);
    assert_eq!(machine.lines(0).len() as u64, machine.said[0] + 1);
}
