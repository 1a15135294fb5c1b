//! The examples do what their comments say.

use std::path::Path;

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Vm, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(240);

/// Builds an example, boots it directly, and waits until it is ready.
fn boot(case: &Case, example: &str, port: u16) -> Result<Vm> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let disk = case.path("disk.img");
    Coracle::new(case).build_file(&Path::new(folder).join(example), &disk)?;
    let files = BootFiles::of_image(case, &Image::open(&disk)?)?;
    let vm = VmBuilder::new(case, "direct", disk).boot(Boot::Direct(&files));
    let mut vm = vm.forward(port)?.start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    Ok(vm)
}

/// Asks for the page and looks for a text in it.
fn expect_page(vm: &Vm, port: u16, text: &str) -> Result<()> {
    let response = vm.http_get(port, "/", BOOT_TIME)?;
    let good = response.status == 200 && response.body.contains(text);
    ensure!(good, "{response:?}\n{:#?}", vm.lines());
    Ok(())
}

fn refute_failures(vm: &Vm) -> Result<()> {
    for sign in ["failed ", "is unhealthy", "killed by", "; restarting in"] {
        vm.refute(sign)?;
    }
    Ok(())
}

#[test]
fn a_site_without_a_network_sleeps_until_it_is_asked_for_and_answers() -> Result<()> {
    let case = Case::new("examples-socket")?;
    let mut vm = boot(&case, "socket.toml", 8080)?;
    vm.refute("workload site started")?;
    expect_page(&vm, 8080, "Hello from a workload without a network")?;
    vm.expect("workload site started", BOOT_TIME)?;
    // Nobody reads it any more, until somebody does again.
    vm.expect(
        "workload site exited with status 0; the next connection starts it",
        BOOT_TIME,
    )?;
    expect_page(&vm, 8080, "Hello from a workload without a network")?;
    vm.expect("workload site started", BOOT_TIME)?;
    refute_failures(&vm)?;
    vm.power_down()
}

#[test]
fn a_pods_job_makes_what_its_server_holds_and_its_proxy_passes_on() -> Result<()> {
    let case = Case::new("examples-pod")?;
    let mut vm = boot(&case, "pod.toml", 8080)?;
    vm.refute("workload proxy started")?;
    expect_page(&vm, 8080, "Made by site's job")?;
    vm.expect("workload proxy started", BOOT_TIME)?;
    refute_failures(&vm)?;
    vm.power_down()
}

#[test]
fn a_front_reaches_by_name_a_site_that_nobody_else_does() -> Result<()> {
    let case = Case::new("examples-network")?;
    let vm = boot(&case, "network.toml", 8080)?;
    expect_page(&vm, 8080, "Hello from the network behind")?;
    refute_failures(&vm)?;
    vm.power_down()
}
