//! The state partition on its disk: it grows, it is made where there is none, and a damaged one is dealt with by the
//! policy of the file; volumes are held to their size.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use qemu_tests::{
    Boot, BootFiles, Case, Coracle, Image, Partition, Vm, VmBuilder, run_tool, seconds,
};

const BOOT_TIME: std::time::Duration = seconds(240);
const GIB: u64 = 1 << 30;

/// A workload that tries to leave its volume's count and then fills it, and one beside it.
const GROWING: &str = r#"
name = "growing"

[state]
size = "64MiB"

[workload.fill]
debian = ["perl-base"]
command = ["perl", "/fill.pl"]
volumes = [{ name = "fill", path = "/data", size = "8MiB", owner = "33:34", mode = "0777" }]
files = [{ path = "/fill.pl", content = '''
$| = 1;
my @s = stat("/data"); printf "owner %d:%d mode %o\n", $s[4], $s[5], $s[2] & 07777;
open(my $d, "<", "/data"); my ($x, $f) = ("\0" x 28, pack("L!", 0x80000));
print "project: ", (ioctl($d, 0x401c5820, $x) ? "left" : $!), "\n";
print "flags: ", (ioctl($d, 0x40086602, $f) ? "left" : $!), "\n";
open(my $o, ">", "/data/big"); my ($n, $w) = (0);
$n += $w while ($w = syswrite($o, "x" x 65536));
print "full after ", int($n / 1048576), " MiB: $!\n"; sleep 100000;
''' }]

[workload.other]
debian = ["perl-base"]
command = ["perl", "/other.pl"]
volumes = [{ name = "other", path = "/data" }]
files = [{ path = "/other.pl", content = '''
use IO::Handle; $| = 1; my $n = 0;
open(my $o, ">", "/data/big"); $n += syswrite($o, "y" x 65536) for 1..1600;
print "wrote ", $n / 1048576, " MiB, ", ($o->sync ? "synced" : $!), "\n"; sleep 100000;
''' }]
"#;

/// A workload that writes its volume and one that only reads the same.
const DAMAGED: &str = r#"
name = "damaged"

[state]
size = "256MiB"
on_damage = "POLICY"

[workload.write]
debian = ["perl-base"]
command = ["perl", "-e", '$| = 1; open(my $f, ">>", "/data/f"); print $f "kept\n"; close $f; print "written\n"; sleep 100000']
volumes = [{ name = "v", path = "/data" }]

[workload.read]
debian = ["perl-base"]
command = ["perl", "-e", '$| = 1; sleep 1 until -s "/data/f"; open(my $f, "<", "/data/f"); print "read ", scalar(<$f>); sleep 100000']
volumes = [{ name = "v", path = "/data", read_only = true }]
"#;

struct Machine {
    case: Case,
    image: Image,
    files: BootFiles,
}

impl Machine {
    fn build(name: &str, text: &str) -> Result<Self> {
        let case = Case::new(name)?;
        let image = Image::open(Coracle::new(&case).build("disk", text)?)?;
        let files = BootFiles::of_image(&case, &image)?;
        Ok(Self { case, image, files })
    }

    fn boot(&self, name: &str) -> Result<Vm> {
        let disk = self.image.path().to_owned();
        VmBuilder::new(&self.case, name, disk)
            .boot(Boot::Direct(&self.files))
            .start()
    }

    /// The state partition as a file, after a check that it is clean.
    fn clean_state(&self) -> Result<std::path::PathBuf> {
        let state = self.case.path("state.ext4");
        Image::open(self.image.path())?.extract(Partition::STATE, &state)?;
        let listing = run_tool("e2fsck", |e2fsck| e2fsck.arg("-fn").arg(&state))?;
        ensure!(!listing.contains("recovering journal"), "{listing}");
        Ok(state)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let at = self.image.partition(Partition::STATE)?.offset + offset;
        let disk = std::fs::File::options()
            .write(true)
            .open(self.image.path())?;
        Ok(disk.write_all_at(bytes, at)?)
    }
}

fn debugfs(state: &Path, request: &str) -> Result<String> {
    run_tool("debugfs", |debugfs| {
        debugfs.args(["-R", request]).arg(state)
    })
}

