//! Where distributions keep OVMF, the UEFI firmware for virtual machines.
//!
//! Code and variables come in pairs of one build. Builds with Secure Boot's keys enrolled are not taken: an unsigned image would
//! be refused.

use std::path::{Path, PathBuf};

use super::Error;

/// Code and variables as Debian and Ubuntu, older Debian, Arch, Fedora, openSUSE and QEMU itself install them.
const PLACES: [(&str, &str); 6] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/qemu/ovmf-x86_64-code.bin",
        "/usr/share/qemu/ovmf-x86_64-vars.bin",
    ),
    (
        "/usr/share/qemu/edk2-x86_64-code.fd",
        "/usr/share/qemu/edk2-i386-vars.fd",
    ),
];

/// A pair of one build. Both files are the host's and never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Firmware {
    /// The code.
    pub(crate) code: PathBuf,
    /// The variables of a new machine.
    pub(crate) variables: PathBuf,
}

impl Firmware {
    /// Finds a pair in `directory` only, if one is given (by the pairs' file names), else in the known places.
    pub(crate) fn find(directory: Option<&Path>) -> Result<Self, Error> {
        let (code, variables) = find_pair(directory).ok_or_else(|| Error::FirmwareMissing {
            directory: directory.map(Path::to_owned),
        })?;
        Ok(Self { code, variables })
    }
}

fn find_pair(directory: Option<&Path>) -> Option<(PathBuf, PathBuf)> {
    PLACES
        .iter()
        .map(|(code, variables)| (locate(code, directory), locate(variables, directory)))
        .find(|(code, variables)| code.is_file() && variables.is_file())
}

/// The known path itself, or its file name in `directory`.
fn locate(known: &str, directory: Option<&Path>) -> PathBuf {
    let known = Path::new(known);
    match (directory, known.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => known.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_needs_both_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("OVMF_CODE_4M.fd"), "code").unwrap();
        std::fs::write(path.join("OVMF_VARS.fd"), "vars").unwrap();
        assert!(find_pair(Some(path)).is_none());
        std::fs::write(path.join("OVMF_CODE.fd"), "code").unwrap();
        let firmware = Firmware::find(Some(path)).unwrap();
        assert_eq!(firmware.code, path.join("OVMF_CODE.fd"));
        assert_eq!(firmware.variables, path.join("OVMF_VARS.fd"));
    }

    #[test]
    fn missing_firmware_names_the_package() {
        let empty = tempfile::tempdir().unwrap();
        let error = Firmware::find(Some(empty.path())).unwrap_err();
        assert!(error.hint().unwrap().contains("apt-get install ovmf"));
    }
}
