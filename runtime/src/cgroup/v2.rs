//! `linux.resources` in the words of cgroup v2 (`Documentation/admin-guide/cgroup-v2.rst`). Pure.
//!
//! Where the specification's words are cgroup v1's, they are translated: shares to weight, memory plus swap to
//! swap alone. What v2 does not have is an error that names the property, unless it asks for nothing.

use super::limits::{Mode, Setting, check_file, none_of};
use crate::error::{Error, Result};
use crate::spec::Resources;

/// cgroup v1 took 0 for "not set", and so does the specification.
fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|&value| value != 0)
}

fn amount(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

pub(super) fn memory(resources: &Resources) -> Result<Vec<Setting>> {
    let Some(memory) = &resources.memory else {
        return Ok(Vec::new());
    };
    none_of(
        "cgroup v2",
        &[
            (
                "memory.kernel",
                memory.kernel.is_some_and(|value| value > 0),
            ),
            (
                "memory.kernelTCP",
                memory.kernel_tcp.is_some_and(|value| value > 0),
            ),
            (
                "memory.swappiness",
                memory.swappiness.is_some_and(|value| value != 0),
            ),
            (
                "memory.disableOOMKiller",
                memory.disable_oom_killer == Some(true),
            ),
        ],
    )?;
    let limit = set(memory.limit);
    let mut settings = Vec::new();
    // Swap first: if the limit falls, what no longer fits has where to go.
    if let Some(value) = swap(limit, set(memory.swap))? {
        // A kernel without swap has no such file; unlimited and none mean nothing there.
        let mode = if value == "max" || value == "0" {
            Mode::IfPresent
        } else {
            Mode::Required
        };
        settings.push(Setting::new("memory.swap.max", value).mode(mode));
    }
    if let Some(limit) = limit {
        settings.push(Setting::new("memory.max", amount(limit)));
    }
    if let Some(reservation) = set(memory.reservation) {
        settings.push(Setting::new("memory.low", amount(reservation)));
    }
    Ok(settings)
}

/// The specification counts memory and swap together, v2 swap alone.
fn swap(limit: Option<i64>, both: Option<i64>) -> Result<Option<String>> {
    let wrong = |why: &str| Err(Error::Config(format!("linux.resources.memory.swap: {why}")));
    match (both, limit) {
        // As in cgroup v1, memory without limit frees the swap as well.
        (None, Some(..0)) | (Some(..0), _) => Ok(Some("max".into())),
        (None, _) => Ok(None),
        (Some(_), None | Some(..0)) => wrong("it is memory plus swap, and needs a limit of memory"),
        (Some(both), Some(limit)) if both < limit => wrong(&format!(
            "{both} is memory plus swap, and less than the limit {limit}"
        )),
        (Some(both), Some(limit)) => Ok(Some((both - limit).to_string())),
    }
}

pub(super) fn cpu(resources: &Resources) -> Result<Vec<Setting>> {
    let Some(cpu) = &resources.cpu else {
        return Ok(Vec::new());
    };
    none_of(
        "cgroup v2",
        &[
            (
                "cpu.realtimeRuntime",
                cpu.realtime_runtime.is_some_and(|value| value != 0),
            ),
            (
                "cpu.realtimePeriod",
                cpu.realtime_period.is_some_and(|value| value != 0),
            ),
        ],
    )?;
    let mut settings = Vec::new();
    // An idle cgroup takes no weight: leave idleness before it is set, and enter after.
    let idle = cpu
        .idle
        .map(|idle| Setting::new("cpu.idle", idle.to_string()));
    let leaves_idleness = cpu.idle == Some(0);
    settings.extend(idle.clone().filter(|_| leaves_idleness));
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        settings.push(Setting::new("cpu.weight", weight(shares).to_string()));
    }
    settings.extend(idle.filter(|_| !leaves_idleness));
    let burst = cpu
        .burst
        .map(|burst| Setting::new("cpu.max.burst", burst.to_string()));
    // A burst may not exceed the quota. If both fall the burst goes first, if both rise the quota.
    settings.extend(burst.clone().map(|burst| burst.mode(Mode::Attempt)));
    let (quota, period) = (set(cpu.quota), cpu.period.filter(|&period| period != 0));
    match (quota, period) {
        (None, None) => {}
        (quota, None) => {
            let quota = quota.map_or("max".into(), amount);
            settings.push(Setting::new("cpu.max", quota));
        }
        (quota, Some(period)) => {
            let quota = quota.map_or("max".into(), amount);
            settings.push(Setting::new("cpu.max", format!("{quota} {period}")));
        }
    }
    settings.extend(burst);
    Ok(settings)
}

