//! The report for people: bars to scale, then what is in each part.

use std::fmt::Write as _;

use super::bar::{Piece, bar};
use super::report::Report;
use crate::contents::{Contents, Source};
use crate::streams::plain;
use crate::terminal::{Colour, Style, human};

/// A string cannot refuse what is written to it.
macro_rules! say {
    ($out:expr, $($text:tt)*) => { writeln!($out, $($text)*).unwrap_or_default() };
}

/// All of the report. Nothing of the disk's steers the terminal.
pub(super) fn draw(report: &Report, style: Style) -> String {
    let mut out = String::new();
    let disk = &report.disk;
    say!(
        out,
        "{}  {}  {}\n",
        plain(&disk.path),
        human(disk.size),
        disk.guid
    );
    out += &bar(&partition_pieces(report), style);
    for part in &report.partitions {
        say!(
            out,
            "  {:<12} {:>10} at {:>10}  {:<24} {}",
            plain(&part.name),
            human(part.size),
            human(part.start),
            part.kind,
            part.guid
        );
    }
    boot_files(&mut out, report, style);
    root(&mut out, report, style);
    if let Some(contents) = &report.contents {
        sources(&mut out, contents);
        workloads(&mut out, report, contents);
    } else if let Some(machine) = &report.machine {
        let text = |key: &str| plain(machine[key].as_str().unwrap_or_default());
        say!(out, "\nmachine {} {}", text("name"), text("version"));
    }
    out
}

fn partition_pieces(report: &Report) -> Vec<Piece> {
    let colours = [Colour::Blue, Colour::Green, Colour::Cyan, Colour::Yellow];
    let mut pieces = Vec::new();
    let mut at = 0;
    for (index, part) in report.partitions.iter().enumerate() {
        free(&mut pieces, at, part.start);
        pieces.push(Piece {
            label: plain(&part.name),
            detail: human(part.size),
            size: part.size,
            colour: colours[index % colours.len()],
        });
        at = part.start.saturating_add(part.size);
    }
    free(&mut pieces, at, report.disk.size);
    pieces
}

/// Free space of some size; the tables and what rounds partitions up are not worth a piece.
fn free(pieces: &mut Vec<Piece>, from: u64, to: u64) {
    let size = to.saturating_sub(from);
    if size > 2 << 20 {
        pieces.push(Piece {
            label: "free".to_owned(),
            detail: human(size),
            size,
            colour: Colour::Plain,
        });
    }
}

fn boot_files(out: &mut String, report: &Report, style: Style) {
    say!(out, "\nEFI system partition");
    for file in &report.esp {
        say!(
            out,
            "  {:<12} {:>10}  {}",
            "",
            human(file.size),
            plain(&file.path)
        );
    }
    let uki = &report.uki;
    say!(
        out,
        "\nkernel image {} ({}), Linux {}",
        plain(&uki.path),
        human(uki.size as u64),
        plain(&uki.kernel)
    );
    let pieces: Vec<Piece> = uki
        .sections
        .iter()
        .filter(|section| section.size > 0)
        .map(|section| Piece {
            label: plain(&section.name),
            detail: human(section.size.into()),
            size: section.size.into(),
            colour: match section.name.as_str() {
                ".linux" => Colour::Green,
                ".initrd" => Colour::Yellow,
                _ => Colour::Blue,
            },
        })
        .collect();
    out.push_str(&bar(&pieces, style));
    for section in &uki.sections {
        say!(
            out,
            "  {:<12} {:>10}",
            plain(&section.name),
            human(section.size.into())
        );
    }
    for signer in &uki.signed_by {
        let fits = if signer.fits {
            "signed by"
        } else {
            "CHANGED since it was signed by"
        };
        say!(out, "  {fits} {}", plain(&signer.subject));
    }
    say!(out, "  command line {}", plain(&uki.command_line));
}

fn root(out: &mut String, report: &Report, style: Style) {
    let (colour, verdict) = if report.verified {
        (Colour::Green, "verified: every block of the root fits")
    } else {
        (Colour::Red, "DAMAGED: the root does not fit")
    };
    say!(
        out,
        "\nroot hash {}\n  {}",
        plain(&report.root_hash),
        style.paint(colour, verdict)
    );
}

fn sources(out: &mut String, contents: &Contents) {
    say!(
        out,
        "\nmachine {} {}, made by coracle {}",
        plain(&contents.name),
        plain(&contents.version),
        plain(&contents.coracle)
    );
    let package = |place: Option<usize>| {
        let package = place.and_then(|place| contents.packages.get(place));
        package.map_or_else(
            || "from a file".to_owned(),
            |package| format!("from {} {}", plain(&package.name), plain(&package.version)),
        )
    };
    let kernel = &contents.kernel;
    let loader = &contents.loader;
    say!(
        out,
        "  kernel       {} {}",
        plain(&kernel.release),
        package(kernel.package)
    );
    say!(
        out,
        "  boot loader  {} {}",
        plain(&loader.version),
        package(loader.package)
    );
    for program in &contents.programs {
        say!(
            out,
            "  program      {} {} ({})",
            plain(&program.name),
            plain(&program.version),
            human(program.size)
        );
    }
}

fn workloads(out: &mut String, report: &Report, contents: &Contents) {
    for workload in &contents.workloads {
        say!(
            out,
            "  workload {:<12} {}",
            plain(&workload.name),
            ports(report, &workload.name)
        );
        match &workload.source {
            Source::Image {
                reference,
                digest,
                signed_by,
            } => {
                say!(out, "    image      {} {}", plain(reference), plain(digest));
                for signer in signed_by {
                    say!(out, "    signed by  {}", plain(signer));
                }
            }
            Source::Debian {
                requested,
                packages,
                ..
            } => {
                say!(
                    out,
                    "    debian     {}: {} packages",
                    plain(&requested.join(" ")),
                    packages.len()
                );
                for package in contents.packages_at(packages) {
                    say!(
                        out,
                        "               {} {}",
                        plain(&package.name),
                        plain(&package.version)
                    );
                }
            }
        }
        for place in &workload.layers {
            let Some(layer) = report.layers.get(*place) else {
                continue;
            };
            let others = layer
                .workloads
                .iter()
                .filter(|name| **name != workload.name);
            let others: Vec<String> = others.map(|name| plain(name)).collect();
            let shared = match others.is_empty() {
                true => String::new(),
                false => format!(", shared with {}", others.join(" ")),
            };
            let id: String = plain(&layer.id).chars().take(12).collect();
            say!(
                out,
                "    layer      {id} {:>10}, {} names{shared}",
                human(layer.bytes),
                layer.names
            );
        }
    }
}

fn ports(report: &Report, workload: &str) -> String {
    let machine = report.machine.as_ref();
    let workloads = machine.and_then(|machine| machine["workloads"].as_array());
    let mut found = workloads.into_iter().flatten();
    let found = found.find(|found| found["name"] == workload);
    let ports = found.and_then(|found| found["ports"].as_array());
    let ports = ports.into_iter().flatten();
    ports
        .map(|port| format!("{}:{}", port["published"], port["target"]))
        .collect::<Vec<_>>()
        .join(" ")
}
