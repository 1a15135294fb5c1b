//! Capability sets: names to bits, and putting the five sets on this process.
//!
//! Names that are unknown, and capabilities that this process may not give, are left out; the caller warns. That
//! errs on the side of less privilege.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
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
    /// Resolves the names of `config.json`, keeps what is in `available`, and returns what was left out.
    pub fn resolve(capabilities: &spec::Capabilities, available: u64) -> (Self, Vec<String>) {
        let mut left_out = Vec::new();
        let mut set = |names: &[String]| {
            names.iter().fold(0, |set, name| {
                match bit(name).filter(|bit| bit & available != 0) {
                    Some(bit) => set | bit,
                    None => {
                        if !left_out.contains(name) {
                            left_out.push(name.clone());
                        }
                        set
                    }
                }
            })
        };
        let sets = Self {
            bounding: set(&capabilities.bounding),
            effective: set(&capabilities.effective),
            permitted: set(&capabilities.permitted),
            inheritable: set(&capabilities.inheritable),
            ambient: set(&capabilities.ambient),
        };
        (sets, left_out)
    }

    /// Takes everything out of this process's bounding set that is not in ours. Needs `CAP_SETPCAP`.
    pub(crate) fn drop_bounding(&self) -> Result<()> {
        for number in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            // The kernel knows no capability beyond the first that it refuses to answer for.
            let Ok(held) = capability_is_in_bounding_set(capability) else {
                break;
            };
            if held && self.bounding & (1 << number) == 0 {
                remove_capability_from_bounding_set(capability)
                    .during(format!("drop {} from the bounding set", name(number)))?;
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

/// What this process can give away: its own bounding set.
pub(crate) fn available() -> u64 {
    let held = |bit: u64| capability_is_in_bounding_set(CapabilitySet::from_bits_retain(bit));
    (0..64)
        .map(|number| 1 << number)
        // The kernel knows no capability beyond the first that it refuses to answer for.
        .map_while(|bit| held(bit).ok().map(|held| if held { bit } else { 0 }))
        .fold(0, |set, bit| set | bit)
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
            effective: list(&["CAP_KILL", "CAP_NO_SUCH", "cap_kill"]),
            permitted: list(&["CAP_SYS_ADMIN"]),
            ..Default::default()
        };
        let (sets, left_out) = Sets::resolve(&wanted, !(1 << 21));
        assert_eq!(
            sets,
            Sets {
                bounding: 1 | 1 << 40,
                effective: 1 << 5,
                ..Default::default()
            }
        );
        assert_eq!(left_out, ["CAP_NO_SUCH", "cap_kill", "CAP_SYS_ADMIN"]);
    }
}
