//! What an image or a document could try to get out: each test is one class of past escapes.
//!
//! Beside these, `root.rs` has the symlinks of an image and working directories through descriptors, and
//! `confinement.rs` what a process may inherit.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::harness::{Bundle, Output, RUNTIME, bundle, finish};

const EROFS: &str = "errno 30";

/// How often a container starts while its image changes under it.
const STARTS_UNDER_ATTACK: usize = 60;

/// Ends the thread that swaps, even if the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory beside the root, with one file, that must stay as it is.
fn outside(bundle: &Bundle) -> PathBuf {
    let outside = bundle.directory.join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("file"), "host").expect("written");
    outside
}

#[track_caller]
fn assert_untouched(outside: &Path) {
    let names = fs::read_dir(outside).expect("it is ours").count();
    assert_eq!(names, 1, "something was made outside");
    let text = fs::read_to_string(outside.join("file")).expect("kept");
    assert_eq!(text, "host", "something was written outside");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc");
    let outside = outside.to_str().expect("ASCII");
    assert!(!mounts.contains(outside), "something is mounted outside");
}

fn retain_mounts(bundle: &mut Bundle, keep: impl Fn(&str) -> bool) {
    let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
    mounts.retain(|mount| keep(mount["destination"].as_str().expect("a string")));
}

/// Runs with a text of `config.json` that is no JSON value.
fn run_raw(bundle: &Bundle, prepare: impl FnOnce(&Path)) -> Output {
    prepare(&bundle.directory.join("config.json"));
    let mut command = Command::new(RUNTIME);
    command.arg("--root").arg(bundle.directory.join("state"));
    command.args(["run", "--bundle"]).arg(&bundle.directory);
    finish(command.arg(&bundle.id), &bundle.directory)
}

#[test]
fn image_with_a_symlink_for_sys_is_refused() {
    let Some(bundle) = bundle() else { return };
    let outside = outside(&bundle);
    symlink(&outside, bundle.root().join("sys")).expect("made");
    let failure = bundle.run().failure();
    assert!(
        failure.contains("refuse the symlink in the image at /sys"),
        "{failure}"
    );
    assert_untouched(&outside);
}

#[test]
fn fake_proc_of_the_image_receives_no_writes() {
    let Some(mut bundle) = bundle() else { return };
    let fakes = ["self/oom_score_adj", "sys/kernel/msgmax", "self/attr/exec"];
    let paths = fakes.map(|name| bundle.root().join("proc").join(name));
    for path in &paths {
        fs::create_dir_all(path.parent().expect("it has")).expect("made");
        fs::write(path, "fake").expect("written");
    }
    retain_mounts(&mut bundle, |destination| destination == "/dev");
    let bundle = bundle
        .with("/process/oomScoreAdj", json!(500))
        .with("/linux/sysctl", json!({ "kernel.msgmax": "4096" }))
        .command("cat /proc/self/oom_score_adj ; cat /proc/sys/kernel/msgmax");
    assert_eq!(bundle.run().lines(), ["fake", "fake"]);
    for path in &paths {
        let text = fs::read_to_string(path).expect("kept");
        assert_eq!(text, "fake", "{}", path.display());
    }
}

#[test]
fn volume_over_proc_receives_no_sysctl() {
    let Some(bundle) = bundle() else { return };
    let volume = bundle.directory.join("volume");
    fs::create_dir_all(volume.join("sys/kernel")).expect("made");
    fs::write(volume.join("sys/kernel/msgmax"), "fake").expect("written");
    let bundle = bundle
        .with("/linux/sysctl", json!({ "kernel.msgmax": "4096" }))
        .mount(json!({ "destination": "/proc", "source": "volume", "options": ["rbind"] }))
        .mount(json!({ "destination": "/real", "type": "proc", "source": "proc" }))
        .command("cat /proc/sys/kernel/msgmax ; cat /real/sys/kernel/msgmax");
    let output = bundle.run();
    assert_eq!(output.lines()[..2], ["fake", "4096"]);
    let text = fs::read_to_string(volume.join("sys/kernel/msgmax")).expect("kept");
    assert_eq!(text, "fake");
}

