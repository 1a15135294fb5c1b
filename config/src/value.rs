//! The values of the language: sizes, durations, names, ports, references. Each parser takes a text with its
//! place and gives the value or a [`Diagnostic`] that quotes the text. No value is ever guessed.

use std::time::Duration;

use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::Text;
use crate::network::port_number;
use crate::registry::{self, Reference};

/// A parser's answer.
pub type Parsed<T> = Result<T, Diagnostic>;

pub(crate) fn wrong(
    text: &Text,
    what: impl std::fmt::Display,
    hint: impl Into<String>,
) -> Diagnostic {
    Diagnostic::at(text.span(), format!("`{}` {what}", text.get_ref())).hint(hint)
}

const SIZE_UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A size such as `256MiB`, in bytes.
///
/// # Errors
/// No whole number before the unit, no unit or an unknown one, or more than 2⁶³ − 1 bytes.
pub fn size(text: &Text) -> Parsed<u64> {
    let (number, unit) = split_number(text.get_ref());
    let units = SIZE_UNITS.map(|(name, _)| name);
    if number.is_empty() || unit.starts_with('.') {
        return Err(wrong(
            text,
            "is no size",
            "write a whole number and a unit, as in \"256MiB\"",
        ));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let hint = match unit.to_ascii_lowercase().trim_end_matches(['b', 'i']) {
            "k" => format!("did you mean \"{number}KiB\"?"),
            "m" => format!("did you mean \"{number}MiB\"?"),
            "g" => format!("did you mean \"{number}GiB\"?"),
            "t" => format!("did you mean \"{number}TiB\"?"),
            _ => suggest(unit, units),
        };
        let what = if unit.is_empty() {
            "has no unit".to_owned()
        } else {
            format!("has the unknown unit `{unit}`")
        };
        return Err(wrong(text, what, hint));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(*factor))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| wrong(text, "is too large", "the most is 8388607TiB"))
}

/// A duration such as `500ms`, `10s`, `2m` or `1h`.
///
/// # Errors
/// No whole number before the unit, no unit or an unknown one, zero, or more than a year.
pub fn duration(text: &Text) -> Parsed<Duration> {
    let (number, unit) = split_number(text.get_ref());
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(wrong(
                text,
                "is no duration",
                "write a whole number and one of ms, s, m, h, as in \"10s\"",
            ));
        }
    };
    let year = 365 * 24 * 3_600_000;
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .filter(|ms| (1..=year).contains(ms))
        .map(Duration::from_millis)
        .ok_or_else(|| wrong(text, "is out of range", "from 1ms to a year (8760h)"))
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// A DNS label by RFC 1123 §2.1: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a hyphen.
///
/// # Errors
/// Anything else, with the nearest label as the hint.
pub fn dns_label(text: &Text, what: &str) -> Parsed<String> {
    let name = text.get_ref();
    let valid = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if valid {
        return Ok(name.clone());
    }
    let mended: String = name
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let mended = mended.trim_matches('-');
    let rule = "a DNS label has 1 to 63 of a-z, 0-9 and -, and no hyphen at either end";
    let hint = if mended.is_empty() {
        rule.to_owned()
    } else {
        format!("{rule}: `{mended}`, for one")
    };
    Err(wrong(
        text,
        format!("is no {what}: it is not a DNS label"),
        hint,
    ))
}

/// A hostname: DNS labels joined by dots, 64 bytes at most (Linux's limit).
///
/// # Errors
/// A part that is no DNS label, or more than 64 bytes.
pub fn hostname(text: &Text) -> Parsed<String> {
    for part in text.get_ref().split('.') {
        dns_label(
            &Text::new(text.span(), part.to_owned()),
            "part of a hostname",
        )?;
    }
    if text.get_ref().len() > 64 {
        return Err(wrong(
            text,
            "is too long",
            "a hostname has 64 bytes at most",
        ));
    }
    Ok(text.get_ref().clone())
}

/// A version: it becomes part of a file name on the ESP, so 1 to 64 of letters, digits, `.`, `-`, `~`, `^`
/// (the UAPI group's version format; `+` is the boot counter's).
///
/// # Errors
/// Any other character, or a length out of range.
pub fn version(text: &Text) -> Parsed<String> {
    let version = text.get_ref();
    let valid = (1..=64).contains(&version.len())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-~^".contains(&b))
        && version.as_bytes()[0].is_ascii_alphanumeric();
    if valid {
        return Ok(version.clone());
    }
    Err(wrong(
        text,
        "is no version",
        "1 to 64 letters, digits, `.`, `-`, `~` and `^`, the first a letter or digit",
    ))
}