pub(super) fn cpuset(resources: &Resources) -> Result<Vec<Setting>> {
    let Some(cpu) = &resources.cpu else {
        return Ok(Vec::new());
    };
    let lists = [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)];
    let given = |(file, list): (&str, &Option<String>)| {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        Some(Setting::new(file, list.clone()))
    };
    Ok(lists.into_iter().filter_map(given).collect())
}

pub(super) fn pids(resources: &Resources) -> Result<Vec<Setting>> {
    let limit = resources.pids.as_ref().and_then(|pids| pids.limit);
    let value = |limit| {
        if limit > 0 {
            amount(limit)
        } else {
            "max".into()
        }
    };
    Ok(limit
        .map(|limit| Setting::new("pids.max", value(limit)))
        .into_iter()
        .collect())
}

pub(super) fn block_io(resources: &Resources) -> Result<Vec<Setting>> {
    let Some(io) = &resources.block_io else {
        return Ok(Vec::new());
    };
    let leaves = |weight: Option<u16>| weight.is_some_and(|weight| weight != 0);
    none_of(
        "cgroup v2",
        &[
            ("blockIO.leafWeight", leaves(io.leaf_weight)),
            (
                "blockIO.weightDevice.leafWeight",
                io.weight_device
                    .iter()
                    .any(|device| leaves(device.leaf_weight)),
            ),
        ],
    )?;
    let mut settings = Vec::new();
    if let Some(weight) = io.weight.filter(|&weight| weight != 0) {
        let setting = Setting::new("io.bfq.weight", weight.to_string());
        settings.push(setting.otherwise("io.weight", io_weight(weight)?.to_string()));
    }
    for device in &io.weight_device {
        let Some(weight) = device.weight.filter(|&weight| weight != 0) else {
            continue;
        };
        let name = format!("{}:{}", device.major, device.minor);
        let setting = Setting::new("io.bfq.weight", format!("{name} {weight}"));
        settings.push(setting.otherwise("io.weight", format!("{name} {}", io_weight(weight)?)));
    }
    for (key, devices) in [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ] {
        for device in devices {
            // Without a limit in v1's words is 0, in v2's `max`.
            let rate = match device.rate {
                0 => "max".into(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major, device.minor);
            settings.push(Setting::new("io.max", value));
        }
    }
    Ok(settings)
}

/// 10 to 1000 becomes 1 to 10000.
fn io_weight(weight: u16) -> Result<u32> {
    match weight {
        10..=1000 => Ok(1 + (u32::from(weight) - 10) * 9999 / 990),
        _ => Err(Error::Config(format!(
            "linux.resources.blockIO: weight {weight} is not from 10 to 1000"
        ))),
    }
}

pub(super) fn hugetlb(resources: &Resources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for limit in &resources.hugepage_limits {
        check_file(&limit.page_size)?;
        let (size, bytes) = (&limit.page_size, limit.limit.to_string());
        settings.push(Setting::new(&format!("hugetlb.{size}.max"), bytes.clone()));
        // Reserved pages count as well, where the kernel can count them (Linux 5.7).
        let reserved = Setting::new(&format!("hugetlb.{size}.rsvd.max"), bytes);
        settings.push(reserved.mode(Mode::IfPresent));
    }
    Ok(settings)
}

/// The same in both versions.
pub(super) fn rdma(resources: &Resources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (device, limits) in &resources.rdma {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::Config(format!(
                "linux.resources.rdma: {device:?} is no name of a device"
            )));
        }
        let mut value = device.clone();
        for (key, limit) in [
            ("hca_handle", limits.hca_handles),
            ("hca_object", limits.hca_objects),
        ] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        settings.push(Setting::new("rdma.max", value));
    }
    Ok(settings)
}

/// v2 has no such controller.
pub(super) fn nothing(_: &Resources) -> Result<Vec<Setting>> {
    Ok(Vec::new())
}

/// Shares (2 to 262144, by default 1024) to weight (1 to 10000, by default 100), so that minimum, default and
/// maximum meet, with a curve that is quadratic between the logarithms.
pub(super) fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_meet_shares_at_minimum_default_and_maximum() {
        for (shares, expected) in [
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!(
            (3..262_144)
                .step_by(97)
                .all(|shares| weight(shares) <= weight(shares + 97))
        );
        for (weight, expected) in [(10, Some(1)), (1000, Some(10_000)), (9, None), (1001, None)] {
            assert_eq!(io_weight(weight).ok(), expected, "{weight}");
        }
    }
}
