//! `scripts/bench scale`: many workloads on one small machine, with the time until the last one is healthy and the memory
//! that is used then. Both are the guest's own, under QEMU's emulation: its time is several times that of a processor.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use clap::Parser;
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, seconds};

/// How long the machine may take.
const PATIENCE: std::time::Duration = seconds(1800);
/// The port of the first workload; each one behind it has the next.
const FIRST_PORT: u32 = 10_000;

/// Boots a machine with many workloads.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many web servers it runs.
    #[arg(long, default_value_t = 200)]
    workloads: u32,
    /// Its memory in MiB.
    #[arg(long, default_value_t = 1024)]
    memory: u32,
}

fn main() -> Result<()> {
    let Arguments { workloads, memory } = Arguments::parse();
    let case = Case::new("bench-scale")?;
    eprintln!("building a machine with {workloads} workloads ...");
    let disk = Coracle::new(&case).build("many", &machine(workloads))?;
    let image = Image::open(disk)?;
    let files = BootFiles::of_image(&case, &image)?;
    eprintln!("booting it with {memory} MiB ...");
    let vm = VmBuilder::new(&case, "many", image.path().to_owned());
    let mut vm = vm.memory_mib(memory).boot(Boot::Direct(&files)).start()?;
    let system = clock(&vm.expect("stage system", PATIENCE)?)?;
    let total = kib(&vm.expect("MemTotal:", PATIENCE)?)?;
    let available = kib(&vm.expect("MemAvailable:", PATIENCE)?)?;
    let ready = clock(&vm.expect("stage ready", PATIENCE)?)?;
    vm.press_power_button()?;
    let init = vm.expect("init used ", PATIENCE)?;
    let (_, init) = init.split_once("init used ").context("no memory of init")?;
    vm.wait_for_end(PATIENCE)?;
    let used = total - available;
    println!("{workloads} workloads, each healthy, in {memory} MiB");
    println!(
        "  from the verified root to the last one  {:>8.1} s of the guest",
        ready - system
    );
    println!(
        "  of that each                            {:>8.1} ms",
        (ready - system) * 1e3 / f64::from(workloads)
    );
    println!(
        "  memory in use                           {:>8.1} MiB",
        used / 1024.0
    );
    println!(
        "  PID 1                                   {:>8} KiB",
        init.split(' ').next().unwrap_or("?")
    );
    Ok(())
}

/// Web servers on ports of their own, and a job behind all of them that looks at the machine's memory.
fn machine(workloads: u32) -> String {
    let mut text = "name = \"many\"\n".to_owned();
    let mut names = Vec::new();
    for number in 0..workloads {
        let port = FIRST_PORT + number;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[workload.w{number}]\ndebian = [\"busybox-static\"]\nports = [\"{port}:{port}\"]\n\
             command = [\"busybox\", \"httpd\", \"-f\", \"-p\", \"{port}\", \"-h\", \"/\"]\n"
        );
        names.push(format!("\"w{number}\""));
    }
    let _ = write!(
        text,
        "[workload.meter]\nkind = \"job\"\ndebian = [\"busybox-static\"]\nafter = [{}]\n\
         command = [\"busybox\", \"grep\", \"-E\", \"MemTotal|MemAvailable\", \"/proc/meminfo\"]\n",
        names.join(", ")
    );
    text
}

/// The seconds in `coracle: [SECONDS] …`.
fn clock(line: &str) -> Result<f64> {
    let seconds = line
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    let (seconds, _) = seconds.with_context(|| format!("no time in {line:?}"))?;
    seconds
        .trim()
        .parse()
        .with_context(|| format!("no time in {line:?}"))
}

/// The number in `Name:  NUMBER kB`.
fn kib(line: &str) -> Result<f64> {
    let number = line.split_whitespace().rev().nth(1);
    let number = number.with_context(|| format!("no size in {line:?}"))?;
    number
        .parse()
        .with_context(|| format!("no size in {line:?}"))
}
