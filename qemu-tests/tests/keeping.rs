//! How workloads are kept: jobs that gate, requirements, notifications, checks inside, limits, sockets; all in one boot.

use anyhow::{Context, Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Vm, VmBuilder, seconds};

const PATIENCE: std::time::Duration = seconds(240);

/// `migrate` fails once. `app` comes after it, says that it is ready, and exits once, so that `front`, which requires it,
/// is stopped and started again. `checked` loses at once what its check asks for. `hopeless` fails for good. `lazy` answers
/// one connection and exits.
const MACHINE: &str = r#"
name = "keeping"

[state]
size = "64MiB"

[socket.lazy]
listen = "8080"

[workload.migrate]
debian = ["perl-base"]
kind = "job"
volumes = [{ name = "migrate", path = "/data" }]
command = ["perl", "-e", '''
    if (-e "/data/tried") { print "migrated\n"; exit 0 }
    open(F, ">", "/data/tried"); print "first try\n"; exit 7;
''']

[workload.app]
debian = ["perl-base"]
ready = "notify"
watchdog = "1m"
after = ["migrate"]
volumes = [{ name = "app", path = "/data" }]
command = ["perl", "-e", '''
    use Socket; $| = 1;
    sub say_so { socket(S, PF_UNIX, SOCK_DGRAM, 0); send(S, $_[0], 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or print "no socket: $!\n" }
    print "app runs, watched for $ENV{WATCHDOG_USEC}\n";
    sleep 1;
    say_so("\x00\xff nonsense \n\n=\n" . ("x" x 3000));
    say_so("STATUS=warm\nREADY=1");
    if (!-e "/data/ran") { open(F, ">", "/data/ran"); sleep 6; exit 3 }
    while (1) { sleep 5; say_so("WATCHDOG=1") }
''']

[workload.front]
debian = ["perl-base"]
requires = ["app"]
command = ["perl", "-e", '$| = 1; print "front runs, notify socket: ", (-e "/run/coracle-notify" ? "there" : "none"), "\n"; sleep 1000']

[workload.checked]
debian = ["perl-base"]
health = { exec = ["perl", "-e", 'exit(-e "/good" ? 0 : 1)'], every = "500ms", retries = 2 }
command = ["perl", "-e", '$| = 1; open(F, ">", "/good"); print "good for a while\n"; sleep 4; unlink("/good"); sleep 1000']

[workload.hopeless]
debian = ["perl-base"]
kind = "job"
start_limit = { starts = 2, within = "10m" }
command = ["perl", "-e", "exit 1"]

[workload.waiter]
debian = ["perl-base"]
requires = ["hopeless"]
command = ["perl", "-e", 'print "waiter runs\n"']

[workload.lazy]
debian = ["perl-base"]
sockets = ["lazy"]
command = ["perl", "-e", '''
    $| = 1;
    print "inherits $ENV{LISTEN_FDS} named $ENV{LISTEN_FDNAMES}, for ", ($ENV{LISTEN_PID} == $$ ? "me" : "another"), "\n";
    open(L, "+<&=", 3) or die; accept(C, L) or die;
    while (<C>) { last if /^\r?$/ }
    print C "HTTP/1.0 200 OK\r\n\r\nawake\n"; close C;
''']
"#;

/// Waits until each of these lines has been there, in whatever order.
fn expect_all(vm: &mut Vm, claims: &[&str]) -> Result<()> {
    for claim in claims {
        if !vm.lines().iter().any(|line| line.contains(claim)) {
            vm.expect(claim, PATIENCE)?;
        }
    }
    Ok(())
}

fn check_order(vm: &Vm, first: &str, second: &str) -> Result<()> {
    let lines = vm.lines();
    let at = |text: &str| lines.iter().position(|line| line.contains(text));
    let (one, other) = (
        at(first).context(first.to_owned())?,
        at(second).context(second.to_owned())?,
    );
    ensure!(one < other, "{second:?} stands before {first:?}");
    Ok(())
}

#[test]
fn workloads_are_kept_as_the_file_says() -> Result<()> {
    let case = Case::new("keeping")?;
    let image = Image::open(Coracle::new(&case).build("keeping", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned()).forward(8080)?;
    let mut vm = vm.boot(Boot::Direct(&files)).start()?;
    expect_all(
        &mut vm,
        &[
            "workload lazy listens: the first connection starts it",
            "workload migrate exited with status 7; restarting in",
            "workload migrate exited with status 0; done",
            "app | app runs, watched for 60000000",
            "app | status: warm",
            "workload app ready",
            "front | front runs, notify socket: none",
            "workload app exited with status 3; restarting in",
            "workload front is stopped: app, which it requires, is not up",
            "workload checked ready",
            "workload checked failed a check (2 in a row)",
            "workload checked is unhealthy (its checks fail): stopping it",
            "workload hopeless exited with status 1; failed for good: 2 starts within 600 s",
            "workload waiter waits for hopeless, which failed",
        ],
    )?;
    for (first, second) in [
        ("migrate exited with status 0; done", "workload app started"),
        ("workload app ready", "workload front started"),
    ] {
        check_order(&vm, first, second)?;
    }
    vm.refute("lazy | ")?;
    for _ in 0..2 {
        let answer = vm.http_get(8080, "/", PATIENCE)?;
        ensure!(answer.body == "awake\n", "{answer:?}");
        vm.expect("lazy | inherits 1 named lazy, for me", PATIENCE)?;
        vm.expect(
            "workload lazy exited with status 0; the next connection starts it",
            PATIENCE,
        )?;
    }
    let times = |vm: &Vm, text: &str| vm.lines().iter().filter(|line| line.contains(text)).count();
    while times(&vm, "workload front ready") < 2 {
        vm.expect("workload front ready", PATIENCE)?;
    }
    for claim in ["waiter runs", "no socket:", "workload app is unhealthy"] {
        vm.refute(claim)?;
    }
    vm.power_down()
}
