//! PID 1 keeps what runs running.

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(240);

/// A workload that ends with status 3 after it has counted its starts on its volume, and one that must not care.
const MACHINE: &str = r#"
name = "restarts"

[state]
size = "64MiB"

[workload.brief]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "echo x >> /data/starts; echo start number $(busybox wc -l < /data/starts); exit 3"]
volumes = [{ name = "count", path = "/data" }]

[workload.steady]
debian = ["busybox-static"]
command = ["busybox", "sleep", "3600"]
"#;

#[test]
fn a_workload_that_exits_is_restarted() -> Result<()> {
    let case = Case::new("supervision-restart")?;
    let image = Image::open(Coracle::new(&case).build("restarts", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned());
    let mut vm = vm.boot(Boot::Direct(&files)).start()?;
    for start in 1..=3 {
        vm.expect(&format!("brief | start number {start}"), BOOT_TIME)?;
    }
    let exits =
        |line: &&String| line.contains("workload brief exited with status 3; restarting in");
    ensure!(
        vm.lines().iter().filter(exits).count() >= 2,
        "the exits are not told"
    );
    vm.refute("workload steady exited")?;
    vm.power_down()
}
