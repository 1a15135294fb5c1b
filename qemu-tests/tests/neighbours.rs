//! Workloads that do all they can against the machine: their neighbour answers all the while, and PID 1 stays small.

use anyhow::{Context, Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, get, seconds};

const BOOT_TIME: std::time::Duration = seconds(240);
/// An answer takes long on a host that is busy itself, but it comes.
const ANSWER_TIME: std::time::Duration = seconds(60);
/// What PID 1 may use at most, the copy-on-write pages of its start included.
const INIT_KIB: u64 = 8 * 1024;

const MACHINE: &str = r#"
name = "street"

[state]
size = "64MiB"

[workload.web]
debian = ["busybox-static"]
command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
files = [{ path = "/www/index.html", content = "still here\n" }]
ports = ["8080:8080"]

[workload.bomb]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "bomb() { bomb | bomb & }; bomb; busybox sleep 1000"]
pids = 60
cpus = 0.3

[workload.hog]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "a=xxxxxxxx; while true; do a=$a$a; done"]
memory = "16MiB"
cpus = 0.3
restart_delay = "2s"

[workload.filler]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "busybox cat /dev/zero > /fill; busybox cat /dev/zero > /data/fill; echo filled $(busybox du -m /data/fill); busybox sleep 1000"]
scratch = "8MiB"
volumes = [{ name = "data", path = "/data", size = "4MiB" }]

[workload.flood]
debian = ["busybox-static"]
command = ["busybox", "yes", "a line that says nothing, again and again"]
cpus = 0.3

[workload.zombies]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "while true; do busybox sh -c 'busybox true & exec busybox sleep 2' & busybox usleep 20000; done"]
pids = 200
cpus = 0.3

[workload.stubborn]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "trap '' TERM; while true; do busybox sleep 1; done"]
stop_timeout = "2s"
"#;

#[test]
fn a_workload_answers_whatever_its_neighbours_do_and_the_machine_ends_in_order() -> Result<()> {
    let case = Case::new("neighbours")?;
    let image = Image::open(Coracle::new(&case).build("street", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned()).boot(Boot::Direct(&files));
    let mut vm = vm.forward(8080)?.start()?;
    vm.expect("workload web ready", BOOT_TIME)?;
    vm.expect("workload hog killed by signal 9", BOOT_TIME)?;
    for _ in 0..20 {
        let answer = get(vm.address(8080)?, "/", ANSWER_TIME)?;
        ensure!(answer.body == "still here\n", "{answer:?}");
    }
    if vm.refute("filler | filled").is_ok() {
        vm.expect("filler | filled", BOOT_TIME)?;
    }
    for unwanted in [
        "workload web exited",
        "workload web failed",
        "workload web killed",
    ] {
        vm.refute(unwanted)?;
    }
    let filled = find(&vm.lines(), "filler | filled ")?;
    ensure!(
        ["3 ", "4 "].iter().any(|size| filled.starts_with(size)),
        "a volume of 4 MiB holds {filled} MiB"
    );
    vm.press_power_button()?;
    vm.expect(
        "workload stubborn did not stop in time: killing it",
        BOOT_TIME,
    )?;
    vm.expect("state unmounted clean", BOOT_TIME)?;
    let used = vm.expect("init used ", BOOT_TIME)?;
    vm.expect("stage poweroff", BOOT_TIME)?;
    vm.wait_for_end(BOOT_TIME)?;
    let used = find(&[used], "init used ")?;
    let kib: u64 = used.split(' ').next().unwrap_or_default().parse()?;
    ensure!(kib <= INIT_KIB, "PID 1 used {kib} KiB");
    Ok(())
}

/// What stands behind the words, in the first line that has them.
fn find(lines: &[String], words: &str) -> Result<String> {
    let rest = |line: &String| Some(line.split_once(words)?.1.to_owned());
    lines
        .iter()
        .find_map(rest)
        .with_context(|| format!("no line with {words:?}"))
}
