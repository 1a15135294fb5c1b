//! `spec`: a `config.json` to start from, for a shell in the directory `rootfs` beside it.
//!
//! Refuses to replace one that is there.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};

use crate::error::{Context, Result};

const TEMPLATE: &str = include_str!("spec.json");

/// Writes `config.json` into a directory; with `rootless`, one that the user who calls can run without privilege.
pub fn write(bundle: &Path, rootless: bool) -> Result<()> {
    let path = bundle.join("config.json");
    let mut file = File::create_new(&path).at("create", &path)?;
    let text = if rootless {
        let ids = (geteuid().as_raw(), getegid().as_raw());
        format!("{:#}\n", without_privilege(ids))
    } else {
        TEMPLATE.to_owned()
    };
    file.write_all(text.as_bytes()).at("write", &path)
}

/// A user namespace with one user and one group, the host's network, and nothing that needs more.
fn without_privilege((uid, gid): (u32, u32)) -> Value {
    let mut document: Value = serde_json::from_str(TEMPLATE).expect("the template is JSON");
    let one = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
    let linux = &mut document["linux"];
    linux["uidMappings"] = one(uid);
    linux["gidMappings"] = one(gid);
    let namespaces = linux["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({ "type": "user" }));
    linux
        .as_object_mut()
        .expect("an object")
        .remove("resources");
    let mounts = document["mounts"].as_array_mut().expect("a list");
    // Whoever does not own the network namespace cannot mount a sysfs of it.
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(is_below_sys));
    for mount in mounts.iter_mut() {
        let options = mount["options"].as_array_mut().expect("a list");
        options.retain(|option| !option.as_str().is_some_and(|text| text.starts_with("gid=")));
    }
    mounts.push(
        json!({ "destination": "/sys", "type": "none", "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] }),
    );
    document
}

fn is_below_sys(path: &str) -> bool {
    Path::new(path).starts_with("/sys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{OCI_VERSION, Spec};

    #[test]
    fn template_is_a_document_of_this_version() {
        let document: Spec = serde_json::from_str(TEMPLATE).expect("it parses");
        assert_eq!(document.oci_version, OCI_VERSION);
        assert_eq!(document.process.expect("a process").args, ["sh"]);
    }

    #[test]
    fn rootless_document_maps_the_caller_and_asks_for_no_privilege() {
        let document = without_privilege((1000, 100));
        let text = document.to_string();
        assert!(
            !text.contains("gid=5") && !text.contains("network") && !text.contains("cgroup\",")
        );
        let parsed: Spec = serde_json::from_value(document).expect("it parses");
        let ids = (parsed.linux.uid_mappings[0], parsed.linux.gid_mappings[0]);
        assert_eq!((ids.0.host_id, ids.1.host_id), (1000, 100));
        assert!(
            parsed
                .linux
                .namespaces
                .iter()
                .any(|namespace| namespace.kind == "user")
        );
        assert!(parsed.linux.resources.is_none());
    }
}
