//! The `coracle` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use builder::cli::Cli;
use builder::streams::tell;
use clap::Parser;

fn main() -> ExitCode {
    // Who may not write files as long as an image is told so, like one whose disk is full, instead of killed (SIGXFSZ).
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    let cli = Cli::parse();
    let as_json = cli.command.tells_json();
    match builder::commands::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if as_json {
                failure.send();
            } else {
                tell(&failure.render());
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
