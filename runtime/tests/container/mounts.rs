//! `mounts`: options, propagation, mapped ids, copies, and changes of what is mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use serde_json::{Value, json};

use crate::harness::{Bundle, Output, bundle};

const EROFS: &str = "errno 30";

/// The line of mountinfo for a mount point.
#[track_caller]
fn line<'a>(output: &'a Output, destination: &str) -> &'a str {
    let of = |line: &&str| line.split(' ').nth(4) == Some(destination);
    let mut lines = output.stdout.lines().filter(of);
    lines
        .next_back()
        .unwrap_or_else(|| panic!("{destination} is not mounted: {output:?}"))
}

fn volume(bundle: &Bundle) -> std::path::PathBuf {
    let volume = bundle.directory.join("volume");
    fs::create_dir(&volume).expect("made");
    fs::write(volume.join("file"), "volume").expect("written");
    volume
}

fn tmpfs(destination: &str, options: Value) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

#[test]
fn every_option_of_the_specification_is_taken() {
    let Some(mut bundle) = bundle() else { return };
    let listed = bundle.runtime(&["features"]).good();
    let features: Value = serde_json::from_str(&listed).expect("JSON");
    let options = features["mountOptions"].as_array().expect("a list");
    let mut command = String::from("cat /proc/self/mountinfo");
    for option in options {
        let name = option.as_str().expect("a string");
        // These say what to mount, or need more than themselves.
        if ["bind", "rbind", "remount", "idmap", "ridmap"].contains(&name) {
            continue;
        }
        bundle = bundle.mount(tmpfs(&format!("/options/{name}"), json!([name])));
        command += &format!(" ; stat /options/{name}");
    }
    let output = bundle.command(&command).run();
    assert_eq!(output.status, 0, "{output:?}");
    for (name, expected) in [
        ("ro", " ro,"),
        ("rro", " ro,"),
        ("rw", " rw,"),
        ("nosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("noexec", "noexec"),
        ("nodiratime", "nodiratime"),
        ("nosymfollow", "nosymfollow"),
        ("noatime", "noatime"),
        ("relatime", "relatime"),
        ("shared", " shared:"),
        ("rshared", " shared:"),
        ("unbindable", " unbindable "),
        ("sync", ",sync"),
        ("dirsync", ",dirsync"),
        ("lazytime", ",lazytime"),
    ] {
        let line = line(&output, &format!("/options/{name}"));
        assert!(line.contains(expected), "{name}: {line}");
    }
}

#[test]
fn bind_mounts_are_known_by_their_option_and_tell_what_they_cannot_take() {
    let Some(bundle) = bundle() else { return };
    volume(&bundle);
    let bundle = bundle
        .mount(json!({ "destination": "/a", "source": "volume", "options": ["rbind", "rprivate", "size=1k"] }))
        .mount(json!({ "destination": "/b", "type": "none", "source": "volume", "options": ["bind", "ro"] }))
        .mount(json!({ "destination": "/c", "type": "bind", "source": "volume" }))
        .command("cat /a/file ; write /b/x x ; cat /c/file");
    let output = bundle.run();
    assert_eq!(output.lines(), ["volume", EROFS, "volume"]);
    assert!(
        output.stderr.contains("/a") && output.stderr.contains("size"),
        "{output:?}"
    );
}

#[test]
fn recursive_read_only_reaches_the_mounts_below() {
    let Some(bundle) = bundle() else { return };
    volume(&bundle);
    let bundle = bundle
        .mount(json!({ "destination": "/sysrw", "source": "/proc", "options": ["rbind", "rw"] }))
        .mount(json!({ "destination": "/plain", "source": "/dev", "options": ["rbind", "ro"] }))
        .mount(json!({ "destination": "/all", "source": "/dev", "options": ["rbind", "rro"] }))
        .command("cat /proc/self/mountinfo");
    let output = bundle.run();
    let of = |prefix: &str| -> Vec<String> {
        let below = |line: &&str| {
            line.split(' ')
                .nth(4)
                .is_some_and(|at| at.starts_with(prefix))
        };
        let lines = output.stdout.lines().filter(below);
        lines.map(str::to_owned).collect()
    };
    assert!(!of("/all").is_empty(), "{output:?}");
    assert!(
        of("/all").iter().all(|line| line.contains(" ro")),
        "{output:?}"
    );
    assert!(line(&output, "/plain").contains(" ro"), "{output:?}");
}

#[test]
fn remount_changes_what_is_mounted_at_the_destination() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .mount(tmpfs("/data", json!(["size=64k"])))
        .mount(json!({ "destination": "/data", "options": ["remount", "bind", "ro", "nosuid"] }))
        .mount(tmpfs("/grown", json!(["size=64k"])))
        .mount(tmpfs("/grown", json!(["remount", "size=128k", "noexec"])))
        .command("write /data/x x ; write /grown/x x ; cat /proc/self/mountinfo");
    let output = bundle.run();
    assert_eq!(output.lines()[..2], [EROFS, "ok"]);
    assert!(line(&output, "/data").contains(" ro,nosuid"), "{output:?}");
    let grown = line(&output, "/grown");
    assert!(
        grown.contains("noexec") && grown.contains("size=128k"),
        "{grown}"
    );
}

