//! The ways in which a machine ends: asked to by button or keys, or because its init fails.

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Vm, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(240);
const STOP_TIME: std::time::Duration = seconds(120);

/// `web` comes after `db`; `stubborn` ignores SIGTERM and is full of processes that make more of themselves.
const MACHINE: &str = r#"
name = "endings"

[state]
size = "64MiB"

[failure]
action = "reboot"
delay = "1s"

[workload.db]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "trap 'echo goodbye; exit 0' TERM; while :; do busybox sleep 1 & wait $!; done"]
volumes = [{ name = "db", path = "/data" }]

[workload.web]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "trap 'echo goodbye; exit 0' TERM; while :; do busybox sleep 1 & wait $!; done"]
after = ["db"]

[workload.stubborn]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "trap '' TERM; b() { busybox sleep 1; b & b & wait; }; b 2>/dev/null & exec busybox sleep 3600"]
pids = 40
cpus = 0.3
stop_timeout = "20s"
"#;

fn start(case: &Case, name: &str, image: &Image, files: &BootFiles) -> Result<Vm> {
    let vm = VmBuilder::new(case, name, image.path().to_owned());
    vm.boot(Boot::Direct(files)).start()
}

/// The place of the first line with this text.
fn place(lines: &[String], text: &str) -> Option<usize> {
    lines.iter().position(|line| line.contains(text))
}

#[test]
fn a_machine_ends_in_order_at_once_when_pressed_twice_and_tells_of_a_fault_of_init() -> Result<()> {
    let case = Case::new("endings")?;
    let image = Image::open(Coracle::new(&case).build("endings", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;

    // Init is killed by a fault of its own: it says so, keeps a record, and starts again as the file says.
    let mut vm = start(&case, "fault", &image, &files.sabotaged(&case, "fault")?)?;
    vm.expect(
        "panic of init: SIGSEGV; the machine ends (reboot,1s)",
        BOOT_TIME,
    )?;
    vm.expect("Restarting system", STOP_TIME)?;
    vm.wait_for_end(STOP_TIME)?;

    // The power button: in reverse order, with patience for the one that does not hear.
    let mut vm = start(&case, "button", &image, &files)?;
    let told = "the last boot ended by a panic of init: SIGSEGV";
    vm.expect(told, BOOT_TIME)?;
    vm.expect("stage ready", BOOT_TIME)?;
    vm.press_power_button()?;
    vm.expect("stopping by the power button", STOP_TIME)?;
    for line in [
        "workload stubborn did not stop in time: killing it",
        "state unmounted clean",
        "root closed",
        "stage poweroff",
        "Power down",
    ] {
        vm.expect(line, STOP_TIME)?;
    }
    vm.wait_for_end(STOP_TIME)?;
    let lines = vm.lines();
    let [web, db] = ["web", "db"].map(|name| place(&lines, &format!("{name} | goodbye")));
    ensure!(
        web.is_some() && web < db,
        "web stops at line {web:?}, db at {db:?}"
    );

    // Ctrl-Alt-Del, twice.
    let mut vm = start(&case, "keys", &image, &files)?;
    vm.expect("stage ready", BOOT_TIME)?;
    vm.refute(told)?;
    vm.press_keys(&["ctrl", "alt", "delete"])?;
    vm.expect("stopping by Ctrl-Alt-Del", STOP_TIME)?;
    std::thread::sleep(seconds(4));
    vm.press_keys(&["ctrl", "alt", "delete"])?;
    for line in [
        "killing what still runs, by Ctrl-Alt-Del",
        "state unmounted clean",
        "root closed",
        "stage reboot",
        "Restarting system",
    ] {
        vm.expect(line, STOP_TIME)?;
    }
    vm.wait_for_end(STOP_TIME)
}
