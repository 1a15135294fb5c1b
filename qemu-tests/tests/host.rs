//! What `coracle run` says when the host is not as it should be. No guest comes as far as its kernel here.

mod support;

use std::net::TcpListener;

use anyhow::{Result, ensure};
use qemu_tests::{Case, Coracle, seconds};
use support::web_image;

const PATIENCE: std::time::Duration = seconds(60);

#[test]
fn a_port_in_use_is_named_with_its_workload_and_a_way_out() -> Result<()> {
    let case = Case::new("host-port")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let moved = format!("--port=8080={port}");
    let disk = web_image()?.to_string_lossy();
    let run = Coracle::new(&case).run(&["run", &disk, "--accel=tcg", &moved], PATIENCE)?;
    run.expect_code(1)?
        .expect_stderr(&[&port, "\"web\"", "hint:", "--port"])?;
    Ok(())
}

#[test]
fn missing_qemu_is_told_with_its_package() -> Result<()> {
    let case = Case::new("host-no-qemu")?;
    let disk = web_image()?.to_string_lossy();
    let run = Coracle::new(&case).start(&["run", &disk, "--port=8080=0"], |c| {
        c.env("PATH", "/nonexistent")
    })?;
    let packages = [
        "qemu-system-x86_64 is not installed",
        "apt-get install qemu-system-x86",
    ];
    run.wait(PATIENCE)?
        .expect_code(1)?
        .expect_stderr(&packages)?;
    Ok(())
}

#[test]
fn missing_firmware_is_told_with_its_package() -> Result<()> {
    let case = Case::new("host-no-firmware")?;
    let disk = web_image()?.to_string_lossy();
    let empty = case.folder().to_owned();
    let run = Coracle::new(&case).start(&["run", &disk, "--port=8080=0"], |c| {
        c.env("CORACLE_FIRMWARE", empty)
    })?;
    let packages = ["OVMF is not installed", "apt-get install ovmf"];
    run.wait(PATIENCE)?
        .expect_code(1)?
        .expect_stderr(&packages)?;
    Ok(())
}

#[test]
fn a_machine_that_is_not_ready_in_time_is_killed_and_its_last_words_are_told() -> Result<()> {
    let case = Case::new("host-timeout")?;
    let disk = web_image()?.to_string_lossy();
    let arguments = ["run", &disk, "--accel=tcg", "--timeout=1", "--port=8080=0"];
    let run = Coracle::new(&case)
        .run(&arguments, PATIENCE)?
        .expect_code(1)?;
    run.expect_stderr(&[
        "not ready within 1 s",
        "did not come as far as the first stage",
    ])?;
    Ok(())
}

#[test]
fn qemu_does_not_outlive_a_coracle_that_is_killed() -> Result<()> {
    let case = Case::new("host-killed")?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    let disk = disk.to_string_lossy();
    let mut run =
        Coracle::new(&case).start(&["run", &disk, "--accel=tcg", "--port=8080=0"], |c| c)?;
    run.expect_stderr("accelerator: tcg", PATIENCE)?;
    let qemu = wait_for_child(run.id())?;
    run.signal("KILL")?;
    let gone = || !is_running(qemu);
    ensure!(within(seconds(10), gone), "QEMU ({qemu}) still runs");
    Ok(())
}

/// The process's only child: setpriv has become QEMU by then, or will in the same process.
fn wait_for_child(parent: u32) -> Result<u32> {
    let children = || std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let found = within(seconds(10), || {
        children().is_ok_and(|list| !list.trim().is_empty())
    });
    ensure!(found, "coracle has started no QEMU");
    // The parent's death is only heard once setpriv has asked for it.
    std::thread::sleep(seconds(1));
    Ok(children()?.trim().parse()?)
}

/// A process that is dead but not yet reaped runs no more.
fn is_running(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

fn within(patience: std::time::Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = std::time::Instant::now() + patience;
    while std::time::Instant::now() < deadline {
        if condition() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    false
}