#[test]
fn tmpfs_begins_with_what_the_image_has_there() {
    let Some(bundle) = bundle() else { return };
    let directory = bundle.root().join("data");
    fs::create_dir_all(directory.join("deep/er")).expect("made");
    fs::write(directory.join("deep/file"), "kept").expect("written");
    fs::write(directory.join("program"), "x").expect("written");
    let program = directory.join("program");
    chown(&program, Some(7), Some(8)).expect("we are root");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4750)).expect("changed");
    symlink("/etc/shadow", directory.join("link")).expect("made");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).expect("changed");
    let bundle = bundle
        .mount(tmpfs("/data", json!(["tmpcopyup", "size=1m", "nodev"])))
        .command("cat /data/deep/file ; stat /data/program ; list /data/deep ; stat /data ; stat /data/link ; write /data/deep/file x");
    let expected = [
        "kept",
        "104750 7:8 0",
        "er file",
        "41777 0:0 0",
        "120777 0:0 0",
        "ok",
    ];
    assert_eq!(bundle.run().lines(), expected);
    let left = fs::read_to_string(directory.join("deep/file")).expect("kept");
    assert_eq!(left, "kept", "the image is as it was");
}

#[test]
fn ids_of_a_mount_are_mapped_as_its_mappings_say() {
    let Some(bundle) = bundle() else { return };
    let volume = volume(&bundle);
    chown(volume.join("file"), Some(5), Some(6)).expect("we are root");
    let mapping = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 100 }]);
    let mount = |destination: &str, options: Value| {
        json!({ "destination": destination, "type": "bind", "source": "volume", "options": options,
            "uidMappings": mapping(1000), "gidMappings": mapping(2000) })
    };
    let bundle = bundle
        .mount(mount("/one", json!(["bind", "idmap"])))
        .mount(mount("/two", json!(["rbind", "ridmap", "ro"])))
        .mount(mount("/three", json!(["rbind"])))
        .command("stat /one/file ; stat /two/file ; stat /three/file ; write /two/x x");
    let output = bundle.run();
    if output.stderr.contains("map the ids of mount source") {
        eprintln!("skipped: the temporary directory's filesystem maps no ids");
        return;
    }
    let mapped = "100644 1005:2006 0";
    assert_eq!(output.lines(), [mapped, mapped, mapped, EROFS]);
    assert_eq!(fs::metadata(volume.join("file")).expect("kept").uid(), 5);
}

#[test]
fn mapped_ids_without_mappings_are_refused() {
    let Some(first) = bundle() else { return };
    volume(&first);
    let mount = |extra: Value| {
        let mut mount = json!({ "destination": "/x", "type": "bind", "source": "volume", "options": ["idmap"] });
        let object = mount.as_object_mut().expect("an object");
        object.extend(extra.as_object().expect("an object").clone());
        mount
    };
    let config = first.config.clone();
    let mut first = first;
    for extra in [
        json!({}),
        json!({ "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }] }),
        json!({ "type": "tmpfs", "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }],
            "gidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }] }),
    ] {
        first.config = config.clone();
        first = first.mount(mount(extra));
        let failure = first.run().failure();
        assert!(failure.contains("apping"), "{failure}");
    }
}

#[test]
fn propagation_of_the_root_is_what_the_document_says() {
    for (name, expected) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
        ("slave", ""),
        ("rslave", ""),
    ] {
        let Some(bundle) = bundle() else { return };
        let bundle = bundle
            .with("/linux/rootfsPropagation", json!(name))
            .command("cat /proc/self/mountinfo");
        let output = bundle.run();
        assert_eq!(output.status, 0, "{output:?}");
        let root = line(&output, "/");
        let fields: Vec<&str> = root.split(' ').collect();
        let end = fields
            .iter()
            .position(|field| *field == "-")
            .expect("it has");
        let optional = fields[6..end].join(" ");
        if name.ends_with("slave") {
            assert!(!optional.contains("shared"), "{name}: {root}");
        } else {
            assert!(optional.starts_with(expected), "{name}: {root}");
            assert_eq!(optional.is_empty(), expected.is_empty(), "{name}: {root}");
        }
        let host = fs::read_to_string("/proc/self/mountinfo").expect("proc");
        assert!(
            !host.contains(&bundle.id),
            "{name}: a mount came out: {host}"
        );
    }
}

#[test]
fn kernel_filesystems_are_instances_of_the_container() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .mount(json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }))
        .mount(tmpfs("/dev/shm", json!(["nosuid", "noexec", "nodev", "mode=1777", "size=64k"])))
        .command("stat /dev/mqueue ; stat /dev/shm ; cat /proc/self/mountinfo");
    let output = bundle.run();
    assert_eq!(output.lines()[..2], ["41777 0:0 0", "41777 0:0 0"]);
    assert!(line(&output, "/dev/mqueue").contains("- mqueue mqueue"));
}

