//! SPDX 2.3 (ISO/IEC 5962), as JSON.

use serde_json::{Value, json};

use super::{Bill, Component, Kind, identifier, timestamp};

const UNKNOWN: &str = "NOASSERTION";
/// The image itself.
const IMAGE: &str = "SPDXRef-image";

/// The document.
pub fn document(bill: &Bill) -> Value {
    let mut packages = vec![image(bill)];
    packages.extend(bill.components.iter().map(component));
    packages.extend(bill.workloads.iter().map(|workload| {
        json!({
            "SPDXID": reference(&workload.id),
            "name": workload.name,
            "downloadLocation": UNKNOWN,
            "filesAnalyzed": false,
            "licenseConcluded": UNKNOWN,
            "licenseDeclared": UNKNOWN,
            "copyrightText": UNKNOWN,
            "primaryPackagePurpose": "CONTAINER",
        })
    }));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", bill.name, bill.version),
        "documentNamespace": format!(
            "https://github.com/coracle-os/coracle/spdx/{}-{}-{}",
            identifier(&bill.name), identifier(&bill.version), bill.root_hash
        ),
        "creationInfo": {
            "created": timestamp(bill.epoch),
            "creators": [format!("Tool: coracle-{}", bill.maker)],
        },
        "packages": packages,
        "relationships": relationships(bill),
    })
}

fn reference(id: &str) -> String {
    format!("SPDXRef-{id}")
}

fn image(bill: &Bill) -> Value {
    json!({
        "SPDXID": IMAGE,
        "name": bill.name,
        "versionInfo": bill.version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "comment": format!("dm-verity root hash {}", bill.root_hash),
    })
}

fn component(component: &Component) -> Value {
    let mut value = json!({
        "SPDXID": reference(&component.id),
        "name": component.name,
        "versionInfo": component.version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": component.license.as_deref().unwrap_or(UNKNOWN),
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": match component.kind {
            Kind::Package | Kind::Program => "APPLICATION",
            Kind::Image => "CONTAINER",
            Kind::Crate => "LIBRARY",
            Kind::File => "FILE",
        },
    });
    if component.kind == Kind::Crate {
        let (name, version) = (&component.name, &component.version);
        let place = format!("https://crates.io/api/v1/crates/{name}/{version}/download");
        value["downloadLocation"] = place.replace('+', "%2B").into();
    }
    if let Some(sha256) = &component.sha256 {
        value["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
    }
    if let Some(purl) = &component.purl {
        value["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }]);
    }
    value
}

fn relationships(bill: &Bill) -> Vec<Value> {
    let relation = |from: &str, kind: &str, to: &str| {
        json!({
            "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to,
        })
    };
    let mut all = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    let parts = bill.components.iter().map(|component| &component.id);
    let parts = parts.chain(bill.workloads.iter().map(|workload| &workload.id));
    all.extend(parts.map(|id| relation(IMAGE, "CONTAINS", &reference(id))));
    for workload in &bill.workloads {
        let components = workload.components.iter();
        let components = components.filter_map(|place| bill.components.get(*place));
        all.extend(components.map(|component| {
            relation(
                &reference(&workload.id),
                "CONTAINS",
                &reference(&component.id),
            )
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::tests::example;

    /// What the published schema and clause 7 of the specification ask for.
    #[test]
    fn the_document_has_what_the_specification_requires() {
        let bill = Bill::of(&example(), &"ab".repeat(32));
        let document = document(&bill);
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        assert_eq!(document["creationInfo"]["created"], "2023-11-14T22:13:20Z");
        let packages = document["packages"].as_array().unwrap();
        let mut ids: Vec<&str> = packages
            .iter()
            .map(|p| p["SPDXID"].as_str().unwrap())
            .collect();
        for package in packages {
            for key in [
                "name",
                "downloadLocation",
                "licenseDeclared",
                "copyrightText",
            ] {
                assert!(package[key].is_string(), "{key} of {package}");
            }
            for checksum in package["checksums"].as_array().into_iter().flatten() {
                assert_eq!(checksum["checksumValue"].as_str().unwrap().len(), 64);
            }
        }
        ids.push("SPDXRef-DOCUMENT");
        for relation in document["relationships"].as_array().unwrap() {
            for key in ["spdxElementId", "relatedSpdxElement"] {
                assert!(ids.contains(&relation[key].as_str().unwrap()), "{relation}");
            }
        }
        assert_eq!(document, super::document(&bill));
    }
}
