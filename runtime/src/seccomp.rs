//! The seccomp filter: `linux.seccomp` of `config.json` compiled to a classic BPF program.
//!
//! A pure function from values to instructions; loading is `sys`'s, and `notify` hands a listener over. Where the
//! specification is silent the meaning is libseccomp's, since profiles are written for it:
//!
//! - The machine's own calls are always filtered. Those of i386 and x32 are filtered by their own numbers if
//!   `architectures` lists them, and otherwise kill the process. Other machines' architectures do not matter here.
//! - The first rule that matches a call decides, in the order of the document. (In libseccomp a rule without
//!   conditions takes the place of all others for its call. A profile that has both can only mean the order, which
//!   is also never looser than its author reads it.)
//! - An entry's conditions must all hold, unless it names one argument twice: then each is an alternative.
//! - On i386 socket and System V calls are also made through `socketcall` and `ipc`, whose arguments lie in
//!   memory. A rule without conditions covers that way, too; one with conditions does if it is stricter than the
//!   default, and then whatever the arguments are.
//! - If the default is an error number, calls newer than any that the profile names answer ENOSYS, so that
//!   programs fall back to older calls instead of failing (as runc does).
//!
//! Refuses unknown actions, operators, flags and architectures, error numbers for actions that return none, and
//! `SCMP_ACT_NOTIFY` without a `listenerPath`.

mod bpf;
pub(crate) mod notify;
mod syscalls;

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::spec::{Seccomp, SeccompArg, SeccompSyscall};
use bpf::{Condition, Decisions, Operator};
use syscalls::{Abi, NONE};

/// The actions of a rule, for the features document.
pub const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The comparisons of an argument.
pub const OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The architectures that calls can be filtered for.
pub const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// The flags of a filter.
pub const FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Architectures of other machines: what is said of them cannot matter to this one.
const FOREIGN: &[&str] = &[
    "AARCH64",
    "ARM",
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "SH",
    "SHEB",
];

/// A filter ready to be loaded.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The program.
    pub instructions: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Who is asked about calls; there if and only if an action is `SCMP_ACT_NOTIFY`.
    pub listener: Option<Listener>,
    /// Names in the profile that x86 does not have, or that are newer than this runtime.
    pub unknown: Vec<String>,
}

/// The agent that gets the listening end of a filter (config-linux.md, "The Container Process State").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Of its Unix socket.
    pub path: PathBuf,
    /// For it alone to understand.
    pub metadata: Option<String>,
}

/// Compiles a profile. Errors name what is wrong in it.
pub fn compile(profile: &Seccomp) -> Result<Filter> {
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut rules = Rules::new(profile, default)?;
    profile
        .syscalls
        .iter()
        .try_for_each(|entry| rules.add_entry(entry))?;
    let beyond = match default & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ERRNO => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        _ => default,
    };
    let instructions = bpf::assemble(&rules.decisions, &rules.conditions, default, beyond);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(too_long(instructions.len()));
    }
    let listener = listener(profile, rules.notifies)?;
    Ok(Filter {
        instructions,
        flags: flags(&profile.flags, listener.is_some())?,
        listener,
        unknown: rules.unknown,
    })
}

const MAX_INSTRUCTIONS: usize = libc::BPF_MAXINSNS as usize;

fn too_long(length: usize) -> Error {
    Error::Config(format!(
        "linux.seccomp: {length} instructions, the kernel takes {MAX_INSTRUCTIONS}"
    ))
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::Config(format!("linux.seccomp: {what}"))
}

/// The profile by numbers.
struct Rules {
    decisions: Vec<Decisions>,
    conditions: Vec<Condition>,
    unknown: Vec<String>,
    default: u32,
    notifies: bool,
}

impl Rules {
    fn new(profile: &Seccomp, default: u32) -> Result<Self> {
        Ok(Self {
            decisions: abis(&profile.architectures)?
                .map(|abi| Decisions::new(abi, default))
                .collect(),
            conditions: Vec::new(),
            unknown: Vec::new(),
            default,
            notifies: default == libc::SECCOMP_RET_USER_NOTIF,
        })
    }

    fn add_entry(&mut self, entry: &SeccompSyscall) -> Result<()> {
        let action = action(&entry.action, entry.errno_ret)?;
        if entry.names.is_empty() {
            return Err(wrong("syscalls: names is empty"));
        }
        let first = self.conditions.len();
        for arg in &entry.args {
            self.conditions.push(condition(arg)?);
        }
        self.notifies |= action == libc::SECCOMP_RET_USER_NOTIF;
        let all = first..self.conditions.len();
        let conditions = &self.conditions[all.clone()];
        let repeated = |a: &Condition| conditions.iter().filter(|b| a.index == b.index).count() > 1;
        let alternatives = conditions.iter().any(repeated);
        for name in &entry.names {
            if alternatives {
                for one in all.clone() {
                    self.add(name, one..one + 1, action);
                }
            } else {
                self.add(name, all.clone(), action);
            }
        }
        match self.decisions.iter().map(Decisions::rules).sum::<usize>() {
            // A rule with conditions is at least two instructions.
            rules if 2 * rules > MAX_INSTRUCTIONS => Err(too_long(2 * rules)),
            _ => Ok(()),
        }
    }

