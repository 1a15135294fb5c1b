//! `coracle keys new`: keys for Secure Boot.

use std::time::SystemTime;

use crate::cli::Keys;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::secure_boot::{KeySet, NewKeys};
use crate::streams::give;

/// Makes a set and says what to write into a machine's file.
pub(super) fn keys(arguments: &Keys, progress: &Progress) -> Result<(), Failure> {
    let Keys::New(arguments) = arguments;
    let new = NewKeys {
        owner: arguments.owner.clone(),
        bits: if arguments.bits == "3072" { 3072 } else { 2048 },
        now: SystemTime::now(),
    };
    let fail = |error: crate::secure_boot::SecureBootError| Failure::work_with_hint(error, None);
    let folder = &arguments.folder;
    let set = {
        let _step = progress.step("making three keys", None);
        KeySet::generate(&new).map_err(fail)?
    };
    set.write(folder).map_err(fail)?;
    progress.note(format!(
        "keep {folder}/*.key secret, and PK.key and KEK.key away from where images are built\n\
         for a machine's file: [secure_boot] key = \"{folder}/db.key\", certificate = \"{folder}/db.pem\"",
        folder = folder.display()
    ));
    give(&format!("{}\n", folder.display()))
}
