//! What a filter does to the command: arguments, error numbers, other ABIs, and an agent that is asked.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::{JoinHandle, spawn};

use serde_json::{Value, json};

use crate::harness::{Bundle, bundle};

const GETPPID: i64 = 110;
const KEYCTL: u64 = 250;
const PERSONALITY: u64 = 135;
const SIGSYS: i32 = 31;
const SIGSEGV: i32 = 11;

#[test]
fn arguments_and_error_numbers_decide_as_the_profile_says() {
    let Some(bundle) = bundle() else { return };
    let personality = |action: &str, value: u64| {
        json!({ "names": ["personality"], "action": action, "errnoRet": 77,
            "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
    };
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [
            personality("SCMP_ACT_ERRNO", 8),
            personality("SCMP_ACT_ERRNO", 9),
            { "names": ["keyctl"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["getppid"], "action": "SCMP_ACT_TRAP" },
        ],
    });
    let output = bundle
        .with("/linux/seccomp", profile)
        .command(&format!(
            "syscall {PERSONALITY} 8 ; syscall {PERSONALITY} 9 ; syscall {PERSONALITY} 0 ; syscall {KEYCTL} 0 ; \
             syscall {GETPPID} 0"
        ))
        .run();
    assert_eq!(
        output.lines(),
        ["syscall -77", "syscall -77", "syscall 0", "syscall -1"]
    );
    assert_eq!(output.status, 128 + SIGSYS, "{output:?}");
}

#[test]
fn calls_of_i386_are_killed_unless_listed_and_then_filtered_by_their_own_numbers() {
    const GETPID_32: u32 = 20;
    const GETPPID_32: u32 = 64;
    let run = |architectures: Value, number: u32| {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": architectures,
            "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" }],
        });
        let bundle = bundle()?.with("/linux/seccomp", profile);
        Some(bundle.command(&format!("int80 {number} 0")).run())
    };
    let Some(pid) = run(json!(["SCMP_ARCH_X86"]), GETPID_32) else {
        return;
    };
    if pid.status == 128 + SIGSEGV {
        eprintln!("skipped: this kernel has no calls of i386");
        return;
    }
    assert_eq!(pid.lines(), ["int80 1"]);
    let denied = run(json!(["SCMP_ARCH_X86"]), GETPPID_32).expect("as before");
    assert_eq!(denied.lines(), ["int80 -1"]);
    let killed = run(json!(["SCMP_ARCH_X86_64"]), GETPID_32).expect("as before");
    assert_eq!((killed.status, killed.lines()), (128 + SIGSYS, vec![]));
}

/// What the agent got, and how often it was asked.
#[derive(Debug)]
struct Asked {
    state: Value,
    times: usize,
}

/// An agent for one container: answers getppid with 4242 and lets every other call go on.
fn agent(bundle: &Bundle) -> (PathBuf, JoinHandle<Asked>) {
    let path = bundle.directory.join("agent");
    let listener = UnixListener::bind(&path).expect("a socket");
    let serve = move || {
        let (stream, _) = listener.accept().expect("a connection");
        let (text, descriptor) = sys::receive(&stream);
        let state = serde_json::from_slice(&text).expect("JSON");
        let mut times = 0;
        while let Some((id, number)) = sys::next_call(&descriptor) {
            times += 1;
            let answer = (i64::from(number) == GETPPID).then_some(4242);
            sys::answer(&descriptor, id, answer);
        }
        Asked { state, times }
    };
    (path, spawn(serve))
}

#[test]
fn agent_gets_the_state_and_answers_for_the_kernel() {
    for privileged in [false, true] {
        let Some(bundle) = bundle() else { return };
        let (path, agent) = agent(&bundle);
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            "listenerPath": path,
            "listenerMetadata": "for the agent",
            "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }],
        });
        let bundle = bundle
            .with("/linux/seccomp", profile)
            .with("/process/noNewPrivileges", json!(!privileged))
            .with("/annotations", json!({ "a": "b" }))
            .command(&format!("syscall {GETPPID} 0"));
        assert_eq!(bundle.run().good(), "syscall 4242\n");
        let asked = agent.join().expect("the agent ends with the container");
        assert_eq!(asked.times, 1);
        let state = &asked.state;
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["metadata"], "for the agent");
        assert_eq!(state["state"]["id"], json!(bundle.id));
        assert_eq!(state["state"]["status"], "creating");
        assert_eq!(state["state"]["annotations"], json!({ "a": "b" }));
        assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
        assert_eq!(state["pid"], state["state"]["pid"]);
        bundle.assert_gone();
    }
}

