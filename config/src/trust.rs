//! `[trust]`: which images must be signed, and by whom.
//!
//! The most specific policy that matches a reference decides; where none matches, `default` does. Whether a signature
//! holds is the builder's to find out.

use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::spec::by_place;
use crate::value::TRANSPORTS;

/// What the file says of trust.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Images that no policy matches are refused.
    pub refuse_unmatched: bool,
    /// The policies, in the order of the file.
    pub policies: Vec<TrustPolicy>,
}

/// A policy for some images.
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    /// Its name.
    pub name: Text,
    /// The images that it is for: references without tag and digest, or what they begin with and `*`.
    pub images: Vec<String>,
    /// Files of public keys in PEM, of which one must have made a signature in cosign's format.
    pub cosign_keys: Vec<Text>,
    /// Files of OpenPGP certificates, of which one must have made a detached signature.
    pub openpgp_keys: Vec<Text>,
    /// The name that a signature in cosign's format must be for; `None`: the reference's own.
    pub signed_as: Option<String>,
}

/// What is asked of an image.
#[derive(Debug, Clone, Copy)]
pub enum Ruling<'a> {
    /// Nothing.
    Accept,
    /// It is not accepted whatever it is.
    Refuse,
    /// A signature by a key of the policy.
    Signed(&'a TrustPolicy),
}

impl Trust {
    pub(crate) fn new(from: &manifest::Trust, mistakes: &mut Mistakes) -> Self {
        let mut seen: Vec<&str> = Vec::new();
        for text in by_place(&from.policy).iter().flat_map(|(_, p)| &p.images) {
            if seen.contains(&text.get_ref().as_str()) {
                let what = format!("`{}`: another policy has it already", text.get_ref());
                let hint = "an image has one policy: name it once, or name it more closely";
                mistakes.push(Diagnostic::at(text.span(), what).hint(hint));
            }
            seen.push(text.get_ref());
        }
        Self {
            refuse_unmatched: from
                .default
                .as_ref()
                .is_some_and(|text| default(text, mistakes)),
            policies: by_place(&from.policy)
                .into_iter()
                .map(|(name, policy)| TrustPolicy::new(name, policy, mistakes))
                .collect(),
        }
    }

    /// What is asked of the image that a reference names.
    pub fn ruling(&self, reference: &str) -> Ruling<'_> {
        let subject = subject(reference);
        let closest = self
            .policies
            .iter()
            .filter_map(|policy| Some((policy.closeness(subject)?, policy)))
            .max_by_key(|(closeness, _)| *closeness);
        match closest {
            Some((_, policy)) if policy.accepts_unsigned() => Ruling::Accept,
            Some((_, policy)) => Ruling::Signed(policy),
            None if self.refuse_unmatched => Ruling::Refuse,
            None => Ruling::Accept,
        }
    }
}

impl TrustPolicy {
    fn new(name: &Text, from: &manifest::TrustPolicy, mistakes: &mut Mistakes) -> Self {
        let mut mistake = |text: &Text, what: String, hint: &str| {
            mistakes.push(Diagnostic::at(text.span(), what).hint(hint));
        };
        let table = name.get_ref();
        if from.images.is_empty() {
            let hint = "add images = [\"registry.example.org/team/*\"]";
            mistake(name, format!("policy `{table}` is for no image"), hint);
        }
        let has_keys = !from.cosign_keys.is_empty() || !from.openpgp_keys.is_empty();
        if !has_keys && !from.unsigned {
            let hint =
                "add cosign_keys or openpgp_keys = [\"FILE\"], or unsigned = true to accept all";
            mistake(name, format!("policy `{table}` has no keys"), hint);
        }
        if has_keys && from.unsigned {
            let hint = "remove the keys, or `unsigned`: what needs no signature has none checked";
            mistake(
                name,
                format!("policy `{table}` has keys and `unsigned`"),
                hint,
            );
        }
        for text in &from.images {
            if let Some((what, hint)) = wrong_pattern(text.get_ref()) {
                mistake(text, format!("`{}` {what}", text.get_ref()), hint);
            }
        }
        if let Some(text) = &from.signed_as
            && (text.get_ref().contains(['*', '@']) || tag_at(text.get_ref()).is_some())
        {
            let hint = "a name without tag and digest, as in \"registry.example.org/team/app\"";
            mistake(
                text,
                format!("`{}` is no image's name", text.get_ref()),
                hint,
            );
        }
        Self {
            name: name.clone(),
            images: from.images.iter().map(|t| t.get_ref().clone()).collect(),
            cosign_keys: from.cosign_keys.clone(),
            openpgp_keys: from.openpgp_keys.clone(),
            signed_as: from.signed_as.as_ref().map(|t| t.get_ref().clone()),
        }
    }

    fn accepts_unsigned(&self) -> bool {
        self.cosign_keys.is_empty() && self.openpgp_keys.is_empty()
    }

    /// How closely the policy names a subject; `None`: not at all. A whole name is closer than any beginning of it.
    fn closeness(&self, subject: &str) -> Option<(bool, usize)> {
        let of = |pattern: &String| match pattern.strip_suffix('*') {
            Some(begin) => subject.starts_with(begin).then_some((false, begin.len())),
            None => {
                let rest = subject.strip_prefix(pattern.as_str())?;
                // Of a file the tag may follow; a registry's subject has none.
                (rest.is_empty() || rest.starts_with(':')).then_some((true, pattern.len()))
            }
        };
        self.images.iter().filter_map(of).max()
    }
}

