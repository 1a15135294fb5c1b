//! What a workload may not do by default, as the workload itself sees it; and a kernel of another Debian release.

use std::time::Instant;

use anyhow::{Result, ensure};
use qemu_tests::{
    Boot, BootFiles, Case, Coracle, Image, Partition, Vm, VmBuilder, run_tool, seconds,
};

const BOOT_TIME: std::time::Duration = seconds(240);

/// Workloads that tell their confinement and try what they must not.
const MACHINE: &str = r#"
name = "confined"

[state]
size = "64MiB"

[workload.w]
debian = ["busybox-static"]
command = ["busybox", "sh", "/try"]
capabilities = []
memory = "64MiB"
pids = 50
open_files = 64
restart = "never"
files = [{ path = "/try", content = """
busybox grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
echo memory $(busybox cat /sys/fs/cgroup/memory.max) pids $(busybox cat /sys/fs/cgroup/pids.max)
echo together $(busybox cat /sys/fs/cgroup/memory.oom.group) files $(ulimit -n)
busybox mount -t tmpfs none /tmp 2>&1
busybox unshare -U true 2>&1
echo 1 2>&1 > /proc/sys/kernel/sysrq || echo sysctl refused
busybox mkdir /sys/fs/cgroup/x 2>&1
busybox chown 1 /try 2>&1
echo processes $(busybox ps | busybox wc -l)
echo 'coracle: [1.000] stage poweroff'
echo tried
""" }]

[workload.ids]
debian = ["busybox-static"]
command = ["busybox", "sh", "/try"]
volumes = [{ name = "data", path = "/data" }]
io = { weight = 50, write = "8MiB" }
files = [{ path = "/try", content = """
echo map $(busybox cat /proc/self/uid_map)
echo image and volume $(busybox stat -c %u:%g / /try /data)
echo the machine $(busybox stat -c %u:%g /etc/hosts /dev/null)
busybox touch /data/mine /data/theirs
busybox chown 33:44 /data/theirs
echo made $(busybox stat -c %u:%g /data/mine /data/theirs)
busybox chown 70000 /data/theirs 2>&1
busybox chown 1 /dev/null 2>&1
echo through a pipe > /dev/stdout
until busybox grep -q wbps=8388608 /sys/fs/cgroup/io.max; do busybox sleep 1; done
echo disk $(busybox cat /sys/fs/cgroup/io.max) weight $(busybox cat /sys/fs/cgroup/io.weight)
busybox sleep 10000
""" }]

[workload.alone]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "echo has $(busybox ls /sys/class/net); exec busybox httpd -f -p 80 -h /"]
network = "none"
health = { http = "http://:80/try" }
files = [{ path = "/try", content = "x" }]

[workload.hog]
debian = ["busybox-static"]
command = ["busybox", "tail", "/dev/zero"]
memory = "16MiB"
restart = "never"

[workload.low]
debian = ["busybox-static"]
command = ["busybox", "httpd", "-f", "-p", "81"]
ports = ["8181:81"]

[workload.loose]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "echo map $(busybox cat /proc/self/uid_map); busybox grep CapEff /proc/self/status; busybox sleep 10000"]
user_namespace = "host"
"#;

/// Two workloads in one pod that nobody reaches from outside, and one beside it.
const POD: &str = r#"
name = "podded"

[pod.pair]
network = "none"
share_pid = true

[workload.server]
debian = ["busybox-static"]
command = ["busybox", "httpd", "-f", "-p", "80", "-h", "/srv"]
pod = "pair"
health = { http = "http://:80/hello" }
files = [{ path = "/srv/hello", content = "hello from the pod\n" }]

[workload.client]
debian = ["busybox-static"]
command = ["busybox", "sh", "/ask"]
pod = "pair"
after = ["server"]
files = [{ path = "/ask", content = """
echo on $(busybox hostname) with $(busybox ls /sys/class/net)
echo got $(busybox wget -q -O - http://127.0.0.1/hello)
echo map $(busybox cat /proc/self/uid_map)
echo sees $(busybox ps | busybox grep -c '[h]ttpd -f')
echo first $(busybox ls -l /proc/1/root 2>&1 | busybox grep -c 'ermission denied')
busybox kill -9 1
busybox sleep 10000
""" }]

[workload.beside]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "busybox wget -q -O - http://127.0.0.1/hello 2>&1; echo map $(busybox cat /proc/self/uid_map); busybox sleep 10000"]
after = ["client"]
"#;

