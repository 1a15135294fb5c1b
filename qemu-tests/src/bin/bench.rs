//! `make bench`: guest instructions from power-on until every workload is ready, beside the floor.
//!
//! The floor of a way to boot is the same kernel on the same machine with an init that powers off at once. Counts
//! are guest instructions under QEMU's emulation: unlike times they repeat, on any host and under any load.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use qemu_tests::count::{Counts, Row, Table, plugin};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, floor_initrd, seconds};

/// Counts the guest instructions of a boot.
#[derive(Debug, Parser)]
struct Arguments {
    /// The machine file to build and boot.
    #[arg(default_value = "examples/web.toml")]
    file: PathBuf,
    /// How often each kind of boot is counted; the median is shown.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Write JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let bench = Bench::prepare(&arguments)?;
    let rows = bench.count_all()?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}", Table(&rows));
    }
    Ok(())
}

/// What every count needs.
struct Bench {
    case: Case,
    disk: PathBuf,
    files: BootFiles,
    floor: BootFiles,
    plugin: PathBuf,
    runs: u32,
}

impl Bench {
    fn prepare(arguments: &Arguments) -> Result<Self> {
        let case = Case::new("bench")?;
        let file = std::path::absolute(&arguments.file)?;
        let disk = case.path("bench.img");
        eprintln!("building {} ...", file.display());
        Coracle::new(&case).build_file(&file, &disk)?;
        let files = BootFiles::of_image(&case, &Image::open(&disk)?)?;
        let floor = files.with_initrd(floor_initrd(&case)?);
        Ok(Self {
            plugin: plugin()?,
            runs: arguments.runs.max(1),
            case,
            disk,
            files,
            floor,
        })
    }

    fn count_all(&self) -> Result<Vec<Row>> {
        let direct_floor = self.count_floor("floor, direct", Boot::Direct(&self.floor))?;
        let direct = self.count_image("direct", Boot::Direct(&self.files), &direct_floor)?;
        let through_firmware = Boot::DirectThroughFirmware(&self.floor);
        let uefi_floor = self.count_floor("floor, UEFI", through_firmware)?;
        let uefi = self.count_image("UEFI", Boot::Firmware, &uefi_floor)?;
        Ok(vec![direct_floor, direct, uefi_floor, uefi])
    }

    fn count_floor(&self, name: &str, boot: Boot<'_>) -> Result<Row> {
        Row::sum_up(name, &self.count(name, boot, Self::boot_floor)?, None)
    }

    fn count_image(&self, name: &str, boot: Boot<'_>, floor: &Row) -> Result<Row> {
        let counts = self.count(name, boot, Self::boot_image)?;
        Row::sum_up(name, &counts, Some(floor.instructions))
    }

    fn count(
        &self,
        name: &str,
        boot: Boot<'_>,
        run: impl Fn(&Self, VmBuilder<'_>) -> Result<()>,
    ) -> Result<Vec<Counts>> {
        let count_one = |number| {
            eprintln!("counting {name}, {number} of {} ...", self.runs);
            let disk = self.case.copy_disk(&self.disk, "disk.img")?;
            let log = format!("{}-{number}", name.replace(", ", "-"));
            let out = self.case.path(format!("{log}.counts"));
            let plugin = plugin_argument(&self.plugin, &out);
            let vm = VmBuilder::new(&self.case, &log, disk).boot(boot);
            run(self, vm.extra(&["-plugin", &plugin])).with_context(|| name.to_owned())?;
            Counts::read(&out)
        };
        (1..=self.runs).map(count_one).collect()
    }

    fn boot_floor(&self, vm: VmBuilder<'_>) -> Result<()> {
        vm.start()?.wait_for_end(seconds(300))
    }

    fn boot_image(&self, vm: VmBuilder<'_>) -> Result<()> {
        let mut vm = vm.start()?;
        vm.expect("stage ready", seconds(300))?;
        vm.power_down()
    }
}

fn plugin_argument(plugin: &Path, out: &Path) -> String {
    format!("{},out={}", plugin.display(), out.display())
}
