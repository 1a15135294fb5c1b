//! `linux.resources` as values for the files of cgroup v2. Pure.
//!
//! Where the specification's words are cgroup v1's, they are translated: shares to weight, memory plus swap to
//! swap alone. What v2 does not have is an error.

use super::devices::{self, Instruction};
use crate::error::{Error, Result};
use crate::spec::{Cpu, Memory, Resources};

/// Files and what to write to them, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Name of a file in the cgroup, and its value.
    pub settings: Vec<(String, String)>,
    /// The program that guards access to devices, if any is forbidden.
    pub devices: Option<Vec<Instruction>>,
}

impl Limits {
    /// Translates the resources; entries of `unified` come last and so win.
    pub fn resolve(resources: &Resources) -> Result<Self> {
        refuse_unsupported(resources)?;
        let mut limits = Self {
            devices: devices::compile(&resources.devices)?,
            ..Self::default()
        };
        if let Some(memory) = &resources.memory {
            limits.memory(memory)?;
        }
        if let Some(cpu) = &resources.cpu {
            limits.cpu(cpu);
        }
        if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
            limits.add(
                "pids.max",
                if limit > 0 {
                    limit.to_string()
                } else {
                    "max".into()
                },
            );
        }
        for limit in &resources.hugepage_limits {
            check_file(&limit.page_size)?;
            limits.add(
                &format!("hugetlb.{}.max", limit.page_size),
                limit.limit.to_string(),
            );
        }
        for (file, value) in &resources.unified {
            check_file(file)?;
            limits.add(file, value.clone());
        }
        Ok(limits)
    }

    /// The controllers that the files belong to.
    pub(super) fn controllers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (file, _) in &self.settings {
            let name = file.split('.').next().unwrap_or_default();
            // Files of the core need no controller.
            if name != "cgroup" && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn memory(&mut self, memory: &Memory) -> Result<()> {
        // In the specification, as in v1, 0 means not set.
        let set = |value: Option<i64>| value.filter(|&value| value != 0);
        let (limit, swap) = (set(memory.limit), set(memory.swap));
        if let Some(limit) = limit {
            self.add("memory.max", amount(limit));
        }
        if let Some(reservation) = set(memory.reservation) {
            self.add("memory.low", amount(reservation));
        }
        match (swap, limit) {
            (None, _) => {}
            (Some(..0), _) => self.add("memory.swap.max", "max".into()),
            (Some(both), Some(limit @ 0..)) if both >= limit => {
                self.add("memory.swap.max", (both - limit).to_string());
            }
            (Some(both), _) => {
                let text = format!(
                    "linux.resources.memory.swap: {both} is memory plus swap, and needs a limit below it"
                );
                return Err(Error::Config(text));
            }
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &Cpu) {
        if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
            self.add("cpu.weight", weight(shares).to_string());
        }
        if let Some(idle) = cpu.idle {
            self.add("cpu.idle", idle.to_string());
        }
        // A burst may not exceed the quota, so the quota comes first.
        match (
            cpu.quota.filter(|&quota| quota != 0),
            cpu.period.filter(|&period| period != 0),
        ) {
            (None, None) => {}
            (quota, period) => {
                let quota = quota.map_or("max".into(), amount);
                self.add("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
            }
        }
        if let Some(burst) = cpu.burst {
            self.add("cpu.max.burst", burst.to_string());
        }
        for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.add(file, list.clone());
            }
        }
    }

    fn add(&mut self, file: &str, value: String) {
        self.settings.push((file.to_owned(), value));
    }
}

fn refuse_unsupported(resources: &Resources) -> Result<()> {
    let (memory, cpu) = (resources.memory.as_ref(), resources.cpu.as_ref());
    let asked = [
        ("blockIO", resources.block_io.is_some()),
        ("network", resources.network.is_some()),
        ("rdma", !resources.rdma.is_empty()),
        (
            "memory.swappiness",
            memory.is_some_and(|memory| memory.swappiness.is_some()),
        ),
        (
            "memory.disableOOMKiller",
            memory.is_some_and(|memory| memory.disable_oom_killer == Some(true)),
        ),
        (
            "cpu.realtimeRuntime",
            cpu.is_some_and(|cpu| cpu.realtime_runtime.is_some_and(|value| value != 0)),
        ),
        (
            "cpu.realtimePeriod",
            cpu.is_some_and(|cpu| cpu.realtime_period.is_some_and(|value| value != 0)),
        ),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(Error::Unsupported(format!(
            "linux.resources.{name} with cgroup v2"
        ))),
        None => Ok(()),
    }
}

/// A file of the cgroup itself, never one elsewhere.
fn check_file(name: &str) -> Result<()> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain {
        Ok(())
    } else {
        Err(Error::Config(format!(
            "linux.resources: {name:?} is no file of a cgroup"
        )))
    }
}

fn amount(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

/// Shares (2 to 262144, by default 1024) to weight (1 to 10000, by default 100), so that minimum, default and
/// maximum meet, with a curve that is quadratic between the logarithms.
fn weight(shares: u64) -> u64 {
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

    fn resolve(text: &str) -> Result<Vec<(String, String)>> {
        Limits::resolve(&serde_json::from_str(text).expect("well formed"))
            .map(|limits| limits.settings)
    }

    #[test]
    fn resources_become_files() {
        for (text, expected) in [
            (r#"{}"#, &[] as &[(&str, &str)]),
            (
                r#"{"memory":{"limit":100,"swap":150}}"#,
                &[("memory.max", "100"), ("memory.swap.max", "50")],
            ),
            (
                r#"{"memory":{"limit":-1,"swap":-1}}"#,
                &[("memory.max", "max"), ("memory.swap.max", "max")],
            ),
            (
                r#"{"memory":{"limit":0,"reservation":5}}"#,
                &[("memory.low", "5")],
            ),
            (
                r#"{"cpu":{"shares":1024,"quota":5000}}"#,
                &[("cpu.weight", "100"), ("cpu.max", "5000 100000")],
            ),
            (
                r#"{"cpu":{"quota":-1,"period":2000,"burst":7}}"#,
                &[("cpu.max", "max 2000"), ("cpu.max.burst", "7")],
            ),
            (r#"{"pids":{"limit":0}}"#, &[("pids.max", "max")]),
            (
                r#"{"pids":{"limit":9},"unified":{"pids.max":"10","memory.high":"1"}}"#,
                &[("pids.max", "9"), ("memory.high", "1"), ("pids.max", "10")],
            ),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|&(file, value)| (file.to_owned(), value.to_owned()))
                .collect();
            assert_eq!(resolve(text).expect("valid"), expected, "{text}");
        }
    }

    #[test]
    fn what_cgroup_v2_cannot_do_is_refused() {
        for text in [
            r#"{"memory":{"swap":100}}"#,
            r#"{"memory":{"limit":200,"swap":100}}"#,
            r#"{"memory":{"disableOOMKiller":true}}"#,
            r#"{"cpu":{"realtimeRuntime":1}}"#,
            r#"{"unified":{"../x":"1"}}"#,
            r#"{"hugepageLimits":[{"pageSize":"/","limit":1}]}"#,
            r#"{"network":{"classID":1}}"#,
        ] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }

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
    }

    #[test]
    fn controllers_are_those_of_the_files() {
        let text = r#"{"memory":{"limit":1},"cpu":{"shares":2,"cpus":"0"},"unified":{"cgroup.freeze":"0"}}"#;
        let limits =
            Limits::resolve(&serde_json::from_str(text).expect("well formed")).expect("valid");
        assert_eq!(limits.controllers(), ["memory", "cpu", "cpuset"]);
    }
}
