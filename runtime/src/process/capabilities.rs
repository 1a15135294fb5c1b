//! Capability sets: names to bits, and putting the five sets on this process.
//!
//! Names that are unknown (they are spelt as in capabilities(7), in capitals), capabilities that this process may not
//! give, and ambient or effective ones without the sets that they need, are left out; the caller warns. That errs on
//! the side of less privilege.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::error::{Context, Result};
use crate::spec;

/// By number (capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets of a process, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What can ever be gained by an execve.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What may be put in force.
    pub permitted: u64,
    /// What an execve of a file with the same inheritable bit keeps.
    pub inheritable: u64,
    /// What an execve keeps without more.
    pub ambient: u64,
}

/// All names known, in the order of their numbers.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

impl Sets {
    /// Resolves the names of `config.json`, keeps what is in `available`, and returns what was left out: what is
    /// unknown or not available, and what the kernel never puts in a set because another one lacks it.
    pub fn resolve(capabilities: &spec::Capabilities, available: u64) -> (Self, Vec<String>) {
        let mut left_out = Vec::new();
        let mut set = |names: &[String], within: u64, why: &str| {
            names.iter().fold(0, |set, name| {
                let why = match bit(name).filter(|bit| bit & available != 0) {
                    Some(bit) if bit & within != 0 => return set | bit,
                    Some(_) => why,
                    None => "",
                };
                let text = format!("{name}{why}");
                if !left_out.contains(&text) {
                    left_out.push(text);
                }
                set
            })
        };
        let bounding = set(&capabilities.bounding, u64::MAX, "");
        let permitted = set(&capabilities.permitted, u64::MAX, "");
        let inheritable = set(&capabilities.inheritable, u64::MAX, "");
        let effective = set(
            &capabilities.effective,
            permitted,
            " (effective, but not permitted)",
        );
        let ambient = set(
            &capabilities.ambient,
            permitted & inheritable,
            " (ambient, but not both permitted and inheritable)",
        );
        let sets = Self {
            bounding,
            effective,
            permitted,
            inheritable,
            ambient,
        };
        (sets, left_out)
    }

    /// Takes everything out of this process's bounding set that is not in ours. Needs `CAP_SETPCAP`.
    pub(crate) fn drop_bounding(&self) -> Result<()> {
        if self.inheritable & !self.bounding != 0 {
            // Later it could not become inheritable.
            let mut held = capabilities(None).during("get capabilities")?;
            held.inheritable = CapabilitySet::from_bits_retain(self.inheritable);
            set_capabilities(None, held).during("set inheritable capabilities")?;
        }
        for number in (0..64).filter(|number| self.bounding & (1 << number) == 0) {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            match remove_capability_from_bounding_set(capability) {
                // The kernel has no capability beyond the first that it refuses to drop as unknown.
                Err(Errno::INVAL) => break,
                other => {
                    other.during(format!("drop {} from the bounding set", name(number)))?;
                }
            }
        }
        Ok(())
    }

    /// Sets the permitted, effective, inheritable and ambient sets of this process.
    pub(crate) fn apply(&self) -> Result<()> {
        let sets = CapabilitySets {
            effective: CapabilitySet::from_bits_retain(self.effective),
            permitted: CapabilitySet::from_bits_retain(self.permitted),
            inheritable: CapabilitySet::from_bits_retain(self.inheritable),
        };
        set_capabilities(None, sets).during("set capabilities")?;
        clear_ambient_capability_set().during("clear ambient capabilities")?;
        for number in (0..64).filter(|number| self.ambient & (1 << number) != 0) {
            configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)
                .during(format!("raise {} in the ambient set", name(number)))?;
        }
        Ok(())
    }
}

/// What the container can be given: in a user namespace of its own all that the kernel has, since whoever enters
/// one gets all of them there; else what this process may have.
pub(crate) fn available(user_namespace: bool) -> u64 {
    if user_namespace {
        return known();
    }
    let permitted = capabilities(None).map(|sets| sets.permitted.bits());
    permitted.unwrap_or(0) & known()
}

/// What the kernel has, of what this runtime knows. An older kernel ends before our list does.
fn known() -> u64 {
    let has = |number: &usize| {
        capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number)).is_ok()
    };
    let last = (0..NAMES.len()).rev().find(has);
    last.map_or(0, |last| u64::MAX >> (63 - last))
}

fn bit(name: &str) -> Option<u64> {
    NAMES
        .iter()
        .position(|known| *known == name)
        .map(|number| 1 << number)
}

fn name(number: usize) -> String {
    NAMES
        .get(number)
        .map_or_else(|| format!("capability {number}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_bits_and_the_unavailable_is_left_out() {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let wanted = spec::Capabilities {
            bounding: list(&["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]),
            effective: list(&["CAP_KILL", "CAP_NO_SUCH", "cap_kill", "KILL", "CAP_CHOWN"]),
            permitted: list(&["CAP_SYS_ADMIN", "CAP_KILL", "CAP_NET_RAW"]),
            inheritable: list(&["CAP_NET_RAW", "CAP_CHOWN"]),
            ambient: list(&["CAP_NET_RAW", "CAP_KILL", "CAP_CHOWN"]),
        };
        let (sets, left_out) = Sets::resolve(&wanted, !(1 << 21));
        assert_eq!(
            sets,
            Sets {
                bounding: 1 | 1 << 40,
                effective: 1 << 5,
                permitted: 1 << 5 | 1 << 13,
                inheritable: 1 << 13 | 1,
                ambient: 1 << 13,
            }
        );
        const AMBIENT: &str = " (ambient, but not both permitted and inheritable)";
        let expected = [
            "CAP_SYS_ADMIN".to_owned(),
            "CAP_NO_SUCH".into(),
            "cap_kill".into(),
            "KILL".into(),
            "CAP_CHOWN (effective, but not permitted)".into(),
            format!("CAP_KILL{AMBIENT}"),
            format!("CAP_CHOWN{AMBIENT}"),
        ];
        assert_eq!(left_out, expected);
    }

    #[test]
    fn user_namespace_of_its_own_has_all_that_the_kernel_has() {
        let (own, new) = (available(false), available(true));
        assert_eq!(own & !new, 0);
        // Every kernel that has cgroup v2 has the first 38.
        assert_eq!(new & 0x3f_ffff_ffff, 0x3f_ffff_ffff);
        assert_eq!(new >> NAMES.len(), 0);
    }
}