#[test]
fn mount_targets_that_are_swapped_for_symlinks_lead_nowhere() {
    let Some(bundle) = bundle() else { return };
    let outside = outside(&bundle);
    let (place, link) = (bundle.root().join("place"), bundle.root().join("link"));
    fs::create_dir(&place).expect("made");
    symlink(&outside, &link).expect("made");
    let bundle = bundle
        .mount(json!({ "destination": "/place", "type": "tmpfs", "source": "tmpfs" }))
        .mount(json!({ "destination": "/place/deep/er", "type": "tmpfs", "source": "tmpfs" }))
        .mount(json!({ "destination": "/place/file", "type": "bind", "source": "config.json", "options": ["bind"] }))
        .with("/linux/maskedPaths", json!(["/place/file", "/place"]))
        .with("/linux/readonlyPaths", json!(["/place/deep"]))
        .with("/linux/devices", json!([{ "path": "/place/node", "type": "c", "major": 1, "minor": 3 }]))
        .with("/process/cwd", json!("/place/cwd"));
    let done = AtomicBool::new(false);
    let starts = std::thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &place, CWD, &link, RenameFlags::EXCHANGE).expect("swapped");
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        let run = |_| bundle.run().status;
        (0..STARTS_UNDER_ATTACK).map(run).collect::<Vec<i32>>()
    });
    // What the swapping does to a start may make it fail, and never makes it do anything outside.
    assert!(
        starts.iter().all(|status| [0, 1].contains(status)),
        "{starts:?}"
    );
    assert_untouched(&outside);
}

#[test]
fn kernel_filesystems_are_mounted_on_no_symlink_that_comes_meanwhile() {
    let Some(bundle) = bundle() else { return };
    fs::create_dir(bundle.root().join("elsewhere")).expect("made");
    let proc = bundle.root().join("proc");
    let bundle = bundle.command("cat /elsewhere/self/comm");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Whatever a start made meanwhile goes, so that the next finds nothing or the symlink.
                let _ = fs::remove_dir(&proc).or_else(|_| fs::remove_file(&proc));
                let _ = symlink("elsewhere", &proc);
                let _ = fs::remove_file(&proc);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        for _ in 0..STARTS_UNDER_ATTACK {
            let output = bundle.run();
            assert!(!output.stdout.contains("helper"), "{output:?}");
        }
    });
}

#[test]
fn paths_through_symlinks_of_the_image_are_made_inside() {
    let Some(bundle) = bundle() else { return };
    let outside = outside(&bundle);
    let inside = bundle
        .root()
        .join(outside.strip_prefix("/").expect("absolute"));
    symlink(&outside, bundle.root().join("link")).expect("made");
    let device = json!({ "path": "/link/node", "type": "p" });
    let bundle = bundle
        .with("/process/cwd", json!("/link/cwd"))
        .with("/linux/devices", json!([device]))
        .mount(json!({ "destination": "/link/volume", "type": "tmpfs", "source": "tmpfs" }))
        .mount(json!({ "destination": "/link/up/../../../../../../climb", "type": "tmpfs", "source": "tmpfs" }))
        .command("cwd");
    let output = bundle.run();
    assert_eq!(output.status, 0, "{output:?}");
    for name in ["cwd", "node", "volume"] {
        assert!(inside.join(name).exists(), "{name}");
    }
    assert_untouched(&outside);
}

#[test]
fn descriptors_of_the_runtime_lead_nowhere() {
    let Some(bundle) = bundle() else { return };
    let outside = outside(&bundle);
    for number in 3..12 {
        let link = bundle.root().join(format!("link{number}"));
        symlink(format!("/proc/self/fd/{number}"), link).expect("made");
    }
    let config = bundle.config.clone();
    let mut bundle = bundle;
    for number in 3..12 {
        bundle.config = config.clone();
        bundle = bundle.with("/process/cwd", json!(format!("/link{number}/etc")));
        bundle.run().failure();
        bundle.config = config.clone();
        bundle = bundle.mount(json!({ "destination": format!("/link{number}/escape"), "type": "tmpfs", "source": "tmpfs" }));
        bundle.run().failure();
    }
    assert!(!Path::new("/escape").exists() && !Path::new("/proc/escape").exists());
    assert_untouched(&outside);
}

#[test]
fn devices_that_the_image_replaced_are_refused_before_anything_is_masked() {
    for name in ["null", "zero", "tty"] {
        let Some(mut bundle) = bundle() else { return };
        let outside = outside(&bundle);
        fs::create_dir(bundle.root().join("dev")).expect("made");
        symlink(outside.join("file"), bundle.root().join("dev").join(name)).expect("made");
        retain_mounts(&mut bundle, |destination| destination == "/proc");
        let failure = bundle
            .with("/linux/maskedPaths", json!(["/proc/kcore", "/proc/keys"]))
            .run()
            .failure();
        assert!(failure.contains("in place of device"), "{failure}");
    }
}

