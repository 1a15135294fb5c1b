//! The runtime held against the OCI runtime specification 1.2: one test for each requirement, named in
//! `docs/conformance.md`. Each test begins with the file and section that it is about.

#[allow(dead_code)] // It has what the other test binary needs, too.
#[path = "../container/harness.rs"]
mod harness;

mod document;
mod hooks;
mod index;
mod linux;
mod mapped;
mod operations;
mod process;

use harness::Bundle;
use serde_json::Value;

/// Runs the document and returns the line of the failure; nothing may be left.
#[track_caller]
fn refused(bundle: &Bundle) -> String {
    let failure = bundle.run().failure();
    bundle.assert_gone();
    failure
}

/// The state as the specification has it.
#[track_caller]
fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.runtime(&["state", &bundle.id]).good()).expect("JSON")
}
