//! What a machine's uplink has from a real server, over the server's end and the machine's own: dnsmasq on the other end of
//! the cable serves DHCPv4, router advertisements and DHCPv6.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Segment, Server, Vm, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(300);
const TIME: std::time::Duration = seconds(180);

/// `see` tells what the machine has, whenever that changes.
const MACHINE: &str = r#"
name = "tenant"

[state]
size = "64MiB"

[network.interface.uplink]
dhcp = true

[workload.see]
debian = ["busybox-static"]
network = "host"
command = ["busybox", "sh", "/go"]
files = [{ path = "/go", content = '''
look() {
  busybox cat /etc/resolv.conf /etc/hosts
  busybox ip -o -4 address show
  busybox ip -4 route show
  busybox ip -6 route show | busybox grep default
  busybox ip -o link show
}
while :; do
  now=$(look)
  [ "$now" = "$last" ] || echo "$now"
  last=$now
  busybox sleep 1
done
''' }]
"#;

/// A server of both families with this range of 10.7.0.0/24. Half of two minutes, the shortest lease that it grants,
/// would be long to wait for: it tells when to renew.
fn serve(case: &Case, segment: &Segment, name: &str, from: u8, renewal: &str) -> Result<Server> {
    let leases = case.path(format!("{name}.leases"));
    segment.dnsmasq(
        &case.path(format!("{name}.log")),
        &[
            &format!("--dhcp-range=10.7.0.{from},10.7.0.{},2m", from + 9),
            "--dhcp-range=fd07::100,fd07::1ff,64,5m",
            "--enable-ra",
            "--dhcp-authoritative",
            "--dhcp-option=option:router,10.7.0.1",
            "--dhcp-option=option:dns-server,10.7.0.53",
            "--dhcp-option=option:ntp-server,10.7.0.123",
            "--dhcp-option=option:domain-search,corp.example",
            "--dhcp-option=option:mtu,1400",
            "--dhcp-option=option:classless-static-route,10.9.0.0/16,10.7.0.9,0.0.0.0/0,10.7.0.1",
            "--dhcp-option=option6:dns-server,[fd07::53]",
            &format!("--dhcp-option=option:T1,{renewal}"),
            "--dhcp-host=52:54:00:12:34:56,machine-7",
            &format!("--dhcp-leasefile={}", leases.display()),
        ],
    )
}

fn start(case: &Case, name: &str, image: &Image, segment: &Segment) -> Result<Vm> {
    let files = BootFiles::of_image(case, image)?;
    let packets = case.path(format!("{name}.pcap"));
    let dump = format!("filter-dump,id=dump,netdev=net,file={}", packets.display());
    VmBuilder::new(case, name, image.path().to_owned())
        .boot(Boot::Direct(&files))
        .on_segment(segment)
        .extra(&["-object", &dump])
        .start()
}

/// Waits for lines with these texts, in any order.
fn expect_all(vm: &Vm, texts: &[&str]) -> Result<()> {
    let deadline = Instant::now() + TIME;
    loop {
        let lines = vm.lines();
        let is_missing = |text: &&&str| !lines.iter().any(|line| line.contains(**text));
        let missing: Vec<_> = texts.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no {missing:#?} in {lines:#?}");
        std::thread::sleep(seconds(1));
    }
}

/// The address of 10.7.0.0/24 in a line.
fn address(line: &str) -> Result<&str> {
    let mut words = line.split([' ', '/']);
    let found = words.find(|word| word.starts_with("10.7.0."));
    found.with_context(|| format!("an address in {line:?}"))
}

/// Waits for a packet to UDP port 123 of 10.7.0.123, by the end of an IPv4 header and the ports behind it.
fn expect_time_request(packets: &Path) -> Result<()> {
    let deadline = Instant::now() + TIME;
    loop {
        let seen = std::fs::read(packets)?;
        let is_it = |bytes: &[u8]| bytes[..4] == [10, 7, 0, 123] && bytes[6..] == [0, 123];
        if seen.windows(8).any(is_it) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the time is not asked for");
        std::thread::sleep(seconds(1));
    }
}

fn count(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

#[test]
fn leases_of_a_real_server_are_used_renewed_refused_kept_over_a_reboot_and_given_back() -> Result<()>
{
    if Segment::is_impossible() {
        return Ok(());
    }
    let case = Case::new("leases")?;
    let image = Image::open(Coracle::new(&case).build("tenant", MACHINE)?)?;
    let segment = Segment::new(&["10.7.0.1/24", "10.7.0.123/24", "fd07::1/64"])?;
    let server = serve(&case, &segment, "first", 50, "10")?;

    // What the server tells is used.
    let mut vm = start(&case, "tenant", &image, &segment)?;
    let bound = vm.expect("network uplink eth0 10.7.0.", BOOT_TIME)?;
    let first = address(&bound)?;
    expect_all(
        &vm,
        &[
            " gateway 10.7.0.1 ",
            " fd07::1",
            "see | search corp.example",
            "see | nameserver 10.7.0.53",
            "see | nameserver fd07::53",
            "see | 127.0.1.1 machine-7",
            "see | default via 10.7.0.1 dev eth0",
            "see | 10.9.0.0/16 via 10.7.0.9 dev eth0",
            "see | default via fe80::",
            " mtu 1400 ",
        ],
    )?;
    expect_time_request(&case.path("tenant.pcap"))?;

    // It is renewed long before its end.
    let request = format!("DHCPREQUEST(tap0) {first} ");
    server.expect(&["DHCPREPLY(tap0) fd07::1"], TIME)?;
    let deadline = Instant::now() + TIME;
    while count(&server.log()?, &request) < 3 {
        ensure!(Instant::now() < deadline, "{}", server.log()?);
        std::thread::sleep(seconds(1));
    }
    ensure!(count(&server.log()?, "DHCPDISCOVER(tap0)") == 1);

    // The server vanishes. One that knows nothing of the lease, and has others, refuses it.
    drop(server);
    let server = serve(&case, &segment, "second", 150, "60")?;
    server.expect(&[&format!("DHCPNAK(tap0) {first} ")], TIME)?;
    let bound = vm.expect("network uplink eth0 10.7.0.15", TIME)?;
    let second = address(&bound)?;
    let has_both = |line: &String| line.contains(first) && line.contains(second);
    ensure!(!vm.lines().iter().any(has_both), "{:#?}", vm.lines());
    expect_all(&vm, &[&format!(" inet {second}/24 ")])?;

    // A machine that starts again keeps its address: it asks for nothing else.
    vm.press_keys(&["ctrl", "alt", "delete"])?;
    vm.expect("stage reboot", TIME)?;
    vm.wait_for_end(TIME)?;
    let before = server.log()?;
    ensure!(!before.contains("DHCPRELEASE"), "{before}");
    let mut vm = start(&case, "tenant-again", &image, &segment)?;
    vm.expect(&format!("network uplink eth0 {second}/24"), BOOT_TIME)?;
    vm.expect("stage ready", BOOT_TIME)?;
    expect_all(&vm, &[" fd07::1"])?;
    let log = server.log()?;
    let since = &log[before.len()..];
    ensure!(since.contains(&format!("DHCPREQUEST(tap0) {second} ")));
    for unwanted in ["DHCPDISCOVER", "DHCPNAK"] {
        ensure!(!since.contains(unwanted), "{since}");
    }

    // One that is switched off gives back what it has.
    vm.power_down()?;
    let release = format!("DHCPRELEASE(tap0) {second} ");
    server.expect(&[&release, "DHCPRELEASE(tap0) 00:"], TIME)
}
