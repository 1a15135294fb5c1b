//! An image boots, by firmware and directly, its workload answers, and it powers off clean.

mod support;

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, seconds};
use support::web_image;

/// A boot with firmware takes some ten seconds on an idle host of two processors.
const BOOT_TIME: std::time::Duration = seconds(240);
/// What `examples/web.toml` serves.
const PAGE: &str = "Hello from a verified image";

#[test]
fn nginx_answers_on_a_port_of_the_host_after_a_uefi_boot() -> Result<()> {
    let case = Case::new("boot-uefi")?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    let mut vm = VmBuilder::new(&case, "uefi", disk).forward(8080)?.start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    let response = vm.http_get(8080, "/", seconds(30))?;
    ensure!(
        response.status == 200 && response.body.contains(PAGE),
        "{response:?}"
    );
    vm.power_down()
}

#[test]
fn nginx_answers_after_a_direct_boot_of_the_same_image() -> Result<()> {
    let case = Case::new("boot-direct")?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    let files = BootFiles::of_image(&case, &Image::open(&disk)?)?;
    let vm = VmBuilder::new(&case, "direct", disk).boot(Boot::Direct(&files));
    let mut vm = vm.forward(8080)?.start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    let response = vm.http_get(8080, "/", seconds(30))?;
    ensure!(
        response.status == 200 && response.body.contains(PAGE),
        "{response:?}"
    );
    vm.power_down()
}

#[test]
fn stages_come_in_order_and_the_last_word_is_that_all_is_unmounted() -> Result<()> {
    let case = Case::new("boot-stages")?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    let files = BootFiles::of_image(&case, &Image::open(&disk)?)?;
    let vm = VmBuilder::new(&case, "direct", disk).boot(Boot::Direct(&files));
    let mut vm = vm.start()?;
    for stage in ["initramfs", "root", "system", "state"] {
        vm.expect(&format!("stage {stage}"), BOOT_TIME)?;
    }
    vm.expect("workload web started", BOOT_TIME)?;
    vm.expect("workload web ready", BOOT_TIME)?;
    vm.expect("stage ready", BOOT_TIME)?;
    vm.refute("refused:")?;
    vm.power_down()
}

#[test]
fn run_builds_boots_prints_the_answer_and_exits_0_once_the_machine_is_off() -> Result<()> {
    let case = Case::new("boot-run")?;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/web.toml");
    let options = [
        "--accel=tcg",
        "--exit-when-ready",
        "--timeout=240",
        "--port=8080=0",
    ];
    let arguments = [&["run", example], &options[..]].concat();
    let run = Coracle::new(&case)
        .run(&arguments, seconds(400))?
        .expect_code(0)?;
    ensure!(
        run.stdout.contains("web answers on http://127.0.0.1:"),
        "{}",
        run.stdout
    );
    ensure!(run.stdout.contains(": HTTP/1.1 200 OK, "), "{}", run.stdout);
    run.expect_stderr(&[
        "leads to workload web",
        "stage initramfs",
        "stage ready",
        "stage poweroff",
    ])?;
    Ok(())
}

#[test]
fn run_boots_a_disk_directly_and_powers_it_off_on_an_interrupt() -> Result<()> {
    let case = Case::new("boot-interrupt")?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    let disk = disk.to_string_lossy();
    let arguments = ["run", &disk, "--direct", "--accel=tcg", "--port=8080=0"];
    let mut run = Coracle::new(&case).start(&arguments, |command| command)?;
    run.expect_stderr("press Ctrl-C to power it off", BOOT_TIME)?;
    run.signal("INT")?;
    run.wait(seconds(60))?
        .expect_code(0)?
        .expect_stderr(&["stage poweroff"])?;
    Ok(())
}
