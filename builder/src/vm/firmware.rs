//! Where distributions keep OVMF, the UEFI firmware for virtual machines.
//!
//! Code and variables come in pairs of one build. Builds with others' keys for Secure Boot are not taken: an image that is not
//! theirs would be refused.

use std::path::{Path, PathBuf};

use super::{Error, variables};
use crate::secure_boot::Certificate;

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

/// The same, of builds that enforce Secure Boot: their variables are kept from the system by SMM.
const SECURE_PLACES: [(&str, &str); 4] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.secboot.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
];

/// A pair of one build. Both files are the host's and never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Firmware {
    /// The code.
    pub(crate) code: PathBuf,
    /// The variables of a new machine.
    pub(crate) variables: PathBuf,
    /// It enforces Secure Boot.
    pub(crate) secure: bool,
}

impl Firmware {
    /// Finds a pair in `directory` only, if one is given (by the pairs' file names), else in the known places.
    pub(crate) fn find(directory: Option<&Path>) -> Result<Self, Error> {
        let (code, variables) = find_pair(&PLACES, directory).ok_or_else(|| missing(directory))?;
        Ok(Self {
            code,
            variables,
            secure: false,
        })
    }

    /// The same of a build that enforces Secure Boot, with `certificate` as all of its keys: a store of variables is
    /// written into `folder`.
    pub(crate) fn find_secure(
        directory: Option<&Path>,
        certificate: &Certificate,
        folder: &Path,
    ) -> Result<Self, Error> {
        let (code, template) =
            find_pair(&SECURE_PLACES, directory).ok_or_else(|| missing(directory))?;
        let fail = |operation, path: &Path, source| Error::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::read(&template)
            .map_err(|error| fail("read the firmware's variables", &template, error))?;
        let store = variables::enroll(&bytes, certificate).ok_or_else(|| {
            let foreign = std::io::Error::other("it is no empty store of variables of OVMF");
            fail("put keys into", &template, foreign)
        })?;
        let variables = folder.join("variables.fd");
        std::fs::write(&variables, store)
            .map_err(|error| fail("write the firmware's variables", &variables, error))?;
        Ok(Self {
            code,
            variables,
            secure: true,
        })
    }
}

fn missing(directory: Option<&Path>) -> Error {
    Error::FirmwareMissing {
        directory: directory.map(Path::to_owned),
    }
}

fn find_pair(places: &[(&str, &str)], directory: Option<&Path>) -> Option<(PathBuf, PathBuf)> {
    places
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
        assert!(find_pair(&PLACES, Some(path)).is_none());
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
