//! The `coracle` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use builder::cli::Cli;
use builder::streams::tell;
use clap::Parser;

fn main() -> ExitCode {
    match builder::commands::execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure.render());
            ExitCode::from(failure.exit_code())
        }
    }
}
