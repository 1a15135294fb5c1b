//! `scripts/bench network`: bytes through the workloads' network, beside the same programs on the machine's own network.
//! All ends are in one guest under QEMU's emulation: what differs is the way, not the wire.

use anyhow::{Context, Result};
use clap::Parser;
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, seconds};

const PATIENCE: std::time::Duration = seconds(900);

/// Measures the throughput between workloads.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long each way is measured, in seconds of the guest.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

/// What is measured, as the clients name it, and for people.
const WAYS: [(&str, &str); 5] = [
    ("loopback", "machine's network, 127.0.0.1"),
    ("workload", "workload to workload"),
    ("six", "workload to workload, IPv6"),
    ("published", "workload to a published port"),
    ("local", "machine to a published port"),
];

const MACHINE: &str = r#"
name = "lanes"

[workload.server]
network = "own"
debian = ["iperf3"]
command = ["iperf3", "--server"]
ports = ["5202:5201"]

[workload.server-host]
network = "host"
debian = ["iperf3"]
command = ["iperf3", "--server", "--port", "5301"]

[workload.client]
network = "own"
debian = ["iperf3", "busybox-static"]
after = ["client-host"]
command = ["busybox", "sh", "/go"]
files = [{ path = "/go", content = """
way() { until iperf3 --time @seconds@ --client $2 --port $3 --format m > /tmp/$1; do busybox sleep 1; done; echo $1: $(busybox grep receiver /tmp/$1); }
way workload @server@ 5201
way six @server6@ 5201
way published 10.0.2.15 5202
echo done
busybox sleep 100000
""" }]

[workload.client-host]
kind = "job"
network = "host"
debian = ["iperf3", "busybox-static"]
after = ["server", "server-host"]
command = ["busybox", "sh", "/go"]
files = [{ path = "/go", content = """
way() { until iperf3 --time @seconds@ --client $2 --port $3 --format m > /tmp/$1; do busybox sleep 1; done; echo $1: $(busybox grep receiver /tmp/$1); }
way loopback 127.0.0.1 5301
way local 127.0.0.1 5202
""" }]
"#;

fn machine(seconds: u32) -> Result<String> {
    let text = MACHINE.replace("@seconds@", &seconds.to_string());
    let spec = config::parse(&text)
        .map_err(|mistakes| anyhow::anyhow!("{}", mistakes.render("lanes.toml", &text)))?;
    let server = spec.fabric.endpoint("server").context("no server")?;
    let text = text.replace("@server6@", &server.address6.to_string());
    Ok(text.replace("@server@", &server.address.to_string()))
}

fn main() -> Result<()> {
    let Arguments { seconds } = Arguments::parse();
    let case = Case::new("bench-network")?;
    let disk = Coracle::new(&case).build("lanes", &machine(seconds)?)?;
    let image = Image::open(disk)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "lanes", image.path().to_owned());
    let mut vm = vm.memory_mib(1024).boot(Boot::Direct(&files)).start()?;
    vm.expect("client | done", PATIENCE)?;
    let lines = vm.lines();
    let rate = |way: &str| lines.iter().find_map(|line| rate(line, way));
    let floor = rate("loopback").context("nothing measured on the machine's network")?;
    println!("TCP, one connection, both ends in one guest");
    for (way, text) in WAYS {
        let rate = rate(way).with_context(|| format!("nothing measured: {way}"))?;
        let share = rate / floor * 100.0;
        println!("  {text:<32} {rate:>8.0} Mbit/s {share:>5.0} %");
    }
    vm.power_down()
}

/// The number of `WAY: [ 5] 0.00-5.00 sec 321 MBytes 539 Mbits/sec receiver`, in Mbit/s.
fn rate(line: &str, way: &str) -> Option<f64> {
    let (_, rest) = line.split_once(&format!("| {way}: "))?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Mbits/sec")?;
    words.get(unit.checked_sub(1)?)?.parse().ok()
}