    fn add(&mut self, name: &str, conditions: std::ops::Range<usize>, action: u32) {
        let numbers = syscalls::numbers(name);
        let mut found = numbers.is_some();
        for decisions in &mut self.decisions {
            let abi = decisions.abi();
            if let Some(number) = numbers.map(|all| all[abi as usize]).filter(|&n| n != NONE) {
                decisions.name(number);
                decisions.add(number, conditions.clone(), action);
            }
            if abi != Abi::I386 {
                continue;
            }
            if let Some((number, mask, value)) = syscalls::multiplexed(name) {
                found = true;
                if conditions.is_empty() || is_stricter(action, self.default) {
                    let at = self.conditions.len();
                    self.conditions.push(Condition {
                        index: 0,
                        operator: Operator::MaskedEqual,
                        mask,
                        value,
                    });
                    decisions.add(number, at..at + 1, action);
                }
            }
        }
        if !found {
            self.unknown.push(name.to_owned());
        }
    }
}

/// In the kernel's order: of several filters' answers it takes the strictest.
fn is_stricter(action: u32, than: u32) -> bool {
    let rank = |action: u32| (action & libc::SECCOMP_RET_ACTION_FULL) as i32;
    rank(action) < rank(than)
}

/// The ABIs to filter: the machine's own in any case.
fn abis(names: &[String]) -> Result<impl Iterator<Item = Abi>> {
    let (mut i386, mut x32) = (None, None);
    for name in names {
        match name.strip_prefix("SCMP_ARCH_") {
            Some("X86_64" | "NATIVE") => {}
            Some("X86") => i386 = Some(Abi::I386),
            Some("X32") => x32 = Some(Abi::X32),
            Some(other) if FOREIGN.contains(&other) => {}
            _ => return Err(wrong(format_args!("unknown architecture {name:?}"))),
        }
    }
    Ok([Some(Abi::X86_64), i386, x32].into_iter().flatten())
}

fn condition(arg: &SeccompArg) -> Result<Condition> {
    if arg.index > 5 {
        return Err(wrong(format_args!(
            "argument index {} is not 0 to 5",
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
        other => return Err(wrong(format_args!("unknown operator {other:?}"))),
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
    let data = || {
        let errno = errno.unwrap_or(libc::EPERM as u32);
        u16::try_from(errno)
            .map(u32::from)
            .map_err(|_| wrong(format_args!("errnoRet {errno} is above 65535")))
    };
    let action = match name {
        "SCMP_ACT_ERRNO" => return Ok(libc::SECCOMP_RET_ERRNO | data()?),
        "SCMP_ACT_TRACE" => return Ok(libc::SECCOMP_RET_TRACE | data()?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_NOTIFY" => libc::SECCOMP_RET_USER_NOTIF,
        other => return Err(wrong(format_args!("unknown action {other:?}"))),
    };
    match errno {
        Some(_) => Err(wrong(format_args!("{name} has no errnoRet"))),
        None => Ok(action),
    }
}

/// Without `SCMP_ACT_NOTIFY` the path is ignored, as the specification says.
fn listener(profile: &Seccomp, notifies: bool) -> Result<Option<Listener>> {
    let metadata = profile.listener_metadata.as_ref();
    // Engines written in Go may write out what is empty.
    let path = profile.listener_path.as_deref().unwrap_or_default();
    match (path, notifies) {
        ("", true) => Err(wrong("SCMP_ACT_NOTIFY needs a listenerPath")),
        ("", false) if metadata.is_some_and(|text| !text.is_empty()) => {
            Err(wrong("listenerMetadata needs a listenerPath"))
        }
        (path, true) => Ok(Some(Listener {
            path: PathBuf::from(path),
            metadata: metadata.cloned(),
        })),
        (_, false) => Ok(None),
    }
}

/// The kernel takes `WAIT_KILLABLE_RECV` with a listener only, and both `TSYNC` and a listener only if what is
/// returned cannot be mistaken for a descriptor.
fn flags(names: &[String], listens: bool) -> Result<u32> {
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    let mut flags = 0;
    for name in names {
        flags |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC as u32,
            "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if listens => WAIT_KILLABLE_RECV,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
            other => return Err(Error::Unsupported(format!("seccomp flag {other:?}"))),
        };
    }
    if listens {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
        if flags & libc::SECCOMP_FILTER_FLAG_TSYNC as u32 != 0 {
            flags |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH as u32;
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests;
