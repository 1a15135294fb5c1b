//! What a registry asks for with 401: `WWW-Authenticate` (RFC 9110, section 11.6.1), and the address that a token is
//! fetched from (the distribution project's "Token Authentication Specification"). Pure.

use std::collections::BTreeMap;

/// A way to log in that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`.
    pub(super) scheme: String,
    /// Its parameters, names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

/// The challenges of a header, in its order.
pub(super) fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = match (behind.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, behind) = parameter_value(value);
                let name = word.to_ascii_lowercase();
                challenge.parameters.entry(name).or_insert(value);
                behind
            }
            // A parameter without a scheme before it means nothing.
            (Some(value), None) => parameter_value(value).1,
            (None, _) => {
                found.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: BTreeMap::new(),
                });
                behind
            }
        }
        .trim_start_matches([' ', ',']);
    }
    found
}

/// A token or a quoted string, and what is behind it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// The query of a request for a token that may pull from a repository.
pub(super) fn token_query(challenge: &Challenge, repository: &str) -> String {
    let mut query = String::new();
    if let Some(service) = challenge.parameters.get("service") {
        query = format!("service={}&", encoded(service));
    }
    format!(
        "{query}scope={}",
        encoded(&format!("repository:{repository}:pull"))
    )
}

/// A text as part of a query (RFC 3986, section 2).
pub(super) fn encoded(text: &str) -> String {
    let mut query = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                query.push(char::from(byte));
            }
            other => query.push_str(&format!("%{other:02X}")),
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_real_registries_are_read() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/redis:pull,push""#;
        let [bearer] = &challenges(header)[..] else {
            panic!("one challenge")
        };
        assert_eq!(bearer.scheme, "bearer");
        assert_eq!(bearer.parameters["realm"], "https://auth.docker.io/token");
        assert_eq!(
            token_query(bearer, "library/redis"),
            "service=registry.docker.io&scope=repository%3Alibrary%2Fredis%3Apull"
        );
        let both = challenges(r#"Basic realm="a \"b\", c", BEARER Realm=x, error=y"#);
        assert_eq!(both[0].parameters["realm"], "a \"b\", c");
        assert_eq!(
            (
                both[1].scheme.as_str(),
                both[1].parameters["error"].as_str()
            ),
            ("bearer", "y")
        );
    }

    #[test]
    fn nonsense_ends() {
        for header in [
            "",
            ",,,",
            "=",
            "a=b",
            "Bearer realm=\"x",
            "Bearer =",
            "\u{e4} \u{e4}=\u{e4}",
            "Basic \\",
        ] {
            challenges(header);
        }
        assert!(challenges("a=b").is_empty());
    }
}
