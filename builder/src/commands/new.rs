//! `coracle new`: a commented starter file that builds as it is.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use config::manifest::Text;
use config::value;

use crate::cli::{New, Profile};
use crate::failure::Failure;
use crate::streams::{give, tell_line};

/// The file's name in a folder.
const FILE: &str = "os.toml";
const MACHINE: &str = include_str!("new/machine.toml");
const SERVICE: &str = include_str!("new/service.toml");
const NETWORK: &str = include_str!("new/network.toml");

/// Writes the file and prints its path; what is there stays as it is.
pub(super) fn new(arguments: &New) -> Result<(), Failure> {
    let folder = arguments
        .folder
        .clone()
        .unwrap_or_else(|| PathBuf::from("."));
    let text = starter(&name_of(&folder)?, arguments.profile);
    let cannot = |what: &str, error: &std::io::Error| {
        Failure::Input(format!(
            "error: cannot {what} {}: {error}",
            folder.display()
        ))
    };
    std::fs::create_dir_all(&folder).map_err(|error| cannot("make", &error))?;
    let path = folder.join(FILE);
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::Input(format!(
                "error: {} is there already, and stays as it is\nhint: name another folder, as in coracle new my-machine",
                path.display()
            )));
        }
        Err(error) => return Err(cannot("write in", &error)),
    };
    file.write_all(text.as_bytes())?;
    give(&format!("{}\n", path.display()))?;
    tell_line(&format!("next: coracle run {}", path.display()));
    Ok(())
}

/// The machine is named as its folder is, made fit if need be.
fn name_of(folder: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(folder)?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let fit = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.chars().map(fit).collect();
    let name = name
        .trim_matches('-')
        .get(..name.trim_matches('-').len().min(40));
    let name = name.unwrap_or_default().trim_end_matches('-').to_owned();
    let text = Text::new(0..name.len(), name.clone());
    Ok(match value::dns_label(&text, "machine") {
        Ok(_) => name,
        Err(_) => "machine".to_owned(),
    })
}

fn starter(name: &str, profile: Profile) -> String {
    let more = match profile {
        Profile::Minimal => "",
        Profile::Service => SERVICE,
        Profile::Network => NETWORK,
    };
    let machine = MACHINE.replace("@NAME@", name);
    format!("{machine}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_starter_is_a_machine() {
        for profile in [Profile::Minimal, Profile::Service, Profile::Network] {
            let text = starter("my-machine", profile);
            let spec =
                config::parse(&text).unwrap_or_else(|error| panic!("{profile:?}: {error:?}"));
            assert_eq!(spec.name, "my-machine");
            assert!(text.lines().filter(|line| line.contains('#')).count() > 5);
        }
    }

    #[test]
    fn the_machine_is_named_as_its_folder() {
        for (folder, want) in [
            ("/x/web", "web"),
            ("/x/My Machine!", "my-machine"),
            ("/", "machine"),
            ("/x/ä", "machine"),
        ] {
            assert_eq!(name_of(Path::new(folder)).unwrap(), want, "{folder}");
        }
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = New {
            folder: Some(folder.path().to_owned()),
            profile: Profile::Service,
        };
        let path = folder.path().join(FILE);
        std::fs::write(&path, "mine").unwrap();
        let error = new(&arguments).unwrap_err().render();
        assert!(error.contains("stays as it is"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
