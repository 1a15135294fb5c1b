//! Kernel, initrd and command line of an image, taken out of its UKI by standard tools; and the floor.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::case::Case;
use crate::image::{Image, Partition};
use crate::tool::run_tool;

/// What QEMU needs to boot without firmware.
#[derive(Debug, Clone)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
}

impl BootFiles {
    /// Takes the sections of the image's only UKI apart, into the case's folder.
    ///
    /// # Errors
    /// If the ESP, the UKI or a section is not there.
    pub fn of_image(case: &Case, image: &Image) -> Result<Self> {
        let uki = copy_uki(case, image)?;
        let section = |name: &str| {
            let file = case.path(format!("uki{name}"));
            run_tool("objcopy", |objcopy| {
                let only = format!("--only-section={name}");
                objcopy.args(["-O", "binary", &only]).arg(&uki).arg(&file)
            })
            .map(|_| file)
        };
        let cmdline = std::fs::read_to_string(section(".cmdline")?)?;
        Ok(Self {
            kernel: section(".linux")?,
            initrd: section(".initrd")?,
            cmdline: cmdline.trim_end_matches(['\0', '\n']).to_owned(),
        })
    }

    /// The same kernel and command line with another initrd.
    pub fn with_initrd(&self, initrd: PathBuf) -> Self {
        Self {
            initrd,
            ..self.clone()
        }
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let (kernel, initrd) = (text(&self.kernel), text(&self.initrd));
        let pairs = [
            ("-kernel", kernel),
            ("-initrd", initrd),
            ("-append", self.cmdline.clone()),
        ];
        let words = pairs
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        words.collect()
    }
}

fn copy_uki(case: &Case, image: &Image) -> Result<PathBuf> {
    let esp = image.partition(Partition::ESP)?;
    let drive = format!("{}@@{}", image.path().display(), esp.offset);
    let folder = "::/EFI/Linux";
    let names = run_tool("mdir", |mdir| mdir.args(["-b", "-i", &drive, folder]))?;
    let name = names
        .lines()
        .map(str::trim)
        .find(|name| name.ends_with(".efi"))
        .context("the ESP has no UKI")?;
    let uki = case.path("uki.efi");
    run_tool("mcopy", |mcopy| {
        mcopy.args(["-o", "-i", &drive, name]).arg(&uki)
    })?;
    Ok(uki)
}

/// An initrd whose init powers the machine off at once, compiled here.
///
/// # Errors
/// If `rustc` or `cpio` fails.
pub fn floor_initrd(case: &Case) -> Result<PathBuf> {
    program_initrd(case, "floor", "init")
}

impl BootFiles {
    /// The same machine with something wrong with PID 1 (see `saboteur/init.rs`).
    ///
    /// # Errors
    /// If `rustc`, `cpio` or `sh` fails.
    pub fn sabotaged(&self, case: &Case, what: &str) -> Result<Self> {
        let more = program_initrd(case, "saboteur", "saboteur")?;
        let initrd = case.path(format!("{what}.initrd"));
        // The kernel unpacks archives one behind the other, each at a multiple of four bytes.
        run_tool("sh", |sh| {
            sh.args([
                "-c",
                "cp \"$0\" \"$2\" && truncate -s %4 \"$2\" && cat \"$1\" >>\"$2\"",
            ])
            .args([&self.initrd, &more, &initrd])
        })?;
        Ok(Self {
            cmdline: format!("{} rdinit=/saboteur -- {what}", self.cmdline),
            ..self.with_initrd(initrd)
        })
    }
}

/// An archive with one static program, compiled here from `FOLDER/init.rs`.
fn program_initrd(case: &Case, folder: &str, name: &str) -> Result<PathBuf> {
    let root = case.path(folder);
    std::fs::create_dir_all(&root)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{folder}/init.rs"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    run_tool(rustc, |rustc| {
        rustc
            .args(["--edition=2024", "-Copt-level=s", "-Cpanic=abort"])
            .args(["-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"])
            .arg(root.join(name))
            .arg(source)
    })?;
    let initrd = case.path(format!("{folder}.cpio"));
    run_tool("sh", |sh| {
        sh.args(["-c", "echo \"$1\" | cpio --quiet -o -H newc >\"$0\""])
            .arg(&initrd)
            .arg(name)
            .current_dir(&root)
    })?;
    Ok(initrd)
}
