//! `[secure_boot]`: who signs what the firmware is to start. Whether the files are what they should be is the builder's to
//! check.

use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;

/// Who signs, and who is trusted.
#[derive(Debug, Clone)]
pub struct SecureBoot {
    /// The certificate, relative to the file's folder.
    pub certificate: Text,
    /// What makes the signatures.
    pub signed_by: SignedBy,
    /// A folder of updates (`PK.auth`, `KEK.auth`, `db.auth`) that the boot loader offers to a firmware without keys.
    pub enroll: Option<Text>,
}

/// What makes the signatures.
#[derive(Debug, Clone)]
pub enum SignedBy {
    /// A private key, relative to the file's folder.
    Key(Text),
    /// A command with its arguments, never empty; it runs in the file's folder.
    Command {
        /// Program and arguments.
        words: Vec<String>,
        /// Where the file says so.
        place: std::ops::Range<usize>,
    },
}

impl SecureBoot {
    /// Judges the table.
    pub(crate) fn new(table: &manifest::SecureBoot, mistakes: &mut Mistakes) -> Option<Self> {
        let signed_by = match (&table.key, &table.sign_command) {
            (Some(key), None) => SignedBy::Key(key.clone()),
            (None, Some(command)) => {
                let words: Vec<String> = command
                    .get_ref()
                    .iter()
                    .map(|word| word.get_ref().clone())
                    .collect();
                if words.first().is_none_or(String::is_empty) {
                    mistakes.push(
                        Diagnostic::at(command.span(), "`sign_command` names no program").hint(
                            "as in sign_command = [\"openssl\", \"pkeyutl\", \"-sign\", \"-inkey\", \"db.key\", \"-pkeyopt\", \"digest:sha256\"]",
                        ),
                    );
                    return None;
                }
                SignedBy::Command {
                    words,
                    place: command.span(),
                }
            }
            (Some(key), Some(_)) => {
                mistakes.push(
                    Diagnostic::at(key.span(), format!("`key = \"{}\"` beside `sign_command`", key.get_ref()))
                        .hint("either the build signs with a key, or a command does: remove one of the two keys"),
                );
                return None;
            }
            (None, None) => {
                mistakes.push(
                    Diagnostic::at(
                        table.certificate.span(),
                        format!(
                            "`certificate = \"{}\"` without a key to sign with",
                            table.certificate.get_ref()
                        ),
                    )
                    .hint("add key = \"db.key\", or sign_command where the key lives elsewhere"),
                );
                return None;
            }
        };
        Some(Self {
            certificate: table.certificate.clone(),
            signed_by,
            enroll: table.enroll.clone(),
        })
    }
}