fn default(text: &Text, mistakes: &mut Mistakes) -> bool {
    match text.get_ref().as_str() {
        "accept" => false,
        "refuse" => true,
        other => {
            let what = format!("`{other}` is nothing to do with other images");
            let hint = suggest(other, ["accept", "refuse"]);
            mistakes.push(Diagnostic::at(text.span(), what).hint(hint));
            false
        }
    }
}

/// Whether a reference names files of the host.
pub fn is_local(reference: &str) -> bool {
    let transport = reference.split_once(':').map(|(transport, _)| transport);
    transport.is_some_and(|transport| TRANSPORTS.contains(&transport))
}

/// A reference as policies know it: of a registry's image the name alone, of files all of it.
pub fn subject(reference: &str) -> &str {
    if is_local(reference) {
        return reference;
    }
    let name = reference.split('@').next().unwrap_or(reference);
    tag_at(name).map_or(name, |at| &name[..at])
}

/// Where a registry's reference without digest has its tag's colon.
fn tag_at(name: &str) -> Option<usize> {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    name[last..].find(':').map(|at| last + at)
}

fn wrong_pattern(pattern: &str) -> Option<(&'static str, &'static str)> {
    let begin = pattern.strip_suffix('*').unwrap_or(pattern);
    if begin.contains('*') {
        return Some((
            "has a `*` that is not its end",
            "as in \"registry.example.org/team/*\"",
        ));
    }
    if pattern.is_empty() {
        return Some((
            "names no image",
            "as in \"registry.example.org/team/*\" or \"aci:*\"",
        ));
    }
    let name = subject(begin);
    if !is_local(begin) && name != begin {
        return Some((
            "has a tag or a digest",
            "a policy is for all of an image's versions: write its name alone",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(text: &str) -> Trust {
        crate::parse(&format!("name = \"m\"\n{text}"))
            .unwrap()
            .trust
    }

    const POLICIES: &str = r#"
[trust]
default = "refuse"
[trust.policy.team]
images = ["registry.example.org/team/*", "localhost:5000/*"]
cosign_keys = ["team.pub"]
[trust.policy.app]
images = ["registry.example.org/team/app"]
cosign_keys = ["app.pub"]
[trust.policy.here]
images = ["dir:*", "oci-archive:app.tar", "registry.example.org/team/open/*"]
unsigned = true
[trust.policy.files]
images = ["aci:*"]
openpgp_keys = ["key.asc"]
"#;

    #[test]
    fn the_closest_policy_decides() {
        let trust = trust(POLICIES);
        for (reference, want) in [
            ("registry.example.org/team/web:1.0", "team"),
            ("registry.example.org/team/app", "app"),
            ("registry.example.org/team/app:2@sha256:00", "app"),
            ("registry.example.org/team/app2", "team"),
            ("registry.example.org/team/open/x", "accept"),
            ("registry.example.org/teams/x", "refuse"),
            ("registry.example.org/team", "refuse"),
            ("localhost:5000/x:1", "team"),
            ("dir:x", "accept"),
            ("oci-archive:app.tar:v1", "accept"),
            ("oci-archive:app.tar2", "refuse"),
            ("oci:app", "refuse"),
            ("aci:x.aci", "files"),
        ] {
            let found = match trust.ruling(reference) {
                Ruling::Accept => "accept",
                Ruling::Refuse => "refuse",
                Ruling::Signed(policy) => policy.name.get_ref(),
            };
            assert_eq!(found, want, "{reference}");
        }
    }

    #[test]
    fn without_the_table_all_is_accepted() {
        assert!(matches!(trust("").ruling("dir:x"), Ruling::Accept));
    }

    #[test]
    fn mistakes_of_trust_are_told() {
        for (text, says) in [
            ("[trust]\ndefault = \"refse\"", "did you mean `refuse`?"),
            (
                "[trust.policy.a]\nimages = [\"x\"]",
                "policy `a` has no keys",
            ),
            ("[trust.policy.a]\nunsigned = true", "is for no image"),
            (
                "[trust.policy.a]\nimages = [\"x\"]\nunsigned = true\ncosign_keys = [\"k\"]",
                "has keys and `unsigned`",
            ),
            (
                "[trust.policy.a]\nimages = [\"a/*/b\"]\nunsigned = true",
                "a `*` that is not its end",
            ),
            (
                "[trust.policy.a]\nimages = [\"h/a:1\"]\nunsigned = true",
                "has a tag or a digest",
            ),
            (
                "[trust.policy.a]\nimages = [\"\"]\nunsigned = true",
                "names no image",
            ),
            (
                "[trust.policy.a]\nimages = [\"x\"]\nunsigned = true\n[trust.policy.b]\nimages = [\"x\"]\nunsigned = true",
                "another policy has it already",
            ),
            (
                "[trust.policy.a]\nimages = [\"x\"]\ncosign_keys = [\"k\"]\nsigned_as = \"a/b:1\"",
                "is no image's name",
            ),
            ("[trust.a]\nimages = [\"x\"]", "unknown key `a`"),
        ] {
            let mistakes = crate::parse(&format!("name = \"m\"\n{text}")).unwrap_err();
            let shown = mistakes.render("os.toml", text);
            assert!(shown.contains(says), "{text}: {shown}");
        }
    }
}
