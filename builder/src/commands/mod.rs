//! The commands: each takes its arguments and does the work. Results go to standard output, all else to standard
//! error.

mod build;
mod check;
mod inspect;
mod logs;
mod run;
mod secrets;
mod timeline;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::progress::Progress;

/// Carries out a command.
///
/// # Errors
/// The command's failure, to be rendered once.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    let progress = if cli.quiet {
        Progress::silent()
    } else {
        Progress::stderr()
    };
    match cli.command {
        Command::Check { file, firewall } => check::check(&file, firewall),
        Command::Build(arguments) => build::build(&arguments, &progress),
        Command::Run(arguments) => run::run(&arguments, &progress),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Inspect { disk, json } => inspect::inspect(&disk, json),
    }
}
