//! A firmware in Secure Boot mode boots what is signed, and refuses each image of which anything else was put in its place.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{Case, Coracle, Image, Partition, Running, seconds};

/// Firmware under emulation, two of them at once, on a busy host.
const BOOT_TIME: std::time::Duration = seconds(660);

const MACHINE: &str = "name = \"sealed\"\nversion = \"1\"\n";
const SIGNED: &str = "[secure_boot]\nkey = \"keys/db.key\"\ncertificate = \"keys/db.pem\"\n";

fn boot<'a>(coracle: &Coracle<'a>, disk: &Path) -> Result<Running> {
    let mut line: Vec<String> = ["run", "--secure-boot=keys/db.pem", "--exit-when-ready"]
        .map(str::to_owned)
        .into();
    line.extend(["--accel", "tcg", "--timeout", "600"].map(str::to_owned));
    line.push(disk.display().to_string());
    coracle.start(&line, |command| command)
}

/// Changes a byte at `offset` behind each place of the ESP where `mark` is.
fn change(
    case: &Case,
    disk: &Path,
    name: &str,
    mark: &[u8],
    offset: usize,
) -> Result<std::path::PathBuf> {
    let copy = case.copy_disk(disk, name)?;
    let image = Image::open(&copy)?;
    let esp = image.partition(Partition::ESP)?;
    let file = OpenOptions::new().read(true).write(true).open(&copy)?;
    let mut bytes = vec![0; usize::try_from(esp.length)?];
    file.read_exact_at(&mut bytes, esp.offset)?;
    let found: Vec<usize> = places_of(&bytes, mark);
    ensure!(
        !found.is_empty(),
        "no {:?} on the ESP",
        String::from_utf8_lossy(mark)
    );
    for at in found {
        let byte = [bytes[at + offset] ^ 0x20];
        file.write_all_at(&byte, esp.offset + (at + offset) as u64)?;
    }
    Ok(copy)
}

/// Where `mark` is, by its first byte first: an ESP has many bytes.
fn places_of(bytes: &[u8], mark: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == mark[0]) {
        if bytes[from + at..].starts_with(mark) {
            found.push(from + at);
        }
        from += at + 1;
    }
    found
}

#[test]
fn firmware_boots_what_is_signed_and_nothing_else() -> Result<()> {
    let case = Case::new("secure-boot")?;
    let coracle = Coracle::new(&case);
    coracle
        .run(&["keys", "new", "keys"], BOOT_TIME)?
        .expect_code(0)?;
    let signed = coracle.build("signed", &format!("{MACHINE}{SIGNED}"))?;
    let unsigned = coracle.build("unsigned", MACHINE)?;
    let again = coracle.build("again", &format!("{MACHINE}{SIGNED}"))?;
    ensure!(
        std::fs::read(&signed)? == std::fs::read(again)?,
        "signing draws random numbers"
    );

    let shown = coracle
        .run(&["inspect", "signed.img", "--json"], BOOT_TIME)?
        .expect_code(0)?
        .stdout;
    ensure!(shown.contains("CN=Coracle image signing key"), "{shown}");

    let command_line = change(&case, &signed, "command-line.img", b"cryptomgr.notests", 0)?;
    // The first name of the initrd's archive.
    let initrd = change(&case, &signed, "initrd.img", b"070701", 112)?;
    let loader = change(&case, &signed, "loader.img", b"LoaderInfo: systemd-boot", 0)?;
    let refused = [unsigned, command_line, initrd, loader];
    let mut good = Some(boot(&coracle, &signed)?);
    // Two at once.
    for disks in refused.chunks(2) {
        let running: Vec<(&std::path::PathBuf, Running)> = disks
            .iter()
            .map(|disk| Ok((disk, boot(&coracle, disk)?)))
            .collect::<Result<_>>()?;
        for (disk, running) in running {
            let ended = running
                .wait(BOOT_TIME)?
                .expect_code(1)
                .with_context(|| disk.display().to_string())?;
            let ended = ended.expect_stderr(&["the firmware refused the image"])?;
            ensure!(
                !ended.stderr.contains("stage "),
                "{} started\n{}",
                disk.display(),
                ended.stderr
            );
        }
        if let Some(good) = good.take() {
            good.wait(BOOT_TIME)?
                .expect_code(0)?
                .expect_stderr(&["stage ready", "stage poweroff"])?;
        }
    }
    Ok(())
}
