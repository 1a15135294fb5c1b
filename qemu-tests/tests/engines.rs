//! Container engines of others drive the runtime, in a guest with pure cgroup v2.

use std::path::PathBuf;

use anyhow::Result;
use qemu_tests::{CHECK, Case, Lab, find_program, run_tool, seconds};

/// Boot and all steps of a guest, on a busy host.
const PATIENCE: std::time::Duration = seconds(1200);

/// A root of busybox, as tar archives and OCI layouts are made of.
const MAKE_ROOT: &str = r#"
mkdir -p /tmp/root/bin /tmp/root/etc /tmp/root/tmp /tmp/root/proc /tmp/root/dev /tmp/root/sys
cp /bin/busybox /tmp/root/bin/busybox
for applet in sh cat echo sleep id true false mount mknod wc ls grep tty stty kill ps chown touch; do
    ln -s busybox /tmp/root/bin/$applet
done
echo 'root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/:/bin/sh' >/tmp/root/etc/passwd
echo 'root:x:0:
user:x:1000:' >/tmp/root/etc/group
tar -C /tmp/root -cf /tmp/root.tar .
"#;

const CONTAINERS_CONF: &str = r#"
[containers]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "coracle-runtime"
runtime_supports_json = ["coracle-runtime"]
[engine.runtimes]
coracle-runtime = ["/usr/bin/coracle-runtime"]
crun = ["/usr/bin/crun"]
"#;

const STORAGE_CONF: &str = "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers/storage\"\n\
    graphroot = \"/var/lib/containers/storage\"\n";

