//! `coracle inspect`: what a disk image holds, and whether its root fits its hash.

use std::path::Path;

use serde_json::{Value, json};

use crate::disk::types;
use crate::failure::Failure;
use crate::image::{DiskImage, ImageError, Uki};
use crate::streams::{give, show};

/// Prints what is in the image; a root that does not fit its hash is a failure.
pub(super) fn inspect(disk: &Path, as_json: bool) -> Result<(), Failure> {
    let image = DiskImage::open(disk).map_err(|error| match &error {
        // The command line names what is not there, as for every other command.
        ImageError::Open { source, .. } => Failure::Input(format!("error: {error}: {source}")),
        _ => Failure::work(error),
    })?;
    let uki = image.uki()?;
    let root_hash = uki.root_hash().unwrap_or_default();
    let verdict = image.verify(&root_hash)?;
    let spec = image.boot_spec();
    let report = json!({
        "disk": { "path": disk.display().to_string(), "size": image.table.disk_len, "guid": image.table.disk_guid.to_string() },
        "partitions": partitions(&image),
        "uki": uki_json(&uki)?,
        "root_hash": root_hash,
        "verified": verdict.is_ok(),
        "machine": match &spec { Ok(spec) => serde_json::to_value(spec)?, Err(_) => Value::Null },
    });
    if as_json {
        give(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        show(&describe(&report))?;
    }
    verdict.map_err(|error| {
        let hint = "the image is damaged or was changed: build it again".to_owned();
        Failure::work_with_hint(
            anyhow::Error::new(error).context("the root does not fit its hash"),
            Some(hint),
        )
    })?;
    spec.map(drop).map_err(Failure::work)
}

fn partitions(image: &DiskImage) -> Vec<Value> {
    let kind = |guid| match guid {
        types::ESP => "EFI system (FAT32)",
        types::ROOT_X86_64 => "root (EROFS)",
        types::ROOT_X86_64_VERITY => "root verity (dm-verity)",
        types::LINUX_GENERIC => "state (ext4)",
        _ => "unknown",
    };
    let partition = |p: &crate::format::gpt::Partition| {
        json!({
            "name": p.name, "kind": kind(p.type_guid), "start": p.start, "size": p.len,
            "type_guid": p.type_guid.to_string(), "guid": p.unique_guid.to_string(),
        })
    };
    image.table.partitions.iter().map(partition).collect()
}

fn uki_json(uki: &Uki) -> Result<Value, Failure> {
    let sections: Vec<Value> = uki
        .sections
        .iter()
        .map(|s| json!({ "name": s.name, "size": s.virtual_size, "address": s.virtual_address }))
        .collect();
    let release = uki
        .section(".uname")
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .unwrap_or_default();
    Ok(json!({
        "path": uki.path, "size": uki.bytes.len(), "kernel": release, "command_line": uki.command_line()?, "sections": sections,
        "signed_by": signers(&uki.bytes),
    }))
}

/// Who has signed an image, and whether the signature fits it.
fn signers(image: &[u8]) -> Vec<Value> {
    let signature = |signature: crate::secure_boot::ImageSignature| {
        json!({
            "subject": signature.certificate.subject(), "fits": signature.fits,
            "sha256": crate::identity::hex(&signature.certificate.fingerprint()), "not_after": signature.certificate.not_after(),
        })
    };
    let found = crate::secure_boot::signatures(image).unwrap_or_default();
    found.into_iter().map(signature).collect()
}

/// The report as text: the same facts as the JSON, drawn from it so that the two never differ.
fn describe(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bytes = |value: &Value| human(value.as_u64().unwrap_or_default());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut out = format!(
        "{}  {}  {}\n\n",
        text(&report["disk"]["path"]),
        bytes(&report["disk"]["size"]),
        text(&report["disk"]["guid"])
    );
    for p in list(&report["partitions"]) {
        out += &format!(
            "  {:<12} {:>10} at {:>10}  {:<24} {}\n",
            text(&p["name"]),
            bytes(&p["size"]),
            bytes(&p["start"]),
            text(&p["kind"]),
            text(&p["guid"])
        );
    }
    let uki = &report["uki"];
    out += &format!(
        "\nkernel image {} ({}), Linux {}\n",
        text(&uki["path"]),
        bytes(&uki["size"]),
        text(&uki["kernel"])
    );
    for s in list(&uki["sections"]) {
        out += &format!("  {:<12} {:>10}\n", text(&s["name"]), bytes(&s["size"]));
    }
    for signer in list(&uki["signed_by"]) {
        let fits = if signer["fits"] == true {
            "signed by"
        } else {
            "CHANGED since it was signed by"
        };
        out += &format!("  {fits} {}\n", text(&signer["subject"]));
    }
    let verdict = if report["verified"] == true {
        "verified: every block of the root fits"
    } else {
        "DAMAGED: the root does not fit"
    };
    out += &format!(
        "  command line {}\n\nroot hash {}\n  {verdict}\n",
        text(&uki["command_line"]),
        text(&report["root_hash"])
    );
    let machine = &report["machine"];
    if machine.is_object() {
        out += &format!(
            "\nmachine {} {}, hostname {}\n",
            text(&machine["name"]),
            text(&machine["version"]),
            text(&machine["hostname"])
        );
        for w in list(&machine["workloads"]) {
            let ports: Vec<String> = list(&w["ports"])
                .iter()
                .map(|p| format!("{}:{}", p["published"], p["target"]))
                .collect();
            out += &format!("  workload {:<12} {}\n", text(&w["name"]), ports.join(" "));
        }
    }
    out
}

/// A size in the largest unit that keeps it above 1.
fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