/// An absolute path in the workload: no `.` or `..`, no empty component, no control characters.
///
/// # Errors
/// Anything else, with the normalized path as the hint where there is one.
pub fn absolute_path(text: &Text) -> Parsed<String> {
    let path = text.get_ref();
    let hint = "write an absolute path without `.`, `..` or `//`, as in \"/data\"";
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let plain = path.starts_with('/')
        && path.len() < 4096
        && path.chars().all(|c| !c.is_control())
        && parts
            .iter()
            .all(|p| !p.is_empty() && *p != "." && *p != ".." && p.len() <= 255);
    if plain {
        Ok(path.clone())
    } else {
        Err(wrong(text, "is no plain absolute path", hint))
    }
}

/// A TCP health check's target, `80` or `:80`.
///
/// # Errors
/// Anything else.
pub fn tcp_target(text: &Text) -> Parsed<u16> {
    let digits = text.get_ref().strip_prefix(':').unwrap_or(text.get_ref());
    port_number(digits).ok_or_else(|| {
        wrong(
            text,
            "is no port",
            "a port from 1 to 65535, as in \":6379\"",
        )
    })
}

/// An HTTP health check's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// The `Host` header; `localhost` if the file names none.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub path: String,
}

/// The longest URL of a health check, without its scheme: a server takes 8000 octets at most (RFC 9112 §3), and no check
/// needs half of that.
const LONGEST_URL: usize = 2048;

/// A URL such as `http://:80/` or `http://example.org:8080/health?x=1`. The request always goes to the workload
/// itself; a host name only becomes the `Host` header.
///
/// # Errors
/// Another scheme, user information, a bad port, or characters that no request line may have.
pub fn http_target(text: &Text) -> Parsed<HttpTarget> {
    let hint = "write \"http://:PORT/PATH\", as in \"http://:80/\"";
    let refuse = || wrong(text, "is no URL for a health check", hint);
    let rest = text.get_ref().strip_prefix("http://").ok_or_else(refuse)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port_number(port).ok_or_else(refuse)?),
        None => (authority, 80),
    };
    let host_valid = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
    let path_valid = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !host_valid || !path_valid || rest.len() > LONGEST_URL {
        return Err(refuse());
    }
    let or = |value: &str, default: &str| {
        if value.is_empty() {
            default.to_owned()
        } else {
            value.to_owned()
        }
    };
    Ok(HttpTarget {
        host: or(host, "localhost"),
        port,
        path: or(path, "/"),
    })
}

/// The transports of [`image_reference`].
pub const TRANSPORTS: [&str; 5] = ["oci", "oci-archive", "docker-archive", "aci", "dir"];

/// An image as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageReference {
    /// `TRANSPORT:PATH[:TAG]`, a file or folder of the host.
    Local(String),
    /// In a registry.
    Registry(Reference),
}

/// An image reference: `TRANSPORT:PATH[:TAG]`, of which only the transport is judged here, or one of a registry.
///
/// # Errors
/// An unknown transport, no path behind it, or what [`registry::reference`] says.
pub fn image_reference(text: &Text) -> Parsed<ImageReference> {
    let reference = text.get_ref();
    let word = reference.split(':').next().unwrap_or_default();
    if TRANSPORTS.contains(&word) && reference.contains(':') {
        if reference.ends_with(':') {
            let hint = format!("name what to read, as in \"{word}:images/redis\"");
            return Err(wrong(text, "is no image reference", hint));
        }
        return Ok(ImageReference::Local(reference.clone()));
    }
    let near = crate::diagnostic::nearest(word, TRANSPORTS).is_some();
    registry::reference(text)
        .map(ImageReference::Registry)
        .map_err(|mistake| {
            if near && reference.contains(':') {
                return wrong(text, "is no image reference", suggest(word, TRANSPORTS));
            }
            let hint = mistake.hint.as_deref().unwrap_or_default();
            let local = "or name a file: oci:DIR, oci-archive:FILE, docker-archive:FILE, aci:FILE or dir:DIR";
            match mistake.message.ends_with("names no registry") {
                true => Diagnostic::at(text.span(), mistake.message.clone())
                    .hint(format!("{hint}; {local}")),
                false => mistake,
            }
        })
}

/// The name of a Debian package: Debian Policy §5.6.1.
///
/// # Errors
/// Fewer than two characters, or any but `a-z 0-9 + - .`.
pub fn package(text: &Text) -> Parsed<String> {
    let name = text.get_ref();
    let valid = name.len() >= 2
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric()
        // apt takes `name-` for a package that shall not be there.
        && !name.ends_with('-');
    if valid {
        Ok(name.clone())
    } else {
        Err(wrong(
            text,
            "is no Debian package name",
            "a-z, 0-9, `+`, `-` and `.`, as in \"nginx-light\"",
        ))
    }
}

