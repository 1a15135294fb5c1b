use super::*;

const V2: &str = "cpuset cpu io memory hugetlb pids rdma";

fn limits(text: &str) -> Result<Limits> {
    Limits::resolve(&serde_json::from_str(text).expect("well formed"))
}

/// For a pure v2 host.
fn unified(text: &str) -> Result<Vec<(String, String)>> {
    let settings = limits(text)?.settings(&Host::invented(Some(V2), &[]))?;
    assert!(settings.legacy.is_empty());
    Ok(pairs(&settings.unified))
}

/// For a hybrid host that has every controller in v1.
fn legacy(text: &str) -> Result<Vec<(String, String)>> {
    let all = [
        "memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma",
    ];
    let settings = limits(text)?.settings(&Host::invented(Some(""), &all))?;
    assert!(settings.unified.is_empty());
    Ok(settings
        .legacy
        .iter()
        .flat_map(|(_, settings)| pairs(settings))
        .collect())
}

fn pairs(settings: &[Setting]) -> Vec<(String, String)> {
    let pair = |setting: &Setting| (setting.file.clone(), setting.value.clone());
    settings.iter().map(pair).collect()
}

fn expect(found: Result<Vec<(String, String)>>, expected: &[(&str, &str)], text: &str) {
    let expected: Vec<_> = expected
        .iter()
        .map(|&(file, value)| (file.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(found.expect("valid"), expected, "{text}");
}

#[test]
fn resources_become_files_of_v2() {
    for (text, expected) in [
        (r#"{}"#, &[] as &[(&str, &str)]),
        (
            r#"{"memory":{"limit":100,"swap":150}}"#,
            &[("memory.swap.max", "50"), ("memory.max", "100")],
        ),
        (
            r#"{"memory":{"limit":100,"swap":100}}"#,
            &[("memory.swap.max", "0"), ("memory.max", "100")],
        ),
        (
            r#"{"memory":{"limit":-1}}"#,
            &[("memory.swap.max", "max"), ("memory.max", "max")],
        ),
        (
            r#"{"memory":{"limit":0,"reservation":5,"kernel":0,"swappiness":0,"disableOOMKiller":false}}"#,
            &[("memory.low", "5")],
        ),
        (r#"{"memory":{"swap":-1}}"#, &[("memory.swap.max", "max")]),
        (
            r#"{"cpu":{"shares":1024,"quota":5000}}"#,
            &[("cpu.weight", "100"), ("cpu.max", "5000")],
        ),
        (
            r#"{"cpu":{"quota":-1,"period":2000,"burst":7}}"#,
            &[
                ("cpu.max.burst", "7"),
                ("cpu.max", "max 2000"),
                ("cpu.max.burst", "7"),
            ],
        ),
        (
            r#"{"cpu":{"shares":2,"idle":1,"realtimeRuntime":0}}"#,
            &[("cpu.weight", "1"), ("cpu.idle", "1")],
        ),
        (
            r#"{"cpu":{"shares":2,"idle":0}}"#,
            &[("cpu.idle", "0"), ("cpu.weight", "1")],
        ),
        (
            r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
            &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        ),
        (r#"{"pids":{"limit":0}}"#, &[("pids.max", "max")]),
        (
            r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#,
            &[
                ("io.bfq.weight", "500"),
                ("io.bfq.weight", "8:0 10"),
                ("io.max", "8:0 rbps=600"),
                ("io.max", "8:16 wiops=max"),
            ],
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#,
            &[("hugetlb.2MB.max", "9"), ("hugetlb.2MB.rsvd.max", "9")],
        ),
        (
            r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}}}"#,
            &[("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000")],
        ),
        (
            r#"{"pids":{"limit":9},"unified":{"pids.max":"10","memory.high":"1"}}"#,
            &[("pids.max", "9"), ("memory.high", "1"), ("pids.max", "10")],
        ),
    ] {
        expect(unified(text), expected, text);
    }
}

#[test]
fn resources_become_files_of_v1_where_v2_has_no_controller() {
    for (text, expected) in [
        (
            r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":0,"disableOOMKiller":true}}"#,
            &[
                ("memory.memsw.limit_in_bytes", "150"),
                ("memory.limit_in_bytes", "100"),
                ("memory.memsw.limit_in_bytes", "150"),
                ("memory.soft_limit_in_bytes", "50"),
                ("memory.swappiness", "0"),
                ("memory.oom_control", "1"),
            ] as &[(&str, &str)],
        ),
        (
            r#"{"memory":{"limit":-1}}"#,
            &[
                ("memory.memsw.limit_in_bytes", "-1"),
                ("memory.limit_in_bytes", "-1"),
            ],
        ),
        (
            r#"{"cpu":{"shares":512,"quota":5000,"period":10000,"realtimePeriod":9,"realtimeRuntime":8,"mems":"0"}}"#,
            &[
                ("cpu.shares", "512"),
                ("cpu.cfs_period_us", "10000"),
                ("cpu.cfs_quota_us", "5000"),
                ("cpu.cfs_period_us", "10000"),
                ("cpu.rt_period_us", "9"),
                ("cpu.rt_runtime_us", "8"),
                ("cpuset.mems", "0"),
            ],
        ),
        (r#"{"pids":{"limit":-1}}"#, &[("pids.max", "max")]),
        (
            r#"{"blockIO":{"weight":500,"leafWeight":300,
                "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":600}]}}"#,
            &[
                ("blkio.bfq.weight", "500"),
                ("blkio.leaf_weight", "300"),
                ("blkio.throttle.write_bps_device", "8:0 600"),
            ],
        ),
        (
            r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500}]}}"#,
            &[
                ("net_cls.classid", "1048577"),
                ("net_prio.ifpriomap", "eth0 500"),
            ],
        ),
    ] {
        expect(legacy(text), expected, text);
    }
}