#[test]
fn the_state_grows_to_the_disks_end_and_a_full_volume_is_full_alone() -> Result<()> {
    let machine = Machine::build("state-grows", GROWING)?;
    let disk = std::fs::File::options()
        .write(true)
        .open(machine.image.path())?;
    disk.set_len(3 * GIB)?;
    let mut vm = machine.boot("first")?;
    vm.expect("stage ready", BOOT_TIME)?;
    for wanted in [
        "state: grew from 64 MiB",
        "owner 33:34 mode 777",
        "project: Operation not permitted",
        "flags: Operation not permitted",
        "full after 7 MiB: Disk quota exceeded",
        "wrote 100 MiB, synced",
    ] {
        wait_for(&mut vm, wanted)?;
    }
    vm.power_down()?;
    let state = machine.clean_state()?;
    let id = debugfs(&state, "cat /coracle/machine-id")?;
    let seed = debugfs(&state, "cat /coracle/random-seed").unwrap_or_default();
    let grown = Image::open(machine.image.path())?;
    ensure!(grown.partition(Partition::STATE)?.length > 2 * GIB);
    run_tool("partx", |partx| partx.arg("--show").arg(grown.path()))?;
    let mut vm = machine.boot("second")?;
    vm.expect("stage ready", BOOT_TIME)?;
    vm.expect("full after", BOOT_TIME)?;
    vm.power_down()?;
    let state = machine.clean_state()?;
    ensure!(id.trim().len() == 32 && debugfs(&state, "cat /coracle/machine-id")? == id);
    ensure!(
        debugfs(&state, "cat /coracle/random-seed").unwrap_or_default() != seed || seed.is_empty()
    );
    Ok(())
}

/// Lines of workloads come in any order.
fn wait_for(vm: &mut Vm, wanted: &str) -> Result<()> {
    if vm.lines().iter().any(|line| line.contains(wanted)) {
        return Ok(());
    }
    vm.expect(wanted, BOOT_TIME).map(drop)
}

#[test]
fn a_damaged_state_is_kept_as_far_as_it_is_readable() -> Result<()> {
    let machine = Machine::build("state-kept", &DAMAGED.replace("POLICY", "keep"))?;
    let mut vm = machine.boot("sound")?;
    vm.expect("read | read kept", BOOT_TIME)?;
    vm.power_down()?;
    let state = machine.clean_state()?;
    let journal = debugfs(&state, "blocks <8>")?;
    let journal = journal.split_whitespace().next().context("no journal")?;
    machine.write(journal.parse::<u64>()? * 4096, &[0; 4096])?;
    let before = std::fs::read(machine.image.path())?;
    for (name, wanted) in [
        ("journal", "what is readable is mounted"),
        ("superblock", "copy in group 1"),
    ] {
        let mut vm = machine.boot(name)?;
        vm.expect(wanted, BOOT_TIME)?;
        wait_for(&mut vm, "workload write")?;
        wait_for(&mut vm, "damaged and mounted read-only")?;
        wait_for(&mut vm, "read | read kept")?;
        vm.kill();
        if name == "journal" {
            ensure!(
                std::fs::read(machine.image.path())? == before,
                "something was written"
            );
            machine.write(0, &[0; 4096])?;
        }
    }
    Ok(())
}

#[test]
fn a_state_is_made_where_there_is_none_and_anew_by_reset() -> Result<()> {
    let machine = Machine::build("state-made", &DAMAGED.replace("POLICY", "reset"))?;
    run_tool("sgdisk", |sgdisk| {
        sgdisk.arg("--delete=4").arg(machine.image.path())
    })?;
    let mut vm = machine.boot("none")?;
    vm.expect("there was no partition for it", BOOT_TIME)?;
    vm.expect("read | read kept", BOOT_TIME)?;
    vm.power_down()?;
    machine.clean_state()?;
    machine.write(0, &[0; 4096])?;
    let mut vm = machine.boot("reset")?;
    vm.expect("RESET by on_damage", BOOT_TIME)?;
    vm.expect("read | read kept", BOOT_TIME)?;
    vm.power_down()?;
    machine.clean_state()?;
    Ok(())
}

#[test]
fn a_machine_that_is_to_halt_on_damage_does() -> Result<()> {
    let machine = Machine::build("state-halt", &DAMAGED.replace("POLICY", "halt"))?;
    machine.write(0, &[0; 4096])?;
    let mut vm = machine.boot("halt")?;
    vm.expect("no state: the state partition", BOOT_TIME)?;
    vm.wait_for_end(BOOT_TIME)?;
    vm.refute("workload write")
}
