//! The root: overlay, mounts, devices, masked and read-only paths, and what an image could try.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::harness::{Bundle, bundle};

const EROFS: &str = "errno 30";
const ENOSPC: &str = "errno 28";

/// Moves the root into a layer, and puts a second one with a file below it.
pub(crate) fn with_layers(bundle: Bundle, upper_size: Option<u32>) -> Bundle {
    let [top, bottom] = ["top:1", "bottom"].map(|name| bundle.directory.join(name));
    fs::rename(bundle.root(), &top).expect("moved");
    fs::create_dir_all(bundle.root()).expect("made");
    fs::create_dir_all(bottom.join("etc")).expect("made");
    fs::create_dir_all(top.join("etc")).expect("made");
    fs::write(bottom.join("etc/both"), "bottom").expect("written");
    fs::write(bottom.join("etc/one"), "one").expect("written");
    fs::write(top.join("etc/both"), "top").expect("written");
    let escaped = top.to_str().expect("ASCII").replace(':', "\\:");
    let mut annotations =
        json!({ "org.coracle.rootfs.lower": format!("{escaped}:{}", bottom.display()) });
    if let Some(size) = upper_size {
        annotations["org.coracle.rootfs.upper-size"] = json!(size.to_string());
    }
    bundle.with("/annotations", annotations)
}

#[test]
fn overlay_shows_the_layers_and_forgets_what_is_written() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_layers(bundle, Some(1 << 20))
        .command("cat /etc/both ; cat /etc/one ; cat /new ; write /new x ; write /etc/one x ; cat /etc/one ; fill /big 2000000");
    for _ in 0..2 {
        let output = bundle.run();
        assert_eq!(
            output.lines(),
            ["top", "one", "errno 2", "ok", "ok", "x", ENOSPC]
        );
    }
    assert_eq!(
        fs::read_to_string(bundle.directory.join("bottom/etc/one")).expect("kept"),
        "one"
    );
    assert_eq!(
        fs::read_dir(bundle.root()).expect("kept").count(),
        0,
        "nothing is mounted outside"
    );
}

#[test]
fn overlay_without_upper_layer_is_read_only_but_has_all_mount_points() {
    let Some(bundle) = bundle() else { return };
    let bundle = with_layers(bundle, None)
        .mount(json!({ "destination": "/data/deep", "type": "tmpfs", "source": "tmpfs" }))
        .command("write /new x ; write /data/x x ; write /data/deep/x x ; cat /etc/one");
    assert_eq!(bundle.run().lines(), [EROFS, EROFS, "ok", "one"]);
}

#[test]
fn single_layer_with_all_mount_points_needs_no_overlay() {
    let Some(bundle) = bundle() else { return };
    let layer = bundle.directory.join("layer");
    fs::rename(bundle.root(), &layer).expect("moved");
    for name in ["rootfs", "layer/proc", "layer/dev", "layer/sys"] {
        fs::create_dir_all(bundle.directory.join(name)).expect("made");
    }
    let bundle = bundle
        .with("/annotations", json!({ "org.coracle.rootfs.lower": layer }))
        .command("write /new x ; list / ; cat /proc/self/mountinfo");
    let output = bundle.run();
    assert_eq!(output.lines()[..2], [EROFS, "bin dev proc sys"]);
    assert!(!output.stdout.contains("overlay"), "{}", output.stdout);
}

#[test]
fn single_layer_without_mount_points_gets_them_whatever_the_working_directory() {
    for cwd in ["/", "/work", "/bin"] {
        let Some(bundle) = bundle() else { return };
        let layer = bundle.directory.join("layer");
        fs::rename(bundle.root(), &layer).expect("moved");
        fs::create_dir_all(bundle.root()).expect("made");
        let bundle = bundle
            .with("/annotations", json!({ "org.coracle.rootfs.lower": layer }))
            .with("/process/cwd", json!(cwd))
            .mount(json!({ "destination": "/place/deep", "type": "tmpfs", "source": "tmpfs" }))
            .command("cwd ; write /new x ; write /place/deep/x x");
        assert_eq!(bundle.run().lines(), [cwd, EROFS, "ok"]);
    }
}