#[test]
fn filter_that_asks_about_every_call_does_not_hang_the_set_up() {
    for privileged in [false, true] {
        let Some(bundle) = bundle() else { return };
        let (path, agent) = agent(&bundle);
        let profile = json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": path });
        let bundle = bundle
            .with("/linux/seccomp", profile)
            .with("/process/noNewPrivileges", json!(!privileged))
            .command(&format!("syscall {GETPPID} 0"));
        bundle.runtime(&["create", &bundle.id]).good();
        assert_eq!(bundle.status(), "created");
        bundle.runtime(&["start", &bundle.id]).good();
        bundle.await_status("stopped");
        bundle.runtime(&["delete", &bundle.id]).good();
        let asked = agent.join().expect("the agent ends with the container");
        assert!(asked.times > 10, "{asked:?}");
        bundle.assert_gone();
    }
}

#[test]
fn container_without_its_agent_is_not_made() {
    let Some(bundle) = bundle() else { return };
    let notify = json!([{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }]);
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": notify,
        "listenerPath": bundle.directory.join("nobody") });
    let bundle = bundle.with("/linux/seccomp", profile);
    let failure = bundle.run().failure();
    assert!(failure.contains("seccomp listenerPath"), "{failure}");
    bundle.assert_gone();
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": notify });
    let failure = bundle.with("/linux/seccomp", profile).run().failure();
    assert!(failure.contains("needs a listenerPath"), "{failure}");
}

/// What a seccomp agent does with its descriptors.
mod sys {
    #![allow(unsafe_code, reason = "requests that no safe crate offers")]

    use std::io::IoSliceMut;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    const SECCOMP_IOCTL_NOTIF_RECV: libc::Ioctl = 0xc050_2100;
    const SECCOMP_IOCTL_NOTIF_SEND: libc::Ioctl = 0xc018_2101;

    /// Everything that is sent, and the one descriptor that comes with the first bytes.
    pub(super) fn receive(stream: &UnixStream) -> (Vec<u8>, OwnedFd) {
        let (mut text, mut descriptor) = (Vec::new(), None);
        loop {
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let got = recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .expect("a message")
                .bytes;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    descriptor = descriptor.or(descriptors.last());
                }
            }
            if got == 0 {
                return (text, descriptor.expect("a descriptor came"));
            }
            text.extend_from_slice(&bytes[..got]);
        }
    }

    /// The id and number of the next call that waits; `None` once nobody is left who could make one.
    pub(super) fn next_call(listener: &OwnedFd) -> Option<(u64, i32)> {
        loop {
            let mut watched = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.expect("it can be polled"),
            };
            // Before Linux 6.11 asking would then wait for ever.
            if !watched[0].revents().contains(PollFlags::IN) {
                return None;
            }
            let mut call = [0_u64; 10];
            // SAFETY: the request writes one `struct seccomp_notif`, 80 bytes; the kernel wants them zeroed.
            let result = unsafe {
                libc::ioctl(
                    listener.as_raw_fd(),
                    SECCOMP_IOCTL_NOTIF_RECV,
                    call.as_mut_ptr(),
                )
            };
            if result == 0 {
                // id, then pid and flags, then the number.
                return Some((call[0], call[2] as u32 as i32));
            }
        }
    }

    /// Lets the call return a value, or go on.
    pub(super) fn answer(listener: &OwnedFd, id: u64, value: Option<u64>) {
        const CONTINUE: u64 = 1;
        // `struct seccomp_notif_resp`: id, value, error and flags.
        let flags = if value.is_some() { 0 } else { CONTINUE << 32 };
        let answer = [id, value.unwrap_or(0), flags];
        // SAFETY: the request reads one `struct seccomp_notif_resp`, 24 bytes. It fails if the caller is gone.
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                SECCOMP_IOCTL_NOTIF_SEND,
                answer.as_ptr(),
            )
        };
    }
}
