//! `coracle check`: the file is read and validated, and what it says is told.

use std::fmt::Write as _;
use std::time::SystemTime;

mod confinement;
mod interfaces;
mod network;
mod signing;
mod supervision;

use config::boot::OnDamage;
use config::ending::FailureAction;
use config::spec::{HardwareProfile, KernelSource, SECRETS_PATH, Source, Spec, Workload};

use crate::cli::Check;
use crate::failure::Failure;
use crate::firewall;
use crate::machine_file::MachineFile;
use crate::message::Message;
use crate::streams::{give, show};

/// Checks a file and prints the machine, or its firewall.
///
/// # Errors
/// Every mistake in the file.
pub(super) fn check(arguments: &Check) -> Result<(), Failure> {
    let file = MachineFile::load(&arguments.file)?;
    let text = if arguments.firewall {
        let ruleset = firewall::compile(&file.spec);
        let none = "# This machine has no firewall: it lets all in, and no workload has a network of its own.\n";
        ruleset.map_or_else(|| none.to_owned(), |ruleset| ruleset.text())
    } else {
        let mut text = describe(&file.spec);
        signing::describe(&mut text, &file, SystemTime::now())?;
        text
    };
    if arguments.telling.json {
        return give(&Message::Machine { text: &text }.line());
    }
    show(&text)
}

fn hardware(spec: &Spec) -> String {
    let profile = match spec.hardware {
        HardwareProfile::Vm => "vm",
        HardwareProfile::Cloud => "cloud",
        HardwareProfile::Metal => "metal",
        HardwareProfile::None => "none",
    };
    let named = spec.drivers.iter().map(String::as_str);
    [profile]
        .into_iter()
        .chain(named)
        .collect::<Vec<_>>()
        .join(" ")
}

fn describe(spec: &Spec) -> String {
    let mut out = format!(
        "{} {}, hostname {}\n",
        spec.name, spec.version, spec.hostname
    );
    let kernel = match &spec.kernel {
        KernelSource::Package { name, suite } => {
            format!(
                "{name} (Debian{})",
                suite.as_ref().map(|s| format!(" {s}")).unwrap_or_default()
            )
        }
        KernelSource::Files { image, .. } => image.get_ref().clone(),
    };
    let state = spec
        .state_size
        .map_or("none: nothing is kept over a reboot".to_owned(), |size| {
            let on_damage = match spec.on_damage {
                OnDamage::Keep => "what is readable of a damaged one is kept",
                OnDamage::Reset => "a damaged one is made anew, empty",
                OnDamage::Halt => "with a damaged one the machine ends",
            };
            format!("{} MiB at least; {on_damage}", size >> 20)
        });
    let hardware = hardware(spec);
    for (what, value) in [
        ("kernel", kernel),
        ("hardware", hardware),
        ("state", state),
        ("on failure", on_failure(spec)),
    ] {
        line(&mut out, 2, what, &value);
    }
    for interface in &spec.interfaces {
        line(&mut out, 2, "network", &interfaces::describe(interface));
    }
    let rows = network::machine_rows(spec);
    for (what, value) in rows.into_iter().chain(supervision::machine_rows(spec)) {
        line(&mut out, 2, what, &value);
    }
    for workload in &spec.workloads {
        describe_workload(&mut out, spec, workload);
    }
    out
}

fn on_failure(spec: &Spec) -> String {
    let does = match spec.failure.action {
        FailureAction::Reboot => "starts again",
        FailureAction::PowerOff => "switches itself off",
        FailureAction::Halt => "halts",
    };
    format!("{does} after {} s", spec.failure.delay.as_secs_f64())
}

fn line(out: &mut String, indent: usize, what: &str, value: &str) {
    writeln!(out, "{:indent$}{what:<13}{value}", "").unwrap_or_default();
}

fn describe_workload(out: &mut String, spec: &Spec, workload: &Workload) {
    writeln!(out, "  workload {}", workload.name).unwrap_or_default();
    let root = match &workload.source {
        Source::Image(reference) => reference.get_ref().clone(),
        Source::Registry(reference) => reference.get_ref().to_string(),
        Source::Debian(packages) => format!("Debian packages {}", packages.get_ref().join(" ")),
    };
    let mut rows = vec![("root", root)];
    if let Some(command) = &workload.command {
        rows.push(("command", command.join(" ")));
    }
    rows.extend(network::port_rows(workload));
    for volume in &workload.volumes {
        rows.push((
            "volume",
            format!(
                "{} at {}{}{}",
                volume.name,
                volume.path,
                if volume.read_only { ", read-only" } else { "" },
                match volume.size {
                    Some(bytes) => format!(", at most {} KiB", bytes >> 10),
                    None => ", as large as the state has room".to_owned(),
                },
            ),
        ));
    }
    for secret in &workload.secrets {
        let path = secret.path.clone();
        let place = path.unwrap_or_else(|| format!("{SECRETS_PATH}/{}", secret.name));
        let optional = if secret.optional { ", optional" } else { "" };
        rows.push(("secret", format!("{} at {place}{optional}", secret.name)));
    }
    rows.extend(supervision::rows(workload));
    rows.extend(confinement::rows(workload));
    rows.extend(network::rows(spec, workload));
    for (what, value) in rows {
        line(out, 4, what, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn examples() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
    }

    fn shown(example: &str) -> String {
        describe(&MachineFile::load(&examples().join(example)).unwrap().spec)
    }

    #[test]
    fn every_example_is_a_machine() {
        let mut count = 0;
        for entry in std::fs::read_dir(examples()).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let file = MachineFile::load(&path);
                assert!(file.is_ok(), "{}: {:?}", path.display(), file.err());
                count += 1;
            }
        }
        assert!(count >= 3, "{count}");
    }

    #[test]
    fn the_examples_of_pods_and_sockets_tell_who_reaches_whom() {
        for (example, lines) in [
            (
                "socket.toml",
                &[
                    "  socket       site on a Unix socket, mode 0666\n",
                    "    started by   the first connection to site\n",
                    "    connects to  socket site at /run/site.sock\n",
                    "    network      none but loopback\n",
                ][..],
            ),
            (
                "pod.toml",
                &[
                    "  pod          site of pages, server, proxy, no network but loopback\n",
                    "  socket       http on 0.0.0.0 port 8080\n",
                    "    done when    it exits with status 0\n",
                    "    ready when   `busybox wget",
                    "    network      loopback of pod site\n",
                    "    volume       pages at /srv, read-only, at most 8192 KiB\n",
                ],
            ),
        ] {
            let shown = shown(example);
            for line in lines {
                assert!(shown.contains(line), "no {line:?} in\n{shown}");
            }
        }
    }
}