#[test]
fn console_that_the_image_made_a_symlink_stays_the_images() {
    let Some(mut bundle) = bundle() else { return };
    let outside = outside(&bundle);
    fs::create_dir(bundle.root().join("dev")).expect("made");
    symlink(outside.join("file"), bundle.root().join("dev/console")).expect("made");
    retain_mounts(&mut bundle, |destination| destination == "/proc");
    let output = bundle.command("write /dev/console x").run();
    assert_eq!(output.lines(), ["errno 2"]);
}

#[test]
fn user_that_is_no_number_in_range_is_refused() {
    let Some(mut bundle) = bundle() else { return };
    for user in [
        json!("0x0"),
        json!("0"),
        json!("1000:"),
        json!(-1),
        json!(4_294_967_295_u64),
        json!(4_294_967_296_u64),
        json!(1.5),
        json!("0 trailing"),
    ] {
        for name in ["uid", "gid"] {
            bundle = bundle.with("/process/user", json!({ name: user }));
            bundle.run().failure();
        }
        bundle = bundle.with("/process/user", json!({ "additionalGids": [user] }));
        bundle.run().failure();
    }
}

#[test]
fn cgroup_of_the_container_is_as_far_as_it_sees() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command(
        "write /sys/fs/cgroup/cgroup.procs 1 ; write /sys/fs/cgroup/release_agent /x ; cat /proc/self/cgroup ; cat /sys/fs/cgroup/cgroup.procs",
    );
    let output = bundle.run();
    assert_eq!(output.lines()[..2], [EROFS, EROFS]);
    let unified = output
        .lines()
        .into_iter()
        .find(|line| line.starts_with("0::"));
    assert_eq!(unified, Some("0::/"), "{output:?}");
    let own = output
        .lines()
        .into_iter()
        .filter(|line| *line == "1")
        .count();
    assert_eq!(own, 1, "only itself: {output:?}");
}

#[test]
fn sysctl_outside_the_namespaces_is_refused() {
    let Some(mut bundle) = bundle() else { return };
    for key in [
        "kernel.core_pattern",
        "kernel.modprobe",
        "vm.overcommit_memory",
        "net.ipv4.ip_forward",
        "kernel/../kernel/core_pattern",
        "kernel.msgmax/../core_pattern",
        "/proc/sys/kernel/msgmax",
    ] {
        bundle = bundle.with("/linux/sysctl", json!({ key: "1" }));
        let failure = bundle.run().failure();
        assert!(failure.contains("linux.sysctl"), "{key}: {failure}");
    }
}

#[test]
fn enormous_and_deeply_nested_documents_are_refused() {
    let Some(bundle) = bundle() else { return };
    let huge = run_raw(&bundle, |path| {
        let file = fs::File::create(path).expect("made");
        file.set_len(4 << 30).expect("a file with a hole");
    });
    assert!(huge.failure().contains("larger than"));
    for open in ["[", "{\"linux\":", "{\"x\":["] {
        let deep = run_raw(&bundle, |path| {
            fs::write(path, open.repeat(1_000_000)).expect("written");
        });
        deep.failure();
    }
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    let Some(mut bundle) = bundle() else { return };
    let name = format!("coracle-{}", bundle.id);
    let address = SocketAddr::from_abstract_name(&name).expect("short");
    let _listener = UnixListener::bind_addr(&address).expect("bound");
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "network" }));
    let output = bundle.command("cat /proc/net/unix").run();
    assert!(output.stdout.contains("Num"), "{output:?}");
    assert!(!output.stdout.contains(&name), "{output:?}");
}

#[test]
fn annotations_ask_for_neither_hooks_nor_devices() {
    let Some(bundle) = bundle() else { return };
    let outside = outside(&bundle);
    let hook = format!("write {}", outside.join("hook").display());
    let bundle = bundle
        .with(
            "/annotations",
            json!({
                "run.oci.hooks.stderr": outside.join("hook"),
                "org.opencontainers.runtime-spec.hooks": hook,
                "io.kubernetes.cri-o.Devices": "/dev/fuse",
                "org.opencontainers.image.devices": "/dev/fuse",
                "io.podman.annotations.privileged": "TRUE",
            }),
        )
        .command("list /dev");
    let output = bundle.run();
    assert!(!output.lines()[0].contains("fuse"), "{output:?}");
    assert_untouched(&outside);
}