/// A word for the kernel's command line, or a module's name: printable, without blanks and quotes.
///
/// # Errors
/// Anything else.
pub fn word(text: &Text, what: &str) -> Parsed<String> {
    let valid = !text.get_ref().is_empty()
        && text
            .get_ref()
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"');
    if valid {
        Ok(text.get_ref().clone())
    } else {
        Err(wrong(
            text,
            format!("is no {what}"),
            "one word of printable ASCII without quotes",
        ))
    }
}

/// A file's mode in octal, such as `0644`.
///
/// # Errors
/// Anything but three or four octal digits.
pub fn mode(text: &Text) -> Parsed<u16> {
    let octal = (3..=4).contains(&text.get_ref().len());
    u16::from_str_radix(text.get_ref(), 8)
        .ok()
        .filter(|_| octal && text.get_ref().bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| {
            wrong(
                text,
                "is no file mode",
                "three or four octal digits, as in \"0644\"",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Text {
        Text::new(0..value.len(), value.to_owned())
    }

    #[test]
    fn sizes_need_a_known_unit() {
        assert_eq!(size(&text("256MiB")).unwrap(), 256 << 20);
        assert_eq!(size(&text("0B")).unwrap(), 0);
        for (bad, hint) in [
            ("256MB", "did you mean \"256MiB\"?"),
            ("256", "one of"),
            ("2gb", "did you mean \"2GiB\"?"),
            ("MiB", "write a whole number"),
            ("-1MiB", "write a whole number"),
            ("1.5GiB", "write a whole number"),
            ("99999999TiB", "the most"),
            ("99999999999999999999B", "the most"),
        ] {
            let error = size(&text(bad)).unwrap_err();
            assert!(error.hint.unwrap().starts_with(hint), "{bad}");
            assert!(error.message.contains(bad), "{bad}");
        }
    }

    #[test]
    fn durations_are_bounded() {
        assert_eq!(
            duration(&text("500ms")).unwrap(),
            Duration::from_millis(500)
        );
        assert_eq!(duration(&text("2m")).unwrap(), Duration::from_secs(120));
        for bad in ["10", "s", "10 s", "0s", "-1s", "99999h", "1d", ""] {
            assert!(duration(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "web-1", "0", &"a".repeat(63)] {
            assert!(dns_label(&text(good), "name").is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "é", &"a".repeat(64)] {
            assert!(dns_label(&text(bad), "name").is_err(), "{bad}");
        }
        assert!(
            dns_label(&text("My_Web"), "name")
                .unwrap_err()
                .hint
                .unwrap()
                .contains("`my-web`")
        );
    }

    #[test]
    fn health_urls_name_a_port_and_a_path() {
        let target = |host: &str, port, path: &str| HttpTarget {
            host: host.into(),
            port,
            path: path.into(),
        };
        assert_eq!(
            http_target(&text("http://:80/")).unwrap(),
            target("localhost", 80, "/")
        );
        assert_eq!(
            http_target(&text("http://a.b:81/c?d=e")).unwrap(),
            target("a.b", 81, "/c?d=e")
        );
        assert_eq!(
            http_target(&text("http://x")).unwrap(),
            target("x", 80, "/")
        );
        for bad in [
            "https://:443/",
            "http://:0/",
            "http://u@h/",
            "http://:80/ a",
            "http://:80/\r\nX: y",
            ":80",
            "",
            &format!("http://:80/{}", "x".repeat(LONGEST_URL)),
        ] {
            assert!(http_target(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn references_name_a_transport() {
        for good in [
            "oci:images/redis",
            "oci-archive:/a.tar:latest",
            "docker-archive:a",
            "aci:app.aci,base.aci",
            "dir:.",
        ] {
            assert!(image_reference(&text(good)).is_ok(), "{good}");
        }
        let hint = |bad: &str| image_reference(&text(bad)).unwrap_err().hint.unwrap();
        assert_eq!(hint("oic:images/redis"), "did you mean `oci`?");
        let docker = hint("redis:7");
        assert!(
            docker.contains("docker.io/library/redis:7\"; or name a file: oci:DIR"),
            "{docker}"
        );
        assert!(image_reference(&text("localhost:5000/a")).is_ok());
        assert!(hint("oci:").contains("name what to read"));
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        for good in ["/data", "/a/b c"] {
            assert!(absolute_path(&text(good)).is_ok(), "{good}");
        }
        for bad in ["", "/", "data", "/a/../b", "/a//b", "/a/", "/.", "/a\0"] {
            assert!(absolute_path(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode(&text("0644")).unwrap(), 0o644);
        assert_eq!(mode(&text("4755")).unwrap(), 0o4755);
        for bad in ["", "8", "0o644", "06444", "-644", "rwx"] {
            assert!(mode(&text(bad)).is_err(), "{bad}");
        }
    }
}