#[test]
fn read_only_root_refuses_writes_and_its_mounts_do_not() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/root/readonly", json!(true))
        .mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }))
        .command("write /x x ; write /bin/x x ; write /tmp/x x");
    assert_eq!(bundle.run().lines(), [EROFS, EROFS, "ok"]);
    let bundle = bundle.with("/root/readonly", json!(false));
    assert_eq!(bundle.run().lines(), ["ok", "ok", "ok"]);
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_refuse_writes() {
    let Some(bundle) = bundle() else { return };
    fs::create_dir_all(bundle.root().join("hidden")).expect("made");
    fs::write(bundle.root().join("hidden/file"), "secret").expect("written");
    fs::create_dir_all(bundle.root().join("hidden2/below")).expect("made");
    fs::write(bundle.root().join("secret"), "secret").expect("written");
    fs::create_dir_all(bundle.root().join("fixed/below")).expect("made");
    symlink("secret", bundle.root().join("link")).expect("made");
    let bundle = bundle
        .with("/linux/maskedPaths", json!(["/proc/cpuinfo", "/hidden", "/hidden2", "/link", "/not/there"]))
        .with("/linux/readonlyPaths", json!(["/proc/sys", "/fixed", "/not/there"]))
        .command("cat /proc/cpuinfo ; list /hidden ; list /hidden2 ; write /hidden/x x ; cat /secret ; write /proc/sys/kernel/msgmax 1 ; write /fixed/below/x x");
    assert_eq!(bundle.run().lines(), ["", "", "", EROFS, "", EROFS, EROFS]);
}

#[test]
fn bind_mounts_keep_their_flags_and_make_their_targets() {
    let Some(bundle) = bundle() else { return };
    let source = bundle.directory.join("volume");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), "volume").expect("written");
    let bundle = bundle
        .mount(json!({ "destination": "/data", "source": "volume", "options": ["rbind", "rprivate"] }))
        .mount(json!({ "destination": "/etc/one", "type": "bind", "source": source.join("file"), "options": ["bind", "ro", "nosuid", "nodev", "noexec"] }))
        .command("cat /data/file ; write /data/new x ; cat /etc/one ; write /etc/one x ; cat /proc/self/mountinfo");
    let output = bundle.run();
    assert_eq!(output.lines()[..4], ["volume", "ok", "volume", EROFS]);
    let line = output
        .lines()
        .into_iter()
        .find(|line| line.contains(" /etc/one "))
        .expect("it is mounted");
    assert!(line.contains("ro,nosuid,nodev,noexec"), "{line}");
    assert_eq!(
        fs::read_to_string(source.join("new")).expect("it is the host's"),
        "x"
    );
}

#[test]
fn symlinked_mount_target_stays_inside_the_root() {
    let Some(bundle) = bundle() else { return };
    let outside = bundle.directory.join("outside");
    fs::create_dir(&outside).expect("made");
    symlink(
        format!("../../../../../../..{}", outside.display()),
        bundle.root().join("relative"),
    )
    .expect("made");
    symlink(&outside, bundle.root().join("absolute")).expect("made");
    let bundle = bundle
        .mount(json!({ "destination": "/relative", "type": "tmpfs", "source": "tmpfs" }))
        .mount(
            json!({ "destination": "/absolute/new/file", "type": "bind", "source": "config.json" }),
        )
        .mount(json!({ "destination": "/../../climb", "type": "tmpfs", "source": "tmpfs" }))
        .command(&format!("write /relative/x x ; list {}", outside.display()));
    assert_eq!(bundle.run().lines(), ["ok", "new x"]);
    assert_eq!(
        fs::read_dir(&outside).expect("it is ours").count(),
        0,
        "something came out"
    );
    assert!(bundle.root().join("climb").exists(), "it was made inside");
}

