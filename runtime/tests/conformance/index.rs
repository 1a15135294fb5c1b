//! Keeps `docs/conformance.md` the list of the tests that there are.

use std::fmt::Write;
use std::path::Path;

const SOURCES: [&str; 6] = [
    include_str!("operations.rs"),
    include_str!("document.rs"),
    include_str!("process.rs"),
    include_str!("linux.rs"),
    include_str!("hooks.rs"),
    include_str!("mapped.rs"),
];
const DOCUMENT: &str = include_str!("../../../docs/conformance.md");
const HEAD: &str = "# Conformance\n\nRequirements of the OCI runtime specification 1.2 and the tests in `runtime/tests/conformance` that hold the \
    runtime to\nthem: on the host with `cargo test`, and by `make test` also in a guest with pure cgroup v2. A test keeps this list\ncomplete.\n\n\
    | specification | test |\n|---|---|\n";

/// A row for each test: the section from its comment, and its name.
fn table() -> String {
    let mut table = HEAD.to_owned();
    for source in SOURCES {
        for (section, name) in rows(source) {
            writeln!(table, "| {section} | `{name}` |").expect("a string takes all");
        }
    }
    table
}

fn rows(source: &str) -> Vec<(&str, &str)> {
    let mut section = None;
    let mut rows = Vec::new();
    for line in source.lines() {
        if let Some(comment) = line.strip_prefix("/// ") {
            if comment.contains(".md, ") {
                section = Some(comment.trim_end_matches('.'));
            }
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split('(').next().unwrap_or(rest);
            rows.extend(section.take().map(|section| (section, name)));
        }
    }
    rows
}

#[test]
fn the_document_names_every_test() {
    let table = table();
    if table != DOCUMENT {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance.md");
        let _ = std::fs::write(&place, table);
        panic!(
            "docs/conformance.md is not the list of the tests; {} is",
            place.display()
        );
    }
}

#[test]
fn every_test_names_its_section() {
    for source in SOURCES {
        assert_eq!(source.matches("\n#[test]\n").count(), rows(source).len());
    }
}
