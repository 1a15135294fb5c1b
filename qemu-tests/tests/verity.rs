//! A machine whose root is not the one that was built refuses to boot, and says why.

mod support;

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Partition, VmBuilder, seconds};
use support::web_image;

/// A direct boot until the root is tried.
const BOOT_TIME: std::time::Duration = seconds(120);

/// EROFS's superblock is at byte 1024, and nothing of the filesystem can be read without it.
const SUPERBLOCK: u64 = 1024;
/// The hash tree begins one block behind the verity superblock, with the block that the root hash is the hash of.
const TOP_OF_THE_TREE: u64 = 4096;

/// Flips one bit of a partition, boots, and sees the refusal.
fn expect_refusal(name: &str, partition: &str, offset: u64) -> Result<()> {
    let case = Case::new(name)?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    let image = Image::open(&disk)?;
    let files = BootFiles::of_image(&case, &image)?;
    image.flip_bit(partition, offset)?;
    let vm = VmBuilder::new(&case, "refusal", disk).boot(Boot::Direct(&files));
    let mut vm = vm.start()?;
    vm.expect("refused: ", BOOT_TIME)?;
    vm.expect("hint: the disk is damaged or was changed", BOOT_TIME)?;
    vm.expect("the machine starts again in 10 s", BOOT_TIME)?;
    vm.wait_for_end(seconds(60))?;
    vm.refute("stage root")?;
    vm.refute("stage poweroff")
}

#[test]
fn a_flipped_bit_in_the_root_is_refused() -> Result<()> {
    expect_refusal("verity-root", Partition::ROOT, SUPERBLOCK + 8)
}

#[test]
fn a_flipped_bit_in_the_hash_tree_is_refused() -> Result<()> {
    expect_refusal("verity-tree", Partition::ROOT_VERITY, TOP_OF_THE_TREE)
}

#[test]
fn another_root_hash_is_refused() -> Result<()> {
    let case = Case::new("verity-hash")?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    let mut files = BootFiles::of_image(&case, &Image::open(&disk)?)?;
    let (before, hash) = files.cmdline.split_once("roothash=").unwrap_or_default();
    ensure!(hash.len() >= 64, "no root hash on {:?}", files.cmdline);
    // The first and the last half name the partitions; a digit in their middle is only the hash's own.
    let last = if hash.starts_with('0') { '1' } else { '0' };
    files.cmdline = format!(
        "{before}roothash={last}{} coracle.failure=halt,1s",
        &hash[1..]
    );
    let vm = VmBuilder::new(&case, "refusal", disk).boot(Boot::Direct(&files));
    let mut vm = vm.start()?;
    vm.expect("refused: ", BOOT_TIME)?;
    vm.expect("the machine halts in 1 s", BOOT_TIME)?;
    vm.expect("System halted", BOOT_TIME)?;
    vm.refute("stage root")
}

#[test]
fn run_ends_with_exit_code_1_and_the_machines_own_reason() -> Result<()> {
    let case = Case::new("verity-run")?;
    let disk = case.copy_disk(web_image()?, "disk.img")?;
    Image::open(&disk)?.flip_bit(Partition::ROOT_VERITY, TOP_OF_THE_TREE)?;
    let disk = disk.to_string_lossy();
    let options = [
        "--direct",
        "--accel=tcg",
        "--exit-when-ready",
        "--timeout=120",
        "--port=8080=0",
    ];
    let arguments = [&["run", &disk], &options[..]].concat();
    let run = Coracle::new(&case)
        .run(&arguments, seconds(200))?
        .expect_code(1)?;
    run.expect_stderr(&["the machine refused to boot", "hint:"])?;
    Ok(())
}
