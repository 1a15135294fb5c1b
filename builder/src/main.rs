//! The `coracle` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use builder::cli::Cli;
use builder::streams::tell;
use clap::Parser;

fn main() -> ExitCode {
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
