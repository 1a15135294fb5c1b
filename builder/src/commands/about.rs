//! `coracle schema`, `completions` and `man`: what the language and the command line say of themselves, for editors, shells and
//! man(1).

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::streams::give;

/// Prints the schema of the machine's file.
pub(super) fn schema() -> Result<(), Failure> {
    let schema = serde_json::to_string_pretty(&crate::schema::schema())?;
    give(&format!("{schema}\n"))
}

/// Prints a shell's completions.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "coracle", &mut text);
    give(&String::from_utf8_lossy(&text))
}

/// Writes a page for the command and one for each of its commands into a folder, which is made if it is missing.
pub(super) fn man(folder: &Path) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::work(
            anyhow::Error::new(error).context(format!("cannot write in {}", folder.display())),
        )
    };
    fs::create_dir_all(folder).map_err(cannot)?;
    for (name, page) in pages().map_err(cannot)? {
        fs::write(folder.join(&name), page).map_err(cannot)?;
        give(&format!("{}\n", folder.join(name).display()))?;
    }
    Ok(())
}

/// The pages with their names. They carry no date.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command().name("coracle");
    command.build();
    let commands = command.get_subcommands();
    let own = commands.filter(|command| command.get_name() != "help");
    let named: Vec<_> = own
        .map(|own| (format!("coracle-{}", own.get_name()), own.clone()))
        .collect();
    let all = [("coracle".to_owned(), command)].into_iter().chain(named);
    all.map(|(name, command)| {
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(command).title(name.clone()).date("");
        man.render(&mut page)?;
        Ok((format!("{name}.1"), page))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["coracle.1", "coracle-build.1", "coracle-verify.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let page = String::from_utf8_lossy(&pages[0].1).into_owned();
        assert!(page.contains(".TH coracle 1"), "{page}");
    }
}
