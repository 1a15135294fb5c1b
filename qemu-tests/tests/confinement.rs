//! What a workload may not do by default, as the workload itself sees it; and a kernel of another Debian release.

use anyhow::Result;
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Vm, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(240);

/// A workload that tells its confinement and tries what it must not.
const MACHINE: &str = r#"
name = "confined"

[workload.w]
debian = ["busybox-static"]
command = ["busybox", "sh", "/try"]
capabilities = []
memory = "64MiB"
pids = 50
restart = "never"
files = [{ path = "/try", content = """
busybox grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
echo memory $(busybox cat /sys/fs/cgroup/memory.max) pids $(busybox cat /sys/fs/cgroup/pids.max)
busybox mount -t tmpfs none /tmp 2>&1
busybox unshare -U true 2>&1
echo 1 2>&1 > /proc/sys/kernel/sysrq || echo sysctl refused
busybox mkdir /sys/fs/cgroup/x 2>&1
echo processes $(busybox ps | busybox wc -l)
echo 'coracle: [1.000] stage poweroff'
echo tried
""" }]
"#;

fn boot(case: &Case, name: &str, text: &str) -> Result<Vm> {
    let image = Image::open(Coracle::new(case).build(name, text)?)?;
    let files = BootFiles::of_image(case, &image)?;
    let vm = VmBuilder::new(case, "direct", image.path().to_owned());
    vm.boot(Boot::Direct(&files)).start()
}

#[test]
fn a_workload_is_locked_down_unless_the_file_says_otherwise() -> Result<()> {
    let case = Case::new("confinement")?;
    let mut vm = boot(&case, "confined", MACHINE)?;
    for line in [
        "w | CapEff:\t0000000000000000",
        "w | CapBnd:\t0000000000000000",
        "w | NoNewPrivs:\t1",
        "w | Seccomp:\t2",
        "w | memory 67108864 pids 50",
        "mount: permission denied",
        "unshare: unshare(0x10000000): Operation not permitted",
        "w | sysctl refused",
        "can't create directory '/sys/fs/cgroup/x': Read-only file system",
        "w | coracle: [1.000] stage poweroff",
        "w | tried",
    ] {
        vm.expect(line, BOOT_TIME)?;
    }
    vm.power_down()
}

#[test]
fn the_kernel_of_another_debian_release_boots_the_same_machine() -> Result<()> {
    let case = Case::new("kernel-trixie")?;
    let text = "name = \"trixie\"\n[kernel]\nsuite = \"trixie\"\n[state]\nsize = \"64MiB\"\n\
        [workload.w]\ndebian = [\"busybox-static\"]\nvolumes = [{ name = \"v\", path = \"/v\" }]\n\
        command = [\"busybox\", \"sh\", \"-c\", \"busybox sleep 2; echo on $(busybox uname -r); busybox sleep 1000\"]\n";
    let mut vm = boot(&case, "trixie", text)?;
    vm.expect("stage ready", BOOT_TIME)?;
    vm.expect("w | on 6.12.", BOOT_TIME)?;
    vm.power_down()
}
