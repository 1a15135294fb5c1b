use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use super::dbus::tests::{body, reply, signal};
use super::*;

#[test]
fn paths_name_slice_and_unit() {
    let fallback = Path::new("coracle/web");
    for (path, expected) in [
        (
            "machine.slice:libpod:1f",
            Some(("machine.slice", "libpod-1f.scope")),
        ),
        (":cri:x", Some(("system.slice", "cri-x.scope"))),
        ("a-b.slice::x", Some(("a-b.slice", "x.scope"))),
        ("coracle/web", Some(("system.slice", "coracle-web.scope"))),
        ("pods/web", None),
        ("a.slice:b", None),
        ("a.slice:b:c:d", None),
        ("a:b:c", None),
        ("a.slice:b:", None),
        ("a.slice:b:../c", None),
    ] {
        let found = parse(Path::new(path), fallback, true).ok();
        let found = found
            .as_ref()
            .map(|(slice, unit)| (slice.as_str(), unit.as_str()));
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn limits_have_the_names_of_systemd() {
    let resources: Resources = serde_json::from_str(
        r#"{"memory":{"limit":100,"swap":150},"cpu":{"shares":1024,"quota":5000},"pids":{"limit":-1}}"#,
    )
    .expect("well formed");
    assert_eq!(
        limits(&resources),
        [
            ("MemoryMax", Value::U64(100)),
            ("MemorySwapMax", Value::U64(50)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPerSecUSec", Value::U64(50_000)),
            ("TasksMax", Value::U64(u64::MAX)),
        ]
    );
}

/// Answers as a bus with systemd on it would, to any number of calls; the last answer is `last`.
fn bus(
    mut stream: UnixStream,
    last: impl Fn(u32) -> Vec<u8> + Send + 'static,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut line = [0; "\0AUTH EXTERNAL 30\r\n".len()];
        stream.read_exact(&mut line).expect("a line");
        assert_eq!(&line, b"\0AUTH EXTERNAL 30\r\n");
        stream.write_all(b"OK 1234\r\n").expect("written");
        let mut line = [0; 7];
        stream.read_exact(&mut line).expect("a line");
        assert_eq!(&line, b"BEGIN\r\n");
        let mut seen = String::new();
        for serial in 1.. {
            let mut head = [0; 16];
            if stream.read_exact(&mut head).is_err() {
                break;
            }
            let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
            assert_eq!((head[0], head[1], word(8)), (b'l', 1, serial));
            let mut rest = vec![0; (word(12) as usize).next_multiple_of(8) + word(4) as usize];
            stream.read_exact(&mut rest).expect("a message");
            seen.push_str(&String::from_utf8_lossy(&rest));
            // Hello, AddMatch and Subscribe come first.
            let answer = if serial <= 3 {
                reply(serial, None, &[])
            } else {
                last(serial)
            };
            if stream.write_all(&answer).is_err() {
                break;
            }
        }
        seen
    })
}

fn removed(job: &str, result: &str) -> Vec<u8> {
    let content = body(|writer| {
        writer.u32(7);
        writer.text(job);
        writer.text("x.scope");
        writer.text(result);
    });
    signal("JobRemoved", &content)
}

#[test]
fn a_scope_is_started_when_its_job_is_done() {
    for (result, good) in [("done", true), ("failed", false)] {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let bus = bus(theirs, move |serial| {
            let job = body(|writer| writer.text("/job/7"));
            // The signal of another job, and ours before the reply.
            let others = removed("/job/6", "failed");
            [others, removed("/job/7", result), reply(serial, None, &job)].concat()
        });
        let connection = Connection::over(ours, 0).expect("it answers");
        let started = start_over(connection, "x.scope", "a.slice", 42, &Resources::default());
        assert_eq!(started.is_ok(), good, "{started:?}");
        let seen = bus.join().expect("no panic");
        for text in [
            "StartTransientUnit",
            "x.scope",
            "a.slice",
            "Delegate",
            "PIDs",
        ] {
            assert!(seen.contains(text), "{text} in {seen:?}");
        }
    }
}

#[test]
fn a_scope_that_is_gone_needs_no_stop_and_other_errors_are_told() {
    for (name, good) in [
        ("org.freedesktop.systemd1.NoSuchUnit", true),
        ("org.freedesktop.DBus.Error.AccessDenied", false),
    ] {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let bus = bus(theirs, move |serial| {
            reply(serial, Some(name), &body(|writer| writer.text("why")))
        });
        let connection = Connection::over(ours, 0).expect("it answers");
        let stopped = stop_over(connection, "x.scope");
        assert_eq!(stopped.is_ok(), good, "{stopped:?}");
        if let Err(error) = stopped {
            assert!(error.to_string().contains("AccessDenied: why"), "{error}");
        }
        bus.join().expect("no panic");
    }
}
