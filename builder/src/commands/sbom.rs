//! `coracle sbom`: what a disk is made of, as SPDX or CycloneDX.

use super::inspect::open;
use crate::cli::{Sbom, SbomFormat};
use crate::failure::Failure;
use crate::sbom::{Bill, cyclonedx, spdx};
use crate::streams::give;

/// Prints the document. Only a root that fits its hash is believed.
pub(super) fn sbom(arguments: &Sbom) -> Result<(), Failure> {
    let image = open(&arguments.disk)?;
    let root_hash = image.uki()?.root_hash().unwrap_or_default();
    image.verify(&root_hash)?.map_err(|error| {
        let hint = "the image is damaged or was changed: `coracle verify` says where".to_owned();
        let error = anyhow::Error::new(error).context("the root does not fit its hash");
        Failure::work_with_hint(error, Some(hint))
    })?;
    let bill = Bill::of(&image.contents()?, &root_hash);
    let document = match arguments.format {
        SbomFormat::Spdx => spdx::document(&bill),
        SbomFormat::Cyclonedx => cyclonedx::document(&bill),
    };
    give(&format!("{}\n", serde_json::to_string_pretty(&document)?))
}
