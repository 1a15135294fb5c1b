//! config.md and config-linux.md: user and time namespaces, mapped mounts, seccomp agents, terminals.

use std::fs;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::spawn;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::harness::{Bundle, bundle};
use crate::refused;

const FIRST: u32 = 200_000;

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

fn add(mut bundle: Bundle, kind: &str) -> Bundle {
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut();
    namespaces.expect("a list").push(json!({ "type": kind }));
    bundle
}

fn give(path: &Path) {
    chown(path, Some(FIRST), Some(FIRST)).expect("ours");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        give(&entry.path());
    }
}

/// A new user namespace whose root owns the container's root.
fn with_user_namespace(bundle: Bundle) -> Bundle {
    give(&bundle.root());
    // A new sysfs needs a network namespace of that user namespace.
    add(add(bundle, "user"), "network")
        .with("/linux/uidMappings", map(0, FIRST, 10))
        .with("/linux/gidMappings", map(0, FIRST, 20))
}

/// config-linux.md, User namespace mappings: containerID, hostID and size.
#[test]
fn ids_are_mapped_as_the_document_says() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle)
        .command("cat /proc/self/uid_map ; cat /proc/self/gid_map ; write /made x");
    let output = bundle.run().good();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "10", "0", "200000", "20", "ok"]);
    let made = fs::metadata(bundle.root().join("made")).expect("written");
    assert_eq!((made.uid(), made.gid()), (FIRST, FIRST));
}

/// config-linux.md, User namespace mappings: the owners of the files are not changed for them.
#[test]
fn mappings_do_not_change_the_owners_of_files() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle);
    let helper = bundle.root().join("bin/helper");
    chown(&helper, Some(0), Some(0)).expect("ours");
    bundle.run().good();
    let owner = fs::metadata(&helper).expect("there");
    assert_eq!((owner.uid(), owner.gid()), (0, 0));
}

/// config-linux.md, User namespace mappings: an id that has none cannot be the process.
#[test]
fn user_outside_the_mappings_is_refused() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_user_namespace(bundle);
    refused(&bundle.with("/process/user", json!({ "uid": 10, "gid": 0 })));
}

/// config-linux.md, Offset for Time Namespace: secs and nanosecs for each clock.
#[test]
fn clocks_of_a_time_namespace_have_their_offsets() {
    let Some(bundle) = bundle() else { return };
    let offsets =
        json!({ "boottime": { "secs": 86400 }, "monotonic": { "secs": 1, "nanosecs": 7 } });
    let bundle = add(bundle, "time")
        .with("/linux/timeOffsets", offsets)
        .command("cat /proc/self/timens_offsets");
    let output = bundle.run().good();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "1", "7", "boottime", "86400", "0"]);
}

/// config-linux.md, Offset for Time Namespace: a clock that has none, or no namespace for it, is an error.
#[test]
fn offsets_without_their_clock_or_namespace_are_refused() {
    let Some(first) = bundle() else { return };
    refused(&first.with("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } })));
    let Some(second) = bundle() else { return };
    refused(&add(second, "time").with("/linux/timeOffsets", json!({ "realtime": { "secs": 1 } })));
}

/// config.md, Mounts: uidMappings and gidMappings map the ids of a bind mount.
#[test]
fn ids_of_a_bind_mount_are_mapped() {
    let Some(bundle) = bundle() else { return };
    let volume = bundle.directory.join("volume");
    fs::write(&volume, "x").expect("written");
    chown(&volume, Some(5), Some(6)).expect("ours");
    let mount = json!({
        "destination": "/volume", "type": "bind", "source": "volume", "options": ["bind", "idmap"],
        "uidMappings": map(0, 1000, 100), "gidMappings": map(0, 2000, 100),
    });
    let bundle = bundle.mount(mount).command("stat /volume");
    let output = bundle.run();
    if output.stderr.contains("map the ids of mount source") {
        eprintln!("skipped: the temporary directory's filesystem maps no ids");
        return;
    }
    assert_eq!(output.lines(), ["100644 1005:2006 0"]);
    assert_eq!(fs::metadata(&volume).expect("kept").uid(), 5);
}

/// config.md, Mounts: mappings of users without those of groups are an error.
#[test]
fn half_of_the_mappings_of_a_mount_is_refused() {
    let Some(bundle) = bundle() else { return };
    let mount = json!({
        "destination": "/x", "type": "bind", "source": "rootfs", "options": ["bind"],
        "uidMappings": map(0, 1000, 100),
    });
    refused(&bundle.mount(mount));
}

fn notifying(listener: &Path) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": listener,
        "listenerMetadata": "opaque",
        "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }],
    })
}

/// config-linux.md, Seccomp: one container process state is sent to listenerPath, with the descriptor.
#[test]
fn agent_gets_the_process_state_and_the_descriptor() {
    let Some(bundle) = bundle() else { return };
    let path = bundle.directory.join("agent");
    let agent = UnixListener::bind(&path).expect("a socket");
    let receive = spawn(move || {
        let (mut stream, _) = agent.accept().expect("a connection");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 64];
        let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
        let got = recvmsg(
            &stream,
            &mut slices,
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let count = |message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
            _ => 0,
        };
        let descriptors: usize = ancillary.drain().map(count).sum();
        let mut text = bytes[..got.expect("a message").bytes].to_vec();
        stream
            .read_to_end(&mut text)
            .expect("closed after one state");
        (text, descriptors)
    });
    let bundle = bundle.with("/linux/seccomp", notifying(&path));
    bundle.runtime(&["create", &bundle.id]).good();
    let (text, descriptors) = receive.join().expect("it has ended");
    let state: Value = serde_json::from_slice(&text).expect("one document");
    assert_eq!((&state["fds"], descriptors), (&json!(["seccompFd"]), 1));
    assert_eq!(state["metadata"], "opaque");
    assert!(state["ociVersion"].is_string(), "{state}");
    assert_eq!(state["pid"], crate::state(&bundle)["pid"]);
    assert_eq!(state["state"]["id"], json!(bundle.id));
}

/// config-linux.md, Seccomp: an error where the state cannot be sent to listenerPath.
#[test]
fn agent_that_does_not_listen_is_an_error() {
    let Some(bundle) = bundle() else { return };
    let path = bundle.directory.join("nobody");
    refused(&bundle.with("/linux/seccomp", notifying(&path)));
}

/// config.md, Process: terminal, and consoleSize for its size.
#[test]
fn terminal_has_the_size_of_the_document() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/process/terminal", json!(true))
        .with("/process/consoleSize", json!({ "height": 31, "width": 79 }))
        .command("winsize ; stat /dev/console ; stat /dev/pts/0");
    let output = bundle.run();
    let lines = output.lines();
    assert_eq!(lines[0].trim_end(), "winsize 0 31 79", "{output:?}");
    // config-linux.md, "Default Devices": it is bound to /dev/console.
    assert_eq!(lines[1], lines[2], "{output:?}");
}
