//! A machine that is handed secrets at its start and watched by a watchdog device.

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(240);

/// `keeper` has secrets, `other` has none and looks for them, `needy` wants one that does not come.
const MACHINE: &str = r#"
name = "guarded"

[watchdog]
timeout = "6s"

[workload.keeper]
debian = ["busybox-static"]
user = "1000:1000"
read_only = true
command = ["busybox", "sh", "-c", "busybox ls -ln $CREDENTIALS_DIRECTORY/; busybox md5sum /run/secrets/one /etc/two /run/secrets/three; busybox cat /run/secrets/late; echo x > /run/secrets/one; echo looked; exec busybox sleep 3600"]
secrets = [
    { name = "one" },
    { name = "two", path = "/etc/two" },
    { name = "three", mode = "0440" },
    { name = "late", optional = true },
]

[workload.other]
debian = ["busybox-static"]
command = ["busybox", "sh", "-c", "busybox env; busybox find / -xdev -name one -o -xdev -name three; busybox ls /run/coracle /run/secrets /sys/firmware/qemu_fw_cfg; busybox grep -r plain-text /proc/cmdline; echo looked; exec busybox sleep 3600"]

[workload.needy]
debian = ["busybox-static"]
command = ["busybox", "sleep", "3600"]
secrets = [{ name = "missing" }]
"#;

/// What is handed over, and the MD5 of it.
const SECRETS: [(&str, &str); 3] = [
    ("one", "de3e38d69597a562751b94fb32f69b7f"),
    ("two", "208bce3533bf5e96a2440ce7238330f8"),
    ("three", "82d7176393a7ea3a629f26fe97193bde"),
];

#[test]
fn secrets_reach_their_workload_alone_and_a_stalled_init_is_noticed() -> Result<()> {
    let case = Case::new("guarded")?;
    let coracle = Coracle::new(&case);
    let image = Image::open(coracle.build("guarded", MACHINE)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let one = case.write("one.secret", "plain-text one")?;
    let fw_cfg = format!("name=opt/io.systemd.credentials/one,file={}", one.display());
    let vm = VmBuilder::new(&case, "secrets", image.path().to_owned()).boot(Boot::Direct(&files));
    let mut vm = vm
        .extra(&[
            "-fw_cfg",
            &fw_cfg,
            "-smbios",
            "type=11,value=io.systemd.credential:two=plain-text two",
            "-smbios",
            "type=11,value=io.systemd.credential.binary:three=cGxhaW4tdGV4dAB0aHJlZQ==",
        ])
        .start()?;
    vm.expect("watchdog armed: ", BOOT_TIME)?;
    vm.expect(
        "workload needy failed to start: its secret missing has not come",
        BOOT_TIME,
    )?;
    for line in ["keeper | looked", "other | looked"] {
        while !vm.lines().iter().any(|l| l.contains(line)) {
            vm.expect("looked", BOOT_TIME)?;
        }
    }
    let lines = vm.lines();
    let told = |text: &str| lines.iter().any(|line| line.contains(text));
    for (name, md5) in SECRETS {
        ensure!(told(md5), "{name} has not come as it was given");
    }
    ensure!(
        told("keeper | -r--------    1 1000     1000            14 "),
        "the owner and mode of one"
    );
    ensure!(
        told("keeper | -r--r-----    1 1000     1000            16 "),
        "the owner and mode of three"
    );
    ensure!(
        told("cat: can't open '/run/secrets/late'"),
        "nothing is there for a secret that has not come"
    );
    ensure!(
        told("can't create /run/secrets/one"),
        "a secret is read only"
    );
    for text in ["plain-text", "other | CREDENTIALS", "other | /run"] {
        vm.refute(text)?;
    }
    // Longer than the watchdog waits.
    std::thread::sleep(seconds(10));
    vm.power_down()?;

    // A secret that nobody asks for is a mistake of who hands it over.
    let disk = image.path().to_string_lossy();
    let secret = format!("--secret=onne={}", one.display());
    coracle
        .run(&["run", &disk, &secret], seconds(60))?
        .expect_code(2)?
        .expect_stderr(&["no workload asks for a secret onne", "late, missing, one"])?;

    // PID 1 is stopped, and nobody presses anything: the watchdog starts the machine again.
    let files = files.sabotaged(&case, "stop")?;
    let vm = VmBuilder::new(&case, "stalled", image.path().to_owned()).boot(Boot::Direct(&files));
    let mut vm = vm.start()?;
    vm.expect("watchdog armed: ", BOOT_TIME)?;
    vm.wait_for_end(BOOT_TIME)?;
    vm.refute("stage stopping")
}