/// What podman must be able to do by the runtime: a name and a script.
const PODMAN: &[(&str, &str)] = &[
    (
        "import",
        "podman import -q /tmp/root.tar localhost/tiny || exit 1",
    ),
    (
        "run",
        r#"check output hello podman run --rm tiny echo hello
podman run --rm tiny sh -c 'exit 7'; check status 7 echo $?
podman run --rm tiny /no/such/command; check missing 127 echo $?
podman run --rm tiny /etc/passwd; check executable 126 echo $?
check hostname box podman run --rm --hostname box tiny cat /proc/sys/kernel/hostname
check variable yes podman run --rm -e ANSWER=yes tiny sh -c 'echo $ANSWER'
check input typed sh -c 'echo typed | podman run --rm -i tiny cat'
check directory /tmp podman run --rm -w /tmp tiny sh -c 'pwd'"#,
    ),
    (
        "confined",
        r##"check memory 67108864 podman run --rm --memory 64m tiny cat /sys/fs/cgroup/memory.max
check pids 33 podman run --rm --pids-limit 33 tiny cat /sys/fs/cgroup/pids.max
check cpus '50000 100000' podman run --rm --cpus 0.5 tiny cat /sys/fs/cgroup/cpu.max
check weight 59 podman run --rm --cpu-shares 512 tiny cat /sys/fs/cgroup/cpu.weight
check cpuset 0 podman run --rm --cpuset-cpus 0 tiny cat /sys/fs/cgroup/cpuset.cpus
check swap 0 podman run --rm --memory 64m --memory-swap 64m tiny cat /sys/fs/cgroup/memory.swap.max
check user 'uid=1000(user) gid=1000(user) groups=1000(user)' podman run --rm --user user tiny id
check groups 'uid=5(5) gid=6(6) groups=6(6),7' podman run --rm --user 5:6 --group-add 7 tiny id
has readonly 'Read-only file system' podman run --rm --read-only tiny touch /x
has bounding 'CapBnd:	0000000000000000' podman run --rm --cap-drop all tiny cat /proc/self/status
has effective 'CapEff:	0000000000000400' podman run --rm --cap-drop all --cap-add net_bind_service tiny cat /proc/self/status
has filter 'Seccomp:	2' podman run --rm tiny cat /proc/self/status
has unfiltered 'Seccomp:	0' podman run --rm --security-opt seccomp=unconfined tiny cat /proc/self/status
has privileges 'NoNewPrivs:	1' podman run --rm --security-opt no-new-privileges tiny cat /proc/self/status
has mount 'ermission denied' podman run --rm tiny mount -t tmpfs none /tmp
has node 'peration not permitted' podman run --rm tiny sh -c 'mknod /tmp/mem c 1 1; cat /tmp/mem'
check nofile 77 podman run --rm --ulimit nofile=77:88 tiny sh -c 'ulimit -n'
check sysctl 4321 podman run --rm --sysctl kernel.msgmax=4321 tiny cat /proc/sys/kernel/msgmax
check score 500 podman run --rm --oom-score-adj 500 tiny cat /proc/self/oom_score_adj
check first 1 podman run --rm tiny sh -c 'echo $$'
check masked 0 podman run --rm tiny sh -c 'wc -c </proc/keys'"##,
    ),
    (
        "volumes",
        r##"mkdir -p /tmp/volume && echo there >/tmp/volume/file
check read there podman run --rm -v /tmp/volume:/data tiny cat /data/file
podman run --rm -v /tmp/volume:/data tiny sh -c 'echo back >/data/new' && check write back cat /tmp/volume/new
has readonly 'Read-only file system' podman run --rm -v /tmp/volume:/data:ro tiny touch /data/x
has tmpfs '/scratch tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k' podman run --rm --tmpfs /scratch:size=1m,noexec tiny cat /proc/mounts
podman volume create named >/dev/null && podman run --rm -v named:/data tiny touch /data/x &&
    check named x podman run --rm -v named:/data tiny ls /data
check device 'root 1, 5' podman run --rm --device /dev/zero:/dev/naught tiny sh -c 'ls -l /dev/naught | sed "s/ \+/ /g" | cut -d" " -f4-6'
check shm yes podman run --rm --shm-size 2m tiny sh -c 'grep -q "/dev/shm tmpfs .*size=2048k" /proc/mounts && echo yes'"##,
    ),
    (
        "detached",
        r##"podman run -d --name box tiny sh -c 'trap "echo bye; exit 3" TERM; echo begun; while :; do sleep 0.1; done' || exit 1
await sh -c 'podman logs box | grep -q begun'
check state running podman inspect --format '{{.State.Status}}' box
has ps 'box' podman ps --format '{{.Names}} {{.Status}}'
podman stop -t 60 box || exit 1
check stopped 'exited 3' podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' box
check logs 'begun
bye' podman logs box
podman start box || exit 1
await sh -c '[ "$(podman logs box | grep -c begun)" = 2 ]'
podman kill box >/dev/null; check killed 137 podman wait box
podman rm box || exit 1
check gone '' podman ps -aq
check cgroup '' sh -c 'ls -d /sys/fs/cgroup/libpod_parent/libpod-* 2>/dev/null'"##,
    ),
    (
        "paused",
        r##"podman run -d --name box tiny sleep 1000 || exit 1
podman pause box && check paused paused podman inspect --format '{{.State.Status}}' box
podman unpause box && check running running podman inspect --format '{{.State.Status}}' box
podman rm -f -t 0 box
check gone '' podman ps -aq"##,
    ),
    (
        "executed",
        r##"podman run -d --name box --memory 64m -e FROM=run tiny sleep 1000 || exit 1
check output hello podman exec box echo hello
podman exec box sh -c 'exit 9'; check status 9 echo $?
podman exec box /no/such; check missing 127 echo $?
check user 1000 podman exec --user 1000 box id -u
check directory /tmp podman exec -w /tmp box sh -c 'pwd'
check variable 'run exec' podman exec -e MORE=exec box sh -c 'echo $FROM $MORE'
check input typed sh -c 'echo typed | podman exec -i box cat'
check limits 67108864 podman exec box cat /sys/fs/cgroup/memory.max
has filter 'Seccomp:	2' podman exec box cat /proc/self/status
has namespace 'sleep 1000' podman exec box ps
podman exec -d box touch /tmp/detached && await podman exec box ls /tmp/detached
check terminal /dev/pts/0 sh -c 'podman exec -t box tty | tr -d "\r"'
podman rm -f -t 0 box"##,
    ),
    (
        "terminal",
        r##"check terminal /dev/pts/0 sh -c 'podman run --rm -t tiny tty | tr -d "\r"'
check console yes sh -c 'podman run --rm -t tiny sh -c "[ -c /dev/console ] && echo yes" | tr -d "\r"'"##,
    ),
    (
        "updated",
        r##"podman run -d --name box --memory 64m tiny sleep 1000 || exit 1
podman update --memory 96m --pids-limit 44 box || podman update --memory 96m box || exit 1
check memory 100663296 podman exec box cat /sys/fs/cgroup/memory.max
has stats 'box' podman stats --no-stream --format '{{.Name}} {{.MemUsage}}'
has top 'sleep 1000' podman top box args
podman rm -f -t 0 box"##,
    ),
    (
        "namespaces",
        r##"podman run -d --name first --hostname first tiny sleep 1000 || exit 1
check pid '1' podman run --rm --pid container:first tiny sh -c 'ps | grep -c "sleep 100[0]"'
check uts first podman run --rm --uts container:first tiny cat /proc/sys/kernel/hostname
check host lab podman run --rm --uts host tiny cat /proc/sys/kernel/hostname
check mapped '0 100000 1000' podman run --rm --uidmap 0:100000:1000 --gidmap 0:100000:1000 tiny sh -c 'echo $(cat /proc/self/uid_map)'
podman rm -f -t 0 first
podman pod create --name pod --infra=false >/dev/null && podman run --rm --pod pod tiny true && podman pod rm -f pod"##,
    ),
    (
        "restarted",
        r##"podman run -d --name box --restart on-failure:2 tiny sh -c 'echo try; exit 4' || exit 1
await sh -c '[ "$(podman logs box | grep -c try)" = 3 ]'
podman wait box; podman rm -f box
podman create --name box tiny echo late >/dev/null && check attached late podman start -a box
podman rm box
podman run -d --name box --init=false --stop-signal USR1 tiny sh -c 'trap "exit 5" USR1; echo up; while :; do sleep 0.1; done'
await sh -c 'podman logs box | grep -q up'
podman stop -t 60 box && check signal 5 podman inspect --format '{{.State.ExitCode}}' box
podman rm box"##,
    ),
];

