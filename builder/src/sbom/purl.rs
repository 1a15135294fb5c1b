//! Package URLs (purl-spec 1.0, ECMA-427), of the types that an image has.

/// A Debian package.
pub(super) fn debian(name: &str, version: &str, architecture: &str) -> String {
    format!(
        "pkg:deb/debian/{}@{}?arch={architecture}",
        encode(name),
        encode(version)
    )
}

/// A crate.
pub(super) fn cargo(name: &str, version: &str) -> String {
    format!("pkg:cargo/{}@{}", encode(name), encode(version))
}

/// A container image, by its digest; a folder (`dir:`) is none. A name that needs no transport is a registry's.
pub(super) fn image(reference: &str, digest: &str) -> Option<String> {
    let local = ["oci:", "oci-archive:", "docker-archive:"];
    let rest = local
        .iter()
        .find_map(|transport| reference.strip_prefix(transport));
    let (named, repository) = match rest {
        Some(path) => (path, None),
        None if reference.contains('/')
            && !reference.starts_with("dir:")
            && !reference.starts_with("aci:") =>
        {
            let named = reference.split('@').next().unwrap_or(reference);
            (named, Some(without_tag(named)))
        }
        None => return None,
    };
    let base = without_tag(named).rsplit('/').next().unwrap_or_default();
    let stem = base.split('.').next().unwrap_or(base).to_lowercase();
    if stem.is_empty() {
        return None;
    }
    let repository = repository.map(|name| format!("?repository_url={}", encode_path(name)));
    Some(format!(
        "pkg:oci/{}@{}{}",
        encode(&stem),
        digest.replace(':', "%3A"),
        repository.unwrap_or_default()
    ))
}

/// A name without the tag behind its last component.
fn without_tag(name: &str) -> &str {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    name[last..].find(':').map_or(name, |at| &name[..last + at])
}

fn encode(text: &str) -> String {
    encode_but(text, b".-_~:")
}

fn encode_path(text: &str) -> String {
    encode_but(text, b".-_~:/")
}

fn encode_but(text: &str, plain: &[u8]) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_canonical() {
        assert_eq!(
            debian("libstdc++6", "1:12.2.0-14+deb12u1~x", "amd64"),
            "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1~x?arch=amd64"
        );
        assert_eq!(
            cargo("toml", "1.2.1+spec-1.1.0"),
            "pkg:cargo/toml@1.2.1%2Bspec-1.1.0"
        );
    }

    #[test]
    fn images_are_named_by_their_digest() {
        for (reference, want) in [
            ("oci:images/redis:7", Some("pkg:oci/redis@sha256%3Aab")),
            ("docker-archive:Web.tar", Some("pkg:oci/web@sha256%3Aab")),
            (
                "registry.example.org:5000/team/web:1@sha256:cd",
                Some("pkg:oci/web@sha256%3Aab?repository_url=registry.example.org:5000/team/web"),
            ),
            ("dir:rootfs/x", None),
        ] {
            assert_eq!(
                image(reference, "sha256:ab").as_deref(),
                want,
                "{reference}"
            );
        }
    }
}
