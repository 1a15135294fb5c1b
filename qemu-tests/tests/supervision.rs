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
after = ["network"]

[workload.steady]
debian = ["busybox-static"]
command = ["busybox", "sleep", "3600"]
"#;

/// One that is started by a connection and fails, and one that goes on asking it, as a plain user without a network.
const DOORS: &str = r#"
name = "doors"

[socket.door]
listen = "unix"

[workload.keeper]
debian = ["busybox-static"]
command = ["busybox", "false"]
sockets = ["door"]
start_limit = { starts = 2, within = "10m" }

[workload.guest]
debian = ["busybox-static", "socat"]
command = ["busybox", "sh", "-c", "socat -u /dev/null UNIX-CONNECT:/run/door 2>&1 && echo was let in; busybox sleep 1; exit 3"]
user = "1000"
read_only = true
network = "none"
connect = { door = "/run/door" }

[workload.stranger]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "echo sees $(busybox find /run -type s | busybox wc -l) sockets; busybox sleep 3600"]
"#;

#[test]
fn who_connects_to_one_that_has_failed_is_refused_and_goes_on() -> Result<()> {
    let case = Case::new("supervision-doors")?;
    let image = Image::open(Coracle::new(&case).build("doors", DOORS)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned());
    let mut vm = vm.boot(Boot::Direct(&files)).start()?;
    vm.expect("workload keeper listens", BOOT_TIME)?;
    vm.expect("workload keeper started", BOOT_TIME)?;
    vm.expect(
        "workload keeper exited with status 1; failed for good",
        BOOT_TIME,
    )?;
    vm.expect("Connection refused", BOOT_TIME)?;
    vm.expect("workload guest started", BOOT_TIME)?;
    vm.expect("Connection refused", BOOT_TIME)?;
    let lines = vm.lines();
    for sign in ["guest | was let in", "stranger | sees 0 sockets"] {
        ensure!(lines.iter().any(|line| line.contains(sign)), "no {sign}");
    }
    vm.refute("workload guest failed to start")?;
    vm.power_down()
}

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
    let lines = vm.lines();
    let first = |sign: &str| lines.iter().position(|line| line.contains(sign));
    ensure!(
        first("stage network").is_some() && first("stage network") < first("brief started"),
        "it did not wait for the network"
    );
    vm.refute("workload steady exited")?;
    vm.power_down()
}
