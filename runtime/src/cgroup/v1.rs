//! `linux.resources` in the words of cgroup v1 (`Documentation/admin-guide/cgroup-v1/`), for controllers that a
//! hybrid host has there. Pure.

use super::limits::{Mode, Setting, check_file};
use crate::error::{Error, Result};
use crate::spec::{DeviceRule, Resources};

pub(super) fn memory(resources: &Resources) -> Result<Vec<Setting>> {
    let Some(memory) = &resources.memory else {
        return Ok(Vec::new());
    };
    let mut settings = Vec::new();
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    let mut add = |file: &str, value: Option<i64>| {
        settings.extend(set(value).map(|value| Setting::new(file, value.max(-1).to_string())));
    };
    let (limit, swap) = (set(memory.limit), set(memory.swap));
    if let (Some(limit @ 0..), Some(swap @ 0..)) = (limit, swap)
        && swap < limit
    {
        return Err(Error::Config(format!(
            "linux.resources.memory.swap: {swap} is memory plus swap, and less than the limit {limit}"
        )));
    }
    add("memory.limit_in_bytes", limit);
    add("memory.soft_limit_in_bytes", memory.reservation);
    add(
        "memory.kmem.limit_in_bytes",
        memory.kernel.filter(|&value| value > 0),
    );
    add("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp);
    let both = "memory.memsw.limit_in_bytes";
    match (swap, limit) {
        (Some(swap), _) => {
            // The sum may never be below the limit: if both rise the sum goes first, if both fall the limit.
            let setting = Setting::new(both, swap.max(-1).to_string());
            settings.insert(0, setting.clone().mode(Mode::Attempt));
            settings.insert(if limit.is_some() { 2 } else { 1 }, setting);
        }
        (None, Some(..0)) => {
            settings.insert(0, Setting::new(both, "-1".into()).mode(Mode::IfPresent))
        }
        (None, _) => {}
    }
    if let Some(swappiness) = memory.swappiness {
        if swappiness > 100 {
            return Err(Error::Config(format!(
                "linux.resources.memory.swappiness: {swappiness} is not from 0 to 100"
            )));
        }
        settings.push(Setting::new("memory.swappiness", swappiness.to_string()));
    }
    if memory.disable_oom_killer == Some(true) {
        settings.push(Setting::new("memory.oom_control", "1".into()));
    }
    if memory.use_hierarchy == Some(true) {
        settings.push(Setting::new("memory.use_hierarchy", "1".into()).mode(Mode::IfPresent));
    }
    Ok(settings)
}

pub(super) fn cpu(resources: &Resources) -> Result<Vec<Setting>> {
    let Some(cpu) = &resources.cpu else {
        return Ok(Vec::new());
    };
    let mut settings = Vec::new();
    let number = |file: &str, value: Option<u64>| {
        value
            .filter(|&value| value != 0)
            .map(|value| Setting::new(file, value.to_string()))
    };
    let idle = cpu
        .idle
        .map(|idle| Setting::new("cpu.idle", idle.to_string()));
    let leaves_idleness = cpu.idle == Some(0);
    settings.extend(idle.clone().filter(|_| leaves_idleness));
    settings.extend(number("cpu.shares", cpu.shares));
    settings.extend(idle.filter(|_| !leaves_idleness));
    // A period that is too long for the present quota, and a burst too large for it, have to wait for the new one.
    let burst = cpu
        .burst
        .map(|burst| Setting::new("cpu.cfs_burst_us", burst.to_string()));
    let period = number("cpu.cfs_period_us", cpu.period);
    let early = [&period, &burst].into_iter().flatten().cloned();
    settings.extend(early.map(|setting| setting.mode(Mode::Attempt)));
    if let Some(quota) = cpu.quota.filter(|&quota| quota != 0) {
        settings.push(Setting::new("cpu.cfs_quota_us", quota.max(-1).to_string()));
    }
    settings.extend(period);
    settings.extend(burst);
    settings.extend(number("cpu.rt_period_us", cpu.realtime_period));
    if let Some(runtime) = cpu.realtime_runtime.filter(|&runtime| runtime != 0) {
        settings.push(Setting::new("cpu.rt_runtime_us", runtime.to_string()));
    }
    Ok(settings)
}

pub(super) fn block_io(resources: &Resources) -> Result<Vec<Setting>> {
    let Some(io) = &resources.block_io else {
        return Ok(Vec::new());
    };
    let mut settings = Vec::new();
    let set = |weight: Option<u16>| weight.filter(|&weight| weight != 0);
    if let Some(weight) = set(io.weight) {
        let setting = Setting::new("blkio.bfq.weight", weight.to_string());
        settings.push(setting.otherwise("blkio.weight", weight.to_string()));
    }
    if let Some(weight) = set(io.leaf_weight) {
        settings.push(Setting::new("blkio.leaf_weight", weight.to_string()));
    }
    for device in &io.weight_device {
        let value = |weight| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = set(device.weight) {
            let setting = Setting::new("blkio.bfq.weight_device", value(weight));
            settings.push(setting.otherwise("blkio.weight_device", value(weight)));
        }
        if let Some(weight) = set(device.leaf_weight) {
            settings.push(Setting::new("blkio.leaf_weight_device", value(weight)));
        }
    }
    for (name, devices) in [
        ("read_bps", &io.throttle_read_bps_device),
        ("write_bps", &io.throttle_write_bps_device),
        ("read_iops", &io.throttle_read_iops_device),
        ("write_iops", &io.throttle_write_iops_device),
    ] {
        let file = format!("blkio.throttle.{name}_device");
        settings.extend(devices.iter().map(|device| {
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            Setting::new(&file, value)
        }));
    }
    Ok(settings)
}

pub(super) fn hugetlb(resources: &Resources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for limit in &resources.hugepage_limits {
        check_file(&limit.page_size)?;
        let (size, bytes) = (&limit.page_size, limit.limit.to_string());
        settings.push(Setting::new(
            &format!("hugetlb.{size}.limit_in_bytes"),
            bytes.clone(),
        ));
        let reserved = Setting::new(&format!("hugetlb.{size}.rsvd.limit_in_bytes"), bytes);
        settings.push(reserved.mode(Mode::IfPresent));
    }
    Ok(settings)
}

pub(super) fn net_class(resources: &Resources) -> Result<Vec<Setting>> {
    let class = resources
        .network
        .as_ref()
        .and_then(|network| network.class_id);
    Ok(class
        .filter(|&class| class != 0)
        .map(|class| Setting::new("net_cls.classid", class.to_string()))
        .into_iter()
        .collect())
}

pub(super) fn net_priorities(resources: &Resources) -> Result<Vec<Setting>> {
    let priorities = resources
        .network
        .iter()
        .flat_map(|network| &network.priorities);
    let setting = |name: &str, priority: u32| {
        let value = format!("{name} {priority}");
        Setting::new("net_prio.ifpriomap", value)
    };
    Ok(priorities
        .map(|entry| setting(&entry.name, entry.priority))
        .collect())
}

/// For hosts without cgroup v2, which alone takes programs: lists of rules, where the last one written wins.
pub(super) fn devices(rules: &[DeviceRule]) -> Vec<Setting> {
    /// As in the program for cgroup v2.
    const OWN: [&str; 10] = [
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
        "c 136:* rwm",
    ];
    if rules.is_empty() {
        return Vec::new();
    }
    let number = |number: Option<i64>| match number {
        Some(number @ 0..) => number.to_string(),
        _ => "*".into(),
    };
    let line = |rule: &DeviceRule| {
        let kind = match rule.kind.as_deref() {
            None | Some("" | "a") => "a",
            Some("b") => "b",
            Some(_) => "c",
        };
        let access = rule.access.as_deref().filter(|access| !access.is_empty());
        let (major, minor) = (number(rule.major), number(rule.minor));
        format!("{kind} {major}:{minor} {}", access.unwrap_or("rwm"))
    };
    let file = |allow: bool| {
        if allow {
            "devices.allow"
        } else {
            "devices.deny"
        }
    };
    let denied = Setting::new("devices.deny", "a".into());
    let asked = rules
        .iter()
        .map(|rule| Setting::new(file(rule.allow), line(rule)));
    let own = OWN
        .iter()
        .map(|line| Setting::new("devices.allow", (*line).into()));
    [denied].into_iter().chain(asked).chain(own).collect()
}
