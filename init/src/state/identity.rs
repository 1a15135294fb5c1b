//! The machine's own identifier, machine-id(5): the same at each boot, another on each machine.
//!
//! Kept on the state partition. A new one is the firmware's (SMBIOS 3.6 §7.2.1, the system's UUID), or else random.
//! It is at `/run/machine-id`, for the machine's own root; workloads do not see it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use rustix::rand::{GetRandomFlags, getrandom};

use super::{State, own};

const NAME: &str = "machine-id";
const PATH: &str = "/run/machine-id";
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";

/// Finds or makes it, keeps it where there is a state to keep it on, and shows it in `/run`.
///
/// # Errors
/// What is to be told.
pub fn settle(state: Option<&State>) -> Result<(), String> {
    let kept = state.and_then(|state| {
        let bytes = own::read(&state.mount_point, NAME).ok()?;
        parse(&String::from_utf8(bytes).ok()?)
    });
    let id = kept.clone().unwrap_or_else(make);
    let explain = |error: io::Error| format!("machine-id: {error}");
    fs::write(PATH, format!("{id}\n")).map_err(explain)?;
    fs::set_permissions(PATH, fs::Permissions::from_mode(0o444)).map_err(explain)?;
    match state {
        Some(state) if kept.is_none() && !state.read_only => {
            own::write(&state.mount_point, NAME, format!("{id}\n").as_bytes()).map_err(explain)
        }
        _ => Ok(()),
    }
}

/// 32 lower-case hexadecimal digits, not all the same.
fn parse(text: &str) -> Option<String> {
    let digits = text.trim();
    let is_id = digits.len() == 32
        && digits
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && digits.bytes().any(|b| b != digits.as_bytes()[0]);
    is_id.then(|| digits.to_owned())
}

fn make() -> String {
    let firmware = fs::read_to_string(PRODUCT_UUID).unwrap_or_default();
    of_firmware(&firmware).unwrap_or_else(|| {
        let mut bytes = [0_u8; 16];
        // Never waits: at this point of a boot there may be nothing to wait for.
        let _ = getrandom(&mut bytes, GetRandomFlags::INSECURE);
        random(bytes)
    })
}

/// The firmware's UUID, unless it is one of those that say "not set".
fn of_firmware(uuid: &str) -> Option<String> {
    let digits: String = uuid.trim().to_ascii_lowercase().replace('-', "");
    // What mainboards without a number of their own have.
    let placeholders = [
        "03000200040005000006000700080009",
        "00020003000400050006000700080009",
    ];
    parse(&digits).filter(|id| !placeholders.contains(&id.as_str()))
}

/// A UUID of version 4 (RFC 9562), as machine-id(5) asks.
fn random(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmwares_uuid_counts_unless_it_says_nothing() {
        let uuid = "4C4C4544-0042-3510-8054-B4C04F564433\n";
        assert_eq!(
            of_firmware(uuid).unwrap(),
            "4c4c4544004235108054b4c04f564433"
        );
        for nothing in [
            "",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
            "not a uuid",
        ] {
            assert_eq!(of_firmware(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_random_one_is_a_uuid_of_version_4() {
        let id = random([0xff; 16]);
        assert_eq!(id, "ffffffffffff4fffbfffffffffffffff");
        assert_eq!(parse(&id), Some(id));
    }

    #[test]
    fn only_32_digits_are_an_identifier() {
        for bad in [
            "",
            "4c4c",
            "4C4C4544004235108054B4C04F564433",
            "uninitialized",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
