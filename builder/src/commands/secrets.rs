//! `coracle run --secret NAME=FILE`: QEMU hands a file's content over by fw_cfg, under the name that systemd's convention
//! for credentials has. The content itself is on no command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::vm::escape_commas;

/// QEMU's arguments for these secrets, of which the workloads ask for those in `asked`.
///
/// # Errors
/// A secret that no workload asks for or that is given twice, and a file that is none.
pub(super) fn arguments(
    asked: &[&str],
    given: &[(String, PathBuf)],
) -> Result<Vec<OsString>, Failure> {
    let mut line = Vec::new();
    for (at, (name, file)) in given.iter().enumerate() {
        check(asked, &given[..at], name)?;
        let is_file = std::fs::metadata(file).map(|metadata| metadata.is_file());
        let reason = match is_file {
            Ok(true) => None,
            Ok(false) => Some("it is no regular file".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            let file = file.display();
            return Err(Failure::Input(format!(
                "error: --secret {name}=…: cannot read {file}: {reason}"
            )));
        }
        let mut value = OsString::from(format!("name=opt/io.systemd.credentials/{name},file="));
        value.push(escape_commas(file));
        line.extend([OsString::from("-fw_cfg"), value]);
    }
    Ok(line)
}

fn check(asked: &[&str], before: &[(String, PathBuf)], name: &str) -> Result<(), Failure> {
    if before.iter().any(|(other, _)| other == name) {
        return Err(Failure::Input(format!(
            "error: --secret {name}=… is given twice\nhint: say once which file has it"
        )));
    }
    if asked.contains(&name) {
        return Ok(());
    }
    let mut known = asked.to_vec();
    known.sort_unstable();
    known.dedup();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Err(Failure::Input(format!(
        "error: --secret {name}=…: no workload asks for a secret {name}\nhint: the machine's workloads ask for {known}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_nobody_asks_for_is_refused() {
        let given = [("key".to_owned(), "/dev/null".into())];
        for (asked, reason) in [
            (&["kye"][..], "no workload asks for a secret key"),
            (&["key"], "no regular file"),
        ] {
            let error = arguments(asked, &given).unwrap_err();
            let text = format!("{error:?}");
            assert!(text.contains(reason), "{text}");
        }
    }
}
