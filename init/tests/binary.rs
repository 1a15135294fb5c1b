//! The real executable, as PID 1's children use it, and the markers that the instruction counter looks for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_coracle-init");

/// A process whose network is the test's own: the test.
fn own() -> String {
    std::process::id().to_string()
}

fn status_of(arguments: &[&str]) -> i32 {
    Command::new(BINARY)
        .args(arguments)
        .output()
        .unwrap()
        .status
        .code()
        .unwrap()
}

fn unused_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn without_being_pid_1_it_says_what_it_is() {
    for arguments in [
        &[][..],
        &["uplink", "eth0"],
        &["probe"],
        &["probe", "once", "9000", "1", "tcp", "70000"],
    ] {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("PID 1"));
    }
}

#[test]
fn a_probe_tells_an_open_port_from_a_closed_one() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    assert_eq!(
        status_of(&["probe", "once", "9000", &own(), "tcp", &port]),
        0
    );
    assert_eq!(
        status_of(&[
            "probe",
            "once",
            "9000",
            &own(),
            "tcp",
            &unused_port().to_string()
        ]),
        1
    );
}

#[test]
fn a_probe_judges_an_http_answer() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", 0),
        ("HTTP/1.1 500 Broken\r\n\r\n", 1),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let size = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..size]).into_owned()
        });
        assert_eq!(
            status_of(&[
                "probe",
                "once",
                "9000",
                &own(),
                "http",
                &port,
                "/health?deep=1",
                "web"
            ]),
            expected
        );
        let request = server.join().unwrap();
        assert!(
            request.starts_with("GET /health?deep=1 HTTP/1.1\r\nHost: web\r\n"),
            "{request}"
        );
    }
}

#[test]
fn a_probe_that_waits_ends_soon_after_the_port_opens() {
    let port = unused_port();
    let mut probe = Command::new(BINARY)
        .args(["probe", "until", "9000", &own(), "tcp", &port.to_string()])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(probe.try_wait().unwrap().is_none(), "it must not give up");
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while probe.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(probe.wait().unwrap().success());
}

#[test]
fn every_stage_has_its_marker_in_the_code() {
    let code = std::fs::read(BINARY).unwrap();
    for stage in 1..=9_u32 {
        let mut marker = vec![0x0f, 0x1f, 0x80];
        marker.extend((0x0C0A_C100 + stage).to_le_bytes());
        assert!(
            code.windows(marker.len()).any(|bytes| bytes == marker),
            "stage {stage}"
        );
    }
}
