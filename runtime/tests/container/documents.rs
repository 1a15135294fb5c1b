//! The documents that the runtime writes: `features` and `spec`. Needs no privilege.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Output, RUNTIME, finish};

/// A directory of the test's own, removed when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("coracle-runtime-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("temporary directory");
        Self(path)
    }

    fn runtime(&self, words: &[&str]) -> Output {
        finish(
            Command::new(RUNTIME).args(words).current_dir(&self.0),
            &self.0,
        )
    }

    fn config(&self) -> Value {
        let text = fs::read(self.0.join("config.json")).expect("it was written");
        serde_json::from_slice(&text).expect("JSON")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn spec_writes_a_document_and_never_replaces_one() {
    let directory = Directory::new("spec");
    directory.runtime(&["spec"]).good();
    let written = directory.config();
    assert_eq!(written["process"]["args"], serde_json::json!(["sh"]));
    let failure = directory.runtime(&["spec", "--rootless"]).failure();
    assert!(failure.contains("config.json: File exists"), "{failure}");
    assert_eq!(directory.config(), written);
}

#[test]
fn rootless_spec_goes_where_the_bundle_is() {
    let directory = Directory::new("rootless");
    let bundle = directory.0.to_str().expect("UTF-8");
    directory
        .runtime(&["spec", "--rootless", "--bundle", bundle])
        .good();
    let namespaces = directory.config()["linux"]["namespaces"].to_string();
    assert!(
        namespaces.contains("user") && !namespaces.contains("network"),
        "{namespaces}"
    );
}

/// features.md: the versions are required, and the rest names only what config.json may have.
#[test]
fn features_document_has_what_the_specification_asks_for() {
    let directory = Directory::new("features");
    let text = directory.runtime(&["features"]).good();
    let document: Value = serde_json::from_str(&text).expect("JSON");
    for pointer in ["/ociVersionMin", "/ociVersionMax"] {
        let version = document.pointer(pointer).and_then(Value::as_str);
        assert!(version.is_some_and(|version| version.starts_with("1.")));
    }
    for (pointer, some) in [
        ("/mountOptions", "rbind"),
        ("/hooks", "createContainer"),
        ("/linux/namespaces", "pid"),
        ("/linux/namespaces", "time"),
        ("/linux/namespaces", "user"),
        ("/linux/capabilities", "CAP_CHECKPOINT_RESTORE"),
        ("/linux/seccomp/actions", "SCMP_ACT_NOTIFY"),
        ("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ"),
        ("/linux/seccomp/archs", "SCMP_ARCH_X86"),
        ("/linux/seccomp/supportedFlags", "SECCOMP_FILTER_FLAG_TSYNC"),
    ] {
        let list = document.pointer(pointer).and_then(Value::as_array);
        let list = list.unwrap_or_else(|| panic!("no {pointer} in {text}"));
        assert!(list.iter().any(|value| value == some), "{some} in {list:?}");
    }
}
