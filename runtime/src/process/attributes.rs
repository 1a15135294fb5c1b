//! Scheduling, I/O priority, personality, memory policy and processor affinity of the process (config.md, "Linux Process";
//! config-linux.md, "Personality"): names to numbers, and putting them on this process.
//!
//! Refuses values that the policy or class does not have. What the kernel or the host then refuses is an error that
//! names the property.

use rustix::thread::{CpuSet, sched_setaffinity};

use super::memory_policy::MemoryPolicy;
use crate::error::{Context, Error, Result};
use crate::spec::{self, Spec};
use crate::sys::{self, SchedulingAttributes};

/// The attributes, as the system calls take them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// For `sched_setattr`.
    pub scheduler: Option<SchedulingAttributes>,
    /// For `ioprio_set`.
    pub io_priority: Option<i32>,
    /// For `personality`.
    pub personality: Option<u64>,
    /// For `set_mempolicy`.
    pub memory_policy: Option<MemoryPolicy>,
    /// For a process that joins a container: the processors before and after it is in the cgroup.
    pub affinity: [Option<Vec<usize>>; 2],
}

/// By number (`linux/sched.h`).
const POLICIES: [&str; 7] = [
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
];
/// By bit (`linux/sched.h`).
const FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];
/// Of `linux/personality.h`.
const PER_LINUX: u64 = 0;
const PER_LINUX32: u64 = 8;
/// From 1 on (`linux/ioprio.h`).
const CLASSES: [&str; 3] = ["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];

impl Attributes {
    /// Resolves what the document says of a process of the container.
    pub(crate) fn resolve(process: &spec::Process, spec: &Spec) -> Result<Self> {
        let affinity = process.exec_cpu_affinity.clone().unwrap_or_default();
        let processors = |name: &str, list: Option<String>| {
            let list = list.filter(|list| !list.is_empty());
            list.map(|list| processors(name, &list)).transpose()
        };
        Ok(Self {
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
            personality: spec
                .linux
                .personality
                .as_ref()
                .map(personality)
                .transpose()?,
            memory_policy: spec
                .linux
                .memory_policy
                .as_ref()
                .map(MemoryPolicy::resolve)
                .transpose()?,
            affinity: [
                processors("initial", affinity.initial)?,
                processors("final", affinity.last)?,
            ],
        })
    }

    /// Puts all but the affinity on this process. May need privileges of the host.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(scheduler) = &self.scheduler {
            sys::set_scheduling(scheduler).during("set process.scheduler")?;
        }
        if let Some(priority) = self.io_priority {
            sys::set_io_priority(priority).during("set process.ioPriority")?;
        }
        if let Some(personality) = self.personality {
            sys::set_personality(personality).during("set linux.personality")?;
        }
        self.memory_policy
            .as_ref()
            .map_or(Ok(()), MemoryPolicy::apply)
    }

    /// Binds this process to the processors of before (0) or after (1) it is in the cgroup.
    pub(crate) fn bind_processors(&self, stage: usize) -> Result<()> {
        let Some(processors) = self.affinity.get(stage).and_then(Option::as_ref) else {
            return Ok(());
        };
        let mut set = CpuSet::new();
        processors.iter().for_each(|&number| set.set(number));
        sched_setaffinity(None, &set).during("set process.execCPUAffinity")
    }
}

fn scheduler(asked: &spec::Scheduler) -> Result<SchedulingAttributes> {
    let wrong = |text: String| Error::Config(format!("process.scheduler: {text}"));
    let policy = position(&POLICIES, &asked.policy)
        .ok_or_else(|| wrong(format!("unknown policy {:?}", asked.policy)))?;
    let flags = asked.flags.iter().try_fold(0, |flags, name| {
        let bit = position(&FLAGS, name).ok_or_else(|| wrong(format!("unknown flag {name:?}")))?;
        Ok(flags | 1 << bit)
    })?;
    let (nice, priority) = (asked.nice.unwrap_or(0), asked.priority.unwrap_or(0));
    let policy_name = asked.policy.as_str();
    if !(-20..=19).contains(&nice) {
        return Err(wrong(format!("nice {nice} is not between -20 and 19")));
    }
    if nice != 0 && !matches!(policy_name, "SCHED_OTHER" | "SCHED_BATCH") {
        return Err(wrong(format!("nice does not go with {policy_name}")));
    }
    if priority != 0 && !matches!(policy_name, "SCHED_FIFO" | "SCHED_RR") {
        return Err(wrong(format!("priority does not go with {policy_name}")));
    }
    let times = [asked.runtime, asked.deadline, asked.period].map(|time| time.unwrap_or(0));
    if times != [0; 3] && policy_name != "SCHED_DEADLINE" {
        return Err(wrong(format!(
            "runtime, deadline and period do not go with {policy_name}"
        )));
    }
    Ok(SchedulingAttributes {
        policy: policy as u32,
        flags,
        nice,
        priority: u32::try_from(priority)
            .map_err(|_| wrong(format!("priority {priority} is negative")))?,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
    })
}

