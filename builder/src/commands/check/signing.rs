//! What `check` says of Secure Boot: whose signature the image will have, and whether the certificate is still valid.

use std::time::SystemTime;

use config::Diagnostic;

use super::line;
use crate::failure::Failure;
use crate::inputs;
use crate::machine_file::MachineFile;

/// Adds the rows.
///
/// # Errors
/// What the table names does not fit together, or is out of its time.
pub(super) fn describe(
    out: &mut String,
    file: &MachineFile,
    now: SystemTime,
) -> Result<(), Failure> {
    let (Some(input), Some(table)) = (inputs::secure_boot(file)?, &file.spec.secure_boot) else {
        return Ok(());
    };
    let certificate = &input.signing.certificate;
    if let Some(reason) = certificate.out_of_time(now) {
        let place = table.certificate.span();
        let mistake = Diagnostic::at(
            place,
            format!("`{}`: {reason}", table.certificate.get_ref()),
        );
        return Err(file.mistake(mistake.hint(
            "firmware does not look at the time, but who checks the image by hand does: make another with `coracle keys new DIR`",
        )));
    }
    let until = certificate.not_after();
    line(
        out,
        2,
        "signed by",
        &format!("{}, valid until {until}", certificate.subject()),
    );
    if !input.updates.is_empty() {
        line(out, 2, "keys", "on the ESP, for a firmware that has none");
    }
    Ok(())
}
