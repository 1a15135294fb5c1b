//! Who signs the image, and what a firmware without keys is offered.

use std::ops::Range;

use config::Diagnostic;
use config::manifest::Text;
use config::spec::SignedBy;

use crate::failure::Failure;
use crate::machine_file::MachineFile;
use crate::secure_boot::{Certificate, SecureBootError, SignCommand, Signer, Signing, read_key};

/// The updates that systemd-boot looks for, in the order in which it writes them.
const UPDATES: [&str; 3] = ["db.auth", "KEK.auth", "PK.auth"];

/// What `[secure_boot]` comes to.
#[derive(Debug)]
pub struct SecureBootInput {
    /// Signs.
    pub signing: Signing,
    /// Updates for a firmware without keys, by file name.
    pub updates: Vec<(&'static str, Vec<u8>)>,
}

/// Reads and checks all that `[secure_boot]` names; a command is not asked.
///
/// # Errors
/// At the place in the file that names what does not fit.
pub fn secure_boot(file: &MachineFile) -> Result<Option<SecureBootInput>, Failure> {
    let Some(table) = &file.spec.secure_boot else {
        return Ok(None);
    };
    let path = |text: &Text| file.folder().join(text.get_ref());
    let certificate = Certificate::read(&path(&table.certificate))
        .map_err(|error| at(file, table.certificate.span(), &error))?;
    let (signer, place) = match &table.signed_by {
        SignedBy::Key(key) => {
            let read = read_key(&path(key)).map_err(|error| at(file, key.span(), &error))?;
            (Signer::Key(Box::new(read)), key.span())
        }
        SignedBy::Command { words, place } => {
            let command = SignCommand::new(words.clone(), file.folder().to_owned());
            (Signer::Command(command), place.clone())
        }
    };
    signer
        .check(&certificate)
        .map_err(|error| at(file, place, &error))?;
    let mut updates = Vec::new();
    if let Some(folder) = &table.enroll {
        for name in UPDATES {
            let bytes = std::fs::read(path(folder).join(name)).map_err(|error| {
                let mistake = format!("`{}`: cannot read {name} in it: {error}", folder.get_ref());
                file.mistake(Diagnostic::at(folder.span(), mistake).hint(
                    "a folder with PK.auth, KEK.auth and db.auth, as `coracle keys new` makes it",
                ))
            })?;
            updates.push((name, bytes));
        }
    }
    Ok(Some(SecureBootInput {
        signing: Signing {
            signer,
            certificate,
        },
        updates,
    }))
}

fn at(file: &MachineFile, span: Range<usize>, error: &SecureBootError) -> Failure {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}"));
    let mistake = Diagnostic::at(span, format!("{error}{}", cause.unwrap_or_default()));
    file.mistake(match error.hint() {
        Some(hint) => mistake.hint(hint),
        None => mistake,
    })
}
