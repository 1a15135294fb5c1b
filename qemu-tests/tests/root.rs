//! The root that Linux reads is the tree that was built: a workload hashes all of it.

use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, run_tool, seconds};

const BOOT_TIME: std::time::Duration = seconds(240);

/// Says names, kinds, modes, sizes, links and hashes of everything below `/data`, and hashes that.
const SAY: &str = r#"cd "$1" && b=/bin/busybox
{ $b find . -type d -print0 | $b sort -z | $b xargs -0 -n 100 $b stat -c '%n %f'
$b find . ! -type d -print0 | $b sort -z | $b xargs -0 -n 100 $b stat -c '%n %f %s %h'
$b find . -type l -print0 | $b sort -z | $b xargs -0 -n 100 $b readlink
$b find . -type f -print0 | $b sort -z | $b xargs -0 -n 100 $b sha256sum; } 2>&1 | $b sha256sum"#;

/// Files of every kind that the writer stores in its own way.
fn make_tree(root: &Path) -> Result<()> {
    let text: Vec<u8> = (0..400_000_u32)
        .flat_map(|number| format!("line {} of {number}\n", number % 97).into_bytes())
        .collect();
    // A sequence of which nothing compresses.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(1_500_000)
    .collect();
    for folder in ["data/small", "data/long", "bin"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    let put = |name: &str, bytes: &[u8]| std::fs::write(root.join("data").join(name), bytes);
    for number in 0..300_usize {
        put(
            &format!("small/{number}"),
            &text[number * 50..][..number * 41 % 9000],
        )?;
        if number % 10 == 0 {
            put(
                &format!("small/noise {number}"),
                &noise[number..][..number * 23],
            )?;
        }
    }
    for len in [
        4095, 4096, 4097, 65_535, 65_536, 65_537, 70_000, 1_048_577, 3_000_000,
    ] {
        put(&format!("long/{len}"), &text[len % 1000..][..len])?;
    }
    put("long/noise", &noise)?;
    put(
        "long/mixed",
        &[&text[..200_000], &noise[..300_000], &text[..90_000]].concat(),
    )?;
    let sparse = std::fs::File::create(root.join("data/long/sparse"))?;
    sparse.set_len(5_000_000)?;
    sparse.write_all_at(b"in the middle", 2_500_000)?;
    std::fs::hard_link(root.join("data/long/4097"), root.join("data/linked"))?;
    symlink("long/noise", root.join("data/link"))?;
    std::fs::set_permissions(root.join("data/small/7"), PermissionsExt::from_mode(0o640))?;
    std::fs::write(root.join("say"), SAY)?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .context("busybox (Debian package busybox-static)")?;
    Ok(())
}

fn expect_equal_tree(name: &str, kernel: &str, compression: &str) -> Result<()> {
    let case = Case::new(name)?;
    let tree = case.path("tree");
    make_tree(&tree)?;
    let expected = run_tool("/bin/busybox", |busybox| {
        busybox
            .args(["sh", "-c", SAY, "say"])
            .arg(tree.join("data"))
    })?;
    let expected = expected.split_whitespace().next().context("no hash")?;
    let machine = format!(
        "name = \"root\"\n{kernel}[root]\ncompression = \"{compression}\"\n[workload.w]\nkind = \"job\"\n\
         image = \"dir:tree\"\ncommand = [\"/bin/busybox\", \"sh\", \"/say\", \"/data\"]\n"
    );
    let disk = Coracle::new(&case).build("root", &machine)?;
    let files = BootFiles::of_image(&case, &Image::open(&disk)?)?;
    let mut vm = VmBuilder::new(&case, "root", disk)
        .boot(Boot::Direct(&files))
        .start()?;
    let line = vm.expect("w | ", BOOT_TIME)?;
    ensure!(line.contains(expected), "{line}, not {expected}");
    vm.expect("stage ready", BOOT_TIME)?;
    vm.power_down()
}

#[test]
fn linux_6_1_reads_a_compressed_root_that_equals_its_source() -> Result<()> {
    expect_equal_tree("root-6.1", "", "lz4hc")
}

#[test]
fn linux_6_12_reads_a_compressed_root_that_equals_its_source() -> Result<()> {
    expect_equal_tree("root-6.12", "[kernel]\nsuite = \"trixie\"\n", "lz4hc")
}