#[test]
fn image_with_a_symlink_for_proc_or_a_device_is_refused() {
    for name in ["proc", "dev"] {
        let Some(first) = bundle() else { return };
        fs::create_dir(first.root().join("elsewhere")).expect("made");
        symlink("elsewhere", first.root().join(name)).expect("made");
        let failure = first.run().failure();
        let expected = format!("refuse the symlink in the image at /{name}");
        assert!(failure.contains(&expected), "{failure}");
    }
    let Some(second) = bundle() else { return };
    fs::create_dir(second.root().join("dev")).expect("made");
    symlink("/etc/passwd", second.root().join("dev/null")).expect("made");
    let mut second = second;
    second.config["mounts"]
        .as_array_mut()
        .expect("a list")
        .retain(|mount| mount["destination"] == "/proc");
    let failure = second.run().failure();
    assert!(
        failure.contains("in place of device /dev/null"),
        "{failure}"
    );
}

#[test]
fn default_devices_and_links_are_there() {
    let Some(bundle) = bundle() else { return };
    let device = json!({ "path": "/dev/extra", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4 });
    let bundle = bundle.with("/linux/devices", json!([device])).command(
        "stat /dev/null ; stat /dev/tty ; stat /dev/extra ; list /dev ; write /dev/null x",
    );
    let expected = [
        "20666 0:0 103",
        "20666 0:0 500",
        "20640 3:4 105",
        "extra fd full null ptmx pts random stderr stdin stdout tty urandom zero",
        "ok",
    ];
    assert_eq!(bundle.run().lines(), expected);
}

#[test]
fn working_directory_is_made_and_never_the_hosts() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/process/cwd", json!("/place/here"))
        .command("cwd");
    assert_eq!(bundle.run().lines(), ["/place/here"]);
    for cwd in [
        "/proc/self/fd/3",
        "/proc/self/fd/7/..",
        "/proc/self/cwd",
        "/bin/helper",
    ] {
        let Some(bundle) = crate::harness::bundle() else {
            return;
        };
        let failure = bundle
            .with("/process/cwd", json!(cwd))
            .command("cwd")
            .run()
            .failure();
        assert!(failure.contains(cwd), "{cwd}: {failure}");
    }
}

#[test]
fn program_without_its_interpreter_is_told_from_a_missing_one() {
    let Some(bundle) = bundle() else { return };
    let script = bundle.root().join("bin/script");
    fs::write(&script, "#!/bin/not-there\n").expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("changed");
    let bundle = bundle.with("/process/args", json!(["/bin/script"]));
    let failure = bundle.run().failure();
    assert!(
        failure.contains("find the loader or interpreter of /bin/script"),
        "{failure}"
    );
}

#[test]
fn every_signal_has_its_default_action() {
    let Some(bundle) = bundle() else { return };
    let output = bundle.command("cat /proc/self/status").run();
    let ignored = output.lines().into_iter().find_map(|line| {
        let mask = line.strip_prefix("SigIgn:")?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    // The helper itself ignores SIGPIPE, as every program in Rust does.
    assert_eq!(ignored, Some(1 << 12));
}

#[test]
fn search_in_path_happens_inside() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.with("/process/args", json!(["helper", "env", "HOME"]));
    fs::create_dir(bundle.root().join("etc")).expect("made");
    fs::write(
        bundle.root().join("etc/passwd"),
        "root:x:0:0::/home/root:/bin/sh\n",
    )
    .expect("written");
    assert_eq!(bundle.run().lines(), ["/home/root"]);
    fs::set_permissions(
        bundle.root().join("bin/helper"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("changed");
    assert!(
        bundle
            .run()
            .failure()
            .contains("exec: \"helper\": permission denied")
    );
}