fn io_priority(asked: &spec::IoPriority) -> Result<i32> {
    const CLASS_SHIFT: i32 = 13;
    let class = position(&CLASSES, &asked.class).ok_or_else(|| {
        Error::Config(format!(
            "process.ioPriority: unknown class {:?}",
            asked.class
        ))
    })?;
    match asked.priority {
        priority @ 0..=7 => Ok((class as i32 + 1) << CLASS_SHIFT | priority as i32),
        other => Err(Error::Config(format!(
            "process.ioPriority: priority {other} is not between 0 and 7"
        ))),
    }
}

fn personality(asked: &spec::Personality) -> Result<u64> {
    if let Some(flag) = asked.flags.first() {
        return Err(Error::Unsupported(format!(
            "linux.personality: flag {flag:?}"
        )));
    }
    match asked.domain.as_str() {
        "LINUX" => Ok(PER_LINUX),
        "LINUX32" => Ok(PER_LINUX32),
        other => Err(Error::Config(format!(
            "linux.personality: unknown domain {other:?}"
        ))),
    }
}

fn processors(name: &str, list: &str) -> Result<Vec<usize>> {
    numbers(list, CpuSet::MAX_CPU).ok_or_else(|| {
        Error::Config(format!(
            "process.execCPUAffinity.{name}: {list:?} is no list of processors"
        ))
    })
}

/// A list as the kernel writes it, `0-3,7`, of numbers below `limit`.
pub(super) fn numbers(list: &str, limit: usize) -> Option<Vec<usize>> {
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = plain.then(|| text.parse::<usize>().ok()).flatten();
        number.filter(|&number| number < limit)
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first)?..=number(last)?;
        (!range.is_empty()).then_some(range)
    };
    let ranges: Option<Vec<_>> = list.split(',').map(|part| range(part.trim())).collect();
    Some(ranges?.into_iter().flatten().collect())
}

fn position(names: &[&str], name: &str) -> Option<usize> {
    names.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_take_only_what_they_have() {
        let with = |policy: &str, nice, priority, runtime| {
            scheduler(&spec::Scheduler {
                policy: policy.into(),
                nice,
                priority,
                runtime,
                ..Default::default()
            })
        };
        for (policy, nice, priority, runtime, good) in [
            ("SCHED_OTHER", Some(5), None, None, true),
            ("SCHED_BATCH", Some(-20), Some(0), None, true),
            ("SCHED_FIFO", None, Some(10), None, true),
            ("SCHED_DEADLINE", None, None, Some(1_000_000), true),
            ("SCHED_OTHER", Some(20), None, None, false),
            ("SCHED_OTHER", None, Some(1), None, false),
            ("SCHED_RR", None, Some(-1), None, false),
            ("SCHED_RR", Some(1), Some(1), None, false),
            ("SCHED_IDLE", None, None, Some(1), false),
            ("SCHED_NONE", None, None, None, false),
        ] {
            let made = with(policy, nice, priority, runtime);
            assert_eq!(made.is_ok(), good, "{policy} {nice:?} {priority:?}");
        }
        let flagged = spec::Scheduler {
            policy: "SCHED_BATCH".into(),
            flags: vec![
                "SCHED_FLAG_RESET_ON_FORK".into(),
                "SCHED_FLAG_KEEP_PARAMS".into(),
            ],
            ..Default::default()
        };
        let made = scheduler(&flagged).expect("valid");
        assert_eq!((made.policy, made.flags), (3, 0x11));
    }

    #[test]
    fn io_priority_is_class_and_level() {
        for (class, priority, expected) in [
            ("IOPRIO_CLASS_RT", 0, Some(1 << 13)),
            ("IOPRIO_CLASS_BE", 7, Some(2 << 13 | 7)),
            ("IOPRIO_CLASS_IDLE", 0, Some(3 << 13)),
            ("IOPRIO_CLASS_BE", 8, None),
            ("IOPRIO_CLASS_BE", -1, None),
            ("IOPRIO_CLASS_NONE", 0, None),
        ] {
            let class = class.to_owned();
            let made = io_priority(&spec::IoPriority { class, priority });
            assert_eq!(made.ok(), expected);
        }
    }

    #[test]
    fn processors_are_listed_as_the_kernel_does() {
        for (list, expected) in [
            ("0", Some(vec![0])),
            ("0-2,7", Some(vec![0, 1, 2, 7])),
            ("1, 3", Some(vec![1, 3])),
            ("2-1", None),
            ("", None),
            ("1,", None),
            ("-1", None),
            ("0x1", None),
            ("99999", None),
        ] {
            assert_eq!(processors("initial", list).ok(), expected, "{list:?}");
        }
    }
}
