//! A command that ends at once never makes the runtime wait for ever, however it was started.
//!
//! `CORACLE_STORM_STARTS` sets how many starts there are in all.

use crate::harness::{Bundle, bundle};

/// Enough to meet a race now and then, and few enough for every run of the tests.
const STARTS: usize = 240;
/// Starters at the same time: they disturb each other's timing.
const STARTERS: usize = 4;

#[test]
fn no_start_of_a_command_that_ends_at_once_hangs() {
    let starts = match std::env::var("CORACLE_STORM_STARTS") {
        Ok(text) => text.parse().expect("CORACLE_STORM_STARTS is a number"),
        Err(_) => STARTS,
    };
    std::thread::scope(|scope| {
        for starter in 0..STARTERS {
            scope.spawn(move || {
                let Some(bundle) = bundle() else { return };
                let bundle = bundle.command("exit 7");
                for number in (starter..starts).step_by(STARTERS) {
                    // Each command of the runtime has a deadline in the harness.
                    WAYS[number / STARTERS % WAYS.len()](&bundle);
                    assert!(!bundle.state_directory().exists(), "state is left");
                }
                bundle.assert_gone();
            });
        }
    });
}

const WAYS: [fn(&Bundle); 3] = [run, run_detached, create_and_start];

fn run(bundle: &Bundle) {
    let output = bundle.run();
    assert_eq!(output.status, 7, "{output:?}");
}

fn run_detached(bundle: &Bundle) {
    bundle.runtime(&["run", "--detach", &bundle.id]).good();
    end(bundle);
}

fn create_and_start(bundle: &Bundle) {
    bundle.runtime(&["create", &bundle.id]).good();
    bundle.runtime(&["start", &bundle.id]).good();
    end(bundle);
}

fn end(bundle: &Bundle) {
    bundle.await_status("stopped");
    bundle.runtime(&["delete", &bundle.id]).good();
}
