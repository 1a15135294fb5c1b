//! What workloads print is kept: through floods and a power cut, within its bounds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qemu_tests::{
    Boot, BootFiles, Case, Coracle, Image, Partition, Vm, VmBuilder, run_tool, seconds,
};

const BOOT_TIME: std::time::Duration = seconds(240);
const SIZE: u64 = 1 << 20;

/// A workload that prints as fast as it can, and one that counts slowly on both streams.
const MACHINE: &str = r#"
name = "talkers"
version = "1.2.3"

[state]
size = "64MiB"

[log]
size = "1MiB"

[workload.flood]
debian = ["busybox-static"]
command = ["busybox", "yes", "all work and no play makes a dull machine"]

[workload.steady]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "i=0; while true; do i=$((i+1)); echo said $i; echo warned $i >&2; busybox sleep 0.2; done"]
"#;

fn boot(case: &Case, name: &str, image: &Image, files: &BootFiles) -> Result<Vm> {
    let vm = VmBuilder::new(case, name, image.path().to_owned());
    vm.boot(Boot::Direct(files)).start()
}

/// The log's folder, taken out of the state partition after its journal is replayed.
fn extract_log(case: &Case, image: &Image) -> Result<PathBuf> {
    let state = case.path("state.ext4");
    image.extract(Partition::STATE, &state)?;
    run_tool("e2fsck", |e2fsck| e2fsck.arg("-fn").arg(&state))?;
    let folder = case.path("state");
    fs::create_dir_all(&folder)?;
    run_tool("debugfs", |debugfs| {
        let request = format!("rdump /log {}", folder.display());
        debugfs.args(["-R", &request]).arg(&state)
    })?;
    Ok(folder.join("log"))
}

/// The lines of one stream, oldest first.
fn lines_of(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut lines = Vec::new();
    for path in paths {
        lines.extend(fs::read_to_string(path)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

/// Each line's number is the one after the line's before, but for the first of a boot.
fn expect_no_gap(lines: &[String]) -> Result<()> {
    let place = |line: &str| -> Result<(u64, u64)> {
        let word = line.split(' ').next().unwrap_or_default();
        let (boot, number) = word.split_once('.').context(word.to_owned())?;
        Ok((boot.parse()?, number.parse()?))
    };
    for pair in lines.windows(2) {
        let ((boot, number), next) = (place(&pair[0])?, place(&pair[1])?);
        ensure!(
            next == (boot, number + 1) || next == (boot + 1, 0),
            "{} and then {}",
            pair[0],
            pair[1]
        );
    }
    Ok(())
}

fn expect_line(lines: &[String], end: &str) -> Result<()> {
    let found = lines.iter().any(|line| line.ends_with(end));
    ensure!(found, "no line ends with {end:?}");
    Ok(())
}

#[test]
fn what_workloads_print_is_kept_through_a_flood_and_a_power_cut() -> Result<()> {
    let case = Case::new("log")?;
    let image = Image::open(Coracle::new(&case).build("talkers", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let mut vm = boot(&case, "first", &image, &files)?;
    vm.expect("stage ready", BOOT_TIME)?;
    // The one that floods keeps no line of the other's from the console.
    vm.expect("steady | said 40", BOOT_TIME)?;
    vm.kill();
    let mut vm = boot(&case, "second", &image, &files)?;
    vm.expect("steady | said 25", BOOT_TIME)?;
    vm.power_down()?;

    let log = extract_log(&case, &image)?;
    let steady = lines_of(&log.join("steady"))?;
    expect_no_gap(&steady)?;
    ensure!(steady[0].contains(" boot boot "), "{}", steady[0]);
    expect_line(&steady, " out said 20")?;
    let second: Vec<String> = steady
        .into_iter()
        .filter(|line| line.starts_with("2."))
        .collect();
    for end in [" of talkers 1.2.3, Linux ", " out said 1", " err warned 25"] {
        ensure!(second.iter().any(|line| line.contains(end)), "no {end}");
    }
    let flood = log.join("flood");
    let mut size = 0;
    for entry in fs::read_dir(&flood)? {
        size += entry?.metadata()?.len();
    }
    ensure!(size <= SIZE, "the flood takes {size} bytes");
    expect_no_gap(&lines_of(&flood)?)?;
    let kernel = lines_of(&log.join("kernel"))?;
    ensure!(kernel.iter().any(|line| line.contains("Linux version")));
    expect_no_gap(&kernel)?;
    let own = lines_of(&log.join("coracle"))?;
    expect_no_gap(&own)?;
    for end in [
        " init stage initramfs",
        " init stage ready",
        " init stage stopping",
    ] {
        expect_line(&own, end)?;
    }

    let disk = image.path().display().to_string();
    let logs = |more: &[&str]| -> Result<String> {
        let arguments = [&["logs", disk.as_str()], more].concat();
        let finished = Coracle::new(&case).run(&arguments, seconds(60))?;
        Ok(finished.expect_code(0)?.stdout)
    };
    let shown = logs(&["--workload", "steady", "--boot", "0"])?;
    ensure!(shown.lines().eq(second.iter()), "{shown}");
    let course = logs(&["--timeline"])?;
    for point in [
        "stage initramfs\n",
        "workload steady ready\n",
        "stage ready\n",
    ] {
        ensure!(course.contains(point), "no {point:?} in {course}");
    }
    let all = logs(&["--boot", "-1"])?;
    ensure!(all.contains(" steady out said 20\n") && all.contains(" coracle init stage ready\n"));
    Ok(())
}