#[test]
fn what_cgroup_v2_cannot_do_is_refused_by_name() {
    for (text, name) in [
        (r#"{"memory":{"swap":100}}"#, "memory.swap"),
        (r#"{"memory":{"limit":200,"swap":100}}"#, "memory.swap"),
        (r#"{"memory":{"limit":-1,"swap":100}}"#, "memory.swap"),
        (r#"{"memory":{"kernel":1}}"#, "memory.kernel"),
        (r#"{"memory":{"kernelTCP":1}}"#, "memory.kernelTCP"),
        (r#"{"memory":{"swappiness":1}}"#, "memory.swappiness"),
        (
            r#"{"memory":{"disableOOMKiller":true}}"#,
            "memory.disableOOMKiller",
        ),
        (r#"{"cpu":{"realtimeRuntime":1}}"#, "cpu.realtimeRuntime"),
        (r#"{"cpu":{"realtimePeriod":1}}"#, "cpu.realtimePeriod"),
        (r#"{"unified":{"../x":"1"}}"#, "../x"),
        (r#"{"unified":{"misc.max":"1"}}"#, "misc.max"),
        (
            r#"{"hugepageLimits":[{"pageSize":"/","limit":1}]}"#,
            "\"/\"",
        ),
        (r#"{"network":{"classID":1}}"#, "network.classID"),
        (
            r#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#,
            "network.priorities",
        ),
        (r#"{"blockIO":{"leafWeight":10}}"#, "blockIO.leafWeight"),
        (r#"{"blockIO":{"weight":5}}"#, "blockIO: weight 5"),
        (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, "rdma"),
    ] {
        let error = unified(text).expect_err(text).to_string();
        assert!(error.contains(name), "{text}: {error}");
    }
}

#[test]
fn a_controller_that_no_hierarchy_has_is_named_with_the_property() {
    let host = Host::invented(Some("hugetlb"), &["memory"]);
    for (text, names) in [
        (
            r#"{"cpu":{"shares":5}}"#,
            ["resources.cpu ", "controller cpu"],
        ),
        (r#"{"cpu":{"cpus":"0"}}"#, ["cpu.cpus", "controller cpuset"]),
        (
            r#"{"unified":{"memory.high":"1"}}"#,
            ["unified: memory.high", "controller memory"],
        ),
    ] {
        let error = limits(text)
            .expect("valid")
            .settings(&host)
            .expect_err(text)
            .to_string();
        assert!(
            names.iter().all(|name| error.contains(name)),
            "{text}: {error}"
        );
    }
    let text = r#"{"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#;
    let settings = limits(text)
        .expect("valid")
        .settings(&host)
        .expect("both are there");
    assert_eq!(
        (settings.controllers(), settings.legacy[0].0),
        (vec!["hugetlb"], "memory")
    );
}

#[test]
fn host_without_v2_gets_a_freezer_and_lists_of_devices() {
    let host = Host::invented(None, &["freezer", "devices"]);
    let text = r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#;
    let settings = limits(text)
        .expect("valid")
        .settings(&host)
        .expect("it has all");
    assert_eq!(settings.legacy[0], ("freezer", Vec::new()));
    let lines = pairs(&settings.legacy[1].1);
    for (line, (file, value)) in lines.iter().zip([
        ("devices.deny", "a"),
        ("devices.deny", "a *:* rwm"),
        ("devices.allow", "c 10:229 rw"),
        ("devices.allow", "c *:* m"),
    ]) {
        assert_eq!(line, &(file.to_owned(), value.to_owned()));
    }
}

#[test]
fn controllers_are_those_of_the_files() {
    let text =
        r#"{"memory":{"limit":1},"cpu":{"shares":2,"cpus":"0"},"unified":{"cgroup.freeze":"0"}}"#;
    let host = Host::invented(Some(V2), &[]);
    let settings = limits(text).expect("valid").settings(&host).expect("valid");
    assert_eq!(settings.controllers(), ["memory", "cpu", "cpuset"]);
}
