//! A Redis image in an OCI layout, made of Debian packages by `umoci`: a tool that shares nothing with Coracle.

use std::path::PathBuf;

use anyhow::Result;

use crate::case::Case;
use crate::tool::run_tool;

/// Makes the layout `redis` in the case's folder and returns its path.
///
/// # Errors
/// If a package cannot be had or a tool fails.
pub fn redis_layout(case: &Case) -> Result<PathBuf> {
    let root = case.path("redis-root");
    std::fs::create_dir_all(&root)?;
    for package in download(case)? {
        run_tool("dpkg-deb", |dpkg| dpkg.arg("-x").arg(package).arg(&root))?;
    }
    let layout = case.path("redis");
    let image = format!("{}:latest", layout.display());
    run_tool("umoci", |umoci| {
        umoci.arg("init").arg("--layout").arg(&layout)
    })?;
    run_tool("umoci", |umoci| umoci.args(["new", "--image", &image]))?;
    run_tool("umoci", |umoci| {
        let insert = ["insert", "--rootless", "--image", &image];
        umoci.args(insert).arg(&root).arg("/")
    })?;
    run_tool("umoci", |umoci| {
        umoci
            .args(["config", "--image", &image])
            .args(["--config.entrypoint", "/usr/bin/redis-server"])
            .args(["--config.cmd", "--dir", "--config.cmd", "/data"])
            .args(["--config.env", "PATH=/usr/bin:/bin"])
    })?;
    Ok(layout)
}

/// Redis and the libraries that it needs, as files.
fn download(case: &Case) -> Result<Vec<PathBuf>> {
    let folder = case.path("packages");
    std::fs::create_dir_all(&folder)?;
    let mut names = vec!["redis-server".to_owned()];
    let mut next = 0;
    while let Some(package) = names.get(next) {
        let depends = run_tool("apt-cache", |apt| apt.args(["depends", package]))?;
        for name in needed(&depends) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        next += 1;
    }
    run_tool("apt-get", |apt| {
        let quiet = ["-qq", "-o", "APT::Sandbox::User=root", "download"];
        apt.args(quiet).args(&names).current_dir(&folder)
    })?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    Ok(files)
}

/// Of a package's dependencies what a program needs to run: Redis's own packages and libraries, not the tools of
/// maintainer scripts, which nobody runs here. ` |Depends:` says that an alternative follows; the first is taken.
fn needed(depends: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_alternative = false;
    for line in depends.lines() {
        let Some((relation, name)) = line.trim_start().split_once("Depends: ") else {
            continue;
        };
        if !is_alternative && (name.starts_with("lib") || name.starts_with("redis")) {
            found.push(name.to_owned());
        }
        is_alternative = relation.starts_with('|');
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_first_alternatives_are_needed() {
        let listing = "redis-tools\n  PreDepends: libpre\n  Depends: adduser\n |Depends: libsystemd0\n  \
            Depends: libelogind0\n  Depends: libssl3\n  Recommends: libmore\n    libalias\n";
        assert_eq!(needed(listing), ["libpre", "libsystemd0", "libssl3"]);
    }
}
