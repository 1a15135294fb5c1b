//! What the cases of one test binary share.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use qemu_tests::{Case, Coracle};

/// The image of `examples/web.toml`, built once for all cases of a binary. Cases boot copies of it.
pub(crate) fn web_image() -> Result<&'static Path> {
    static IMAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = IMAGE.get_or_init(|| build_web_image().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|reason| anyhow!(reason.clone()))
}

fn build_web_image() -> Result<PathBuf> {
    let case = Case::new(concat!(env!("CARGO_CRATE_NAME"), "-web-image"))?;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/web.toml");
    let disk = case.path("web.img");
    Coracle::new(&case).build_file(Path::new(example), &disk)?;
    Ok(disk)
}
