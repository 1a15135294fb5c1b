use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use super::*;

/// A directory with the files of a resctrl root. In it new classes have no files of their own, so those with schemata
/// must be there.
struct Fake(PathBuf);

impl Fake {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("resctrl-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let fake = Self(path);
        fake.class("");
        fs::create_dir_all(fake.0.join("info/L3_MON")).expect("made");
        fs::write(fake.0.join("info/L3_MON/mon_features"), "llc_occupancy\n").expect("written");
        fake
    }

    /// What the kernel puts into a new directory.
    fn class(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.join("mon_groups")).expect("made");
        fs::write(path.join("tasks"), "").expect("written");
        let text = "    MB:0=100;1=100\n    L3:0=0ff;1=fff\n";
        fs::write(path.join("schemata"), text).expect("written");
        path
    }

    fn prepare(&self, asked: Value) -> Result<Membership> {
        Membership::prepare_below(&self.0, &class(asked)?)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn class(asked: Value) -> Result<Class> {
    Class::resolve(&serde_json::from_value(asked).expect("well formed"), "id")
}

#[test]
fn lines_are_written_in_the_order_of_the_specification() {
    let asked = json!({
        "l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20;1=70", "schemata": ["L2:0=f", "MB:0=30"],
    });
    let lines = class(asked).expect("valid").schemata;
    assert_eq!(lines, ["L3:0=f", "MB:0=20;1=70", "L2:0=f", "MB:0=30"]);
    let alone = class(json!({ "l3CacheSchema": "L3:0=f\nMB:0=10" })).expect("valid");
    assert_eq!(alone.schemata, ["L3:0=f", "MB:0=10"]);
}

#[test]
fn what_is_no_class_or_line_is_refused_by_name() {
    for (asked, named) in [
        (json!({ "closID": "a/b" }), "closID"),
        (json!({ "closID": ".." }), "closID"),
        (json!({ "closID": "info" }), "closID"),
        (json!({ "memBwSchema": "L3:0=f" }), "memBwSchema"),
        (json!({ "memBwSchema": "MB:0=1\nL3:0=1" }), "memBwSchema"),
        (json!({ "l3CacheSchema": "nothing" }), "l3CacheSchema"),
        (json!({ "schemata": ["L3:0"] }), "schemata"),
    ] {
        let error = class(asked.clone()).expect_err("refused").to_string();
        assert!(error.contains(named), "{asked}: {error}");
    }
}

#[test]
fn schemata_are_compared_by_their_meaning() {
    let file = "    MB:0= 20;1=100\nL3:0=0000f;1=fffff\n";
    for (line, expected) in [
        ("L3:0=f", true),
        ("L3:1=FFFFF;0=0f", true),
        ("MB:1=100;0=20", true),
        ("L3:0=ff", false),
        ("L3:2=f", false),
        ("L2:0=f", false),
    ] {
        assert_eq!(matches(file, &[line.to_owned()]), expected, "{line}");
    }
}

#[test]
fn class_of_the_containers_own_comes_and_goes_with_it() {
    let fake = Fake::new("own");
    let membership = fake.prepare(json!({})).expect("made");
    let path = fake.0.join("id");
    assert!(path.is_dir() && membership.is_own);
    // The kernel makes the files.
    fs::write(path.join("tasks"), "").expect("written");
    membership.attach(4242).expect("attached");
    assert_eq!(
        fs::read_to_string(path.join("tasks")).expect("there"),
        "4242"
    );
    fs::remove_file(path.join("tasks")).expect("removed");
    let text = serde_json::to_string(&membership).expect("JSON");
    let remembered: Membership = serde_json::from_str(&text).expect("JSON");
    remembered.remove().expect("removed");
    assert!(!path.exists() && remembered.remove().is_ok());
}

#[test]
fn named_class_that_exists_must_fit_and_stays() {
    let fake = Fake::new("named");
    let path = fake.class("gold");
    let inode = fs::metadata(&path).expect("there").ino();
    for schema in [json!({}), json!({ "l3CacheSchema": "L3:0=ff" })] {
        let mut asked = schema.clone();
        asked["closID"] = json!("gold");
        let membership = fake.prepare(asked).expect("it fits");
        membership.remove().expect("nothing to remove");
        assert_eq!(fs::metadata(&path).expect("there").ino(), inode, "{schema}");
    }
    for asked in [
        json!({ "closID": "gold", "memBwSchema": "MB:0=50" }),
        json!({ "closID": "gold", "schemata": ["L2:0=1"] }),
    ] {
        let error = fake
            .prepare(asked.clone())
            .expect_err("refused")
            .to_string();
        assert!(error.contains("other schemata"), "{asked}: {error}");
    }
}

#[test]
fn named_class_that_is_missing_is_made_only_from_schemata() {
    let fake = Fake::new("missing");
    let error = fake
        .prepare(json!({ "closID": "silver" }))
        .expect_err("refused");
    assert!(error.to_string().contains("silver"), "{error}");
    // No file `schemata` appears in a plain directory, so the write fails, and what was made is undone.
    let asked = json!({ "closID": "silver", "l3CacheSchema": "L3:0=f" });
    assert!(fake.prepare(asked).is_err() && !fake.0.join("silver").exists());
}

#[test]
fn monitoring_group_is_the_containers_in_any_class() {
    let fake = Fake::new("monitoring");
    let gold = fake.class("gold");
    for (asked, above) in [
        (json!({ "closID": "gold", "enableMonitoring": true }), &gold),
        (json!({ "closID": "/", "enableCMT": true }), &fake.0),
    ] {
        let membership = fake.prepare(asked).expect("made");
        let group = above.join("mon_groups/id");
        assert!(group.is_dir());
        fs::write(group.join("tasks"), "").expect("written");
        membership.attach(7).expect("attached");
        for tasks in [above.join("tasks"), group.join("tasks")] {
            assert_eq!(fs::read_to_string(tasks).expect("there"), "7");
        }
        fs::remove_file(group.join("tasks")).expect("removed");
        membership.remove().expect("removed");
        assert!(!group.exists() && above.is_dir());
    }
    let error = fake
        .prepare(json!({ "enableMBM": true }))
        .expect_err("refused");
    assert!(error.to_string().contains("enableMBM"), "{error}");
    assert!(!fake.0.join("id").exists());
}

#[test]
fn mount_is_found_by_its_type() {
    let text = "\
        24 1 0:21 / /sys/fs/resctrl-not rw - tmpfs resctrl rw\n\
        31 24 0:27 / /sys/fs/resctrl rw,nosuid shared:10 - resctrl resctrl rw\n";
    assert_eq!(find_mount(text), Some("/sys/fs/resctrl".into()));
    assert_eq!(find_mount("24 1 0:21 / / rw - ext4 resctrl rw\n"), None);
}
