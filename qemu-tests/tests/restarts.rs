//! A thousand lives of workloads with networks of their own leave nothing behind: not in the kernel's tables, not in the
//! machine's folders, not in PID 1.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Vm, VmBuilder, get, seconds};

const BOOT_TIME: Duration = seconds(300);
/// An answer takes long on a host that is busy itself, but it comes.
const ANSWER_TIME: Duration = seconds(120);
/// How many lives there are in all if `CORACLE_RESTARTS` does not say it.
const LIVES: u32 = 200;
/// How many workloads are restarted side by side.
const WORKLOADS: u32 = 8;
/// By how much PID 1's memory may differ from what it was after the first lives, in KiB. One that kept 300 bytes of each
/// of 1,000 lives would need more.
const MEMORY: u64 = 300;
/// The same of what the kernel counts of its own objects, which it frees in heaps and some time later.
const OBJECTS: u64 = 60;

/// Each life of a `leaf` ends when somebody has asked it. `keeper` asks them all, again and again, and shows what is there.
const MACHINE: &str = r#"
name = "restarts"

[workload.keeper]
network = "host"
user_namespace = "host"
pid_namespace = "host"
capabilities = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
debian = ["busybox-static", "nftables", "perl-base"]
command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
ports = ["8080:8080"]
pids = 200
files = [
  { path = "/www/cgi-bin/look", mode = "0755", content = '''#!/usr/bin/busybox sh
printf 'Content-Type: text/plain\r\n\r\n'
tell() { what=$1; shift; "$@" 2>&1 | busybox sed "s/ *\\(valid_lft\\|expires\\|qlen\\) .*//; s/^/$what: /"; }
sorted() { what=$1; shift; tell "$what" "$@" | busybox sort; }
tell firewall nft -s list ruleset
sorted link busybox ip -o link
sorted address busybox ip -o address
sorted route busybox ip -4 route show table all
sorted route6 busybox ip -6 route show table all
sorted rule busybox ip rule
sorted neighbour sh -c 'busybox ip neigh | busybox grep PERMANENT'
sorted cgroup sh -c 'cd /proc/1/root/sys/fs/cgroup && busybox find . -type d'
sorted mount busybox cut -d" " -f2- /proc/1/mounts
sorted run sh -c 'cd /proc/1/root/run && busybox find . -not -path "./coracle/log*"'
tell namespaces sh -c 'busybox ls -l /proc/*/ns/net | busybox sed "s/.*-> //" | busybox sort -u | busybox wc -l'
sorted processes sh -c 'busybox grep -h "^Name" /proc/[0-9]*/status | busybox grep -E "coracle|exe"'
tell descriptors sh -c 'busybox ls /proc/1/fd | busybox wc -l'
tell =memory busybox awk '/^VmRSS/ { print $2 }' /proc/1/status
tell =net_namespace busybox awk '/^net_namespace/ { print $2 }' /proc/slabinfo
tell =dying busybox awk '/^nr_dying/ { print $2 }' /proc/1/root/sys/fs/cgroup/cgroup.stat
tell =cgroups busybox awk '/^memory/ { print $3 }' /proc/cgroups
''' },
  { path = "/www/cgi-bin/ask", mode = "0755", content = '''#!/usr/bin/perl
use Socket; use POSIX qw(:errno_h); $| = 1;
my @leaves = qw(@leaves@); my %lives;
print "Content-Type: text/plain\r\n\r\n";
sub ask {
    my ($address, $port) = split /:/, shift;
    socket(my $s, PF_INET, SOCK_STREAM, 0) or return 0;
    setsockopt($s, SOL_SOCKET, SO_RCVTIMEO, pack("l!l!", 20, 0));
    setsockopt($s, SOL_SOCKET, SO_SNDTIMEO, pack("l!l!", 1, 0));
    connect($s, pack_sockaddr_in($port, inet_aton($address))) or return 0;
    return sysread($s, my $answer, 100) > 0;
}
my $end = time + 10; my $wanted = $ENV{QUERY_STRING}; my $count = 0;
while (time < $end && $count < $wanted) {
    for (@leaves) { $count++ if ask($_) }
    select(undef, undef, undef, 0.01);
}
print "$count\n";
''' },
]
"#;