fn boot(case: &Case, name: &str, text: &str) -> Result<Vm> {
    start(case, &Image::open(Coracle::new(case).build(name, text)?)?)
}

fn start(case: &Case, image: &Image) -> Result<Vm> {
    let files = BootFiles::of_image(case, image)?;
    let vm = VmBuilder::new(case, "direct", image.path().to_owned());
    vm.boot(Boot::Direct(&files)).start()
}

/// Workloads run side by side, so their lines come in any order.
fn expect_all(vm: &Vm, wanted: &[&str]) -> Result<()> {
    let begin = Instant::now();
    loop {
        let lines = vm.lines();
        let is_missing = |text: &&&str| !lines.iter().any(|line| line.contains(**text));
        let Some(missing) = wanted.iter().find(is_missing) else {
            return Ok(());
        };
        ensure!(
            begin.elapsed() < BOOT_TIME,
            "no line with {missing:?} in {lines:#?}"
        );
        std::thread::sleep(seconds(1));
    }
}

#[test]
fn a_workload_is_locked_down_unless_the_file_says_otherwise() -> Result<()> {
    let case = Case::new("confinement")?;
    let image = Image::open(Coracle::new(&case).build("confined", MACHINE)?)?;
    let vm = start(&case, &image)?;
    expect_all(
        &vm,
        &[
            "w | CapEff:\t0000000000000000",
            "w | CapBnd:\t0000000000000000",
            "w | NoNewPrivs:\t1",
            "w | Seccomp:\t2",
            "w | memory 67108864 pids 50",
            "w | together 1 files 64",
            "w | mount: permission denied",
            "w | unshare: unshare(0x10000000): Operation not permitted",
            "w | sysctl refused",
            "w | mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system",
            "w | chown: /try: Operation not permitted",
            "w | coracle: [1.000] stage poweroff",
            "w | tried",
            "ids | image and volume 0:0 0:0 0:0",
            "ids | the machine 65534:65534 65534:65534",
            "ids | made 0:0 33:44",
            "ids | chown: /data/theirs: Invalid argument",
            "ids | chown: /dev/null: Operation not permitted",
            "ids | through a pipe",
            "wbps=8388608 riops=max wiops=max weight default 50",
            "alone | has lo",
            "workload alone ready",
            "workload low ready",
            "workload hog killed by signal 9",
            "loose | map 0 0 4294967295",
            "loose | CapEff:\t0000000000000000",
        ],
    )?;
    expect_ids_of_its_own(&vm, "ids")?;
    vm.refute("workload ids exited")?;
    vm.power_down()?;
    let state = case.path("state.ext4");
    image.extract(Partition::STATE, &state)?;
    let stat = run_tool("debugfs", |debugfs| {
        debugfs
            .args(["-R", "stat /volumes/data/theirs"])
            .arg(&state)
    })?;
    let words: Vec<&str> = stat.split_whitespace().collect();
    let owner = |words: &[&str]| words == ["User:", "33", "Group:", "44"];
    ensure!(words.windows(4).any(owner), "{stat}");
    Ok(())
}

/// 65,536 ids, and not the machine's.
fn expect_ids_of_its_own(vm: &Vm, workload: &str) -> Result<()> {
    let lines = vm.lines();
    let start = format!("{workload} | map 0 ");
    let map = lines.iter().find_map(|line| line.split(&start).nth(1));
    let words: Vec<u32> = map
        .unwrap_or_default()
        .split_whitespace()
        .flat_map(str::parse)
        .collect();
    let is_own = matches!(words[..], [first, 65_536] if first >= 65_536 && first % 65_536 == 0);
    ensure!(is_own, "{map:?}");
    Ok(())
}

#[test]
fn a_pods_workloads_share_a_network_that_nobody_else_reaches() -> Result<()> {
    let case = Case::new("confinement-pod")?;
    let vm = boot(&case, "podded", POD)?;
    expect_all(
        &vm,
        &[
            "workload server ready",
            "client | on pair with lo",
            "client | got hello from the pod",
            "client | map 0 65536 65536",
            "client | sees 1",
            "client | first 1",
            "beside | wget: can't connect to remote host (127.0.0.1): Connection refused",
            "beside | map 0 131072 65536",
            "stage ready",
        ],
    )?;
    vm.refute("workload server killed")?;
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
