//! Power cuts while a workload writes: the machine always boots, and what the workload had made durable is there.
//!
//! `CORACLE_POWER_CUTS` says how many moments of one boot's writes are tried (`make stress`: 100); a few of the disks
//! are booted, the others checked by e2fsck and debugfs.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use qemu_tests::{
    Boot, BootFiles, Case, Coracle, Image, Partition, Random, VmBuilder, WriteLog, run_tool,
    seconds,
};

const BOOT_TIME: Duration = seconds(240);
/// How many records are written before the cut at least.
const RECORDS: u64 = 60;
const BOOTS: usize = 2;

const MACHINE: &str = r#"
name = "records"

[state]
size = "64MiB"

[workload.records]
debian = ["perl-base"]
command = ["perl", "/records.pl"]
volumes = [{ name = "records", path = "/data", size = "32MiB" }]
files = [{ path = "/records.pl", content = '''
use IO::Handle; $| = 1;
open(my $log, "+>>", "/data/log"); my $n = int((-s $log) / 16); truncate($log, $n * 16);
print "found $n\n";
for (;;) {
    $n++;
    syswrite($log, sprintf("%015d\n", $n)); $log->sync or die $!;
    print "fsynced $n\n";
    open(my $f, ">", "/data/new"); syswrite($f, "x" x (4096 * ($n % 20 + 1))); $f->sync; close $f;
    rename("/data/new", "/data/file" . $n % 40);
}
''' }]
"#;

/// After so many entries of the log this record was durable.
struct Known {
    entries: usize,
    record: u64,
}

#[test]
fn whatever_moment_the_power_is_cut_what_was_fsynced_is_there() -> Result<()> {
    let case = Case::new("power-cut")?;
    let image = Image::open(Coracle::new(&case).build("disk", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let (log, known) = write_records(&case, &image, &files)?;
    let seed = SystemTime::UNIX_EPOCH.elapsed()?.as_micros() as u64;
    println!("seed {seed}, {} writes, {} records", log.len(), known.len());
    let mut random = Random::new(seed);
    let cuts: usize = std::env::var("CORACLE_POWER_CUTS").map_or(Ok(8), |text| text.parse())?;
    for number in 0..cuts {
        let cut = random.below(log.len() + 1);
        let durable = known
            .iter()
            .rev()
            .find(|k| k.entries <= cut)
            .map_or(0, |k| k.record);
        let disk = case.copy_disk(image.path(), "cut.img")?;
        log.replay(&disk, cut, &mut random)?;
        if number < BOOTS {
            boot_and_check(&case, &disk, &files, durable, number)?;
        } else {
            check(&case, &disk, durable)
                .with_context(|| format!("seed {seed}, cut after {cut} of {} writes", log.len()))?;
        }
    }
    Ok(())
}

/// Boots with the disk's writes logged until enough records are there, and cuts.
fn write_records(case: &Case, image: &Image, files: &BootFiles) -> Result<(WriteLog, Vec<Known>)> {
    let disk = case.copy_disk(image.path(), "written.img")?;
    let path = case.path("writes.log");
    let vm = VmBuilder::new(case, "writing", disk).boot(Boot::Direct(files));
    let mut vm = vm.log_writes(path.clone()).start()?;
    let mut known = Vec::new();
    let deadline = Instant::now() + BOOT_TIME;
    for record in 1..=RECORDS {
        vm.expect(
            &format!("fsynced {record}"),
            deadline.saturating_duration_since(Instant::now()),
        )?;
        let entries = WriteLog::read(&path)?.len();
        known.push(Known { entries, record });
    }
    vm.kill();
    Ok((WriteLog::read(&path)?, known))
}

fn boot_and_check(
    case: &Case,
    disk: &Path,
    files: &BootFiles,
    durable: u64,
    number: usize,
) -> Result<()> {
    let vm = VmBuilder::new(case, &format!("after-{number}"), disk.to_owned());
    let mut vm = vm.boot(Boot::Direct(files)).start()?;
    let line = vm.expect("records | found ", BOOT_TIME)?;
    let found: u64 = line.rsplit(' ').next().context("no number")?.parse()?;
    ensure!(
        found >= durable,
        "found {found}, and {durable} were durable"
    );
    vm.expect("records | fsynced", BOOT_TIME)?;
    vm.power_down()?;
    check(case, disk, found)
}

/// The file system is whole after its journal was replayed, and so are the records.
fn check(case: &Case, disk: &Path, durable: u64) -> Result<()> {
    let state = case.path("state.ext4");
    Image::open(disk)?.extract(Partition::STATE, &state)?;
    // Replays the journal and mends only what a mount mends as well.
    run_tool("sh", |sh| {
        sh.args(["-c", "e2fsck -fp \"$0\"; test $? -le 1"])
            .arg(&state)
    })?;
    run_tool("e2fsck", |e2fsck| e2fsck.arg("-fn").arg(&state))?;
    let records = case.path("records");
    let _ = std::fs::remove_file(&records);
    run_tool("debugfs", |debugfs| {
        let request = format!("dump /volumes/records/log {}", records.display());
        debugfs.arg("-R").arg(request).arg(&state)
    })?;
    let text = std::fs::read_to_string(&records).unwrap_or_default();
    let whole = text.len() as u64 / 16;
    ensure!(
        whole >= durable,
        "{whole} records, and {durable} were durable"
    );
    for (line, number) in text.lines().zip(1..=durable) {
        ensure!(
            line == format!("{number:015}"),
            "record {number} is {line:?}"
        );
    }
    Ok(())
}
