//! In place of `systemd` in a build without it: every use is an error that says so.

use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::Resources;

fn missing<T>() -> Result<T> {
    Err(Error::Unsupported(
        "cgroup manager systemd in a build without the feature systemd".into(),
    ))
}

pub(super) fn parse(_: &Path, _: &Path, _: bool) -> Result<(String, String)> {
    missing()
}

pub(super) fn start(_: &str, _: &str, _: i32, _: &Resources) -> Result<()> {
    missing()
}

pub(super) fn stop(_: &str) -> Result<()> {
    missing()
}

pub(super) fn update(_: &str, _: &Resources) -> Result<()> {
    missing()
}
