//! What an update changes, and what is in force after it. Pure.

use crate::spec::{Cpu, Memory, Resources};

/// The limits to set now, and all that are set from then on: what the update leaves out stays as it was.
pub(super) fn merge(saved: Resources, change: Resources) -> (Resources, Resources) {
    let old_memory = saved.memory.clone().unwrap_or_default();
    let old_cpu = saved.cpu.clone().unwrap_or_default();
    let mut to_set = change.clone();
    if let Some(memory) = &mut to_set.memory {
        // v2 has swap by itself, which memory plus swap alone does not tell.
        if memory.swap.is_some_and(|swap| swap > 0) && unset(memory.limit) {
            memory.limit = old_memory.limit;
        }
        memory.check_before_update = memory
            .check_before_update
            .or(old_memory.check_before_update);
    }
    if let Some(cpu) = &mut to_set.cpu {
        // One file of v2 has both.
        if cpu.period.is_some() && unset(cpu.quota) {
            cpu.quota = old_cpu.quota;
        }
    }
    let list = |old: Vec<_>, new: Vec<_>| if new.is_empty() { old } else { new };
    let mut unified = saved.unified;
    unified.extend(change.unified);
    let mut rdma = saved.rdma;
    rdma.extend(change.rdma);
    let merged = Resources {
        devices: list(saved.devices, change.devices),
        memory: change
            .memory
            .map(|new| merge_memory(old_memory, new))
            .or(saved.memory),
        cpu: change.cpu.map(|new| merge_cpu(old_cpu, new)).or(saved.cpu),
        pids: change.pids.or(saved.pids),
        block_io: change.block_io.or(saved.block_io),
        hugepage_limits: if change.hugepage_limits.is_empty() {
            saved.hugepage_limits
        } else {
            change.hugepage_limits
        },
        network: change.network.or(saved.network),
        rdma,
        unified,
    };
    (to_set, merged)
}

fn unset(value: Option<i64>) -> bool {
    value.is_none_or(|value| value == 0)
}

fn merge_memory(old: Memory, new: Memory) -> Memory {
    Memory {
        limit: new.limit.or(old.limit),
        reservation: new.reservation.or(old.reservation),
        swap: new.swap.or(old.swap),
        kernel: new.kernel.or(old.kernel),
        kernel_tcp: new.kernel_tcp.or(old.kernel_tcp),
        swappiness: new.swappiness.or(old.swappiness),
        disable_oom_killer: new.disable_oom_killer.or(old.disable_oom_killer),
        use_hierarchy: new.use_hierarchy.or(old.use_hierarchy),
        check_before_update: new.check_before_update.or(old.check_before_update),
    }
}

fn merge_cpu(old: Cpu, new: Cpu) -> Cpu {
    Cpu {
        shares: new.shares.or(old.shares),
        quota: new.quota.or(old.quota),
        burst: new.burst.or(old.burst),
        period: new.period.or(old.period),
        realtime_runtime: new.realtime_runtime.or(old.realtime_runtime),
        realtime_period: new.realtime_period.or(old.realtime_period),
        cpus: new.cpus.or(old.cpus),
        mems: new.mems.or(old.mems),
        idle: new.idle.or(old.idle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Resources {
        serde_json::from_str(text).expect("well formed")
    }

    #[test]
    fn an_update_sets_what_it_names_and_keeps_the_rest() {
        for (saved, change, to_set, merged) in [
            (
                "{}",
                r#"{"pids":{"limit":5}}"#,
                r#"{"pids":{"limit":5}}"#,
                r#"{"pids":{"limit":5}}"#,
            ),
            (
                r#"{"memory":{"limit":100,"swap":150},"pids":{"limit":5}}"#,
                r#"{"memory":{"swap":200}}"#,
                r#"{"memory":{"limit":100,"swap":200}}"#,
                r#"{"memory":{"limit":100,"swap":200},"pids":{"limit":5}}"#,
            ),
            (
                r#"{"memory":{"limit":100,"swap":150}}"#,
                r#"{"memory":{"limit":500}}"#,
                r#"{"memory":{"limit":500}}"#,
                r#"{"memory":{"limit":500,"swap":150}}"#,
            ),
            (
                r#"{"cpu":{"quota":500,"shares":7}}"#,
                r#"{"cpu":{"period":1000}}"#,
                r#"{"cpu":{"quota":500,"period":1000}}"#,
                r#"{"cpu":{"quota":500,"period":1000,"shares":7}}"#,
            ),
        ] {
            let found = merge(resources(saved), resources(change));
            assert_eq!(
                found,
                (resources(to_set), resources(merged)),
                "{saved} {change}"
            );
        }
    }
}
