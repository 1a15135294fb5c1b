//! The values of options: numbers, users, sizes, durations. Strict: no sign, radix prefix, space or trailing text
//! that the form does not have, and nothing that wraps round.

use std::time::Duration;

use super::command::UserOption;
use crate::error::{Error, Result};

/// An unsigned decimal number: digits only, so that `+1`, `0x0` and ` 1` are no numbers.
pub(super) fn unsigned<T: TryFrom<u64>>(option: &str, text: &str) -> Result<T> {
    digits(text)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| wrong(option, text, "a number in range"))
}

/// A decimal number, negative perhaps.
pub(super) fn signed(option: &str, text: &str) -> Result<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let number = digits(rest).and_then(|number| i64::try_from(number).ok());
    let number = number.map(|number| if negative { -number } else { number });
    number.ok_or_else(|| wrong(option, text, "a number in range"))
}

/// Bytes with a unit of 1024 steps perhaps (`64M`, `1gb`, `2GiB`); `-1` is unlimited.
pub(super) fn size(option: &str, text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let shift = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong(option, text, "a size")),
    };
    digits(&text[..end])
        .and_then(|number| number.checked_mul(1 << shift))
        .and_then(|number| i64::try_from(number).ok())
        .ok_or_else(|| wrong(option, text, "a size"))
}

/// `UID[:GID]`. Names are not looked up: engines do that, and the container's files are not to be trusted.
pub(super) fn user(text: &str) -> Result<UserOption> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    Ok(UserOption {
        uid: id("user", uid)?,
        gid: gid.map_or(Ok(0), |gid| id("user", gid))?,
    })
}

/// A user or group id. The largest number means "leave as it is" to the kernel, so it is none.
pub(super) fn id(option: &str, text: &str) -> Result<u32> {
    match unsigned(option, text)? {
        u32::MAX => Err(wrong(option, text, "an id")),
        id => Ok(id),
    }
}

/// A duration as Go writes it, of one unit (`5s`, `100ms`, `1m`); it must not be zero.
pub(super) fn duration(option: &str, text: &str) -> Result<Duration> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = (digits(&text[..end]), &text[end..]);
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    number
        .zip(milliseconds)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|&duration| duration > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| wrong(option, text, "a duration such as 5s"))
}

pub(super) fn wrong(option: &str, text: &str, expected: &str) -> Error {
    Error::Usage(format!("--{option} {text:?} is not {expected}"))
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_plain_numbers_and_nothing_else() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1000", Some((1000, 0))),
            ("1000:100", Some((1000, 100))),
            ("4294967294:4294967294", Some((u32::MAX - 1, u32::MAX - 1))),
            ("", None),
            (":", None),
            (":0", None),
            ("1000:", None),
            ("-1", None),
            ("+1", None),
            ("0x0", None),
            ("0:0x0", None),
            ("4294967295", None),
            ("4294967296", None),
            ("0:4294967295", None),
            ("18446744073709551616", None),
            ("1000:100:10", None),
            ("1000 ", None),
            (" 1000", None),
            ("1000\n", None),
            ("1000x", None),
            ("root", None),
            ("1e3", None),
            ("１", None),
        ] {
            let parsed = user(text).ok().map(|user| (user.uid, user.gid));
            assert_eq!(parsed, expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_have_units_and_do_not_wrap() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("4096", Some(4096)),
            ("64M", Some(64 << 20)),
            ("1gb", Some(1 << 30)),
            ("2GiB", Some(2 << 30)),
            ("-2", None),
            ("M", None),
            ("1.5G", None),
            ("64 M", None),
            ("9223372036854775808", None),
            ("8192p", None),
            ("18446744073709551615k", None),
        ] {
            assert_eq!(size("memory", text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m", Some(60_000)),
            ("5", None),
            ("0s", None),
            ("s", None),
            ("18446744073709551615h", None),
        ] {
            let parsed = duration("interval", text).ok();
            assert_eq!(parsed, expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_decimal_and_in_range() {
        assert_eq!(unsigned::<u16>("x", "65535").ok(), Some(u16::MAX));
        assert!(unsigned::<u16>("x", "65536").is_err());
        assert_eq!(signed("x", "-1").ok(), Some(-1));
        for text in ["", "-", "--1", "1-", "0x1", "9223372036854775808"] {
            assert!(signed("x", text).is_err(), "{text:?}");
        }
    }
}
