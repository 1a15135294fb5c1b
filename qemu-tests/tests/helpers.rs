//! The children of PID 1, killed again and again by a workload that sees them, and stopped, so that they hang: the machine
//! goes on as if nothing were.

use std::time::Instant;

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Vm, VmBuilder, seconds};

const PATIENCE: std::time::Duration = seconds(240);

/// `web` may not fail a single check. `killer` kills each child of PID 1 that is init itself, at once, for a while: those
/// that come up meanwhile, too. Later it stops some, once each. The boot ends only when it is at it: what loads drivers
/// and keeps the state begins then.
const MACHINE: &str = r#"
name = "helpers"

[state]
size = "64MiB"

[workload.web]
debian = ["busybox-static"]
command = ["busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/"]
ports = ["8080:8080"]
health = { http = "http://:8080/etc/hosts", every = "500ms", timeout = "60s", retries = 1 }

[workload.killer]
debian = ["perl-base"]
user_namespace = "host"
pid_namespace = "host"
restart = "never"
command = ["perl", "-e", '''
    $| = 1;
    my (%seen, %killed);
    my $end = time() + 20;
    while (time() < $end) {
        opendir(P, "/proc"); my @new = grep { /^[0-9]+$/ && !$seen{$_} } readdir(P); closedir(P);
        for my $pid (@new) {
            open(S, "<", "/proc/$pid/stat") or next; my $stat = <S>; close(S);
            my ($parent) = ($stat // "") =~ /\) \S (\d+)/;
            if (!defined($parent) || $parent != 1) { $seen{$pid} = 1; next }
            open(C, "<", "/proc/$pid/cmdline") or next; my ($name, $word) = split(/\0/, <C> // ""); close(C);
            if (($name // "") ne "/proc/self/exe") { next }
            $seen{$pid} = 1;
            if (++$killed{$word} > 4) { next }
            if (kill(9, $pid)) { print "killed $word\n" }
        }
        select(undef, undef, undef, 0.01);
    }
    print "let them live\n"; sleep(10);
    my %stopped; $end = time() + 90;
    while (time() < $end && keys(%stopped) < 2) {
        for my $path (glob("/proc/[0-9]*")) {
            open(C, "<", "$path/cmdline") or next; my ($name, $word) = split(/\0/, <C> // ""); close(C);
            if (($name // "") ne "/proc/self/exe" || $word !~ /^(uplink|prober)$/) { next }
            if (!$stopped{$word}++ && kill("STOP", substr($path, 6))) { print "stopped $word\n" }
        }
        sleep(1);
    }
    sleep(10000);
''']

[workload.late]
debian = ["busybox-static"]
kind = "job"
after = ["killer", "web"]
command = ["busybox", "sleep", "5"]
"#;

fn count(vm: &Vm, text: &str) -> usize {
    vm.lines().iter().filter(|line| line.contains(text)).count()
}

/// Waits until so many lines have this, wherever they are.
fn expect_any(vm: &Vm, text: &str, times: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while count(vm, text) < times {
        ensure!(
            Instant::now() < deadline,
            "no {text:?}, {times} times, in {:#?}",
            vm.lines()
        );
        std::thread::sleep(seconds(1));
    }
    Ok(())
}

#[test]
fn a_machine_survives_death_and_hanging_of_each_helper_and_counts_no_check_against_anybody()
-> Result<()> {
    let case = Case::new("helpers")?;
    let image = Image::open(Coracle::new(&case).build("helpers", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned()).forward(8080)?;
    let mut vm = vm.boot(Boot::Direct(&files)).start()?;
    vm.expect("killer | let them live", PATIENCE)?;
    for helper in ["prober", "uplink", "log", "state", "modprobe"] {
        ensure!(
            count(&vm, &format!("killer | killed {helper}")) > 0,
            "no {helper} was killed"
        );
    }
    for sign in [
        "the prober ended (Signal(9)); starting it again",
        "the log process ended (Signal(9)); starting it again",
        "uplink ended (Signal(9)); restarting in",
    ] {
        ensure!(count(&vm, sign) > 0, "no {sign:?}");
    }
    // Each of them works again.
    let asked = count(&vm, "response:200");
    while count(&vm, "response:200") < asked + 3 {
        vm.expect("response:200", PATIENCE)?;
    }
    while count(&vm, "network uplink ") < 2 {
        vm.expect("network uplink ", PATIENCE)?;
    }
    let answer = vm.http_get(8080, "/etc/hosts", PATIENCE)?;
    ensure!(answer.status == 200, "{answer:?}");
    for never in ["web failed a check", "web is unhealthy", "web exited"] {
        vm.refute(never)?;
    }
    // Those that hang are found out, and all goes on.
    for helper in ["uplink", "prober"] {
        expect_any(&vm, &format!("killer | stopped {helper}"), 1)?;
    }
    let bound = count(&vm, "network uplink ");
    expect_any(&vm, "uplink hangs: killing it", 1)?;
    expect_any(&vm, "network uplink ", bound + 1)?;
    let asked = count(&vm, "response:200");
    expect_any(&vm, "response:200", asked + 3)?;
    for never in ["web failed a check", "web is unhealthy", "web exited"] {
        vm.refute(never)?;
    }
    vm.power_down()?;
    let disk = image.path().display().to_string();
    let shown = Coracle::new(&case).run(&["logs", disk.as_str()], PATIENCE)?;
    let log = shown.expect_code(0)?.stdout;
    for line in [
        " killer out killed prober\n",
        " killer out let them live\n",
        " coracle init stage stopping\n",
    ] {
        ensure!(log.contains(line), "the log has no {line:?}");
    }
    Ok(())
}
