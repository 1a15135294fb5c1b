//! Terminals: `process.terminal`, `--console-socket`, and the relay of a container in the foreground.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::harness::{Bundle, bundle};

/// Listens for the master of one terminal.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn listen(bundle: &Bundle) -> Self {
        let path = bundle.directory.join("console.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        Self { path, listener }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    fn receive(&self) -> File {
        let (socket, _) = self.listener.accept().expect("a connection");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut name)],
            &mut control,
            flags,
        );
        assert!(message.expect("a message").bytes > 0, "a name comes along");
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        File::from(descriptor.expect("a descriptor"))
    }
}

/// Until the other side is closed, which is an error (EIO) on a terminal.
fn read_all(mut master: File) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8(text).expect("text")
}

fn with_terminal(bundle: Bundle) -> Bundle {
    bundle
        .with("/process/terminal", json!(true))
        .with("/process/consoleSize", json!({ "height": 33, "width": 77 }))
}

#[test]
fn the_master_arrives_at_the_console_socket() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_terminal(bundle).command(
        "winsize ; link /proc/self/fd/0 ; stat /dev/console ; stat /dev/pts/0 ; read-line",
    );
    let console = Console::listen(&bundle);
    bundle
        .runtime(&["create", "--console-socket", console.path(), &bundle.id])
        .good();
    let mut master = console.receive();
    bundle.runtime(&["start", &bundle.id]).good();
    master.write_all(b"hello\n").expect("written");
    let text = read_all(master);
    let lines: Vec<&str> = text.lines().filter(|line| *line != "hello").collect();
    assert_eq!(lines[0], "winsize 0 33 77", "{text:?}");
    assert_eq!(lines[1], "/dev/pts/0");
    assert_eq!(lines[2], lines[3], "the console is the terminal");
    assert_eq!(lines[4], r#"read "hello\n""#);
}

#[test]
fn a_foreground_terminal_is_relayed() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_terminal(bundle).command("winsize ; fill /dev/console 3 ; exit 4");
    let output = bundle.run();
    assert_eq!(output.status, 4, "{output:?}");
    assert_eq!(
        output.stdout, "winsize 0 33 77\r\n\u{1}\u{1}\u{1}ok\r\n",
        "it is a terminal, and its output comes out"
    );
}

#[test]
fn a_terminal_nobody_reads_from_does_not_hold_up_its_output() {
    let Some(bundle) = bundle() else { return };
    // More input than the terminal's buffer holds, and output after it is full.
    let bundle = with_terminal(bundle).command("fill /dev/console 300000 ; exit 4");
    let mut yes = Command::new("yes")
        .arg("aaaaaaaaaa")
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils");
    let input = yes.stdout.take().expect("a pipe");
    let output = bundle.runtime_with_input(&["run", &bundle.id], input.into());
    let _ = yes.kill();
    let _ = yes.wait();
    assert_eq!(output.status, 4, "{:?}", output.stderr);
    let bytes = output.stdout.bytes().filter(|&byte| byte == 1).count();
    assert_eq!(bytes, 300_000);
}

#[test]
fn the_last_output_of_a_relayed_terminal_is_not_lost() {
    let Some(bundle) = bundle() else { return };
    // More than the terminal's buffer holds.
    let bundle = with_terminal(bundle).command("fill /dev/console 100000");
    let output = bundle.run();
    assert_eq!(output.status, 0);
    let bytes = output.stdout.bytes().filter(|&byte| byte == 1).count();
    assert_eq!(bytes, 100_000);
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("sleep 600");
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    let output = bundle.runtime(&[
        "exec",
        "--tty",
        &bundle.id,
        "/bin/helper",
        "link",
        "/proc/self/fd/1",
        ";",
        "exit",
        "5",
    ]);
    assert_eq!(
        (output.status, output.stdout.as_str()),
        (5, "/dev/pts/0\r\n"),
        "{output:?}"
    );
    let console = Console::listen(&bundle);
    let socket = console.path();
    let command = ["/bin/helper", "winsize", ";", "read-line"];
    let words = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        socket,
        &bundle.id,
    ];
    bundle.runtime(&[&words[..], &command].concat()).good();
    let mut master = console.receive();
    master.write_all(b"x\n").expect("written");
    let text = read_all(master);
    assert!(
        text.contains("winsize 0 ") && text.contains(r#"read "x\n""#),
        "{text:?}"
    );
}

#[test]
fn terminals_and_console_sockets_need_each_other() {
    let Some(bundle) = bundle() else { return };
    let console = Console::listen(&bundle);
    let failure = bundle
        .runtime(&["create", "--console-socket", console.path(), &bundle.id])
        .failure();
    assert!(failure.contains("no terminal"), "{failure}");
    bundle.assert_gone();
    let bundle = with_terminal(bundle);
    for words in [&["run", "--detach"][..], &["create"]] {
        let failure = bundle.runtime(&[words, &[&bundle.id]].concat()).failure();
        assert!(failure.contains("console-socket"), "{failure}");
        bundle.assert_gone();
    }
    console.listener.set_nonblocking(true).expect("a socket");
    let nobody = console.listener.accept().map(drop);
    assert_eq!(
        nobody.expect_err("refused before").kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn a_symlink_of_the_image_is_not_taken_for_the_console_or_ptmx() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_terminal(bundle).command("exit 0");
    // A /dev of the image's own.
    let mut bundle = bundle;
    let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
    mounts.retain(|mount| mount["destination"] != "/dev" && mount["destination"] != "/dev/pts");
    let dev = bundle.root().join("dev");
    std::fs::create_dir_all(dev.join("pts")).expect("made");
    std::os::unix::fs::symlink("/dev/ptmx", dev.join("pts/ptmx")).expect("made");
    let failure = bundle.run().failure();
    assert!(failure.contains("/dev/pts/ptmx"), "{failure}");
    std::fs::remove_file(dev.join("pts/ptmx")).expect("removed");
    std::os::unix::fs::symlink("/bin/helper", dev.join("console")).expect("made");
    let bundle = bundle.mount(json!({
        "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
    }));
    let failure = bundle.run().failure();
    assert!(failure.contains("/dev/console"), "{failure}");
}
