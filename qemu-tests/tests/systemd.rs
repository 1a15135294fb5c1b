//! systemd makes the cgroups of containers, in a guest where it is the first process.

use anyhow::Result;
use qemu_tests::{CHECK, Case, Lab, build_in_workspace, seconds};
use serde_json::{Value, json};

/// Boot and all steps, on a busy host.
const PATIENCE: std::time::Duration = seconds(900);

/// The runtime of images knows no systemd, so this is the one that Cargo built for the tests.
const BEGIN: &str = r#"
cd /lab/bundle
R="/lab/runtime --systemd-cgroup"
show() { systemctl show -P "$2" "$1"; }
cgroup=/sys/fs/cgroup/lab.slice/lab-nested.slice/coracle-one.scope
"#;

/// Names and scripts. Each config.json is of the step's name.
const STEPS: &[(&str, &str)] = &[
    (
        "limited",
        r#"$R run -d --config limited.json one >/tmp/out 2>&1 || { cat /tmp/out; exit 1; }
check state active show coracle-one.scope ActiveState
check slice lab-nested.slice show coracle-one.scope Slice
check delegation yes show coracle-one.scope Delegate
check memory 33554432 show coracle-one.scope MemoryMax
check memory-file 33554432 cat $cgroup/memory.max
check tasks 44 show coracle-one.scope TasksMax
check tasks-file 44 cat $cgroup/pids.max
check quota 500ms show coracle-one.scope CPUQuotaPerSecUSec
check quota-file '50000 100000' cat $cgroup/cpu.max
check weight 59 show coracle-one.scope CPUWeight
check exec 0::/ $R exec one cat /proc/self/cgroup"#,
    ),
    (
        "updated",
        r#"$R update --memory 67108864 --pids-limit 55 --cpu-quota 20000 one || exit 1
check memory 67108864 show coracle-one.scope MemoryMax
check tasks 55 show coracle-one.scope TasksMax
check quota 200ms show coracle-one.scope CPUQuotaPerSecUSec
systemctl daemon-reload || exit 1
check memory-file 67108864 cat $cgroup/memory.max
check tasks-file 55 cat $cgroup/pids.max
check quota-file '20000 100000' cat $cgroup/cpu.max"#,
    ),
    (
        "paused",
        r#"$R pause one || exit 1
has paused '"status": "paused"' $R state one
$R resume one || exit 1
has running '"status": "running"' $R state one"#,
    ),
    (
        "deleted",
        r#"$R delete --force one || exit 1
check scope not-found show coracle-one.scope LoadState
check directory no sh -c "[ -e $cgroup ] || echo no""#,
    ),
    (
        "out-of-memory",
        r#"$R run --config out-of-memory.json two; check killed 137 echo $?
check scope not-found show coracle-two.scope LoadState
$R run -d --config out-of-memory.json two >/dev/null 2>&1
await sh -c "$R state two | grep -q stopped"
$R delete two || exit 1
check left '' systemctl list-units --all --no-legend 'coracle-*'
$R run --config out-of-memory.json two; check again 137 echo $?"#,
    ),
    (
        "refused",
        r#"for path in noslice:a:b system.slice:a /some/path system.slice:a:b/c a/b.slice:x:y -bad.slice:a:b a--b.slice:a:b; do
    sed "s#PATH-OF-CGROUP#$path#" refused.json >/tmp/refused.json
    $R run --config /tmp/refused.json three; check "status of $path" 1 echo $?
done
check left '' $R list -q"#,
    ),
];

fn document(args: &[&str], cgroup: &str, resources: Value) -> String {
    let namespaces = ["pid", "mount", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": true },
        "process": { "args": args, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true },
        "mounts": [{ "destination": "/proc", "type": "proc" }],
        "linux": { "cgroupsPath": cgroup, "namespaces": namespaces, "resources": resources },
    })
    .to_string()
}

#[test]
fn systemd_makes_and_limits_the_cgroups() -> Result<()> {
    let case = Case::new("systemd")?;
    let mut lab = Lab::new(&case)?;
    lab.systemd()?;
    lab.program(
        "/lab/runtime",
        build_in_workspace("coracle-runtime", "coracle-runtime")?,
    )?;
    let limits = json!({ "memory": { "limit": 33_554_432 }, "pids": { "limit": 44 },
        "cpu": { "quota": 50_000, "period": 100_000, "shares": 512 } });
    let small = json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } });
    let grow = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    for (name, text) in [
        (
            "limited",
            document(&["sleep", "1000"], "lab-nested.slice:coracle:one", limits),
        ),
        (
            "out-of-memory",
            document(&["sh", "-c", grow], "system.slice:coracle:two", small),
        ),
        ("refused", document(&["true"], "PATH-OF-CGROUP", json!({}))),
    ] {
        lab.text(format!("/lab/bundle/{name}.json"), &text)?;
    }
    let root =
        "mkdir -p /lab/bundle/rootfs/bin /lab/bundle/rootfs/proc && cd /lab/bundle/rootfs/bin &&
        cp /bin/busybox . && for applet in sh cat sleep true; do ln -s busybox $applet; done";
    lab.step("root", root)?;
    for (name, script) in STEPS {
        lab.step(name, &format!("{CHECK}{BEGIN}{script}\nexit $failed"))?;
    }
    lab.run(PATIENCE)?.expect_success()
}
