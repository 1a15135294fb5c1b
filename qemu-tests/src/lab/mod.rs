//! A guest that is an ordinary host for containers: Debian's kernel, pure cgroup v2, tools of the host that tests,
//! and an init that runs shell steps one after the other and tells of each what it printed and how it ended.
//!
//! All of it is one initramfs, so nothing needs root, a disk or modules. The guest has no network but loopback, says
//! "tests complete" when it has run every step, and powers off.

mod check;
mod kernel;
mod program;
mod report;
mod systemd;

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::kernel::BootFiles;
use crate::tool::run_tool;
use crate::vm::{Boot, VmBuilder};

pub use check::CHECK;
pub use program::{
    TestProgram, find_program, guest_runtime, runtime_bench, runtime_test_helper, runtime_tests,
};
pub use report::{Report, Step};

/// Where the guest has the runtime under test.
pub(crate) const RUNTIME: &str = "/usr/bin/coracle-runtime";
/// Programs of the host's own are few; with their libraries they fit beside a workload's memory.
const MEMORY_MIB: u32 = 2048;
const COMPLETE: &str = "lab: tests complete";

/// A lab before it is booted.
#[derive(Debug)]
pub struct Lab<'a> {
    case: &'a Case,
    root: PathBuf,
    steps: usize,
    arguments: Vec<String>,
}

impl<'a> Lab<'a> {
    /// A guest with a shell, the runtime and nothing to do.
    ///
    /// # Errors
    /// If the runtime cannot be built or a tool is missing.
    pub fn new(case: &'a Case) -> Result<Self> {
        Self::with_runtime(case, &guest_runtime()?)
    }

    /// The same with a static runtime that has been built already.
    ///
    /// # Errors
    /// If a tool is missing.
    pub fn with_runtime(case: &'a Case, runtime: &Path) -> Result<Self> {
        let root = case.path("root");
        let mut lab = Self {
            case,
            root,
            steps: 0,
            arguments: Vec::new(),
        };
        lab.file(
            "/lab/init",
            concat!(env!("CARGO_MANIFEST_DIR"), "/lab/init"),
        )?;
        lab.file("/init", concat!(env!("CARGO_MANIFEST_DIR"), "/lab/init"))?;
        lab.file("/bin/busybox", find_program("busybox", "busybox-static")?)?;
        lab.file(RUNTIME, runtime)?;
        lab.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
        lab.text("/etc/group", "root:x:0:\n")?;
        lab.text("/etc/hosts", "127.0.0.1 localhost lab\n")?;
        lab.text("/etc/resolv.conf", "")?;
        for module in kernel::modules(&["overlay"])? {
            let name = module.file_name().context("a module has a name")?;
            lab.file(format!("/lab/modules/{}", name.to_string_lossy()), &module)?;
        }
        Ok(lab)
    }

    /// Puts a file of the host into the guest, as it is and with its mode.
    ///
    /// # Errors
    /// If it is not there or its place is taken.
    pub fn file(&mut self, place: impl AsRef<Path>, file: impl AsRef<Path>) -> Result<&mut Self> {
        let file = file.as_ref();
        ensure!(file.is_file(), "{} is no file", file.display());
        let place = self.place(place.as_ref())?;
        // The archive is made of what symbolic links lead to: nothing is copied twice.
        symlink(file.canonicalize()?, &place)
            .with_context(|| format!("make {}", place.display()))?;
        Ok(self)
    }

    /// Puts a text into the guest.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn text(&mut self, place: impl AsRef<Path>, text: &str) -> Result<&mut Self> {
        let place = self.place(place.as_ref())?;
        std::fs::write(&place, text).with_context(|| format!("write {}", place.display()))?;
        Ok(self)
    }

    /// Puts a program of the host into the guest at `place`, with the shared libraries that it needs.
    ///
    /// # Errors
    /// If it is not there.
    pub fn program(&mut self, place: &str, file: impl AsRef<Path>) -> Result<&mut Self> {
        for library in program::libraries(file.as_ref())? {
            if !self.root.join(library.strip_prefix("/")?).exists() {
                self.file(&library, &library)?;
            }
        }
        self.file(place, file)
    }

    /// Puts installed commands, each with the Debian package that has it, to `/usr/bin` of the guest.
    ///
    /// # Errors
    /// If one is not installed.
    pub fn commands(&mut self, commands: &[(&str, &str)]) -> Result<&mut Self> {
        for (command, package) in commands {
            self.program(
                &format!("/usr/bin/{command}"),
                find_program(command, package)?,
            )?;
        }
        Ok(self)
    }

    /// Adds arguments to QEMU's command line.
    pub fn extra(&mut self, arguments: &[&str]) -> &mut Self {
        let arguments = arguments.iter().map(ToString::to_string);
        self.arguments.extend(arguments);
        self
    }

    /// Adds a step; `script` is run by a shell that does not stop at a failure of its own accord. A step that takes
    /// more than half an hour is killed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn step(&mut self, name: &str, script: &str) -> Result<&mut Self> {
        ensure!(!name.contains(['/', ' ']), "{name:?} is no name for a step");
        self.steps += 1;
        self.text(format!("/lab/steps/{:03}-{name}", self.steps), script)
    }

    /// Boots, and waits until all steps have been run and the machine is off.
    ///
    /// # Errors
    /// If that does not happen within `patience`; a step that fails is told in the report.
    pub fn run(&self, patience: Duration) -> Result<Report> {
        let files = BootFiles {
            kernel: kernel::image()?,
            initrd: self.pack()?,
            cmdline: "console=ttyS0 loglevel=4 panic=-1 rdinit=/init".to_owned(),
        };
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let vm = VmBuilder::new(self.case, "lab", None)
            .boot(Boot::Direct(&files))
            .memory_mib(MEMORY_MIB)
            .extra(&arguments);
        let mut vm = vm.start()?;
        vm.expect(COMPLETE, patience)?;
        vm.wait_for_end(patience)?;
        std::fs::remove_file(&files.initrd)?;
        Ok(Report::read(&vm.lines()))
    }

    fn place(&self, place: &Path) -> Result<PathBuf> {
        let place = self.root.join(place.strip_prefix("/")?);
        let parent = place.parent().context("a file has a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        Ok(place)
    }

    fn pack(&self) -> Result<PathBuf> {
        for script in ["lab/init", "init"] {
            let mode = std::fs::metadata(self.root.join(script))?
                .permissions()
                .mode();
            ensure!(mode & 0o111 != 0, "{script} is not executable");
        }
        let initrd = self.case.path("lab.cpio");
        let pack = "find . | LC_ALL=C sort | cpio --quiet --dereference -R 0:0 -o -H newc >\"$0\"";
        run_tool("sh", |sh| {
            sh.args(["-c", pack]).arg(&initrd).current_dir(&self.root)
        })?;
        Ok(initrd)
    }
}

/// Every path once, in order.
fn unique(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let set: BTreeSet<PathBuf> = paths.into_iter().collect();
    set.into_iter().collect()
}