#[test]
fn root_that_covers_the_hosts_works_like_one_that_replaces_it() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle
        .with("/root/readonly", json!(true))
        .with("/linux/maskedPaths", json!(["/proc/kcore"]))
        .mount(tmpfs("/tmp", json!([])))
        .command("list / ; write /x x ; write /tmp/x x ; cwd ; list /..");
    let output = bundle.runtime(&["run", "--no-pivot", &bundle.id]);
    let names = "bin dev proc sys tmp";
    assert_eq!(
        output.lines(),
        [names, EROFS, "ok", "/", names],
        "{output:?}"
    );
}

#[test]
fn mapped_root_gets_sources_that_it_could_not_reach() {
    let Some(mut bundle) = bundle() else { return };
    let hidden = bundle.directory.join("hidden");
    fs::create_dir_all(hidden.join("volume")).expect("made");
    fs::write(hidden.join("volume/file"), "volume").expect("written");
    for path in [&hidden, &bundle.directory] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("changed");
    }
    for path in [bundle.root(), bundle.root().join("bin")] {
        chown(path, Some(100_000), Some(100_000)).expect("we are root");
    }
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 3 }]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "user" }));
    let bind = |destination: &str| json!({ "destination": destination, "type": "bind", "source": "hidden/volume", "options": ["rbind", "ro", "rprivate"] });
    let bundle = bundle
        .mount(bind("/data"))
        .mount(json!({ "destination": "/terminals", "type": "devpts", "source": "devpts", "options": ["newinstance", "gid=5"] }))
        .command("cat /data/file ; write /data/file x ; write /dev/null x ; stat /sys/class ; cat /proc/self/mountinfo");
    let output = bundle.run();
    if output.stderr.contains("unsupported") {
        eprintln!("skipped: {}", output.stderr);
        return;
    }
    assert_eq!(output.lines()[..3], ["volume", EROFS, "ok"], "{output:?}");
    // The network namespace is not its own, so the host's sysfs serves, read-only with all below.
    let below = |line: &&str| {
        line.split(' ')
            .nth(4)
            .is_some_and(|at| at.starts_with("/sys"))
    };
    for line in output.stdout.lines().filter(below) {
        assert!(line.contains(" ro,"), "{line}");
    }
    line(&output, "/terminals");
}

#[test]
fn kernel_filesystems_of_the_covered_host_make_no_new_ones_possible() {
    let Some(bundle) = bundle() else { return };
    let bundle = bundle.command("own-sysfs /proc");
    let output = bundle.runtime(&["run", "--no-pivot", &bundle.id]);
    let unmade = "unshare -";
    if output.stdout.starts_with(unmade) {
        eprintln!("skipped: no user namespaces for a container on this host");
        return;
    }
    const EPERM: &str = "unshare 0 mount -1";
    assert_eq!(output.lines(), [EPERM], "{output:?}");
}

#[test]
fn read_only_dev_has_its_devices_and_mounts() {
    let Some(mut bundle) = bundle() else { return };
    let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
    let dev = mounts
        .iter_mut()
        .find(|mount| mount["destination"] == "/dev");
    let options = dev.expect("a mount")["options"].as_array_mut();
    options.expect("a list").push(json!("ro"));
    let bundle =
        bundle.command("write /dev/x x ; write /dev/null x ; list /dev/pts ; link /dev/fd");
    let output = bundle.run();
    assert_eq!(
        output.lines(),
        [EROFS, "ok", "ptmx", "/proc/self/fd"],
        "{output:?}"
    );
}
