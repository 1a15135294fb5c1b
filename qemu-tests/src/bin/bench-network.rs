//! `scripts/bench network`: bytes by TCP, datagrams by UDP and requests by HTTP through the workloads' network, beside the
//! same programs on the machine's own network. All ends are in one guest under QEMU's emulation: what differs is the way, not the wire.

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

/// What is measured, as the clients name it, and for people. By UDP there are `udp-` in front, and `http-`.
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
ports = ["5202:5201", "5202:5201/udp"]

[workload.server-host]
network = "host"
debian = ["iperf3"]
command = ["iperf3", "--server", "--port", "5301"]

[workload.web]
debian = ["nginx-light"]
command = ["nginx", "-g", "daemon off;"]
ports = ["8080:80"]
files = [{ path = "/etc/nginx/nginx.conf", content = "events {} http { access_log off; server { listen 80; listen [::]:80; return 200 ok; } }" }]

[workload.web-host]
network = "host"
debian = ["nginx-light"]
command = ["nginx", "-g", "daemon off;"]
files = [{ path = "/etc/nginx/nginx.conf", content = "events {} http { access_log off; server { listen 8300; return 200 ok; } }" }]

[workload.client]
network = "own"
debian = ["iperf3", "wrk", "busybox-static"]
after = ["client-host"]
command = ["busybox", "sh", "/go"]
files = [{ path = "/go", content = """
way() { until iperf3 --time @seconds@ --client $2 --port $3 --format m $4 > /tmp/$1; do busybox sleep 1; done; echo $1: $(busybox grep receiver /tmp/$1); }
ways() { way $1 $2 $3; way udp-$1 $2 $3 "--udp --bitrate 0 --length 1400"; }
http() { until wrk -t 1 -c 8 -d @seconds@ http://$2/ > /tmp/http; do busybox sleep 1; done; echo http-$1: $(busybox grep Requests/sec /tmp/http); }
ways workload @server@ 5201
http workload @web@:80
ways six @server6@ 5201
http six [@web6@]:80
ways published 10.0.2.15 5202
http published 10.0.2.15:8080
echo done
busybox sleep 100000
""" }]

[workload.client-host]
kind = "job"
network = "host"
debian = ["iperf3", "wrk", "busybox-static"]
after = ["server", "server-host", "web", "web-host"]
command = ["busybox", "sh", "/go"]
files = [{ path = "/go", content = """
way() { until iperf3 --time @seconds@ --client $2 --port $3 --format m $4 > /tmp/$1; do busybox sleep 1; done; echo $1: $(busybox grep receiver /tmp/$1); }
ways() { way $1 $2 $3; way udp-$1 $2 $3 "--udp --bitrate 0 --length 1400"; }
http() { until wrk -t 1 -c 8 -d @seconds@ http://$2/ > /tmp/http; do busybox sleep 1; done; echo http-$1: $(busybox grep Requests/sec /tmp/http); }
ways loopback 127.0.0.1 5301
http loopback 127.0.0.1:8300
ways local 127.0.0.1 5202
http local 127.0.0.1:8080
""" }]
"#;

fn machine(seconds: u32) -> Result<String> {
    let text = MACHINE.replace("@seconds@", &seconds.to_string());
    let spec = config::parse(&text)
        .map_err(|mistakes| anyhow::anyhow!("{}", mistakes.render("lanes.toml", &text)))?;
    let mut text = text;
    for name in ["server", "web"] {
        let endpoint = spec.fabric.endpoint(name).context("no server")?;
        text = text
            .replace(&format!("@{name}@"), &endpoint.address.to_string())
            .replace(&format!("@{name}6@"), &endpoint.address6.to_string());
    }
    Ok(text)
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
    for (head, before, unit) in [
        ("TCP, one connection, both ends in one guest", "", "Mbit/s"),
        ("UDP, as fast as it goes", "udp-", "Mbit/s"),
        ("HTTP, 8 connections", "http-", "requests/s"),
    ] {
        let find = |way: &str| {
            let way = format!("{before}{way}");
            let mut found = lines.iter().filter_map(|line| Measured::read(line, &way));
            found
                .next()
                .with_context(|| format!("nothing measured: {way}"))
        };
        let floor = find("loopback")?.rate;
        println!("{head}");
        for (way, text) in WAYS {
            let Measured { rate, lost } = find(way)?;
            let share = rate / floor * 100.0;
            let lost = lost.map_or(String::new(), |lost| format!("  {lost} lost"));
            println!("  {text:<32} {rate:>8.0} {unit} {share:>5.0} %{lost}");
        }
    }
    vm.power_down()
}

/// What a client says that it has measured.
struct Measured {
    rate: f64,
    /// Of datagrams, how many did not arrive, as a share.
    lost: Option<String>,
}

impl Measured {
    /// Of `WAY: [ 5] 0.00-5.00 sec 321 MBytes 539 Mbits/sec 0.03 ms 12/3456 (0.35%) receiver`, or of
    /// `WAY: Requests/sec: 1234.56`.
    fn read(line: &str, way: &str) -> Option<Self> {
        let (_, rest) = line.split_once(&format!("| {way}: "))?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let at = |word: &str| words.iter().position(|it| *it == word);
        let number = match at("Requests/sec:") {
            Some(head) => head + 1,
            None => at("Mbits/sec")?.checked_sub(1)?,
        };
        let lost = words.iter().find(|word| word.starts_with('('));
        Some(Self {
            rate: words.get(number)?.parse().ok()?,
            lost: lost.map(|lost| lost.trim_matches(['(', ')']).to_owned()),
        })
    }
}
