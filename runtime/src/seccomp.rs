//! The seccomp filter: `linux.seccomp` of `config.json` compiled to a classic BPF program.
//!
//! A pure function from values to instructions; loading is `sys`'s. The program first refuses (kills) every
//! architecture other than x86-64, x32 included, whatever `architectures` says: their system call numbers mean
//! something else. Then a balanced search over ranges of numbers leads to what the rules say of the call.
//! Rules for one system call are tried in the order of the document; the first that matches decides; an
//! unconditional one ends the list. If the default is an error number, calls newer than any that the profile
//! names answer ENOSYS, so that programs fall back to older calls instead of failing (as runc does).
//! Refuses `SCMP_ACT_NOTIFY`, unknown actions, operators and flags.

mod bpf;
mod syscalls;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::spec::{Seccomp, SeccompArg, SeccompSyscall};
use bpf::{Condition, Decision, Operator, Rule};

/// A filter ready to be loaded.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The program.
    pub instructions: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Names in the profile that x86-64 does not have, or that are newer than this runtime.
    pub unknown: Vec<String>,
}

/// Compiles a profile. Errors name what is wrong in it.
pub fn compile(profile: &Seccomp) -> Result<Filter> {
    if profile.listener_path.is_some() {
        return Err(Error::Unsupported("seccomp listenerPath".into()));
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let (decisions, unknown) = decisions(profile, default)?;
    let newest = decisions.last_key_value().map_or(0, |(&number, _)| number);
    let beyond = match default & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ERRNO if newest > 0 => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        _ => default,
    };
    let instructions = bpf::assemble(&decisions, default, beyond);
    if instructions.len() > libc::BPF_MAXINSNS as usize {
        let length = instructions.len();
        return Err(Error::Config(format!(
            "linux.seccomp: {length} instructions, the kernel takes 4096"
        )));
    }
    Ok(Filter {
        instructions,
        flags: flags(&profile.flags)?,
        unknown,
    })
}

type Decisions = BTreeMap<u32, Decision>;

fn decisions(profile: &Seccomp, default: u32) -> Result<(Decisions, Vec<String>)> {
    let mut decisions = Decisions::new();
    let mut unknown = Vec::new();
    for entry in &profile.syscalls {
        let rules = rules(entry)?;
        for name in &entry.names {
            let Some(number) = syscalls::number(name) else {
                unknown.push(name.clone());
                continue;
            };
            let decision = decisions
                .entry(number)
                .or_insert_with(|| Decision::new(default));
            rules.iter().for_each(|rule| decision.add(rule));
        }
    }
    Ok((decisions, unknown))
}

/// The conditions of one entry must all hold. Only where an index occurs twice is each condition a rule of its
/// own, so that any suffices: that is how container engines write alternatives.
fn rules(entry: &SeccompSyscall) -> Result<Vec<Rule>> {
    let action = action(&entry.action, entry.errno_ret)?;
    let conditions = entry
        .args
        .iter()
        .map(condition)
        .collect::<Result<Vec<_>>>()?;
    let repeated = |a: &Condition| conditions.iter().filter(|b| a.index == b.index).count() > 1;
    if conditions.iter().any(repeated) {
        return Ok(conditions
            .iter()
            .map(|&one| Rule {
                conditions: vec![one],
                action,
            })
            .collect());
    }
    Ok(vec![Rule { conditions, action }])
}

fn condition(arg: &SeccompArg) -> Result<Condition> {
    if arg.index > 5 {
        return Err(Error::Config(format!(
            "linux.seccomp: argument index {} is not 0 to 5",
            arg.index
        )));
    }
    let operator = match arg.op.as_str() {
        "SCMP_CMP_NE" => Operator::NotEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual,
        other => {
            return Err(Error::Config(format!(
                "linux.seccomp: unknown operator {other:?}"
            )));
        }
    };
    // For MASKED_EQ the specification's `value` is the mask and `valueTwo` what is compared.
    let (mask, value) = match operator {
        Operator::MaskedEqual => (arg.value, arg.value_two),
        _ => (u64::MAX, arg.value),
    };
    Ok(Condition {
        index: arg.index,
        operator,
        mask,
        value,
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    let data = |default: u32| {
        let errno = errno.unwrap_or(default);
        u16::try_from(errno)
            .map(u32::from)
            .map_err(|_| Error::Config(format!("linux.seccomp: errnoRet {errno} is above 65535")))
    };
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | data(libc::EPERM as u32)?,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | data(libc::EPERM as u32)?,
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_NOTIFY" => {
            return Err(Error::Unsupported("seccomp action SCMP_ACT_NOTIFY".into()));
        }
        other => {
            return Err(Error::Config(format!(
                "linux.seccomp: unknown action {other:?}"
            )));
        }
    })
}

fn flags(names: &[String]) -> Result<u32> {
    let flag = |name: &String| {
        Ok(match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC as u32,
            "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
            other => return Err(Error::Unsupported(format!("seccomp flag {other:?}"))),
        })
    };
    names.iter().try_fold(0, |all, name| Ok(all | flag(name)?))
}

#[cfg(test)]
mod tests;
