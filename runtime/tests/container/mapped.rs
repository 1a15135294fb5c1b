//! A root of layers in a user namespace: whose the files are inside, what may be done with them, and that nothing of
//! it is seen or changed outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use crate::harness::{Bundle, Output, bundle};
use crate::root::with_layers;

const FIRST: u32 = 300_000;
const EROFS: &str = "errno 30";
const EPERM: &str = "errno 1";

/// With a new user namespace whose root has these capabilities. The network stays the host's.
fn mapped(mut bundle: Bundle, capabilities: &[&str]) -> Bundle {
    let map = json!([{ "containerID": 0, "hostID": FIRST, "size": 65_536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    let sets = ["bounding", "effective", "permitted"];
    let sets: serde_json::Map<String, Value> = sets
        .iter()
        .map(|set| ((*set).to_owned(), json!(capabilities)))
        .collect();
    bundle.config["process"]["capabilities"] = sets.into();
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "user" }));
    bundle
}

/// Runs it, unless the filesystem of the temporary directory cannot map ids (tmpfs before Linux 6.3).
fn run(bundle: &Bundle) -> Option<Output> {
    let output = bundle.run();
    if output.stderr.contains("map the ids of") && output.stderr.contains("Invalid argument") {
        eprintln!("skipped: {}", output.stderr);
        return None;
    }
    Some(output)
}

#[test]
fn layers_belong_to_the_containers_users_and_keep_what_is_written_to_themselves() {
    let Some(bundle) = bundle() else { return };
    let bundle = mapped(with_layers(bundle, Some(1 << 20)), &[]);
    let bottom = bundle.directory.join("bottom");
    fs::create_dir(bottom.join("home")).expect("made");
    chown(bottom.join("home"), Some(1000), Some(1001)).expect("we are root");
    let bundle = bundle.command(
        "cat /etc/both ; cat /etc/one ; stat /etc/one ; stat /home ; stat /bin ; stat / ; write /etc/one x ; \
         cat /etc/one ; stat /etc/one ; write /made x ; stat /made ; write /home/x x ; rmdir /etc ; write /dev/null x",
    );
    let Some(output) = run(&bundle) else { return };
    let expected = [
        "top",
        "one",
        "100644 0:0 0",
        "40755 1000:1001 0",
        "40755 0:0 0",
        "40755 0:0 0",
        "ok",
        "x",
        "100644 0:0 0",
        "ok",
        "100644 0:0 0",
        // Root without capabilities is a user like any other.
        "errno 13",
        "errno 39",
        "ok",
    ];
    assert_eq!(output.lines(), expected, "{output:?}");
    let one = bottom.join("etc/one");
    assert_eq!(fs::read_to_string(&one).expect("kept"), "one");
    assert_eq!(fs::metadata(&one).expect("kept").uid(), 0);
    let seen = fs::read_dir(bundle.root()).expect("kept").count();
    assert_eq!(seen, 0, "nothing is mounted outside");
    bundle.assert_gone();
}

#[test]
fn capabilities_reach_as_far_as_the_namespaces_own_ids() {
    let Some(bundle) = bundle() else { return };
    let bundle = mapped(
        with_layers(bundle, Some(1 << 20)),
        &["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"],
    )
    .command(
        "chown /etc/one 33 ; stat /etc/one ; chown /etc/one 70000 ; rmdir /void ; mkdir /void ; stat /void ; \
         chown /dev/null 33 ; write /proc/sys/kernel/msgmax 1 ; cat /proc/self/uid_map",
    );
    fs::create_dir(bundle.directory.join("bottom/void")).expect("made");
    let Some(output) = run(&bundle) else { return };
    let lines = output.lines();
    let expected = [
        "ok",
        "100644 33:0 0",
        // Not mapped, so nobody there has that id.
        "errno 22",
        // A directory of a layer is covered and made anew, which takes attributes on the upper layer.
        "ok",
        "ok",
        "40755 0:0 0",
        EPERM,
    ];
    assert_eq!(lines[..7], expected, "{output:?}");
    let map: Vec<&str> = lines[8].split_whitespace().collect();
    assert_eq!(map, ["0", "300000", "65536"]);
}

#[test]
fn a_single_layer_that_has_all_needs_no_overlay_here_either() {
    let Some(bundle) = bundle() else { return };
    let layer = bundle.directory.join("layer");
    fs::rename(bundle.root(), &layer).expect("moved");
    for name in ["rootfs", "layer/proc", "layer/dev", "layer/sys"] {
        fs::create_dir_all(bundle.directory.join(name)).expect("made");
    }
    let bundle = mapped(bundle, &["CAP_DAC_OVERRIDE"])
        .with("/annotations", json!({ "org.coracle.rootfs.lower": layer }))
        .command("stat /bin ; write /new x ; list / ; cat /proc/self/mountinfo");
    let Some(output) = run(&bundle) else { return };
    let expected = ["40755 0:0 0", EROFS, "bin dev proc sys"];
    assert_eq!(output.lines()[..3], expected, "{output:?}");
    assert!(!output.stdout.contains("overlay"), "{}", output.stdout);
}

#[test]
fn volumes_keep_the_containers_ids_on_disk() {
    let Some(bundle) = bundle() else { return };
    let volume = bundle.directory.join("volume");
    fs::create_dir(&volume).expect("made");
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o755)).expect("changed");
    chown(&volume, Some(0), Some(0)).expect("we are root");
    let bundle = mapped(with_layers(bundle, Some(1 << 20)), &["CAP_CHOWN"])
        .mount(json!({ "destination": "/data", "type": "bind", "source": "volume", "options": ["bind", "idmap"] }))
        .command("stat /data ; write /data/x x ; write /data/y y ; chown /data/y 33 ; stat /data/y");
    let Some(output) = run(&bundle) else { return };
    let expected = ["40755 0:0 0", "ok", "ok", "ok", "100644 33:0 0"];
    assert_eq!(output.lines(), expected, "{output:?}");
    for (name, uid) in [("x", 0), ("y", 33)] {
        let stat = fs::metadata(volume.join(name)).expect("written");
        assert_eq!((stat.uid(), stat.gid()), (uid, 0));
    }
}

#[test]
fn a_missing_layer_is_named_and_leaves_nothing() {
    let Some(bundle) = bundle() else { return };
    let bundle = mapped(with_layers(bundle, None), &[]);
    fs::remove_dir_all(bundle.directory.join("bottom")).expect("removed");
    let failure = bundle.run().failure();
    assert!(
        failure.contains("open source of mount") || failure.contains("map the ids"),
        "{failure}"
    );
    bundle.assert_gone();
}
