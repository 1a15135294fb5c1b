//! CycloneDX 1.6 (ECMA-424), as JSON.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Bill, Component, Kind, timestamp};
use crate::format::uuid_from_digest;

/// The image itself.
const IMAGE: &str = "image";

/// The document.
pub fn document(bill: &Bill) -> Value {
    let serial = uuid_from_digest(&Sha256::digest(format!(
        "coracle\0sbom\0{}",
        bill.root_hash
    )));
    let mut components: Vec<Value> = bill.components.iter().map(component).collect();
    components.extend(bill.workloads.iter().map(
        |workload| json!({ "type": "container", "bom-ref": workload.id, "name": workload.name }),
    ));
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{serial}"),
        "version": 1,
        "metadata": {
            "timestamp": timestamp(bill.epoch),
            "tools": {
                "components": [{ "type": "application", "name": "coracle", "version": bill.maker }],
            },
            "component": {
                "type": "operating-system",
                "bom-ref": IMAGE,
                "name": bill.name,
                "version": bill.version,
                "properties": [{ "name": "coracle:root-hash", "value": bill.root_hash }],
            },
        },
        "components": components,
        "dependencies": dependencies(bill),
    })
}

fn component(component: &Component) -> Value {
    let mut value = json!({
        "type": match component.kind {
            Kind::Package | Kind::Program => "application",
            Kind::Image => "container",
            Kind::Crate => "library",
            Kind::File => "file",
        },
        "bom-ref": component.id,
        "name": component.name,
        "version": component.version,
    });
    if let Some(sha256) = &component.sha256 {
        value["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    if let Some(license) = &component.license {
        value["licenses"] = json!([{ "expression": license }]);
    }
    if let Some(purl) = &component.purl {
        value["purl"] = purl.as_str().into();
    }
    value
}

/// The image is made of all, a workload of its own.
fn dependencies(bill: &Bill) -> Vec<Value> {
    let components = bill
        .components
        .iter()
        .map(|component| component.id.as_str());
    let workloads = bill.workloads.iter().map(|workload| workload.id.as_str());
    let all: Vec<&str> = components.chain(workloads).collect();
    let mut dependencies = vec![json!({ "ref": IMAGE, "dependsOn": all })];
    for workload in &bill.workloads {
        let places = workload.components.iter();
        let mut own: Vec<&str> = places
            .filter_map(|place| Some(bill.components.get(*place)?.id.as_str()))
            .collect();
        own.sort_unstable();
        own.dedup();
        dependencies.push(json!({ "ref": workload.id, "dependsOn": own }));
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::tests::example;

    /// What the published schema asks for beyond types.
    #[test]
    fn the_document_has_what_the_specification_requires() {
        let bill = Bill::of(&example(), &"ab".repeat(32));
        let document = document(&bill);
        assert_eq!(document["bomFormat"], "CycloneDX");
        let serial = document["serialNumber"].as_str().unwrap();
        assert_eq!(serial.len(), "urn:uuid:".len() + 36);
        let components = document["components"].as_array().unwrap();
        let mut refs: Vec<&str> = vec![IMAGE];
        for component in components {
            assert!(component["type"].is_string() && component["name"].is_string());
            refs.push(component["bom-ref"].as_str().unwrap());
        }
        let count = refs.len();
        refs.sort_unstable();
        refs.dedup();
        assert_eq!(refs.len(), count);
        for dependency in document["dependencies"].as_array().unwrap() {
            for on in dependency["dependsOn"].as_array().unwrap() {
                assert!(refs.contains(&on.as_str().unwrap()), "{on}");
            }
        }
        assert_eq!(document, super::document(&bill));
    }
}
