//! What a workload writes into its volume is there after a restart, and the state partition is left clean.

use std::path::Path;

use anyhow::{Result, ensure};
use qemu_tests::{
    Boot, BootFiles, Case, Coracle, Image, Partition, Redis, Vm, VmBuilder, redis_layout, run_tool,
    seconds, tool_is_missing,
};

const BOOT_TIME: std::time::Duration = seconds(240);

const MACHINE: &str = r#"
name = "db"
version = "1.0.0"

[state]
size = "64MiB"

[network.interface.uplink]
dhcp = true

[workload.db]
image = "oci:redis:latest"
args = ["--dir", "/data", "--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no"]
volumes = [{ name = "db", path = "/data" }]
ports = ["6379:6379"]
"#;

/// A machine with Redis from an OCI layout that `umoci` wrote.
fn build(case: &Case) -> Result<(Image, BootFiles)> {
    redis_layout(case)?;
    let image = Image::open(Coracle::new(case).build("db", MACHINE)?)?;
    let files = BootFiles::of_image(case, &image)?;
    Ok((image, files))
}

fn boot(case: &Case, name: &str, image: &Image, files: &BootFiles) -> Result<(Vm, Redis)> {
    let vm = VmBuilder::new(case, name, image.path().to_owned()).boot(Boot::Direct(files));
    let mut vm = vm.forward(6379)?.start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    let redis = Redis::connect(vm.address(6379)?)?;
    Ok((vm, redis))
}

fn expect_clean_state(case: &Case, image: &Image) -> Result<()> {
    let state = case.path("state.ext4");
    image.extract(Partition::STATE, &state)?;
    check_ext4(&state)
}

fn check_ext4(filesystem: &Path) -> Result<()> {
    let listing = run_tool("e2fsck", |e2fsck| e2fsck.arg("-fn").arg(filesystem))?;
    ensure!(!listing.contains("recovering journal"), "{listing}");
    Ok(())
}

#[test]
fn a_key_in_redis_is_still_there_after_a_reboot_and_the_filesystem_is_clean() -> Result<()> {
    if tool_is_missing("umoci", "umoci") {
        return Ok(());
    }
    let case = Case::new("state-reboot")?;
    let (image, files) = build(&case)?;
    let (vm, mut redis) = boot(&case, "first", &image, &files)?;
    redis.command(&["SET", "boat", "coracle"])?;
    vm.power_down()?;
    expect_clean_state(&case, &image)?;
    let (vm, mut redis) = boot(&case, "second", &image, &files)?;
    let value = redis.command(&["GET", "boat"])?;
    ensure!(value.as_deref() == Some("coracle"), "{value:?}");
    vm.power_down()?;
    expect_clean_state(&case, &image)
}

#[test]
fn a_key_in_redis_survives_a_power_cut() -> Result<()> {
    if tool_is_missing("umoci", "umoci") {
        return Ok(());
    }
    let case = Case::new("state-power-cut")?;
    let (image, files) = build(&case)?;
    let (vm, mut redis) = boot(&case, "first", &image, &files)?;
    redis.command(&["SET", "boat", "coracle"])?;
    vm.kill();
    let (vm, mut redis) = boot(&case, "second", &image, &files)?;
    let value = redis.command(&["GET", "boat"])?;
    ensure!(value.as_deref() == Some("coracle"), "{value:?}");
    vm.power_down()?;
    expect_clean_state(&case, &image)
}
