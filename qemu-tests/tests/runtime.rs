//! The runtime's own tests of containers, once more in a guest with pure cgroup v2 and with the static runtime that
//! images carry.

use anyhow::{Result, ensure};
use qemu_tests::{Case, Lab, guest_runtime, runtime_test_helper, runtime_tests, seconds};

/// Boot and all tests, on a busy host.
const PATIENCE: std::time::Duration = seconds(2400);

/// Not in the guest: the runtime of images knows no systemd, and the guest has none of the programs that the second
/// one starts.
const SKIPPED: &str = " --skip systemd_that_cannot_be_reached --skip namespaces_of_another_process";

/// Runs one of the runtime's test binaries in a guest of its own.
fn run_in_guest(name: &str) -> Result<()> {
    let case = Case::new(&format!("runtime-{name}"))?;
    let tests = runtime_tests(name)?;
    let mut lab = Lab::new(&case)?;
    lab.program("/lab/tests", &tests.file)?;
    lab.file("/lab/helper", runtime_test_helper(&case)?)?;
    lab.file(tests.runtime, guest_runtime()?)?;
    let script = "CORACLE_RUNTIME_TESTS_HELPER=/lab/helper /lab/tests --test-threads=1 --nocapture";
    lab.step("tests", &format!("{script}{SKIPPED}"))?;
    let report = lab.run(PATIENCE)?;
    report.expect_success()?;
    let skipped: Vec<_> = (report.step("tests")?.lines.iter())
        .filter(|line| line.contains("skipped: "))
        .collect();
    eprintln!("in the guest: {skipped:#?}");
    let passed = |line: &&String| line.starts_with("test result: ok");
    let result = report.step("tests")?.lines.iter().find(passed);
    ensure!(result.is_some(), "the guest told no result");
    Ok(())
}

#[test]
fn container_tests_pass_in_pure_cgroup_v2() -> Result<()> {
    run_in_guest("container")
}

#[test]
fn runtime_conforms_to_the_specification_in_pure_cgroup_v2() -> Result<()> {
    run_in_guest("conformance")
}
