//! The commands: each takes its arguments and does the work. Results go to standard output, all else to standard
//! error.

mod about;
mod build;
mod check;
mod inspect;
mod keys;
mod logs;
mod new;
mod run;
mod sbom;
mod secrets;
mod timeline;
mod update;
mod verify;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::progress::Progress;

/// Carries out a command.
///
/// # Errors
/// The command's failure, to be rendered once.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    let progress = match (cli.command.tells_json(), cli.quiet) {
        (true, false) => Progress::messages(),
        (false, false) => Progress::stderr(),
        (_, true) => Progress::silent(),
    };
    match cli.command {
        Command::Check(arguments) => check::check(&arguments),
        Command::Build(arguments) => build::build(&arguments, &progress),
        Command::Update(arguments) => update::update(&arguments, &progress),
        Command::Run(arguments) => run::run(&arguments, &progress),
        Command::Keys(arguments) => keys::keys(&arguments, &progress),
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Sbom(arguments) => sbom::sbom(&arguments),
        Command::New(arguments) => new::new(&arguments),
        Command::Schema => about::schema(),
        Command::Completions { shell } => about::completions(shell),
        Command::Man { folder } => about::man(&folder),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
    }
}
