//! What the start of a container costs: `run` of a static program that ends at once, beside a floor and beside other
//! runtimes, in interleaved rounds.
//!
//!     start --runtime FILE --tools DIR [--rounds N] [--seccomp FILE] [--beside COMMAND]...
//!
//! `--tools` has the programs of `floor.c` and `true.c`, statically linked; `--beside` is another runtime with runc's
//! command line, with options if it needs any; `--seccomp` is a profile as podman's. Every contender runs once a round, each time in another order, so
//! that what disturbs the host disturbs all of them. Prints medians, and their ratio to the floor: ratios compare
//! between hosts, times do not. Asserts nothing but that every container ended well.

mod bundle;
mod contender;

use std::path::PathBuf;

use bundle::Bundle;
use contender::{Contender, Sample};

/// What is told on the command line.
struct Arguments {
    runtime: String,
    tools: PathBuf,
    beside: Vec<String>,
    seccomp: Option<PathBuf>,
    rounds: usize,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let (mut runtime, mut tools, mut seccomp) = (None, None, None);
        let (mut beside, mut rounds) = (Vec::new(), 200);
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            // Cargo says this to every benchmark.
            if word == "--bench" {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word}: no value"))?;
            match word.as_str() {
                "--runtime" => runtime = Some(value),
                "--tools" => tools = Some(value.into()),
                "--seccomp" => seccomp = Some(value.into()),
                "--beside" => beside.push(value),
                "--rounds" => rounds = value.parse().map_err(|_| format!("--rounds {value}"))?,
                _ => return Err(format!("unknown option {word}")),
            }
        }
        Ok(Self {
            runtime: runtime.ok_or("no --runtime")?,
            tools: tools.ok_or("no --tools")?,
            beside,
            seccomp,
            rounds: std::cmp::max(rounds, 1),
        })
    }
}

fn main() -> Result<(), String> {
    let arguments = Arguments::parse()?;
    let bundle = Bundle::make(&arguments.tools.join("true"), arguments.seccomp.as_deref())?;
    let mut contenders = vec![
        Contender::floor(&arguments.tools),
        Contender::runtime(&arguments.runtime),
    ];
    for line in &arguments.beside {
        let contender = Contender::runtime(line);
        match contender.run(&arguments.tools, &bundle, &bundle.name) {
            Ok(_) => contenders.push(contender),
            Err(reason) => eprintln!("left out: {reason}"),
        }
    }
    let samples = race(&contenders, &arguments, &bundle)?;
    print!("{}", table(&contenders, samples));
    Ok(())
}

/// The samples of each contender.
fn race(
    contenders: &[Contender],
    arguments: &Arguments,
    bundle: &Bundle,
) -> Result<Vec<Vec<Sample>>, String> {
    let mut samples = vec![Vec::with_capacity(arguments.rounds); contenders.len()];
    // The first round fills caches and is not counted.
    for round in 0..=arguments.rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let id = format!("{}-{round}-{index}", bundle.name);
            let sample = contenders[index].run(&arguments.tools, bundle, &id)?;
            if round > 0 {
                samples[index].push(sample);
            }
        }
    }
    Ok(samples)
}

fn table(contenders: &[Contender], samples: Vec<Vec<Sample>>) -> String {
    let medians: Vec<Sample> = samples.into_iter().map(Sample::median).collect();
    let floor = medians[0];
    let mut text = format!(
        "{:<24} {:>10} {:>8} {:>10} {:>8} {:>10}\n",
        "run of a static true", "median ms", "/ floor", "busy ms", "/ floor", "peak KiB"
    );
    for (contender, median) in contenders.iter().zip(&medians) {
        let (time, busy) = (median.nanoseconds as f64, median.busy_nanoseconds as f64);
        text += &format!(
            "{:<24} {:>10.2} {:>8.2} {:>10.2} {:>8.2} {:>10}\n",
            contender.name,
            time / 1e6,
            time / floor.nanoseconds as f64,
            busy / 1e6,
            busy / floor.busy_nanoseconds as f64,
            median.peak_kib
        );
    }
    text
}
