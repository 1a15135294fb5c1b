//! Secrets that come with the power: from QEMU's fw_cfg or SMBIOS strings by systemd's convention for credentials, into
//! a file of the workload that asks for them.
//!
//! They lie in a ramfs, which is never written to a disk, in a folder of each workload that the runtime binds into it;
//! they belong to its user. No other workload, no environment, no log and no command line ever has them, and what this
//! process held of them while it copied is overwritten.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use config::boot::{BootSecret, SECRETS_DIR};
use rustix::fs::{Gid, Mode, OFlags, RawMode, Uid, fchmod, fchown};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::smbios;

/// Where the kernel's module `qemu_fw_cfg` shows what QEMU was given.
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials";
/// The SMBIOS structures, without their entry point.
const SMBIOS: &str = "/sys/firmware/dmi/tables/DMI";
/// The most that a secret holds (systemd: `CREDENTIAL_SIZE_MAX`).
const LONGEST: u64 = 1 << 20;
/// The most of a secret that init itself uses.
const LONGEST_KEY: usize = 4096;
/// The most that is read of an SMBIOS table.
const LONGEST_TABLE: u64 = 16 << 20;

/// Puts a workload's secrets into its folder; those that are there from an earlier start stay.
///
/// # Errors
/// In words, the first that is missing or cannot be had; never with anything of its content.
pub fn provide(workload: &str, secrets: &[BootSecret]) -> Result<(), String> {
    if secrets.is_empty() {
        return Ok(());
    }
    let folder = make_folder(workload)
        .map_err(|error| format!("cannot make the folder of its secrets: {error}"))?;
    for secret in secrets {
        let path = format!("{folder}/{}", secret.name);
        if rustix::fs::stat(path.as_str()).is_ok() {
            continue;
        }
        let found = copy(secret, &path)
            .map_err(|reason| format!("its secret {} cannot be had: {reason}", secret.name))?;
        if !found && !secret.optional {
            return Err(format!(
                "its secret {} has not come: neither QEMU's fw_cfg nor an SMBIOS string has it",
                secret.name
            ));
        }
    }
    Ok(())
}

/// A secret that init itself uses; `None`: nobody gave it. Who has it wipes it.
///
/// # Errors
/// In words, why it cannot be had; never with anything of its content.
pub fn read(name: &str) -> Result<Option<Vec<u8>>, String> {
    match File::open(format!("{FW_CFG}/{name}/raw")) {
        Ok(file) => {
            // Room for all of it at once: a buffer that grows would leave copies behind.
            let mut value = Vec::with_capacity(LONGEST_KEY);
            let read = file.take(LONGEST_KEY as u64).read_to_end(&mut value);
            read.map_err(|error| format!("the secret {name} cannot be read: {error}"))?;
            Ok(Some(value))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => from_smbios(name),
        Err(error) => Err(format!("the secret {name} cannot be read: {error}")),
    }
}

fn make_folder(workload: &str) -> io::Result<String> {
    // Its folders can be entered, by a runtime in a user namespace of the workload's own too, and not be listed.
    make_directory(SECRETS_DIR, 0o711)?;
    let is_mounted = rustix::fs::statfs(SECRETS_DIR)?.f_type == RAMFS_MAGIC;
    if !is_mounted {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("ramfs", SECRETS_DIR, "ramfs", flags, Some(c"mode=0711"))?;
    }
    let folder = format!("{SECRETS_DIR}/{workload}");
    make_directory(&folder, 0o755)?;
    Ok(folder)
}

/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS_MAGIC: rustix::fs::FsWord = 0x8584_58f6;

fn make_directory(path: &str, mode: RawMode) -> io::Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// `false`: nobody gave it. The file has its name only when it is complete.
fn copy(secret: &BootSecret, path: &str) -> Result<bool, String> {
    let name = &secret.name;
    match File::open(format!("{FW_CFG}/{name}/raw")) {
        Ok(mut source) => {
            write(secret, path, &mut source).map_err(|error| error.to_string())?;
            return Ok(true);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
    }
    let Some(mut value) = from_smbios(name)? else {
        return Ok(false);
    };
    let written = write(secret, path, &mut value.as_slice());
    wipe(&mut value);
    written.map_err(|error| error.to_string())?;
    Ok(true)
}

fn from_smbios(name: &str) -> Result<Option<Vec<u8>>, String> {
    let file = match File::open(SMBIOS) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {SMBIOS}: {error}")),
    };
    // Room for all of it at once: a buffer that grows would leave copies behind.
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let room = usize::try_from(size.clamp(4096, LONGEST_TABLE)).unwrap_or(4096) + 1;
    let mut table = Vec::with_capacity(room);
    let read = file.take(LONGEST_TABLE).read_to_end(&mut table);
    let value = match read {
        Ok(_) => smbios::credential(&table, name).map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot read {SMBIOS}: {error}")),
    };
    wipe(&mut table);
    value
}

/// Writes the file for the workload's user alone.
fn write(secret: &BootSecret, path: &str, source: &mut dyn Read) -> io::Result<()> {
    let unfinished = format!("{path}.new");
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(
        unfinished.as_str(),
        flags,
        Mode::from_raw_mode(0o600),
    )?);
    let mut buffer = [0_u8; 4096];
    let copied = copy_bytes(source, &mut file, &mut buffer);
    wipe(&mut buffer);
    copied?;
    let (uid, gid) = (Uid::from_raw(secret.uid), Gid::from_raw(secret.gid));
    fchown(file.as_fd(), Some(uid), Some(gid))?;
    fchmod(file.as_fd(), Mode::from_raw_mode(secret.mode & 0o7777))?;
    rustix::fs::rename(unfinished.as_str(), path)?;
    Ok(())
}

fn copy_bytes(source: &mut dyn Read, target: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    let mut total = 0;
    loop {
        let size = match source.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += size as u64;
        if total > LONGEST {
            return Err(io::Error::other("it is longer than 1 MiB"));
        }
        target.write_all(&buffer[..size])?;
    }
}

/// Overwrites what is not needed any more; the compiler may not leave that out.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn secret() -> BootSecret {
        let own = std::fs::metadata("/proc/self").unwrap();
        BootSecret {
            name: "key".to_owned(),
            uid: own.uid(),
            gid: own.gid(),
            mode: 0o400,
            optional: false,
        }
    }

    #[test]
    fn a_secret_is_written_whole_for_its_owner_alone() {
        let path = std::env::temp_dir().join(format!("coracle-secret-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let bytes = vec![7_u8; 10_000];
        write(&secret(), path, &mut bytes.as_slice()).unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o7777, 0o400);
        assert!(std::fs::read(path).unwrap() == bytes);
        std::fs::remove_file(path).unwrap();
        let endless = write(&secret(), path, &mut io::repeat(1));
        assert!(endless.unwrap_err().to_string().contains("1 MiB"));
        assert!(std::fs::metadata(path).is_err());
        let _ = std::fs::remove_file(format!("{path}.new"));
    }
}
