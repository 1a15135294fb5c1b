//! One way to start the container, and what one start of it cost.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::bundle::Bundle;

/// A program that runs the bundle.
pub(crate) struct Contender {
    pub(crate) name: String,
    words: Vec<OsString>,
    kind: Kind,
}

enum Kind {
    Floor,
    Runtime,
}

/// Of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// From fork to the end of the process that was started.
    pub(crate) nanoseconds: u64,
    /// What of them, and of its children's, was spent on a processor.
    pub(crate) busy_nanoseconds: u64,
    /// Largest resident memory of the runtime and of those that it waited for.
    pub(crate) peak_kib: u64,
}

impl Contender {
    pub(crate) fn floor(tools: &Path) -> Self {
        Self {
            name: "floor (C)".into(),
            words: vec![tools.join("floor").into()],
            kind: Kind::Floor,
        }
    }

    /// A runtime by its command line: the program, and options that it needs on this host.
    pub(crate) fn runtime(line: &str) -> Self {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let program = words.first().copied().unwrap_or_default();
        let words_with_path = words.iter().map(OsString::from).collect();
        let file = Path::new(program).file_name();
        let name = file.map(|name| name.to_string_lossy().into_owned());
        words[0] = name.as_deref().unwrap_or(program);
        Self {
            name: words.join(" "),
            words: words_with_path,
            kind: Kind::Runtime,
        }
    }

    /// Runs the container once.
    pub(crate) fn run(&self, tools: &Path, bundle: &Bundle, id: &str) -> Result<Sample, String> {
        let mut command = Command::new(tools.join("floor"));
        command.arg("measure").args(&self.words);
        match self.kind {
            Kind::Floor => command
                .args(["floor".as_ref(), bundle.rootfs().as_os_str()])
                .args([bundle.filter(), bundle.cgroup.join(id)])
                .arg("/bin/true"),
            Kind::Runtime => command
                .arg("--root")
                .arg(bundle.state())
                .args(["run", "--bundle"])
                .arg(&bundle.directory)
                .arg(id),
        };
        let output = command
            .output()
            .map_err(|error| format!("{}: {error}", tools.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        match numbers.as_slice() {
            &[nanoseconds, busy_nanoseconds, peak_kib, 0] => Ok(Sample {
                nanoseconds,
                busy_nanoseconds,
                peak_kib,
            }),
            _ => {
                let reason = String::from_utf8_lossy(&output.stderr);
                Err(format!("{}: {text}{reason}", self.name))
            }
        }
    }
}

impl Sample {
    /// Of times and memory, each by itself.
    pub(crate) fn median(samples: Vec<Self>) -> Self {
        let middle = |value: fn(&Self) -> u64| {
            let mut values: Vec<u64> = samples.iter().map(value).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        Self {
            nanoseconds: middle(|sample| sample.nanoseconds),
            busy_nanoseconds: middle(|sample| sample.busy_nanoseconds),
            peak_kib: middle(|sample| sample.peak_kib),
        }
    }
}
