//! `scripts/bench guest`: what the start of a container costs in a guest, beside the floor and other runtimes.
//!
//! Runs the runtime's own measurement (`runtime/benches/start`) in the lab guest: Debian's kernel, cgroup v2 alone. The
//! guest's clock counts its instructions, one a nanosecond, and jumps over what nothing happens in; so the times in the
//! table are instructions, which repeat on any host and under any load.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use qemu_tests::{Case, Lab, find_program, runtime_bench, seconds};

/// Measures the start of a container in a guest.
#[derive(Debug, Parser)]
struct Arguments {
    /// The static runtime.
    #[arg(long)]
    runtime: PathBuf,
    /// The folder with the programs of `floor.c` and `true.c`.
    #[arg(long)]
    tools: PathBuf,
    /// A seccomp profile as podman's.
    #[arg(long)]
    seccomp: PathBuf,
    /// A runtime installed here, with options if it needs any.
    #[arg(long)]
    beside: Vec<String>,
    /// How often each is measured; the median is shown.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
}

const STEP: &str = "measure";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let case = Case::new("bench-start")?;
    let mut lab = Lab::with_runtime(&case, &arguments.runtime)?;
    lab.extra(&["-icount", "shift=0,sleep=off"]);
    lab.program("/usr/bin/bench-start", runtime_bench()?)?;
    for tool in ["floor", "true"] {
        lab.file(format!("/lab/tools/{tool}"), arguments.tools.join(tool))?;
    }
    lab.file("/lab/seccomp.json", &arguments.seccomp)?;
    for line in &arguments.beside {
        let command = line.split(' ').next().unwrap_or_default();
        lab.program(
            &format!("/usr/bin/{command}"),
            find_program(command, command)?,
        )?;
    }
    lab.step(STEP, &script(&arguments))?;
    eprintln!("measuring in a guest ...");
    let report = lab.run(seconds(3600))?;
    let lines = &report.step(STEP)?.lines;
    report.expect_success().context("measure in the guest")?;
    println!("{}", lines.join("\n"));
    Ok(())
}

fn script(arguments: &Arguments) -> String {
    let mut script = format!(
        "exec bench-start --runtime coracle-runtime --tools /lab/tools --seccomp /lab/seccomp.json --rounds {}",
        arguments.rounds
    );
    for line in &arguments.beside {
        script.push_str(&format!(" --beside '{line}'"));
    }
    script
}
