//! The prober against servers of all kinds, over a real link.

use super::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, recv, socketpair};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// A prober in a thread.
struct Bench {
    link: OwnedFd,
    thread: JoinHandle<io::Result<()>>,
}

impl Bench {
    fn start() -> Self {
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let thread = std::thread::spawn(move || serve(far));
        Self { link: near, thread }
    }

    fn say(&self, text: &str) {
        send(&self.link, text.as_bytes(), SendFlags::empty()).unwrap();
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 64];
        let (size, _) = recv(&self.link, &mut bytes[..], RecvFlags::empty()).unwrap();
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    }

    fn ask(&self, order: &str) -> String {
        self.say(order);
        self.hear()
    }

    fn end(self) {
        drop(self.link);
        self.thread.join().unwrap().unwrap();
    }
}

/// A server on a port of its own, which does this with each connection.
fn serve_by(work: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let work = std::sync::Arc::new(work);
        for stream in listener.incoming().map_while(Result::ok) {
            let work = work.clone();
            std::thread::spawn(move || work(stream));
        }
    });
    port
}

fn serve_text(text: &'static [u8]) -> u16 {
    serve_by(move |mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(text);
    })
}

fn closed_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn answers_are_judged() {
    let bench = Bench::start();
    let good = serve_text(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    let bad = serve_text(b"HTTP/1.1 503 Busy\r\n\r\n");
    let silent = serve_text(b"");
    let closed = closed_port();
    for (number, question, result) in [
        (1, format!("http {good} /a?b localhost"), "passed"),
        (2, format!("http {bad} / localhost"), "failed"),
        (3, format!("http {silent} / localhost"), "failed"),
        (4, format!("http {closed} / localhost"), "failed"),
        (5, format!("tcp {good}"), "passed"),
        (6, format!("tcp {closed}"), "failed"),
    ] {
        let answer = bench.ask(&format!("ask {number} once 60000 {question}"));
        assert_eq!(answer, format!("{number} {result}"), "{question}");
    }
    bench.end();
}

#[test]
fn a_workload_that_is_not_ready_yet_is_asked_until_it_is() {
    let bench = Bench::start();
    let port = closed_port();
    bench.say(&format!("ask 1 until 60000 tcp {port}"));
    bench.say(&format!("ask 2 until 60000 tcp {}", closed_port()));
    bench.say("drop 2");
    std::thread::sleep(Duration::from_millis(50));
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_eq!(bench.hear(), "1 passed");
    bench.end();
}

/// Endless and slow ones at once, and one that is well: it does not wait for them, and they all fail in their time.
#[test]
fn hostile_servers_hold_up_nobody() {
    let bench = Bench::start();
    let endless = serve_by(|mut stream| while stream.write_all(&[b'x'; 65536]).is_ok() {});
    let drip = serve_by(|mut stream| {
        let text = b"HTTP/1.1 200 OK\r\nX-Drip: "
            .iter()
            .chain([b'x'].iter().cycle());
        for byte in text {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mute = serve_by(|stream| {
        std::thread::sleep(Duration::from_secs(600));
        drop(stream);
    });
    let well = serve_text(b"HTTP/1.1 200 OK\r\n\r\n");
    for (number, port) in [(1, drip), (2, mute), (3, endless)] {
        bench.say(&format!("ask {number} once 600 http {port} / localhost"));
    }
    assert_eq!(bench.hear(), "3 failed");
    let answer = bench.ask(&format!("ask 9 once 60000 http {well} / localhost"));
    assert_eq!(answer, "9 passed");
    let mut late = [bench.hear(), bench.hear()];
    late.sort();
    assert_eq!(late, ["1 failed", "2 failed"]);
    bench.end();
}

#[test]
fn nonsense_and_messages_that_are_too_long_are_ignored() {
    let bench = Bench::start();
    let port = serve_text(b"HTTP/1.1 200 OK\r\n\r\n");
    bench.say("nonsense");
    bench.say(&format!(
        "ask 1 once 5000 http {port} /{} x",
        "y".repeat(LONGEST)
    ));
    assert_eq!(
        bench.ask(&format!("ask 2 once 60000 tcp {port}")),
        "2 passed"
    );
    bench.end();
}

#[test]
fn hundreds_of_probes_are_under_way_at_once() {
    let bench = Bench::start();
    let port = closed_port();
    for number in 0..500 {
        bench.say(&format!("ask {number} until 60000 tcp {port}"));
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let mut answers: Vec<String> = (0..500).map(|_| bench.hear()).collect();
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 500);
    bench.end();
}