#[test]
fn podman_runs_containers_by_the_runtime() -> Result<()> {
    let case = Case::new("engines-podman")?;
    let mut lab = Lab::new(&case)?;
    lab.commands(&[("podman", "podman"), ("conmon", "conmon")])?;
    lab.file(
        "/usr/share/containers/seccomp.json",
        "/usr/share/containers/seccomp.json",
    )?;
    lab.text(
        "/etc/containers/policy.json",
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )?;
    lab.text(
        "/etc/containers/registries.conf",
        "short-name-mode = \"permissive\"\n",
    )?;
    lab.text("/etc/containers/containers.conf", CONTAINERS_CONF)?;
    lab.text("/etc/containers/storage.conf", STORAGE_CONF)?;
    lab.step("root", MAKE_ROOT)?;
    for (name, script) in PODMAN {
        lab.step(name, &format!("{CHECK}{script}\nexit $failed"))?;
    }
    lab.run(PATIENCE)?.expect_success()
}

/// What `ctr` must be able to have done by the runtime.
const CONTAINERD: &[(&str, &str)] = &[
    (
        "import",
        r#"containerd >/tmp/containerd.log 2>&1 &
await ctr version
ctr image import --base-name tiny /lab/tiny.tar || { cat /tmp/containerd.log; exit 1; }
has listed tiny ctr image ls -q"#,
    ),
    (
        "run",
        r#"CAPABILITIES='CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE'
check output hello $RUN --rm tiny:latest box echo hello
$RUN --rm tiny:latest box sh -c 'exit 7'; check status 7 echo $?
has missing 'no such file or directory' sh -c "$RUN --rm tiny:latest box /no/such/command 2>&1 | tr A-Z a-z"
has filter 'Seccomp:	2' $RUN --rm --seccomp tiny:latest box cat /proc/self/status
check capabilities 'CapBnd:	0000000000000000' $RUN --rm $(for c in $CAPABILITIES; do echo --cap-drop CAP_$c; done) tiny:latest box grep CapBnd /proc/self/status
has readonly 'Read-only file system' $RUN --rm --read-only tiny:latest box touch /x
check gone '' ctr container ls -q"#,
    ),
    (
        "task",
        r#"$RUN -d --memory-limit 67108864 tiny:latest box sleep 1000 || exit 1
check memory 67108864 cat /sys/fs/cgroup/default/box/memory.max
has running RUNNING ctr task ls
check exec hello ctr task exec --exec-id one box echo hello
ctr task exec --exec-id two box sh -c 'exit 9'; check status 9 echo $?
has processes PID ctr task ps box
ctr task pause box && has paused PAUSED ctr task ls
ctr task resume box && has resumed RUNNING ctr task ls
check user 1000 ctr task exec --user 1000 --exec-id three box id -u
has metrics memory ctr task metrics box
ctr task kill -s SIGKILL box || exit 1
await sh -c 'ctr task ls | grep -q STOPPED'
has code 'exit code 137' ctr task delete box
ctr container delete box || exit 1
check gone '' ctr container ls -q
check tasks '' ctr task ls -q"#,
    ),
];

#[test]
fn containerd_runs_tasks_by_the_runtime() -> Result<()> {
    let case = Case::new("engines-containerd")?;
    let mut lab = Lab::new(&case)?;
    lab.commands(&[
        ("containerd", "containerd"),
        ("containerd-shim-runc-v2", "containerd"),
        ("ctr", "containerd"),
    ])?;
    lab.file("/lab/tiny.tar", tiny_archive(&case)?)?;
    lab.text(
        "/etc/containerd/config.toml",
        "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
    )?;
    let run = "RUN='ctr run --runc-binary /usr/bin/coracle-runtime --snapshotter native'\n";
    for (name, script) in CONTAINERD {
        lab.step(name, &format!("{CHECK}{run}{script}\nexit $failed"))?;
    }
    lab.run(PATIENCE)?.expect_success()
}

/// An archive of an OCI layout with a root of busybox, made by `umoci`.
fn tiny_archive(case: &Case) -> Result<PathBuf> {
    let make = format!(
        "{}{}",
        MAKE_ROOT
            .replace("/tmp/root", "tiny-root")
            .replace("cp /bin/busybox", "cp \"$BUSYBOX\""),
        "umoci init --layout tiny && umoci new --image tiny:latest
         umoci insert --rootless --image tiny:latest tiny-root /
         umoci config --image tiny:latest --config.env PATH=/bin
         tar -C tiny -cf tiny.tar ."
    );
    run_tool("sh", |sh| {
        sh.args(["-ec", &make]).current_dir(case.folder()).env(
            "BUSYBOX",
            find_program("busybox", "busybox-static").unwrap_or_default(),
        )
    })?;
    Ok(case.path("tiny.tar"))
}