/// The machine's file, with its leaves and their addresses.
fn machine() -> Result<String> {
    let mut text = MACHINE.to_owned();
    for leaf in 0..WORKLOADS {
        text.push_str(&format!(
            "[workload.leaf{leaf}]\ndebian = [\"busybox-static\"]\n\
             command = [\"busybox\", \"nc\", \"-l\", \"-p\", \"1234\", \"-e\", \"busybox\", \"echo\", \"alive\"]\n\
             restart_delay = \"1ms\"\nrestart_delay_max = \"1ms\"\n"
        ));
    }
    let spec = config::parse(&text)
        .map_err(|mistakes| anyhow::anyhow!("{}", mistakes.render("restarts.toml", &text)))?;
    let leaves = spec.fabric.endpoints.iter();
    let leaves: Vec<String> = leaves
        .map(|leaf| format!("{}:1234", leaf.address))
        .collect();
    Ok(text.replace("@leaves@", &leaves.join(" ")))
}

/// What is there: lines of all that must be the same again, and numbers that may differ a little.
#[derive(Debug)]
struct Look {
    lines: String,
    numbers: BTreeMap<String, u64>,
}

fn look(vm: &Vm) -> Result<Look> {
    let answer = get(vm.address(8080)?, "/cgi-bin/look", ANSWER_TIME)?;
    let (mut lines, mut numbers) = (String::new(), BTreeMap::new());
    for line in answer.body.lines() {
        match line
            .strip_prefix('=')
            .and_then(|rest| rest.split_once(": "))
        {
            Some((name, number)) => drop(numbers.insert(name.to_owned(), number.parse()?)),
            None => lines.push_str(&format!("{line}\n")),
        }
    }
    ensure!(numbers.len() == 4, "{numbers:?} of {}", answer.body);
    Ok(Look { lines, numbers })
}

/// The first look at a machine that is at rest, with all leaves alive.
fn rest(vm: &Vm) -> Result<Look> {
    let deadline = Instant::now() + ANSWER_TIME;
    let mut last = look(vm)?;
    loop {
        std::thread::sleep(seconds(1));
        let now = look(vm)?;
        let links = now.lines.matches("link: ").count();
        if now.lines == last.lines && links == 2 + WORKLOADS as usize {
            return Ok(now);
        }
        ensure!(Instant::now() < deadline, "no rest: {}", now.lines);
        last = now;
    }
}

/// Lets so many lives end, and says how many it were.
fn live(vm: &Vm, lives: u32) -> Result<u32> {
    let path = format!("/cgi-bin/ask?{lives}");
    let answer = get(vm.address(8080)?, &path, ANSWER_TIME)?;
    answer.body.trim().parse().context("no number of lives")
}

/// What one has and the other has not.
fn difference(one: &str, other: &str) -> Vec<String> {
    let known: Vec<&str> = other.lines().collect();
    let new = one.lines().filter(|line| !known.contains(line));
    new.map(str::to_owned).collect()
}

#[test]
fn many_lives_leave_tables_and_folders_and_the_first_process_as_the_first_ones_did() -> Result<()> {
    let wanted = std::env::var("CORACLE_RESTARTS");
    let wanted: u32 = wanted.map_or(Ok(LIVES), |text| text.parse())?;
    let case = Case::new("restarts")?;
    let image = Image::open(Coracle::new(&case).build("restarts", &machine()?)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned()).boot(Boot::Direct(&files));
    let mut vm = vm.forward(8080)?.start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    live(&vm, WORKLOADS)?;
    let first = rest(&vm)?;
    let begun = Instant::now();
    let mut lives = 0;
    while lives < wanted {
        let more = live(&vm, wanted - lives)?;
        ensure!(more > 0, "nobody lives any more");
        lives += more;
    }
    eprintln!("{lives} lives in {:.0} s", begun.elapsed().as_secs_f64());
    let deadline = Instant::now() + ANSWER_TIME;
    let last = loop {
        let last = rest(&vm)?;
        if last.lines == first.lines {
            break last;
        }
        if Instant::now() > deadline {
            let left = difference(&last.lines, &first.lines);
            let lost = difference(&first.lines, &last.lines);
            bail!("{lives} lives leave {left:#?} and take {lost:#?}");
        }
    };
    for (name, limit) in [
        ("memory", MEMORY),
        ("net_namespace", OBJECTS),
        ("cgroups", OBJECTS),
    ] {
        let (before, after) = (first.numbers[name], last.numbers[name]);
        eprintln!("{name}: {before}, then {after}");
        ensure!(after <= before + limit, "{name}: {before}, then {after}");
    }
    vm.power_down()
}
